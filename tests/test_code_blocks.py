"""Every block of code in README.md and docs/ is run, or listed here with the reason why not.

The quick part reads every command with its own parser, compiles all Python and looks up what it imports, and reads the
settings files. The part marked slow (`make docs-test`) runs all commands and all Python for real, page by page,
each in a folder of its own, with stand-ins for the data (tests/doc_standins.py) and less work (tests/doc_blocks.py).
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro

from latentdrift.cli.__main__ import COMMANDS, main
from latentdrift.registry import Registry
from tests.doc_blocks import ROOT, SMALLER, Block, blocks, commands, smaller

BLOCKS = blocks()
LAYOUT = "the layout of a data set, which tests/data/sources builds"
MEASURES = "measures for hours on real images; its flags are looked up"
SETS_UP = "sets up the environment that this test runs in"

LISTED = {
    "make demo    # simulate, fine-tune with and without drift, measure, edit: ends in runs/demo/index.html":
        "trains for minutes, and `make test` is this test; tests/cli/test_demo.py runs the demo in small",
    "python3 -m venv .venv": SETS_UP,
    ".venv/bin/pip install -e .": SETS_UP,
    "python benchmarks/drift_on_scans.py --data FOLDER": MEASURES,
    "python -m benchmarks.search_cost --out search_cost.json": MEASURES,
    "python -m benchmarks.editors_on_scans --name brain": MEASURES,
    "python -m benchmarks.editors_on_scans --name xray": MEASURES,
    "python -m benchmarks.editors_on_scans --name simulated": MEASURES,
    "python -m benchmarks.editors_table runs/editors/editors-xray.json": MEASURES,
    "python -m training.brain subjects --data SLICES": "needs the real slices; its flags are looked up",
    "python -m benchmarks.methods_on_scans --name brain": MEASURES,
    "python -m benchmarks.methods_on_scans --name xray": MEASURES,
    "an MRI of a(n) {diagnosis} brain[, {sex}][, {age:years}]": "a template, not a command; it is parsed",
    "latentdrift reader-study":
        "asks readers, and serves until it is stopped; tests/cli/test_reader_study.py runs the page's commands",
    "latentdrift studio": "serves until it is stopped; tests/studio/test_browser.py drives it",
    "root/": LAYOUT,
    "root/train.csv, valid.csv (one is enough)": LAYOUT,
    "root/Data_Entry_2017_v2020.csv": LAYOUT,
    "root/mimic-cxr-2.0.0-metadata.csv.gz": LAYOUT,
    "root/metadata.csv or metadata.jsonl": LAYOUT,
    "root/dataset_description.json": LAYOUT,
    "root/any folders/any names": LAYOUT,
    "root/any folders/*.nii": LAYOUT,
    "latentdrift sign": "needs a certificate; tests/test_docs_provenance.py makes one",
    "latentdrift verify images --trust root.pem": "needs a certificate; tests/test_docs_provenance.py makes one",
    "cd model && find": "a recipe for other tools; tests/test_docs_provenance.py runs it",
    "#!/bin/bash": "a job for Slurm; its command is read",
    "@inproceedings{yeganeh2025latent,": "the citation; it is compared with CITATION.cff",
    "from diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained(\"runs/mine/model\")  # any":
        "its lines are alternatives for runs of different methods; tests/finetune/test_round_trip.py runs each",
    "load_drift(\"runs/mine/model\").attach(pipe)": "goes on with the block above it; tests/drift/test_pipeline.py",
}  # fmt: skip
"""What the full part does not run, by how a command or block begins, and why."""


def listed(text: str) -> str | None:
    """Return how the entry begins that accounts for a command or block."""
    text = " ".join(text.split()) if "\n" not in text else text
    return next((start for start in LISTED if text.strip().startswith(start)), None)


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_has_a_language_that_is_dealt_with() -> None:
    assert {block.language for block in BLOCKS} <= {"bash", "python", "text", "yaml", "toml", "bibtex"}
    assert len(of("bash")) > 30
    assert len(of("python")) > 15


def test_nothing_is_listed_in_vain() -> None:
    begun = {listed(block.text) for block in BLOCKS}
    begun |= {listed(line) for block in of("bash") for line in block.text.replace("\\\n", " ").splitlines()}
    begun |= {start for start in LISTED for block in BLOCKS if start in block.text}
    assert set(LISTED) <= begun
    assert all(LISTED.values())


@pytest.mark.parametrize("block", of("text", "bibtex"), ids=str)
def test_what_is_no_code_is_listed(block: Block) -> None:
    assert listed(block.text), block.first


class Parsed(BaseException):
    """The command line was understood."""


def lines(block: Block) -> list[tuple[list[str], str]]:
    """Return the commands of a block, as words and as they stand there."""
    return [(words, " ".join(words)) for words in commands(block)]


@pytest.fixture
def understood(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    parse = tyro.cli

    def stop(*arguments: Any, **settings: Any) -> Any:
        raise Parsed(parse(*arguments, **settings))

    monkeypatch.setattr(tyro, "cli", stop)

    def check(words: list[str]) -> None:
        assert words[0] in COMMANDS
        with pytest.raises(Parsed):
            main(words)

    return check


@pytest.mark.parametrize("block", of("bash", "text"), ids=str)
def test_every_command_is_understood(block: Block, understood: Callable[[list[str]], None]) -> None:
    for words, line in lines(block) if block.language == "bash" or "srun" in block.text else ():
        words = words[1:] if words[0] == "srun" else words
        if words[0] == "latentdrift":
            understood(words[1:])
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif words[0] == "python":
            file = ROOT / (words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1])
            package = ROOT / words[2].replace(".", "/") if words[1] == "-m" else file
            file = file if file.exists() else package / "__main__.py"
            told = file.read_text(encoding="utf-8") + "".join(
                one.read_text(encoding="utf-8") for one in file.parent.glob("*.py")
            )
            assert all(f'"{word}"' in told for word in words if word.startswith("--")), line
        else:
            assert block.language == "text" or line.startswith("#") or listed(line) in (*LISTED,), line


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_compiles_and_what_it_imports_is_there(block: Block) -> None:
    tree = ast.parse(block.text)
    modules: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                value = getattr(module, name.name, None)
                modules[name.asname or name.name] = (
                    value if value is not None else importlib.import_module(f"{node.module}.{name.name}")
                )
        elif isinstance(node, ast.Import):
            for name in node.names:
                modules[name.asname or name.name] = importlib.import_module(name.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_settings_files_are_read(block: Block, tmp_path: Path) -> None:
    from latentdrift.data import as_template

    (tmp_path / "mine.yaml").write_text(block.text)
    template = as_template(str(tmp_path / "mine.yaml"))
    assert "frontotemporal dementia" in template.caption({"diagnosis": "FTD"})


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_entry_points_are_of_registries(block: Block) -> None:
    from latentdrift.finetune import finetune_method

    groups = tomllib.loads(block.text)["project"]["entry-points"]
    assert groups.keys() == {f"latentdrift.{finetune_method.kind}"}


def test_the_groups_of_entry_points_are_all_told() -> None:
    page = (ROOT / "docs/how-to/adding.md").read_text()
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    kinds = {found[1] for text in sources for found in re.finditer(r'\] = Registry\("(\w+)"', text)}
    assert len(kinds) >= 7
    assert all(f"`{kind}`" in page for kind in kinds)
    assert Registry.__call__.__doc__


def test_the_template_is_one() -> None:
    from latentdrift.data import PromptTemplate

    block = next(block for block in of("text") if block.text.startswith("an MRI of a(n)"))
    assert PromptTemplate(block.text.strip()).caption({"diagnosis": "AD", "sex": "F"}).startswith("an MRI of an ")


def test_the_citation_is_that_of_the_paper() -> None:
    block = next(iter(of("bibtex")))
    title = re.search(r"title += \{(.+)\}", block.text)
    assert title is not None
    assert title[1] in (ROOT / "CITATION.cff").read_text()


def test_what_is_made_smaller_is_on_a_page() -> None:
    told = {" ".join(words[1:3]) for block in of("bash") for words in commands(block)} | {
        words[1] for block in of("bash") for words in commands(block)
    }
    assert set(SMALLER) <= told


# The full part


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.doc_standins import shelf as make

    return make(tmp_path_factory.mktemp("shelf"))


class Workplace:
    """A folder in which a page's blocks run in order, where names of the page appear when they are first used."""

    def __init__(self, folder: Path, shelf: Path) -> None:
        from tests.doc_standins import makers

        self.folder, self.makers = folder, makers(shelf)
        self.names: dict[str, Any] = {"__name__": "page"}

    def provide(self, words: list[str]) -> None:
        for place, word in enumerate(words):
            for value in {word, word.partition("=")[0]}:
                for name, make in self.makers.items():
                    used = value == name or value.startswith(name + "/")
                    if used and (place == 0 or words[place - 1] != "--out") and not (self.folder / name).exists():
                        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                        make(self.folder / name)

    def run_command(self, words: list[str]) -> None:
        words = smaller(words)
        self.provide(words)
        quiet = [] if words[1] in ("completion", "info", "verify") else ["--quiet"]
        assert main([*words[1:], *quiet]) == 0, " ".join(words)

    def run_module(self, words: list[str]) -> None:
        """Run the `main` of `python -m MODULE`, with stars as a shell reads them."""
        self.provide(words)
        found = [sorted(str(path) for path in Path().glob(word)) if "*" in word else [word] for word in words[3:]]
        assert all(found), words
        importlib.import_module(words[2]).main([word for part in found for word in part])

    def run_python(self, code: str) -> None:
        strings = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
        self.provide([text for text in strings if isinstance(text, str)])
        code = re.sub(r"steps=\d+", "steps=2", code).replace("evaluations=8", "evaluations=5")
        code = re.sub(r"subjects=\d+, visits=3", "subjects=4, visits=3", code).replace("workers=4", "workers=1")
        if "pipe)" in code and "pipe" not in self.names:
            from latentdrift import load_pipeline

            self.names["pipe"] = load_pipeline("tiny", drift=None)
        if "(images)" in code and "images" not in self.names:
            import torch

            self.names["images"] = torch.zeros(2, 3, 64, 64)
        code = code.replace('__name__ == "__main__"', "True")
        exec(compile(code, "page", "exec", dont_inherit=True), self.names)


