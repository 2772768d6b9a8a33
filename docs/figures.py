"""Draws the figures of the pages on concepts: `python docs/figures.py`, a minute or two on two cores, always the same.

Simulated brains, the embedded models, and the two photographs that come with scikit-learn; nothing is fetched.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

PICTURES = Path(__file__).parent / "pictures"
MEAN, STD, STEPS = 0.8, 0.5, 25
"""Of the Gaussian data in the figure of the rules, and its number of steps."""

BLUE, RED, GRAY, GREEN = "#1f5fa8", "#c0392b", "#777777", "#2e8b57"


def scheduler() -> Any:
    """Return a DDIM scheduler as Stable Diffusion has it."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def photographs(size: int, count: int) -> torch.Tensor:
    """Return crops of scikit-learn's photographs, (count, 3, size, size) in [-1, 1]."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    crops = []
    for number in range(count):
        image = load_sample_images().images[number % 2]
        top, left = (int(rng.integers(0, side - 2 * size)) for side in image.shape[:2])
        crops.append(image[top : top + 2 * size : 2, left : left + 2 * size : 2])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def brains(folder: Path, count: int) -> tuple[Any, torch.Tensor]:
    """Return a simulated cohort and its images, (count, 3, 128, 128) in [-1, 1]."""
    from latentdrift.data import ImageTransform
    from latentdrift.data.simulate import simulate_cohort

    cohort = simulate_cohort(folder, subjects=count, seed=0)
    transform = ImageTransform(size=128)
    return cohort, torch.stack([transform.read(record.image) for record in cohort])


def save(figure: Any, name: str) -> Path:
    """Write a figure in few colours, so that it is small; return its path."""
    from PIL import Image

    from latentdrift.report.canvas import save as write

    path = write(figure, PICTURES / f"concept-{name}.png", dpi=110)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def canvas(width: float, height: float) -> Any:
    """Return an empty figure."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_domains(pictures: torch.Tensor, slices: torch.Tensor) -> Path:
    """Draw the means over space of both domains' latents, a channel a panel."""
    from latentdrift import load_pipeline
    from latentdrift.generate import encode_images

    pipe = load_pipeline("tiny")
    means = [encode_images(pipe, images).mean((2, 3)) for images in (pictures, slices)]
    figure = canvas(9, 2.4)
    panels = figure.subplots(1, means[0].shape[1], sharey=True)
    low, high = float(min(m.min() for m in means)), float(max(m.max() for m in means))
    for channel, panel in enumerate(panels):
        for values, colour, label in zip(means, (GRAY, BLUE), ("photographs", "brain slices"), strict=True):
            panel.hist(values[:, channel].numpy(), np.linspace(low, high, 31), color=colour, alpha=0.75, label=label)
        panel.axvline(0, color=RED, ls="--", lw=1.2, label="sampling begins")
        panel.set_title(f"channel {channel}", fontsize=9)
        panel.set_xlabel("mean over space", fontsize=8)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("images", fontsize=8)
    panels[0].legend(fontsize=7)
    return save(figure, "domains")


def draw_leak() -> Path:
    """Draw what is left of the image near the end of the forward process, and what that is to a mean over space."""
    noise = scheduler()
    signal = noise.alphas_cumprod.sqrt().numpy()
    figure = canvas(9, 3)
    left, right = figure.subplots(1, 2)
    first = 800
    left.plot(range(first, len(signal)), signal[first:], color=BLUE)
    starts = {}
    for steps, colour in ((10, RED), (25, GREEN), (50, GRAY)):
        noise.set_timesteps(steps)
        starts[steps] = int(noise.timesteps[0]), colour
        left.plot(
            [starts[steps][0]],
            [signal[starts[steps][0]]],
            "o",
            color=colour,
            label=f"{steps} steps: t = {starts[steps][0]}",
        )
    left.set_ylim(0, None)
    left.set_xlabel("timestep t")
    left.set_ylabel("share of the image, √ᾱ_t")
    left.annotate(f"{signal[-1]:.3f} at the last timestep", (999, signal[-1]), (850, 0.02), fontsize=8)
    left.legend(fontsize=8)
    sides = np.array([8, 16, 32, 64, 96, 128])
    for steps, (start, colour) in starts.items():
        right.plot(
            sides,
            sides * signal[start] / np.sqrt(1 - signal[start] ** 2),
            "o-",
            ms=3,
            color=colour,
            label=f"{steps} steps",
        )
    right.set_xlabel("side of the latent")
    right.set_ylabel("error of the start, in deviations")
    right.set_xticks(sides)
    right.legend(fontsize=8)
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
    return save(figure, "leak")


def draw_rules() -> Path:
    """Draw the mean of a latent from noise to image under each rule, with the network that is exact for it."""
    from latentdrift import LatentMoments
    from latentdrift.drift.gaussian import GaussianNetwork, run

    base = scheduler()
    moments = LatentMoments(MEAN)
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean()) / noise.std()
    figure = canvas(8, 3.6)
    panel = figure.subplots()
    lines = [("no drift", None, "literal", GRAY, "-"), ("matched", "matched", "literal", "black", ":")]
    lines += [("start", "start", "literal", BLUE, "-"), ("forward", "forward", "literal", GREEN, "--")]
    lines += [
        ("paper, δ/N a step", "paper", "shared", "#b8860b", "-"),
        ("paper, δ a step", "paper", "literal", RED, "-"),
    ]
    for label, rule, per_step, colour, style in lines:
        drift = None if rule is None else moments.drift_for(base, STEPS, rule, per_step=per_step)
        delta = 0.0 if drift is None else float(drift.numbers) * drift.forward_sign
        target = "plain" if drift is None else drift.target
        network = GaussianNetwork(base, torch.tensor(MEAN), STD, delta, str(target))
        seen: list[torch.Tensor] = []
        sampler = base if drift is None else drift.apply(base)
        run(sampler, network, noise, STEPS, seen=seen)
        means = [float(state.mean()) for state in seen]
        panel.plot(range(1, STEPS + 1), means, color=colour, ls=style, label=f"{label}: ends at {means[-1]:.2f}")
    panel.axhline(MEAN, color="black", lw=0.8, ls=(0, (1, 3)))
    panel.set_ylim(-0.1, 2.0)
    panel.set_xlabel("DDIM step")
    panel.set_ylabel("mean of the latent")
    panel.legend(fontsize=8, loc="upper left")
    panel.grid(alpha=0.3)
    return save(figure, "rules")


