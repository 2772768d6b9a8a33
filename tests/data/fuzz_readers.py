"""Change good files at random, thousands of times, and report what is not refused in plain words or takes too long.

Such files are kept beside the report.

    python tests/data/fuzz_readers.py --count 20000 --seed 1 --out found.json
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import sys
import tempfile
import time
import types
from collections import Counter
from pathlib import Path

# As a program this file is outside of pytest, which else gives the folders of the tests their names.
HERE = Path(__file__).resolve().parent
for name, folder in (("tests", HERE.parent), ("tests.data", HERE), ("tests.data.formats", HERE / "formats")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]

from latentdrift.data.prepare.config import PrepareConfig  # noqa: E402
from latentdrift.data.prepare.convert import convert_scan  # noqa: E402
from latentdrift.data.scan import Scan  # noqa: E402
from tests.data.damage import GENERIC, mutated, zipped  # noqa: E402
from tests.data.damaged_dicom import good_dicom, good_series  # noqa: E402
from tests.data.damaged_nifti import good_nifti  # noqa: E402
from tests.data.damaged_pictures import good_pictures  # noqa: E402
from tests.data.prepare_listed import peak_mib  # noqa: E402

SLOW_SECONDS = 5.0
CEILING = 4 << 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (CEILING, CEILING))
    with tempfile.TemporaryDirectory() as name:
        found = campaign(args.count, args.seed, Path(name), args.out.parent)
    args.out.write_text(json.dumps(found, indent=2))
    return 0


def campaign(count: int, seed: int, folder: Path, kept: Path) -> dict[str, object]:
    """Return how many files were read and refused, and what is wrong with which."""
    good = {**good_nifti(), **good_dicom(folder / "work"), **good_pictures()}
    series = good_series(folder / "work")
    config = PrepareConfig(size=32, workers=1, time_limit_s=30)
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    findings = []
    names = sorted(set(good) - {"pair.hdr"})
    for number in range(count):
        files = {**series} if number % 25 == 0 else {rng.choice(names): b""}
        if len(files) == 1:
            (key,) = files
            content = good[key]
            if key.endswith(".gz") and rng.random() < 0.7:
                files[key] = zipped(mutated(gzip.decompress(content), rng))  # past the checksum
            else:
                files[key] = mutated(content, rng)
            if key == "pair.img":
                broken = rng.random() < 0.6
                (folder / "pair.hdr").write_bytes(mutated(good["pair.hdr"], rng) if broken else good["pair.hdr"])
        else:
            key = rng.choice(sorted(files))
            files[key] = mutated(files[key], rng)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        began = time.perf_counter()
        scan = Scan("scan", tuple(folder / file for file in files))
        converted = convert_scan(scan, folder, folder / "out", config, "OT")
        seconds = time.perf_counter() - began
        reason = " ".join(converted.refused)
        kind = "series" if len(files) > 1 else key
        outcomes[f"{kind}: {'refused' if reason else 'read'}"] += 1
        if GENERIC.search(reason) or seconds > SLOW_SECONDS or not converted.lasting:
            findings.append({"number": number, "file": key, "reason": reason[:500], "seconds": round(seconds, 2)})
            (kept / f"{seed}-{number}-{key}").write_bytes(files[key])
    return {
        "tried": count,
        "peak_mib": round(peak_mib()),
        "outcomes": dict(sorted(outcomes.items())),
        "findings": findings,
    }


if __name__ == "__main__":
    sys.exit(main())
