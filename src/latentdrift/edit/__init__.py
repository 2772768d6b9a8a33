"""A real image and a wish → the edited image. One file an editor, in `editors`; `editor.editor` finds them."""

from latentdrift.edit.editor import Editor
from latentdrift.edit.inversion import Inversion, invert
from latentdrift.edit.regularisation import NoiseRegularisation
from latentdrift.edit.request import Editing, ImageObjective
from latentdrift.edit.result import EditResult

__all__ = ["EditResult", "Editing", "Editor", "ImageObjective", "Inversion", "NoiseRegularisation", "invert"]
