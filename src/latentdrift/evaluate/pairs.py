"""Similarity of image pairs, one figure a pair; thin over torchmetrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError

if TYPE_CHECKING:
    import torch


def ssim(a: Any, b: Any, *, data_range: float | None = None) -> npt.NDArray[np.float64]:
    """Return the structural similarity (B,) of image pairs, 1 for equal images.

    Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5, k1 = 0.01, k2 = 0.03, mean over channels and
    over the windows that lie inside the image.

    Args:
        a: images (B, C, H, W), tensor or array.
        b: images of the same shape.
        data_range: width of the range of values; None takes 255 for uint8 and 2 for floats, which are in [-1, 1].

    Raises:
        EvaluationError: shapes that differ, images below 11 pixels, NaN, or values wider than the range.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second, width = _check_pairs(a, b, data_range)
    if min(first.shape[-2:]) < 11:
        raise EvaluationError(
            f"Images of {first.shape[-1]} x {first.shape[-2]} pixels are smaller than the 11 pixels of the SSIM window."
        )
    _, local = structural_similarity_index_measure(
        first, second, data_range=width, reduction="none", return_full_image=True
    )
    # Only windows that lie inside the image, as in the paper and scikit-image; torchmetrics' own mean has changed
    # between versions, and counts mirrored borders in some.
    return np.asarray(local[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)), dtype=np.float64)


def psnr(a: Any, b: Any, *, data_range: float | None = None) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio (B,) in dB of image pairs; infinite for equal images.

    Arguments and errors as in `ssim`, of any size.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    first, second, width = _check_pairs(a, b, data_range)
    found = peak_signal_noise_ratio(first, second, data_range=width, reduction="none", dim=(1, 2, 3))
    return np.asarray(found, dtype=np.float64)


def _check_pairs(a: Any, b: Any, data_range: float | None) -> tuple[torch.Tensor, torch.Tensor, float]:
    import torch

    first, second = torch.as_tensor(a), torch.as_tensor(b)
    if first.ndim != 4 or first.shape != second.shape or not first.numel():
        raise EvaluationError(
            f"Image pairs have shapes {tuple(first.shape)} and {tuple(second.shape)}; give one shape (B, C, H, W)."
        )
    if first.is_floating_point() != second.is_floating_point():
        raise EvaluationError(
            f"Image pairs are of types {first.dtype} and {second.dtype}; give both in the same range."
        )
    width = data_range if data_range is not None else 2.0 if first.is_floating_point() else 255.0
    if not width > 0:
        raise EvaluationError(f"data_range={data_range}: give the width of the range of values, such as 2 or 255.")
    first, second = first.double().cpu(), second.double().cpu()
    for name, images in (("first", first), ("second", second)):
        if not bool(torch.isfinite(images).all()):
            raise EvaluationError(f"The {name} images of the pairs have NaN or infinite pixels.")
        span = float(images.max() - images.min())
        if span > width * 1.001:
            raise EvaluationError(
                f"The {name} images span {span:.4g}, more than the data range of {width:.4g}. State data_range."
            )
    return first, second, width
