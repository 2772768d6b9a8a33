"""What every synthetic file says of itself: that it is synthetic, what it is not for, and what made it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SYNTHETIC_MARKER = ("SyntheticData", "YES")
"""Text of a made image, after the DICOM attribute of the same name (0008,001C)."""

STATEMENT = "Synthetic, not for diagnosis."
"""Stands in every synthetic file and every manifest."""

TAGS = ("model", "model_sha256", "drift", "seed", "prompt", "source_prompt", "source_sha256", "editor")
"""Names of facts that mean the same in files of every format and in the manifest. A file may hold others beside them.

- model: name or folder, as it was given; model_sha256: of its weights, see `latentdrift.models.identity`.
- drift: in words; seed: of the image's noise; prompt: what the image was to show.
- source_prompt, source_sha256: caption and SHA-256 of the image that was edited; editor: by name.
"""

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy")


def marks(facts: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return facts as text, followed by the marks that all synthetic files carry; facts that are None are left out.

    There is no time among them, so that the same image has the same bytes; the manifest has it.
    """
    own = {str(name): str(value) for name, value in (facts or {}).items() if value is not None}
    # Disclaimer and Software are keywords of the PNG specification.
    return {**own, **dict([SYNTHETIC_MARKER]), "Disclaimer": STATEMENT, "Software": software()}


def software() -> str:
    """Return the package's name and version."""
    from latentdrift import __version__

    return f"latentdrift {__version__}"


def package_versions() -> dict[str, str]:
    """Return the versions of what an image or a model depends on."""
    from latentdrift import __version__

    found = {"python": platform.python_version(), "latentdrift": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
