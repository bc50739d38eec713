"""What is said at which level, by every command; completion scripts; environment variables."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from helpers.refinable import photo_mask_and_weights
from segrefiner import Refiner, environment
from segrefiner.cli.main import main
from segrefiner.errors import CheckpointError, InputError
from segrefiner.model import cache, hub
from segrefiner.model.backends import choose_device
from segrefiner.model.weights import resolve
from segrefiner.refinement.report import Report


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A photo of ten bits in sixteen, of which a note tells, its mask, and weights."""
    rng = np.random.default_rng(0)
    return photo_mask_and_weights(tmp_path, rng.integers(0, 1000, (60, 80)).astype(np.uint16))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refine(files: Path, *options: object) -> Result:
    paths = (files / "photo.png", files / "mask.png", "-o", files / "out.png")
    return run("refine", *paths, "--model", files / "tiny.safetensors", "--steps", 1, *options)


def commands(group: click.Group, names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found.append((*names, name))
        found += commands(command, (*names, name)) if isinstance(command, click.Group) else []
    return found


@pytest.mark.parametrize("names", commands(main), ids=" ".join)
def test_every_command_may_say_more_or_less(names: tuple[str, ...]) -> None:
    help_text = run(*names, "--help").output
    assert "--verbose" in help_text and "--quiet" in help_text


def test_levels(files: Path) -> None:
    usual, quiet, loud = refine(files), refine(files, "-q"), refine(files, "-v")
    assert [result.exit_code for result in (usual, quiet, loud)] == [0, 0, 0]
    assert "note: " in usual.stdout and not usual.stderr
    assert not quiet.output
    assert loud.stdout.split(" s (")[0].split("gain")[0] == usual.stdout.split(" s (")[0].split("gain")[0]
    assert "read image" in loud.stderr and "computes on cpu" in loud.stderr and "wrote " in loud.stderr
    assert all(line.startswith("segrefiner: ") for line in loud.stderr.splitlines())


def test_errors_are_told_at_every_level_and_where_they_arose_at_the_last(files: Path) -> None:
    (files / "mask.png").unlink()
    for options, lines in ((("-q",), 1), ((), 1), (("-v",), 1)):
        result = refine(files, *options)
        assert result.exit_code == 1 and result.stderr.count("\n") == lines and "does not exist" in result.stderr
    assert "Traceback" in refine(files, "-vv").stderr


def test_the_wish_may_stand_before_the_command_but_not_contradict_itself(files: Path) -> None:
    paths = (
        files / "photo.png",
        files / "mask.png",
        "-o",
        files / "out.png",
        "--model",
        files / "tiny.safetensors",
        "--steps",
        1,
    )
    assert not run("-q", "refine", *paths).output
    assert run("-q", "refine", "-v", *paths).exit_code == 2
    assert logging.getLogger("segrefiner").level == logging.NOTSET
    assert not logging.getLogger("segrefiner").handlers


def test_a_quiet_job_that_did_nothing_says_so(files: Path) -> None:
    for name in ("images", "masks"):
        (files / name).mkdir()
    (files / "photo.png").rename(files / "images" / "a.png")
    Image.new("1", (80, 60)).save(files / "masks" / "a.png")
    given = ("folder", files / "images", files / "masks", "-o", files / "out", "--workers", 0)
    result = run(*given, "--model", files / "tiny.safetensors", "-q")
    assert result.exit_code == 0 and "nothing was refined" in result.stderr and not result.stdout


def test_the_report_as_json(files: Path) -> None:
    result = refine(files, "--json", "--overlay", files / "o.webp")
    document = json.loads(result.stdout)
    assert set(Report.__dataclass_fields__) | {"output", "cutout", "overlay", "exit_code"} == set(document)
    assert document["overlay"] == str(files / "o.webp") and document["cutout"] is None
    assert document["steps"] == 1 and document["model"].endswith("tiny.safetensors")
    assert len(document["warnings"]) == 1 and not result.stderr
    table = (Path(__file__).parents[3] / "docs" / "command_line.md").read_text()
    assert all(f"| `{name}` |" in table for name in document), "a field is not documented"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    environ = os.environ | {"_SEGREFINER_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-m", "segrefiner"], env=environ, capture_output=True, text=True, check=True)
    assert "_SEGREFINER_COMPLETE" in done.stdout and not done.stderr


def test_words_and_files_are_completed() -> None:
    def completed(words: str) -> str:
        given = {
            "_SEGREFINER_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        return CliRunner(env=given).invoke(main, prog_name="segrefiner").output

    assert "refine" in completed("segrefiner refi") and "--overlay" in completed("segrefiner refine --ov")
    assert "file," in completed("segrefiner refine ph")


# The environment


def test_the_device_of_the_environment_is_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("SEGREFINER_DEVICE", "cuda:1")
    assert choose_device("auto") == torch.device("cuda:1") and choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("SEGREFINER_DEVICE", "cpu")
    assert choose_device("auto") == torch.device("cpu") and choose_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("SEGREFINER_DEVICE", "cuda:7")
    with pytest.raises(InputError, match="SEGREFINER_DEVICE is 'cuda:7'"):
        choose_device("auto")


def test_threads_of_the_environment(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setenv("SEGREFINER_THREADS", "3")
    Refiner.from_pretrained(files / "tiny.safetensors")
    assert used == [3]


def test_the_cache_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGREFINER_CACHE", str(tmp_path / "new"))
    assert cache.cache_folder() == tmp_path / "new" and hub.cache_folder() == tmp_path / "new" / "hub"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEGREFINER_CACHE", "~/mine")
    assert cache.cache_folder() == tmp_path / "mine"


@pytest.mark.parametrize("name", ["https://example.invalid/a.safetensors", "owner/name"])
def test_offline_nothing_is_asked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGREFINER_OFFLINE", "1")
    monkeypatch.setenv("SEGREFINER_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="SEGREFINER_OFFLINE is on"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("SEGREFINER_DEVICE", ["gpu", "cuda:x", "cuda:-1", "meta", "cpu,cuda"]),
        ("SEGREFINER_OFFLINE", ["maybe", "2", "\x1b[31m"]),
        ("SEGREFINER_THREADS", ["0", "-1", "many", "1.5", "9" * 5000, "\u0663"]),
        ("SEGREFINER_CACHE", [__file__]),
    ],
)
def test_a_wrong_value_is_one_line(name: str, values: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for value in values:
        monkeypatch.setenv(name, value)
        result = run("models", "path")
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"segrefiner: {name} is ")


@pytest.mark.parametrize("name", [environment.CACHE, environment.DEVICE, environment.OFFLINE, environment.THREADS])
def test_an_empty_variable_says_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    environment.check()
    assert environment.device() == "auto" and not environment.is_offline()
    assert environment.threads() is None and environment.cache_folder() is None


def test_all_variables_are_documented() -> None:
    root = Path(__file__).parents[3]
    table = (root / "docs" / "command_line.md").read_text()
    assert all(f"| `{name}` |" in table for name in (environment.CACHE, environment.DEVICE, environment.OFFLINE))
    assert f"| `{environment.THREADS}` |" in table
