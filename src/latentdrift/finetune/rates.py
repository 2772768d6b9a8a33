"""The learning rate along a training, as the trainer's schedule gives it."""

from __future__ import annotations


def learning_rates(
    schedule: str, highest: float, warmup: int, steps: int, most: int = 400
) -> tuple[list[int], list[float]]:
    """Return at most `most` steps, the last one among them, and the learning rate of each.

    Args:
        schedule: of `TrainingConfig.lr_schedule`.
        highest: learning rate after the warm-up.
        warmup: steps over which it rises.
        steps: of the whole training.
        most: points of the curve.
    """
    import numpy as np
    import torch
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=highest)
    made = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    factor = made.lr_lambdas[0]
    # Before step n the schedule has moved n - 1 times.
    at = np.unique(np.linspace(1, steps, min(most, steps)).round().astype(int)).tolist()
    return at, [highest * float(factor(step - 1)) for step in at]
