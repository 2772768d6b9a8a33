"""The paper's figures, to stand beside ours (arXiv 2412.20651): 512 pixels, Stable Diffusion 1.4.

They were measured on other images, another base and Inception features, so they say which way things went there; no
figure of ours can be expected to equal them.
"""

from __future__ import annotations

TABLE1: dict[str, dict[tuple[str, bool], tuple[float, float, float]]] = {
    "mri": {
        ("custom_diffusion", False): (129.21, 0.132, 0.609),
        ("custom_diffusion", True): (63.58, 0.065, 0.544),
        ("dreambooth", False): (130.92, 0.125, 0.500),
        ("dreambooth", True): (92.37, 0.099, 0.512),
        ("textual_inversion", False): (120.63, 0.098, 0.600),
        ("textual_inversion", True): (67.56, 0.065, 0.670),
        ("basic", False): (92.13, 0.071, 0.704),
        ("basic", True): (49.68, 0.035, 0.724),
    },
    "xray": {
        ("custom_diffusion", False): (323.0, 0.275, 0.573),
        ("custom_diffusion", True): (315.0, 0.270, 0.593),
        ("dreambooth", False): (188.0, 0.175, 0.567),
        ("dreambooth", True): (177.0, 0.145, 0.582),
        ("textual_inversion", False): (171.77, 0.135, 0.600),
        ("textual_inversion", True): (133.18, 0.085, 0.640),
        ("basic", False): (112.0, 0.097, 0.672),
        ("basic", True): (84.0, 0.077, 0.746),
    },
}
"""FID, KID and AUC by method and whether it had the drift."""

REAL_AUC = {"mri": 0.870, "xray": 0.880}
HALF_AUC = {"mri": 0.883, "xray": 0.892}
"""Of a classifier trained on real images, and on as many synthetic ones with them."""

AGING: dict[str, tuple[float, float, float, float]] = {
    "bin": (15.39, 0.74, 0.13, 32.77),
    "words": (15.25, 0.75, 0.13, 32.78),
    "number": (15.37, 0.76, 0.12, 32.83),
}
"""FID, SSIM, LPIPS and PSNR by how instructions say the age, with the drift."""

PROMPTS = {"diverse+patient": (51.35, 0.0351)}
"""FID and KID of the set of captions that was best."""
