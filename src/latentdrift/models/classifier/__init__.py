"""Classifiers of images: the guide, which searches and steers, and the judge, which scores and never saw its images."""

from latentdrift.models.classifier.calibration import fit_temperature, negative_log_likelihood
from latentdrift.models.classifier.classes import ClassScheme, make_scheme
from latentdrift.models.classifier.classifier import Classifier, check_apart
from latentdrift.models.classifier.config import ClassifierConfig
from latentdrift.models.classifier.files import load_classifier, save_classifier
from latentdrift.models.classifier.network import build_network, classifier_network
from latentdrift.models.classifier.roles import RoleParts, divide
from latentdrift.models.classifier.training import train_classifier
from latentdrift.models.classifier.views import Views

__all__ = [
    "ClassScheme",
    "Classifier",
    "ClassifierConfig",
    "RoleParts",
    "Views",
    "build_network",
    "check_apart",
    "classifier_network",
    "divide",
    "fit_temperature",
    "load_classifier",
    "make_scheme",
    "negative_log_likelihood",
    "save_classifier",
    "train_classifier",
]
