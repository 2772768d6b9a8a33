"""Whether synthetic images give away the images that their model was trained on.

Three questions: do they lie nearer to the training images than other real images do (`nearest`), are some of them
copies (`copies`), and can one tell from images or model who was in the training (`membership`, `losses`). An audit that
finds nothing is no proof of privacy: it speaks of these images and these attacks.
"""

from __future__ import annotations

from latentdrift.evaluate.privacy.copies import CopyFigures, copy_figures
from latentdrift.evaluate.privacy.looks import Looks, read_looks
from latentdrift.evaluate.privacy.membership import Membership, distance_attack, loss_attack, membership_auc
from latentdrift.evaluate.privacy.nearest import Found, NearestConfig, nearest_images, nearest_neighbours
from latentdrift.evaluate.privacy.shares import MeasureFigures, Share, measure_figures, nearer_share

__all__ = [
    "CopyFigures",
    "Found",
    "Looks",
    "MeasureFigures",
    "Membership",
    "NearestConfig",
    "Share",
    "copy_figures",
    "distance_attack",
    "loss_attack",
    "measure_figures",
    "membership_auc",
    "nearer_share",
    "nearest_images",
    "nearest_neighbours",
    "read_looks",
]
