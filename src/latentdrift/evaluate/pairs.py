"""Similarity of image pairs, one figure a pair, and their means with intervals over subjects."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError, ModelError, UnknownNameError

if TYPE_CHECKING:
    import torch

    from latentdrift.evaluate.counterfactuals import Estimate

Array = npt.NDArray[np.float64]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM, from the finest scale to the coarsest (Wang et al. 2003)."""
WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation, in pixels, of SSIM's Gaussian window."""
AT_ONCE = 16
"""Pairs computed at once by `pair_figures` and `lpips`."""
LEAST_FOR_LPIPS = 32
"""Pixels a side; below, the last layers of the networks have nothing to see."""

LPIPS_NETWORKS = {
    "alex": ("alexnet-owt-7be5be79.pth", "7be5be79"),
    "vgg": ("vgg16-397923af.pth", "397923af"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "b8a52dc0"),
}
"""File of torchvision's ImageNet weights in torch hub's cache, and how its SHA-256 starts."""


@dataclass(frozen=True)
class PairFigures:
    """Figures of N image pairs.

    Args:
        estimates: by name, the mean over pairs and its interval over subjects.
        per_image: by name, (N,).
        units: by name, what the figure is in, and which way is alike.
        notes: what could not be computed, or not on all pairs, and why.
    """

    estimates: dict[str, Estimate]
    per_image: dict[str, Array]
    units: dict[str, str]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return {value, low, high, n, unit} by figure and the notes, for JSON."""
        found = {
            name: {
                "value": estimate.value,
                "low": estimate.interval.low,
                "high": estimate.interval.high,
                "n": estimate.n,
                "unit": self.units[name],
            }
            for name, estimate in self.estimates.items()
        }
        return {"figures": found, "notes": list(self.notes)}

    def rows(self, confidence: float = 0.95) -> list[dict[str, str]]:
        """Return the table: figure, value, interval, subjects; `confidence` is what the intervals were made with."""
        return [
            {
                "figure": f"{name} ({self.units[name]})",
                "value": f"{estimate.value:.4g}",
                f"{confidence:.0%} interval": " to ".join(f"{end:.4g}" for end in estimate.interval),
                "subjects": str(estimate.n),
            }
            for name, estimate in self.estimates.items()
        ]


def pair_figures(
    a: Any,
    b: Any,
    subjects: Sequence[Hashable] | None = None,
    *,
    data_range: float | None = None,
    lpips_network: str | None = "alex",
    device: str = "cpu",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairFigures:
    """Return SSIM, MS-SSIM, PSNR and LPIPS of image pairs with bootstrap intervals over subjects.

    MS-SSIM takes as many of its five scales as the images are large enough for, and its name says how many where these
    are fewer. LPIPS is left out, and a note says why, where its weights are not on this machine.

    Args:
        a: images (N, C, H, W), tensor or array.
        b: images of the same shape.
        subjects: whose images they are, N; None for a pair a subject.
        data_range: width of the range of values; None takes 255 for uint8 and 2 for floats, which are in [-1, 1].
        lpips_network: alex, vgg or squeeze; None leaves LPIPS out.
        device: where LPIPS is computed.
        confidence: coverage of the intervals.
        resamples: how often subjects are drawn.
        seed: of the draws.

    Raises:
        EvaluationError: as `ssim` and `counterfactuals.mean_interval`.
        UnknownNameError: no such LPIPS network.
    """
    from latentdrift.evaluate.counterfactuals import mean_interval

    if len(a) != len(b) or not len(a):
        raise EvaluationError(f"There are {len(a)} and {len(b)} images; give as many, and at least two.")
    notes: list[str] = []
    fitting = most_scales(min(a.shape[-2:]))
    several = "MS-SSIM" if fitting == len(SCALE_WEIGHTS) else f"MS-SSIM of {fitting} scales"
    functions: dict[str, Any] = {"SSIM": ssim}
    if fitting > 1:
        functions[several] = functools.partial(ms_ssim, scales=fitting)
    if fitting < len(SCALE_WEIGHTS):
        notes.append(
            f"MS-SSIM's five scales need images of {WINDOW * 16} pixels a side; these have {min(a.shape[-2:])}, enough "
            f"for {fitting}"
        )
    functions["PSNR"] = psnr
    if lpips_network is not None and min(a.shape[-2:]) < LEAST_FOR_LPIPS:
        notes.append(f"LPIPS was not computed: it needs images of {LEAST_FOR_LPIPS} pixels a side")
    elif lpips_network is not None:
        try:
            perceptual_network(lpips_network)
            name = f"LPIPS, {lpips_network}"
            functions[name] = functools.partial(lpips, network=lpips_network, device=device)
        except ModelError as error:
            notes.append(f"LPIPS was not computed. {error}")
    per_image = {
        name: np.concatenate(
            [
                function(a[start : start + AT_ONCE], b[start : start + AT_ONCE], data_range=data_range)
                for start in range(0, len(a), AT_ONCE)
            ]
        )
        for name, function in functions.items()
    }
    people = list(range(len(a))) if subjects is None else list(subjects)
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    estimates = {}
    for name, values in per_image.items():
        kept = np.isfinite(values)
        if not kept.all():
            notes.append(
                f"{name} is infinite for {int((~kept).sum())} pairs of equal images; its mean is of the others"
            )
        if kept.all() or len({person for person, keep in zip(people, kept, strict=False) if keep}) > 1:
            chosen = people if kept.all() else [person for person, keep in zip(people, kept, strict=True) if keep]
            estimates[name] = mean_interval(values[kept], chosen, **settings)
    units = {name: "dB, higher is more alike" if name == "PSNR" else "1 is equal" for name in per_image}
    units |= {name: "0 is equal" for name in per_image if name.startswith("LPIPS")}
    return PairFigures(estimates, per_image, units, tuple(notes))


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


def ms_ssim(
    a: Any, b: Any, *, data_range: float | None = None, scales: int = len(SCALE_WEIGHTS), mirrored: bool = False
) -> Array:
    """Return the multi-scale structural similarity (B,) of image pairs, 1 for equal images.

    Wang et al. 2003, with SSIM's window and constants: at each of five scales, half as large as the last by means of 2
    x 2 pixels, the mean contrast-structure over windows and channels, at the coarsest the mean SSIM; their product with
    Wang's exponents. Means below 0 count as 0.

    Args:
        a: images (B, C, H, W), tensor or array.
        b: images of the same shape.
        data_range: as in `ssim`.
        scales: how many, 1 to 5. Fewer than five is another figure, for small images: the first exponents, over their
            sum.
        mirrored: count windows that reach over the border into a mirror image at the coarsest scale too, as
            torchmetrics does; Wang counts those inside the image alone, of which few are left there.

    Raises:
        EvaluationError: as `ssim`; scales out of range, or images too small for them.
    """
    import torch
    import torch.nn.functional as F

    first, second, width = _check_pairs(a, b, data_range)
    if not 1 <= scales <= len(SCALE_WEIGHTS):
        raise EvaluationError(f"scales={scales}: MS-SSIM has 1 to {len(SCALE_WEIGHTS)} scales.")
    side, fitting = min(first.shape[-2:]), most_scales(min(first.shape[-2:]))
    if fitting < scales:
        remedy = f"take scales={fitting}, another figure, or larger images" if fitting else "use larger images"
        raise EvaluationError(
            f"{scales} scales of MS-SSIM need images of {WINDOW * 2 ** (scales - 1)} pixels a side; these have {side}: "
            f"{remedy}."
        )
    exponents = np.array(SCALE_WEIGHTS[:scales])
    if scales < len(SCALE_WEIGHTS):
        exponents /= exponents.sum()
    found = torch.ones(len(first), dtype=torch.float64)
    for place, exponent in enumerate(exponents):
        last = place == scales - 1
        if last and mirrored:
            first, second = (F.pad(x, (WINDOW // 2,) * 4, mode="reflect") for x in (first, second))
        similar, contrast = _ssim_maps(first, second, width)
        found *= (similar if last else contrast).mean((1, 2, 3)).clamp(min=0) ** float(exponent)
        if not last:
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return np.asarray(found, dtype=np.float64)


def most_scales(side: int) -> int:
    """Return how many scales of MS-SSIM, at most 5, have a whole window in images of that many pixels a side."""
    return sum(side // 2**place >= WINDOW for place in range(len(SCALE_WEIGHTS)))


def _ssim_maps(a: torch.Tensor, b: torch.Tensor, width: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return SSIM and its contrast-structure term of every window inside the images, (B, C, H - 10, W - 10)."""
    import torch
    import torch.nn.functional as F

    places = torch.arange(WINDOW, dtype=a.dtype) - WINDOW // 2
    kernel = torch.exp(-((places / SIGMA) ** 2) / 2)
    kernel = (kernel / kernel.sum())[None, None]
    stacked = torch.cat([a, b, a * a, b * b, a * b]).reshape(-1, 1, *a.shape[2:])
    smooth = F.conv2d(F.conv2d(stacked, kernel[..., None]), kernel[:, :, None])
    mean_a, mean_b, square_a, square_b, product = smooth.reshape(5, *a.shape[:2], *smooth.shape[2:])
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    spread = (square_a - mean_a**2).clamp(min=0) + (square_b - mean_b**2).clamp(min=0)
    contrast = (2 * (product - mean_a * mean_b) + c2) / (spread + c2)
    return contrast * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1), contrast


