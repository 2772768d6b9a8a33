"""`python -m training.base autoencoder|unet|card`: the steps that make the embedded base model."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.base", description=__doc__)
    parser.add_argument("stage", choices=["autoencoder", "unet", "card"])
    parser.add_argument("--photographs", type=Path, required=True, help="folder with metadata.csv (file_name, caption)")
    parser.add_argument("--out", type=Path, required=True, help="where checkpoints and the model are written")
    parser.add_argument("--steps", type=int, help="number of optimizer steps, in place of the stage's own")
    parser.add_argument("--scans", nargs="*", default=[], metavar="NAME=FOLDER", help="scans to measure for the card")
    args = parser.parse_args()
    if args.stage == "autoencoder":
        from training.base.autoencoder import AutoencoderTraining, train_autoencoder

        cfg = AutoencoderTraining(**({"steps": args.steps} if args.steps else {}))
        train_autoencoder(args.photographs, args.out, cfg)
    elif args.stage == "unet":
        from training.base.unet import UNetTraining, train_unet

        train_unet(args.photographs, args.out, UNetTraining(**({"steps": args.steps} if args.steps else {})))
    else:
        from training.base.card import write_card

        scans = {name: Path(folder) for name, _, folder in (word.partition("=") for word in args.scans)}
        print(write_card(args.photographs, args.out, scans))


if __name__ == "__main__":
    main()
