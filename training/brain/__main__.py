"""`python -m training.brain subjects|train|card`: name the subjects, fine-tune `tiny` by our trainer, measure.

Only the U-Net is kept: everything else of `tiny-brain` is `tiny`'s.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

TEMPLATE = "an MRI of a {stage} brain"
"""The stage stands where captions of photographs have their noun: there `tiny`'s text encoder, which knows nothing
else, keeps words apart ten times further than at the end of a sentence."""

FRACTIONS = {"train": 0.75, "validation": 0.05, "test": 0.2}
"""By subject: 28 people are mildly demented, and a judge's figure on two or three held-out ones would say little."""


def train(data: Path, out: Path, base: str, steps: int, template: str) -> Path:
    """Fine-tune, or go on with it; return the model's folder."""
    from latentdrift.data import Cohort
    from latentdrift.finetune import TrainingConfig, finetune_model

    config = TrainingConfig(
        steps=steps,
        learning_rate=5e-4,
        warmup_steps=100,
        balance="stage",
        # The rarest stage has 42 slices: drawn as often as the others, each would be seen five hundred times.
        balance_strength=0.5,
        ema_decay=0.999,
        validate_every=250,
        checkpoint_every=250,
        mixed_precision="bf16",
    )
    last = 0.0

    def stage(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 15 or done == total:
            last = time.monotonic()
            print(f"{what}: {done} of {total}", flush=True)

    return finetune_model(
        Cohort.open(data),
        out,
        base=base,
        drift="auto",
        rule="start",
        template=template,
        config=config,
        fractions=FRACTIONS,
        stage=stage,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.brain", description=__doc__)
    parser.add_argument("stage", choices=["subjects", "train", "card"])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of slices with metadata.csv (file_name, stage)"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder; with subjects, the cohort to make")
    parser.add_argument("--base", default="tiny", help="base model")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--template", default=TEMPLATE, help="prompt, with {stage}")
    parser.add_argument("--weights", type=Path, help="with card: folder of the embedded model to write")
    args = parser.parse_args()
    if args.stage == "subjects":
        from training.brain.subjects import write_cohort

        print(write_cohort(args.data, args.out))
    elif args.stage == "train":
        print(train(args.data, args.out, args.base, args.steps, args.template))
    else:
        from training.brain.card import package

        print(package(args.data, args.out, args.weights))


if __name__ == "__main__":
    main()
