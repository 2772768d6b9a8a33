"""DICOM files → a `Volume` or a `Plane`, and the attributes their headers give.

file → `opening` (bounded) → `tags` (one frame's attributes) → `pixels` (stored values) → `values` (real values)
     → `window`, `geometry` → `reading` (Plane or Volume)
"""

from latentdrift.data.formats.dicom.facts import dicom_facts
from latentdrift.data.formats.dicom.reading import read_dicom

__all__ = ["dicom_facts", "read_dicom"]
