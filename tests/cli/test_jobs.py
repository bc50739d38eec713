"""The commands of jobs, with the bundled model: what they tell, and how they end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from PIL import Image

from helpers.jobs.places import files_below, until
from segrefiner.cli.main import main

PHOTOS = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(PHOTOS):
        for kind in ("images", "masks"):
            (tmp_path / kind / "deep").mkdir(parents=True, exist_ok=True)
        name = f"deep/{index}.png" if index % 2 else f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (40, 50 + index, 3), np.uint8)).save(tmp_path / "images" / name)
        mask = np.zeros((40, 50 + index), np.uint8)
        mask[10:30, 15 : 30 + index] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    return tmp_path


def arguments(photos: Path, *options: object, output: str = "out") -> list[str]:
    given = ["folder", photos / "images", photos / "masks", "-o", photos / output, *options]
    return list(map(str, given))


def ended(photos: Path, *options: object, output: str = "out") -> Result:
    return CliRunner().invoke(main, arguments(photos, "--workers", 0, *options, output=output))


def test_the_command_tells_what_it_did(photos: Path) -> None:
    (photos / "masks" / "0.png").write_bytes(b"nonsense")
    (photos / "masks" / "2.png").unlink()
    dry = ended(photos, "--dry-run")
    assert dry.exit_code == 0 and "would do 11" in dry.stdout and "cannot: 2.png: no mask" in dry.stdout
    assert not (photos / "out").exists()
    first = ended(photos)
    assert first.exit_code == 3, first.output
    assert first.stdout.count("\n") == 1 and "10 done, 2 failed" in first.stdout and "failures.jsonl" in first.stdout
    assert "2.png: no mask" in first.stderr and "0.png" in first.stderr
    assert len(files_below(photos / "out")) == 10 and (photos / "out" / "deep" / "3.png").is_file()
    assert "would do 1:\n  0.png" in ended(photos, "--dry-run").stdout
    assert "would do 11" in ended(photos, "--dry-run", "--seed", 1).stdout
    stopped = ended(photos, "--max-failures", 0)
    assert stopped.exit_code == 3 and "more than 0 failed: run the same command" in stopped.stdout


def test_a_lock_is_told_in_one_line_and_a_bad_manifest_in_a_note(photos: Path) -> None:
    state = photos / "out" / ".segrefiner"
    state.mkdir(parents=True)
    with FileLock(state / "lock"):
        locked = ended(photos)
    assert locked.exit_code == 1 and locked.stderr.count("\n") == 1 and "in use by another run" in locked.stderr
    (state / "manifest.jsonl").write_text("nonsense\n")
    result = ended(photos)
    assert result.exit_code == 0 and "1 notes" in result.stdout and "a damaged line" in result.stderr


def test_what_is_left_out_is_told_in_words_as_json_and_in_the_exit_code(photos: Path) -> None:
    (photos / "masks" / "0.png").rename(photos / "masks" / "other.png")
    (photos / "images" / "0.png").unlink()
    os.mkfifo(photos / "images" / "pipe.png")
    (photos / "images" / "gone.png").symlink_to("nowhere")
    for name in ("2.png", "4.png"):
        Image.new("L", (50 + int(name[0]), 40)).save(photos / "masks" / name)
    unpaired = {str(photos / "masks" / "other.png"): f"no photo in {photos / 'images'} for it"}
    listed = {str(photos / "images" / "pipe.png"): "a pipe, socket or device",
              str(photos / "images" / "gone.png"): "a link to nowhere"}  # fmt: skip
    dry = ended(photos, "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert dry.exit_code == 0 and "would do 11" in dry.stderr and len(told["would_do"]) == told["not_tried"] == 11
    assert {row["name"]: row["reason"] for row in told["left_out_names"]} == unpaired | listed
    assert ended(photos, "--dry-run", "--strict").exit_code == 3 and not (photos / "out").exists()
    for done, skipped in ((9, 0), (0, 9)):
        result = ended(photos, "--json")
        told = json.loads(result.stdout)
        assert result.exit_code == 0 and "left out" in result.stderr
        assert (told["done"], told["skipped"], told["failed"], told["left_out"]) == (done, skipped, 0, 5)
        empty = "the mask is empty: returned as it is"
        assert {row["name"]: row["reason"] for row in told["left_out_names"]} == unpaired | listed | {
            "2.png": empty, "4.png": empty
        }  # fmt: skip
        assert told["left_out_reasons"][empty] == 2 and sum(told["left_out_reasons"].values()) == 5
    strict = ended(photos, "--strict")
    assert strict.exit_code == 3 and "5 left out" in strict.stdout and "such as 2.png" in strict.stderr


def test_a_job_that_does_nothing_says_so(photos: Path) -> None:
    for path in (photos / "masks").rglob("*.png"):
        Image.new("L", (50 + int(path.stem), 40)).save(path)
    result = ended(photos)
    assert result.exit_code == 0 and "0 done, 12 left out" in result.stdout
    assert "nothing was refined" in result.stdout and "the mask is empty" in result.stderr


@pytest.mark.slow
def test_the_command_ends_when_it_is_told_to_and_goes_on(photos: Path) -> None:
    code = [sys.executable, "-c", "from segrefiner.cli.main import main; main()"]
    manifest = photos / "out" / ".segrefiner" / "manifest.jsonl"
    with subprocess.Popen(code + arguments(photos), stdout=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: manifest.exists() and manifest.stat().st_size > 0)
            process.terminate()
            stdout = process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM and "stopped: run the same command to go on" in stdout
    before = len(manifest.read_text().splitlines())
    assert 1 <= before < PHOTOS
    rest = ended(photos)
    assert rest.exit_code == 0 and f"{PHOTOS - before} done, {before} done before of {PHOTOS}" in rest.stdout
    assert ended(photos, output="whole").exit_code == 0
    assert files_below(photos / "out") == files_below(photos / "whole")
