"""Temperature scaling: one number that makes probabilities as sure as they are right.

Guo et al. 2017, "On Calibration of Modern Neural Networks", Section 4.2: logits are divided by the T that minimises the
negative log likelihood on images that were not trained on. The most probable class stays the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from latentdrift.errors import ConfigurationError

RANGE = (0.25, 20.0)
"""Of the temperature. Where every image is told right, the likelihood would have it fall to 0: a step function, whose
gradient guides nobody."""


def negative_log_likelihood(logits: npt.ArrayLike, truth: npt.ArrayLike, temperature: float = 1.0) -> float:
    """Return the mean of -log softmax(logits / temperature)[truth] in nats.

    Args:
        logits: (N, K).
        truth: classes, (N,) whole numbers.
        temperature: above 0.
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    classes = np.asarray(truth)
    return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(classes)), classes]))


def fit_temperature(logits: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Return the temperature from 0.25 to 20 of least negative log likelihood; arguments as above.

    In 1 / T the likelihood is convex, so along log T there is one minimum.

    Raises:
        ConfigurationError: no images, or logits that are not finite.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 2 or not len(values) or len(values) != len(np.asarray(truth)) or not np.isfinite(values).all():
        raise ConfigurationError(
            f"A temperature needs finite logits (N, K) and N classes, not logits {values.shape} and classes "
            f"{np.asarray(truth).shape}."
        )
    found = minimize_scalar(
        lambda log: negative_log_likelihood(values, truth, float(np.exp(log))),
        bounds=(np.log(RANGE[0]), np.log(RANGE[1])),
        method="bounded",
        options={"xatol": 1e-6},
    )
    temperature = float(np.exp(found.x))
    better = negative_log_likelihood(values, truth, temperature) < negative_log_likelihood(values, truth)
    return temperature if better else 1.0
