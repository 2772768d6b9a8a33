"""Results in, figures and one self-contained HTML page out."""

from __future__ import annotations

from latentdrift.report.curves import LatentCurve, latent_curve_figure, loss_curve
from latentdrift.report.evaluation_page import write_evaluation_page
from latentdrift.report.figures import counterfactual_figure, image_grid, signed_difference
from latentdrift.report.page import Notice, Picture, Repeat, Section, Table, package_versions, write_page
from latentdrift.report.searches import search_figure
from latentdrift.report.strip import strip_figure, write_gif

__all__ = [
    "LatentCurve",
    "Notice",
    "Picture",
    "Repeat",
    "Section",
    "Table",
    "counterfactual_figure",
    "image_grid",
    "latent_curve_figure",
    "loss_curve",
    "package_versions",
    "search_figure",
    "signed_difference",
    "strip_figure",
    "write_evaluation_page",
    "write_gif",
    "write_page",
]
