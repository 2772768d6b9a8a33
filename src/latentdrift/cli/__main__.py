"""`latentdrift COMMAND`: finds the subcommand and turns errors into a message and exit status 2.

Nothing heavy is imported here, so that `latentdrift --help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

COMMANDS = {
    "prepare": "bring a data set, DICOM or NIfTI files to a cohort of images",
    "simulate": "make a cohort of simulated brains or chests whose true counterfactuals are known",
    "audit": "check a cohort for leakage between its parts, and synthetic images for copies of patients",
    "finetune": "fine-tune a base model on a folder of images, with or without drift",
    "generate": "make images from prompts or attributes",
    "counterfactual": "show what real images would look like under other attributes",
    "search": "search the drift, guidance and strength that make the best edits or samples",
    "classifier": "train the two classifiers, guide and judge, or measure one on another cohort",
    "ladder": "show one image under values from a to b: ages, stages, drifts, guidance scales",
    "figure": "draw a figure of the paper from any run: counterfactuals, seeds, latents or methods",
    "evaluate": "compare a folder of images with another: FID, KID, background",
    "utility": "measure what synthetic images are worth for training: AUC on real ones",
    "benchmark": "measure the paper's tables, and ours, with and without drift",
    "reader-study": "ask readers, blinded, whether images are real: build, serve, analyse",
    "studio": "open the web page: edit scans, train, search and look at runs in a browser",
    "demo": "the whole path on simulated brains, in minutes, ending in one page",
    "verify": "read whether files are marked as synthetic, by which model, and whether their manifest agrees",
    "sign": "sign synthetic images by C2PA (content credentials)",
    "completion": "print a script that completes commands, flags, names and files in bash, zsh, fish or tcsh",
    "info": "what is installed, which models and methods there are, what a model was trained on",
}
"""Subcommands; each is the module of that name in this package, with underscores for dashes."""

MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
"""A disk that is full, read-only or somebody else's, and folders that are files."""

USAGE = """usage: latentdrift COMMAND [OPTIONS]

Latent drifting in diffusion models for counterfactual medical image synthesis.

commands:
{commands}

`latentdrift COMMAND --help` explains one. Images made here are synthetic and not for diagnosis.
"""


def usage() -> str:
    """Return the text of `latentdrift --help`."""
    return USAGE.format(commands="\n".join(f"  {name:<16}{text}" for name, text in COMMANDS.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0, 2 for bad input, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("--version", "-V"):
        from latentdrift import __version__

        print(__version__)
        return 0
    name, rest = arguments[0], arguments[1:]
    from latentdrift.errors import LatentDriftError, UnknownNameError

    # Telemetry and progress bars of the libraries below; our own progress is shown instead.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        if name not in COMMANDS:
            raise UnknownNameError("command", name, COMMANDS)
        return int(importlib.import_module(f"latentdrift.cli.{name.replace('-', '_')}").main(rest) or 0)
    except SystemExit as stop:  # how the parser of flags ends after --help or a wrong flag
        return stop.code if isinstance(stop.code, int) else 2
    except LatentDriftError as error:
        print(f"latentdrift {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"latentdrift {name}: interrupted; what was saved is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`latentdrift … | head`); nobody is left to be told.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError, RuntimeError) as error:
        message = explain(error)
        if message is None:
            raise
        print(f"latentdrift {name}: {message}", file=sys.stderr)
        return 2


def explain(error: BaseException) -> str | None:
    """Return what to do about a machine that has run out of something, or None for what is an error of ours."""
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        where = f"{error.filename} cannot be written" if error.filename else "A file cannot be written"
        return f"{where}: {error.strerror}. Free space, or choose another folder. What was saved is kept."
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return "Memory ran out. Use a smaller --batch-size. What was saved is kept."
    return None


if __name__ == "__main__":
    sys.exit(main())
