"""The rules of the house, checked on the source itself; each check is shown to catch a planted violation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "latentdrift"

ROOMS = (
    "errors",
    "registry",
    "data",
    "drift",
    "models",
    "finetune",
    "generate",
    "edit",
    "counterfactual",
    "evaluate",
    "report",
    "benchmark",
    "studio",
    "cli",
)
"""In the order in which an image passes through them: a room imports only rooms before it."""

FORBIDDEN_NAMES = frozenset({"utils", "core", "manager", "helpers", "misc"})
LONGEST_FILE = 400
HEAVY = frozenset(
    {
        "accelerate", "diffusers", "gradio", "matplotlib", "nilearn", "peft", "tensorboard", "timm", "torch",
        "torch_fidelity", "torchmetrics", "torchvision", "transformers",
    }
)  # fmt: skip
MACHINE_PATH = re.compile(r"(?<![\w.~}/])(?:/(?:home|root|work|tmp|Users|mnt|scratch)/[\w.~-]|[A-Z]:\\+Users)")
TEXT = {".py", ".toml", ".md", ".cff", ".yaml", ".yml", ".json", ".j2", ".txt", ".cfg", ""}
GENERATED = {
    ".git", ".venv", "runs", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache", "dist",
    "build",
}  # fmt: skip


def modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def room_of(path: Path, package: Path) -> str:
    """Return the first part below the package: a folder or a single file."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module name) of every import, in functions and under TYPE_CHECKING too."""
    here = [package.name, *path.relative_to(package).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            if module == package.name:
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            else:
                yield node.lineno, module


def check_imports(package: Path) -> list[str]:
    """Return every import of a room that does not stand above the importing one."""
    found = []
    for path in modules(package):
        room = room_of(path, package)
        if room in ("__init__", "__main__"):
            continue
        where = f"{path.relative_to(package)}"
        if room not in ROOMS:
            found.append(f"{where}: {room} is no room")
            continue
        for line, name in imported(path, package):
            top, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if top != package.name or target in {room, "", "__version__"}:
                continue
            if target not in ROOMS:
                found.append(f"{where}:{line}: imports {name}, which is in no room")
            elif ROOMS.index(target) > ROOMS.index(room):
                found.append(f"{where}:{line}: {room} imports {target}")
    return found


def check_lengths(root: Path) -> list[str]:
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(root) if path.suffix == ".py"}
    return [f"{path.relative_to(root)}: {count} lines" for path, count in counts.items() if count > LONGEST_FILE]


def check_names(root: Path) -> list[str]:
    return [
        str(path.relative_to(root))
        for path in files(root)
        if path.suffix == ".py"
        and FORBIDDEN_NAMES & {part.removesuffix(".py").strip("_") for part in path.relative_to(root).parts}
    ]


def check_paths(root: Path) -> list[str]:
    """Return every line with the absolute path of somebody's machine."""
    found = []
    for path in files(root):
        if path.suffix in TEXT and path.stat().st_size < 2_000_000:
            lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
            found += [f"{path.relative_to(root)}:{i}" for i, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    return found


def check_heavy(package: Path) -> list[str]:
    """Return imports of heavy libraries that run when the command line starts."""
    starters = [path for path in modules(package) if room_of(path, package) in {"__init__", "cli"}]
    found = []
    for path in starters:
        for line, name in at_import(ast.parse(path.read_text(encoding="utf-8")).body):
            if name.split(".")[0] in HEAVY:
                found.append(f"{path.relative_to(package)}:{line}: imports {name}")
    return found


def at_import(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of imports that run when the module is imported."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ("body", "orelse", "finalbody"):
                yield from at_import(getattr(node, inner, []))
            for handler in getattr(node, "handlers", []):
                yield from at_import(handler.body)


def files(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.name in GENERATED or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from files(path)
        elif path.is_file():
            yield path


def test_rooms_import_only_rooms_above_them() -> None:
    assert check_imports(PACKAGE) == []


def test_files_are_short() -> None:
    assert check_lengths(ROOT) == []


def test_names_say_something() -> None:
    assert check_names(ROOT) == []


def test_no_machine_is_named() -> None:
    assert check_paths(ROOT) == []


def test_the_command_line_starts_light() -> None:
    assert check_heavy(PACKAGE) == []


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    package = tmp_path / "latentdrift"
    for room in ("data", "drift", "cli", "studio"):
        (package / room).mkdir(parents=True)
    (package / "__init__.py").write_text("from latentdrift.cli import main\n")
    (package / "drift" / "value.py").write_text(
        "import math\nfrom latentdrift.data import Cohort\nfrom latentdrift import errors, __version__\n"
    )
    return package


def test_a_clean_package_passes(planted: Path) -> None:
    checks = (check_imports, check_lengths, check_names, check_paths, check_heavy)
    assert [check(planted) for check in checks] == [[]] * len(checks)


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("data/a.py", "from latentdrift.drift import LatentDrift", "data/a.py:1: data imports drift"),
        ("data/a.py", "def f():\n    import latentdrift.drift.value", "data/a.py:2: data imports drift"),
        ("data/a.py", "from ..drift import value", "data/a.py:1: data imports drift"),
        ("data/a.py", "from .. import drift", "data/a.py:1: data imports drift"),
        ("data/a.py", "from latentdrift import drift", "data/a.py:1: data imports drift"),
        ("data/a.py", "if TYPE_CHECKING:\n    from latentdrift.cli import x", "data/a.py:2: data imports cli"),
        ("studio/a.py", "from latentdrift.cli import main", "studio/a.py:1: studio imports cli"),
        ("attic.py", "", "attic.py: attic is no room"),
        ("data/a.py", "import latentdrift.attic", "data/a.py:1: imports latentdrift.attic, which is in no room"),
    ],
)  # fmt: skip
def test_an_arrow_upwards_is_caught(planted: Path, file: str, text: str, says: str) -> None:
    (planted / file).write_text(text)
    assert check_imports(planted) == [says]


def test_a_long_file_is_caught(planted: Path) -> None:
    (planted / "data" / "a.py").write_text("pass\n" * 401)
    assert check_lengths(planted) == ["data/a.py: 401 lines"]


@pytest.mark.parametrize("name", ["utils.py", "_helpers.py", "core/a.py"])
def test_an_empty_name_is_caught(planted: Path, name: str) -> None:
    path = planted / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert check_names(planted) == [f"data/{name}"]


@pytest.mark.parametrize("where", [("home", "me"), ("tmp", "x"), ("Users", "me"), ("mnt", "data")])
def test_a_machine_path_is_caught(planted: Path, where: tuple[str, str]) -> None:
    (planted / "data" / "a.py").write_text("x = 1\npath = '/" + "/".join(where) + "'\n")
    (planted / "data" / "fine.py").write_text("path = './tmp/x'\nurl = 'example.org/home/x'\n")
    assert check_paths(planted) == ["data/a.py:2"]


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("import torch", True),
        ("from diffusers import DiffusionPipeline", True),
        ("try:\n    import torch.nn\nexcept ImportError:\n    pass", True),
        ("try:\n    pass\nexcept ImportError:\n    import torch", True),
        ("class A:\n    import matplotlib.pyplot", True),
        ("def f():\n    import torch", False),
        ("if TYPE_CHECKING:\n    import torch", False),
        ("import torchlike", False),
    ],
)
def test_a_heavy_start_is_caught(planted: Path, text: str, caught: bool) -> None:
    (planted / "cli" / "a.py").write_text(text)
    assert bool(check_heavy(planted)) is caught
