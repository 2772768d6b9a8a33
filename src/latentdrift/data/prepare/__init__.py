"""Scans of a source → a cohort of square images, in parallel, resumable, with what was refused and why."""

from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.prepare.geometry import GEOMETRY, read_geometry, read_preparation
from latentdrift.data.prepare.run import Preparation, prepare_cohort

__all__ = ["GEOMETRY", "Preparation", "PrepareConfig", "prepare_cohort", "read_geometry", "read_preparation"]
