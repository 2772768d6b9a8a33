"""What the scan adds: receive-coil shading, contrast, blur, and Rician noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.position import CENTRE, FIELD_OF_VIEW
from latentdrift.data.simulate.sampling import Volume
from latentdrift.data.simulate.scanners import Scanner
from latentdrift.data.simulate.subject import SimulatedSubject


def scan(
    signal: Volume, brain: Volume, scanner: Scanner, subject: SimulatedSubject, height: float
) -> NDArray[np.float32]:
    """Return the scan of `signal` (H, W), skull-stripped by `brain` (H, W), in [0, 1].

    Shading and gain belong to the scan as a whole and are smooth over all its slices; texture and noise differ from
    slice to slice. Without noise, blotches of texture are left out too.
    """
    from scipy.ndimage import gaussian_filter

    side = signal.shape[0]
    whole = np.random.default_rng([subject.seed, 2, subject.scan])
    across = np.linspace(-1, 1, side, dtype=np.float32)
    up = np.float32((height - CENTRE[2]) / (FIELD_OF_VIEW / 2))
    rows, columns = np.meshgrid(across, across, indexing="ij")
    a, b, c, d, e = (scanner.bias * whole.normal(0, [0.05, 0.05, 0.04, 0.04, 0.05])).astype(np.float32)
    shading = 1 + a * rows + b * columns + c * rows * columns + d * (rows**2 + columns**2 - 0.5) + e * up
    gain, gamma = whole.normal(1.0, 0.03), scanner.gamma * np.exp(whole.normal(0, 0.06))
    image = np.clip(signal, 0, 1)
    if scanner.blur:
        image = gaussian_filter(image, scanner.blur / (FIELD_OF_VIEW / side), truncate=3.0)
    image = np.float32(gain) * image ** np.float32(gamma) * np.maximum(shading, np.float32(0.1))
    if scanner.noise:
        # Keyed by the height: a volume's slice has the noise of the slice rendered alone.
        rng = np.random.default_rng([subject.seed, 3, subject.scan, round(height * 1000) + 1_000_000])
        blotches = gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), side / 100)
        image *= 1 + blotches * (scanner.noise / blotches.std())
        noise = np.float32(scanner.noise) * rng.standard_normal((2, side, side), dtype=np.float32)
        image = np.hypot(image + noise[0], noise[1])
    found: NDArray[np.float32] = np.clip(image * np.clip((brain - 0.35) * 3, 0, 1), 0, 1).astype(np.float32)
    return found
