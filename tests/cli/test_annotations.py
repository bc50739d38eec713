"""The command for annotation files: exit codes, what it says, and what it would do."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from helpers.annotated import EVERY, coco, files_of, labelme, yolo
from helpers.tiny import TINY
from segrefiner.cli.annotations import _FORMATS
from segrefiner.cli.main import main
from segrefiner.formats.recognition import FORMATS
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    return tmp_path


def command(place: Path, *arguments: object) -> Result:
    quick = ["--model", place / "tiny.safetensors", "--dtype", "fp32", "--steps", 1, "--workers", 0, "--strength", 0]
    return CliRunner().invoke(main, ["annotations", *map(str, arguments), *map(str, quick)])


def test_formats_are_those_that_can_be_written() -> None:
    assert _FORMATS == FORMATS


def test_a_file_and_its_rerun(place: Path) -> None:
    source, target = coco(place), place / "out.json"
    plan = command(place, source, "-o", target, "--dry-run")
    assert plan.exit_code == 0 and "would do 2" in plan.output and not target.exists()
    result = command(place, source, place / "images", "-o", target, "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, said["done"], said["failed"], said["left_out"]) == (0, 2, 0, 0)
    assert target.read_bytes() == source.read_bytes()
    assert (place / "out.json.segrefiner" / "manifest.jsonl").is_file()
    again = json.loads(command(place, source, "-o", target, "--json").stdout)
    assert (again["done"], again["skipped"]) == (0, 2)


def test_a_folder_to_a_folder(place: Path) -> None:
    source, target = labelme(place), place / "out"
    result = command(place, source, "-o", target, "--strict")
    # The rectangle stays, which is said.
    assert result.exit_code == 3 and "a rectangle, which stays as it is" in result.stderr
    assert command(place, source, "-o", target).exit_code == 0
    assert files_of(target) == files_of(source)
    assert (target / ".segrefiner" / "manifest.jsonl").is_file()


@pytest.mark.parametrize("name", EVERY)
def test_all_formats_become_coco_and_yolo(name: str, place: Path) -> None:
    source = EVERY[name](place)
    for to, target in (("coco", place / "new" / "coco.json"), ("yolo", place / "new" / "yolo")):
        result = command(place, source, "-o", target, "--to", to)
        assert result.exit_code == 0, result.output
        assert target.exists()


def test_a_failure_is_the_exit_status(place: Path) -> None:
    source = yolo(place)
    (source / "images" / "val" / "b.png").unlink()
    result = command(place, source, "-o", place / "out")
    assert result.exit_code == 3 and "there is no photo 'images/val/b.jpg'" in result.stderr
    assert files_of(place / "out") == files_of(source)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--as", "rle", "--to", "yolo"), "yolo holds polygons alone"),
        (("--to", "coco", "nowhere"), "nowhere is no folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_status_one(place: Path, arguments: tuple[str, ...], said: str) -> None:
    source = coco(place)
    result = command(place, source, "-o", place / "out", *arguments)
    assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1