PAGES = sorted({block.page for block in of("bash", "python")})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page: str, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Workplace(tmp_path, shelf)
    before = registered()
    ran = skipped = 0
    try:
        for block in BLOCKS:
            if block.page != page or block.language not in ("bash", "python"):
                continue
            if block.language == "python":
                if any(start in block.text for start in LISTED if start.startswith(("from ", "load_"))):
                    skipped += 1
                    continue
                place.run_python(block.text)
                ran += 1
                continue
            for words, line in lines(block):
                if words[0] == "latentdrift" and listed(line) is None:
                    place.run_command(words)
                    ran += 1
                elif words[:2] == ["python", "-m"] and listed(line) is None:
                    place.run_module(words)
                    ran += 1
                else:
                    assert listed(line) or words[0] == "make", line
                    skipped += 1
    finally:
        for registry, names in before:
            for name in set(registry._items) - names:
                registry._items.pop(name)
    assert ran + skipped


def registered() -> list[tuple[Registry[Any], set[str]]]:
    """Return the registries to which pages add examples, and what is in them."""
    from latentdrift.edit.editor import editor
    from latentdrift.evaluate import feature_extractor
    from latentdrift.finetune import finetune_method

    found: list[Registry[Any]] = [editor, feature_extractor, finetune_method]
    return [(registry, set(registry.names())) for registry in found]
