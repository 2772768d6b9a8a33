"""Families of networks for classifiers, one file each; see `latentdrift.models.classifier.network`."""
