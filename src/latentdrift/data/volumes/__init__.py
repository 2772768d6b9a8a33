"""Volumes: orientation, slices, intensity, and how a slice becomes an image and goes back."""