def psnr(a: Any, b: Any, *, data_range: float | None = None) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio (B,) in dB of image pairs; infinite for equal images.

    Arguments and errors as in `ssim`, of any size.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    first, second, width = _check_pairs(a, b, data_range)
    found = peak_signal_noise_ratio(first, second, data_range=width, reduction="none", dim=(1, 2, 3))
    return np.asarray(found, dtype=np.float64)


def lpips(a: Any, b: Any, *, data_range: float | None = None, network: str = "alex", device: str = "cpu") -> Array:
    """Return the learned perceptual distance (B,) of image pairs, 0 for equal images.

    Zhang et al. 2018, version 0.1, by torchmetrics: its learned weights on the layers of a network from ImageNet. One
    channel becomes three.

    Args:
        a: images (B, C, H, W), tensor or array, at least 32 pixels a side.
        b: images of the same shape.
        data_range: as in `ssim`; values are from 0 for bytes, else in plus and minus half of it.
        network: alex (the authors' choice for measuring), vgg or squeeze.
        device: where to compute.

    Raises:
        EvaluationError: as `ssim`, or values outside the range.
        ModelError: torchvision's ImageNet weights are not in torch hub's cache, or other ones are; the message says
            what to fetch.
        UnknownNameError: no such network.
    """
    import torch

    bytes_given = not torch.as_tensor(a).is_floating_point()
    first, second, width = _check_pairs(a, b, data_range)
    if first.shape[1] not in (1, 3) or min(first.shape[-2:]) < LEAST_FOR_LPIPS:
        raise EvaluationError(
            f"Images have shape {tuple(first.shape)}; LPIPS takes 1 or 3 channels of at least {LEAST_FOR_LPIPS} pixels."
        )
    # To [-1, 1], which the networks' own scaling expects.
    first, second = (x / width * 2 - 1 if bytes_given else x / width * 2 for x in (first, second))
    if max(float(first.abs().max()), float(second.abs().max())) > 1.001:
        raise EvaluationError(
            "LPIPS needs values from 0 for bytes, or floats around 0 within half the data range, such as [-1, 1]."
        )
    model = perceptual_network(network).to(device)
    found = []
    with torch.inference_mode():
        for batch in zip(first.split(AT_ONCE), second.split(AT_ONCE), strict=True):
            one, other = (x.expand(-1, 3, -1, -1).to(device, torch.float32) for x in batch)
            found.append(model(one, other).double().reshape(-1).cpu())
    return np.asarray(torch.cat(found), dtype=np.float64)


@functools.cache
def perceptual_network(name: str) -> torch.nn.Module:
    """Return LPIPS's network with its published weights; errors as in `lpips`. Nothing is downloaded."""
    if name not in LPIPS_NETWORKS:
        raise UnknownNameError("network of LPIPS", name, LPIPS_NETWORKS)
    import torch
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    file, checksum = LPIPS_NETWORKS[name]
    path = Path(torch.hub.get_dir()) / "checkpoints" / file
    url = f"https://download.pytorch.org/models/{file}"
    if not path.is_file():
        raise ModelError(
            f"The published weights that LPIPS ({name}) stands on are not on this machine: fetch {url} and save it as "
            f"{path}."
        )
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(checksum):
        raise ModelError(
            f"{path} is damaged or another file (its SHA-256 starts with {found[:8]}, not {checksum}). Delete it and "
            f"fetch {url} again."
        )
    network: torch.nn.Module = LearnedPerceptualImagePatchSimilarity(net_type=name).net
    return network


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
