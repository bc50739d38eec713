"""What the documentation tells people to do can be done: its Python runs, its commands are ones that there are.

Blocks of the README, the start page, the questions and `docs/howto/` run, in order, in a folder that holds the bundled
examples under the names that the pages use: their Python, and of their shell the `segrefiner` commands. All other
pages' commands are read by the real command line. A block that cannot run here has its reason in a comment before it,
`<!-- not run: needs a cluster -->`, a page of such commands one below its title.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from helpers.command_lines import commands, parse
from segrefiner.cli.main import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CARD = "src/segrefiner/model/bundled/README.md"  # `segrefiner models card` prints it, comments and all
EXECUTED = [
    "README.md",
    "docs/index.md",
    "docs/faq.md",
    *sorted(str(p.relative_to(ROOT)) for p in DOCS.glob("howto/*.md")),
]
PAGES = sorted(
    {"README.md", "CONTRIBUTING.md", CARD, *EXECUTED} | {str(p.relative_to(ROOT)) for p in DOCS.glob("*.md")}
)
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SHELL = ("sh", "bash", "console")
PAGE_S_REASON = re.compile(r"\A# [^\n]+\n\n<!-- commands of this page are not run: [^\n]{10,} -->\n")

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="not in the source archive")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: what it is, its text, and why it is not run, if it is not."""

    kind: str
    text: str
    reason: str | None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(one["kind"], one["text"], one["reason"]) for one in FENCE.finditer(text)]


@pytest.fixture
def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are read as if the files that they name were there."""

    def convert(self: click.Path, value: Any, *_: Any) -> Any:
        return self.coerce_path_result(value)

    monkeypatch.setattr(click.Path, "convert", convert)


def test_there_is_a_page_for_everything_that_people_start_from() -> None:
    for name in (
        "index",
        "faq",
        "licences",
        "api",
        "equations",
        "method",
        "results",
        "performance",
        "experiments",
        "serve",
        "cluster",
        "training",
    ):
        assert (DOCS / f"{name}.md").exists(), name
    assert len(EXECUTED) >= 9


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("without_files")
def test_every_command_is_one_that_the_command_line_knows(page: str) -> None:
    for block in blocks(page):
        if block.kind in SHELL and block.reason != "changes the shell":
            for words in commands(block.text):
                if "…" not in words and words[-1:] != ["…"]:
                    parse(words)


@pytest.mark.parametrize("page", sorted({*PAGES} - {CARD}))
def test_every_command_is_run_or_says_why_not(page: str) -> None:
    told = PAGE_S_REASON.match((ROOT / page).read_text(encoding="utf-8"))
    assert not (told and page in EXECUTED)
    for block in blocks(page):
        assert block.kind not in SHELL or page in EXECUTED or told or block.reason, f"{page}: {block.text[:60]}"


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_is_python_and_runs_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        if block.kind == "python":
            compile(block.text, page, "exec")
            assert page in EXECUTED or page == "CONTRIBUTING.md" or block.reason, f"{page}: {block.text[:60]}"


def test_the_collector_would_find_a_wrong_command() -> None:
    found = list(
        commands("segrefiner refine a.jpg b.png \\\n  --soft -o c.png && torchrun -m segrefiner train D -o R  # why\n")
    )
    assert found == [["refine", "a.jpg", "b.png", "--soft", "-o", "c.png"], ["train", "D", "-o", "R"]]
    with pytest.raises(click.UsageError):
        parse(["refine", "a.jpg", "b.png", "--no-such-option", "-o", "c.png"])
    with pytest.raises((click.UsageError, AssertionError)):
        parse(["no-such-command"])


def _examples_under_the_pages_names(folder: Path) -> None:
    """Lays out what the pages speak of, made of the bundled person and car."""
    examples = ROOT / "examples"
    person, mask = examples / "person.jpg", examples / "person_coarse.png"

    def lay(source: Path, *names: str) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)

    lay(
        person,
        "examples/person.jpg",
        "person.jpg",
        "photo.jpg",
        "photos/person.jpg",
        "frames/000.jpg",
        "frames/001.jpg",
        "my_photos/images/person.jpg",
    )
    lay(
        mask,
        "examples/person_coarse.png",
        "person_coarse.png",
        "coarse.png",
        "sam_0.png",
        "sam_1.png",
        "masks/person.png",
        "masks_by_name/person_1.png",
    )
    lay(mask, "truth/person.png", "frame_masks/000.png", "frame_masks/001.png", "my_photos/masks/person.png")
    Image.open(person).save(folder / "scan.tif")
    lay(mask, "scan_coarse.png")
    coarse = np.asarray(Image.open(mask).convert("L")) > 127
    Image.fromarray(np.where(coarse, 200, 20).astype(np.uint8)).save(folder / "probabilities.png")
    (folder / "labels").mkdir()
    Image.fromarray(coarse.astype(np.uint8)).save(folder / "labels/person.png")
    _panoptic(folder, coarse)


def _panoptic(folder: Path, coarse: np.ndarray) -> None:
    height, width = coarse.shape
    (folder / "maps").mkdir()
    colours = np.zeros((height, width, 3), np.uint8)
    colours[..., 0] = np.where(coarse, 1, 2)
    Image.fromarray(colours).save(folder / "maps/person.png")
    segments = [
        {
            "id": i,
            "category_id": i,
            "iscrowd": 0,
            "area": int((colours[..., 0] == i).sum()),
            "bbox": [0, 0, width, height],
        }
        for i in (1, 2)
    ]
    document = {
        "images": [{"id": 1, "file_name": "person.jpg", "height": height, "width": width}],
        "annotations": [{"image_id": 1, "file_name": "person.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 2, "name": "ground", "isthing": 0}],
    }
    (folder / "panoptic.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_what_the_pages_show_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _examples_under_the_pages_names(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.reason is not None:
            continue
        if block.kind == "python":
            exec(compile(block.text, page, "exec"), names)
        elif block.kind == "sh":
            for words in commands(block.text):
                result = CliRunner().invoke(main, words)
                assert result.exit_code == 0, f"{words}: {result.output}"
