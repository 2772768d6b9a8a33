"""How much of a class is in samples: beside what classifiers learn from them, what stands in the pictures themselves.

`python -m benchmarks.class_in_samples --real chests --attribute finding --classes NoFinding Effusion
--samples runs/benchmark/samples/basic-* --out class_in_samples.json`

A classifier may learn from samples what real images do not have, such as grain that differs between the classes. So,
without training anything: the mean image of the second class minus that of the first, compared with the same of the
real images; how well one can tell the samples' classes by a sample's product with the REAL difference, and by its grain
alone, for which real images are at 0.5 unless grain tells their classes, too.

And which scale a distance speaks of: the Fréchet distance of features; of features after the finest half of the detail
was taken from both sides; and of the pixels themselves, averaged over squares of an eighth of the side.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from latentdrift.data import Cohort, ImageTransform
from latentdrift.evaluate import (
    FeatureExtractor,
    SmallSampleWarning,
    auc_interval,
    frechet_distance,
    load_extractor,
)

Array = npt.NDArray[np.float64]


def read(folder: Path, attribute: str, classes: Sequence[str], size: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the images of two classes, (N, size, size) in levels of 0 to 255, and which class each is of, (N,)."""
    records = [record for record in Cohort.open(folder, label=attribute) if record.attributes[attribute] in classes]
    transform = ImageTransform(size=size)
    images = np.stack([transform.read(record.image).mean(0).numpy() for record in records]).astype(np.float64)
    truth = np.array([classes.index(str(record.attributes[attribute])) for record in records])
    if len(set(truth.tolist())) < 2:
        raise SystemExit(f"{folder} has no images of one of the classes {', '.join(classes)}.")
    return (images + 1) * 127.5, truth


def grain(images: Array) -> Array:
    """Return the mean difference of neighbouring pixels, in levels, (N,)."""
    return np.asarray(np.abs(np.diff(images, axis=2)).mean((1, 2)))


def told_by(scores: Array, truth: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the area under the ROC curve of scores that should be higher for class 1."""
    found = auc_interval(scores, truth)
    assert found.interval is not None
    return {"value": found.value, "low": found.interval.low, "high": found.interval.high}


def figures(images: Array, truth: npt.NDArray[np.int64], real: Array, change: Array) -> dict[str, Any]:
    """Return what a set carries of the real class difference `change`, and how its mean image differs from `real`'s."""
    own = images[truth == 1].mean(0) - images[truth == 0].mean(0)
    return {
        "images": len(images),
        "size": float(np.linalg.norm(own) / np.linalg.norm(change)),
        "cosine": float((own * change).sum() / np.linalg.norm(own) / np.linalg.norm(change)),
        "told_by_the_real_difference": told_by((images * change).sum((1, 2)), truth),
        "told_by_grain": told_by(grain(images), truth),
        "grain": float(grain(images).mean()),
        "error_of_the_mean_image": float(np.abs(images.mean(0) - real.mean(0)).mean()),
    }


def coarse(images: Array, side: int) -> Array:
    """Return images averaged over squares of `side` pixels, (N, H / side, W / side)."""
    count, height, width = images.shape
    return images.reshape(count, height // side, side, width // side, side).mean((2, 4))


def scales(images: Array, extractor: FeatureExtractor) -> dict[str, Array]:
    """Return images as their features, as their features without grain, and as coarse pixels in units of the range."""

    def features(of: Array) -> Array:
        # Whole numbers, as files have them.
        return np.asarray(extractor(np.repeat(of.round().astype(np.uint8)[:, None], 3, axis=1)), dtype=np.float64)

    small = torch.from_numpy(coarse(images, 2))[:, None]
    smooth = F.interpolate(small, scale_factor=2, mode="bilinear")[:, 0].numpy()
    pixels = coarse(images, images.shape[1] // 8).reshape(len(images), -1) / 127.5
    return {
        "frechet": features(images),
        "frechet_without_grain": features(smooth),
        "frechet_of_coarse_pixels": pixels,
    }


def distances(first: dict[str, Array], second: dict[str, Array]) -> dict[str, float]:
    """Return the Fréchet distance of two sets at each of the `scales`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        return {name: frechet_distance(first[name], second[name]) for name in first}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder of real images with the attribute")
    parser.add_argument("--samples", type=Path, nargs="+", required=True, help="folders of samples with the attribute")
    parser.add_argument("--attribute", required=True)
    parser.add_argument("--classes", nargs=2, required=True, help="two values; the second is the finding")
    parser.add_argument("--size", type=int, default=64, help="pixels at which all are compared")
    parser.add_argument("--extractor", default="default", help="of the distances")
    parser.add_argument("--out", type=Path, default=Path("class_in_samples.json"))
    args = parser.parse_args(arguments)
    real, truth = read(args.real, args.attribute, args.classes, args.size)
    change = real[truth == 1].mean(0) - real[truth == 0].mean(0)
    extractor = load_extractor(args.extractor)
    of_real = scales(real, extractor)
    rows = {"real": figures(real, truth, real, change)}
    for folder in args.samples:
        images, own = read(folder, args.attribute, args.classes, args.size)
        rows[folder.name] = {**figures(images, own, real, change), **distances(scales(images, extractor), of_real)}
    print(
        f"{'':36}{'size':>6}{'cosine':>8}{'told by it':>22}{'by grain':>10}{'grain':>8}{'mean image':>12}"
        f"{'Fréchet':>9}{'no grain':>10}{'coarse':>8}"
    )
    for name, row in rows.items():
        told = row["told_by_the_real_difference"]
        area = f"{told['value']:.2f} ({told['low']:.2f} to {told['high']:.2f})"
        print(
            f"{name[:35]:36}{row['size']:6.2f}{row['cosine']:8.2f}{area:>22}{row['told_by_grain']['value']:10.2f}"
            f"{row['grain']:8.1f}{row['error_of_the_mean_image']:12.1f}"
            + "".join(
                f"{row[key]:{width}.{digits}f}"
                for key, width, digits in (
                    ("frechet", 9, 1),
                    ("frechet_without_grain", 10, 1),
                    ("frechet_of_coarse_pixels", 8, 2),
                )
                if key in row
            )
        )
    facts = {
        "extractor": extractor.name,
        "attribute": args.attribute,
        "classes": args.classes,
        "size": args.size,
        "sets": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {args.out}")


if __name__ == "__main__":
    main()