def draw_relatives() -> Path:
    """Draw where the mean of a 16 x 16 channel arrives in training, and where sampling begins."""
    mean, side, delta_offset = 1.0, 16, 0.1
    signal = float(scheduler().alphas_cumprod[-1]) ** 0.5
    level = (1 - signal**2) ** 0.5
    width = level / side
    auto = signal * mean / level
    cases = [
        ("no drift", signal * mean, width, 0.0),
        ("rule start", signal * mean, width, level * auto),
        ("rule forward", signal * mean - level * auto, width, 0.0),
        ("offset noise 0.1", signal * mean, (width**2 + (level * delta_offset) ** 2) ** 0.5, 0.0),
        ("zero terminal SNR", 0.0, 1 / side, 0.0),
    ]
    figure = canvas(9, 2.2)
    x = np.linspace(-0.35, 0.35, 400)
    for panel, (label, centre, spread, start) in zip(figure.subplots(1, len(cases), sharey=True), cases, strict=True):
        panel.fill_between(x, np.exp(-0.5 * ((x - centre) / spread) ** 2) / spread, color=BLUE, alpha=0.5, lw=0)
        panel.axvline(start, color=RED, lw=1.5)
        panel.set_title(label, fontsize=9)
        panel.set_yticks([])
        panel.tick_params(labelsize=7)
        panel.set_xlabel("mean at t = T", fontsize=8)
    return save(figure, "relatives")


def draw_strip() -> Path:
    """Draw the same noise under several drifts, from `tiny-brain`."""
    from latentdrift import LatentDrift, generate_images, load_pipeline
    from latentdrift.drift import drift_of, remove

    prompts, seeds = ["an MRI of a mild demented brain"] * 2, [1, 5]
    pipe = load_pipeline("tiny-brain")
    saved = drift_of(pipe.scheduler)
    columns: list[tuple[str, Any]] = [(f"δ = {value:+.2f}", LatentDrift(value)) for value in (-0.1, -0.05)]
    columns += [("none", None), ("δ = +0.05", LatentDrift(0.05)), ("δ = +0.10", LatentDrift(0.1)), ("saved map", saved)]
    figure = canvas(9, 3.3)
    panels = figure.subplots(2, len(columns))
    for column, (label, drift) in enumerate(columns):
        pipe = remove(pipe) if drift is None else drift.attach(pipe)
        images = generate_images(pipe, prompts, seeds=seeds, steps=STEPS, guidance=1.5)
        show(panels[:, column], images, label)
    return save(figure, "strip")


def show(panels: Any, images: Any, title: str) -> None:
    """Put images below one another, the title above the first."""
    from latentdrift.report.figures import to_pixels

    for row, (panel, image) in enumerate(zip(panels, images, strict=True)):
        panel.imshow(to_pixels(image))
        panel.set_axis_off()
        if row == 0:
            panel.set_title(title, fontsize=9)


def draw_counterfactual(cohort: Any, slices: torch.Tensor) -> Path:
    """Draw a simulated source, its edit by `tiny-brain`, the placebo and the true counterfactual."""
    from latentdrift import load_pipeline, make_counterfactuals
    from latentdrift.data import ImageTransform
    from latentdrift.data.simulate import true_counterfactual
    from latentdrift.report import signed_difference

    number = next(i for i, record in enumerate(cohort) if record.attributes["diagnosis"] == "CN")
    pipe, source = load_pipeline("tiny-brain"), slices[[number]]
    said = ["an MRI of a non demented brain"], ["an MRI of a moderate demented brain"]
    made = make_counterfactuals(pipe, source, *said, steps=STEPS, guidance=3.0)
    truth = ImageTransform(size=128).from_array(true_counterfactual(cohort.root, cohort[number], "AD"))
    columns = [("source", source[0]), ("edit", made.image[0]), ("placebo", made.reconstruction[0]), ("truth", truth)]
    figure = canvas(8, 4.2)
    panels = figure.subplots(2, len(columns))
    for column, (label, image) in enumerate(columns):
        difference = signed_difference(source[0], image)
        show(panels[:, column], [image, np.moveaxis(difference, 2, 0)], label)
    panels[1, 0].set_visible(False)
    return save(figure, "counterfactual")


def main() -> int:
    """Draw all figures, or those named on the command line."""
    torch.set_num_threads(1)
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made: list[tuple[Any, torch.Tensor]] = []

        def simulated() -> tuple[Any, torch.Tensor]:
            if not made:
                made.append(brains(Path(folder) / "brains", 64))
            return made[0]

        figures: dict[str, Callable[[], Path]] = {
            "leak": draw_leak,
            "rules": draw_rules,
            "relatives": draw_relatives,
            "domains": lambda: draw_domains(photographs(128, 64), simulated()[1]),
            "strip": draw_strip,
            "counterfactual": lambda: draw_counterfactual(*simulated()),
        }
        for name in sys.argv[1:] or figures:
            path = figures[name]()
            print(f"{path.name}: {path.stat().st_size // 1024} KB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
