"""Pictures through pipes: nothing but the picture on standard output, and one line where it cannot be."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from helpers.refinable import photo_mask_and_weights
from segrefiner.cli.main import main
from segrefiner.cli.shared import streams


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return photo_mask_and_weights(tmp_path)


def refine(files: Path, *arguments: object, given: bytes | None = None) -> Result:
    model = ("--model", files / "tiny.safetensors", "--steps", 1)
    return CliRunner().invoke(main, ["refine", *map(str, (*arguments, *model))], input=given)


def test_what_goes_through_pipes_is_what_goes_through_files(files: Path) -> None:
    assert refine(files, files / "photo.png", files / "mask.png", "-o", files / "out.png").exit_code == 0
    wanted = (files / "out.png").read_bytes()
    photo, mask = (files / "photo.png").read_bytes(), (files / "mask.png").read_bytes()
    for image, coarse, given in (("-", files / "mask.png", photo), (files / "photo.png", "-", mask)):
        piped = refine(files, image, coarse, "-o", "-", given=given)
        assert piped.exit_code == 0 and piped.stdout_bytes == wanted
        assert "standard output: " in piped.stderr and piped.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--cutout", "--overlay"])
def test_another_picture_may_go_to_standard_output(files: Path, option: str) -> None:
    given = (files / "photo.png", files / "mask.png", "-o", files / "out.png")
    result = refine(files, *given, option, "-")
    assert result.exit_code == 0
    assert Image.open(io.BytesIO(result.stdout_bytes)).mode == {"--cutout": "RGBA", "--overlay": "RGB"}[option]


def test_with_json_the_report_goes_to_standard_error(files: Path) -> None:
    result = refine(files, files / "photo.png", files / "mask.png", "-o", "-", "--json")
    assert Image.open(io.BytesIO(result.stdout_bytes)).size == (80, 60)
    assert json.loads(result.stderr)["output"] == "-"
    failed = refine(files, files / "none.png", files / "mask.png", "-o", "-", "--json")
    assert failed.exit_code == 1 and not failed.stdout_bytes
    assert json.loads(failed.stderr.splitlines()[-1])["exit_code"] == 1


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("-", "-", "-o", "out.png"), b"x", "IMAGE and MASK are both -"),
        (("-", "mask.png", "-o", "out.png"), b"", "standard input is empty"),
        (("-", "mask.png", "-o", "out.png"), b"no picture", "on standard input"),
        (("photo.png", "-", "-o", "out.png"), b"no picture", "mask on standard input"),
        (("photo.png", "mask.png", "-o", "-", "--cutout", "-"), None, "-o and --cutout are both -"),
        (("photo.png", "mask.png", "-o", "same.png", "--overlay", "./same.png"), None, "are both"),
        (("-", "mask.png", "-o", "out.png", "--windowed"), b"x", "give files in place of -"),
        (("photo.png", "mask.png", "-o", "./photo.png"), None, "would be lost"),
        (("photo.png", "mask.png", "-o", "mask.png"), None, "would be lost"),
        (("photo.png", "mask.png", "-o", "mask.png", "--windowed"), None, "would be lost"),
        (("photo.png", "mask.png", "-o", "out.png", "--overlay", "photo.png"), None, "would be lost"),
        (("-", "mask.png", "-o", "out.png", "--cutout", "mask.png"), b"x", "would be lost"),
    ],
)
def test_what_cannot_go_through_a_pipe_is_one_line(
    files: Path, arguments: tuple[str, ...], given: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    result = refine(files, *arguments, given=given)
    assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1
    assert not result.stdout_bytes and not (files / "out.png").exists()


def test_too_much_on_standard_input_is_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_BYTES", 100)
    result = refine(files, "-", files / "mask.png", "-o", files / "out.png", given=bytes(101))
    assert result.exit_code == 1 and "give a file" in result.stderr


def test_a_file_called_dash_is_a_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    Path("mask.png").rename("-")
    assert refine(files, "photo.png", "./-", "-o", "out.png").exit_code == 0
    assert (files / "out.png").exists()


@pytest.mark.parametrize("command", [["folder", "a", "b", "-o", "-"], ["coco", "-", "a", "-o", "b"]])
def test_other_commands_know_no_pipes(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "give a path" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_broken_pipe_is_quiet(unbuffered: str) -> None:
    code = (
        "import os, sys\nfrom segrefiner.cli.shared.common import exit_on_error\n"
        "from segrefiner.cli.shared.streams import write_standard\nimport click\n"
        "@click.command()\n@exit_on_error\ndef write():\n    write_standard(bytes(1 << 22))\n"
        "write()"
    )
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_all_of_a_large_picture_goes_out(unbuffered: str) -> None:
    code = "from segrefiner.cli.shared.streams import write_standard\nwrite_standard(bytes(1 << 20))"
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, check=True)
    assert len(done.stdout) == 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [
        (["models", "path"], ">&-", 0),
        (["models", "path", "--json"], ">/dev/full", 1),
        (["models", "path", "--json", "none"], ">/dev/full", 1),
        (["refine", "photo.png", "mask.png", "-o", "-"], ">&-", 1),
        (["refine", "-", "mask.png", "-o", "out.png"], "<&-", 1),
        (["models", "path", "none"], "2>&-", 1),
        (["models", "path", "none"], "2>/dev/full", 1),
    ],
)
def test_streams_that_are_closed_or_full_are_no_traceback(
    arguments: list[str], closed: str, code: int, files: Path
) -> None:
    command = shlex.join([sys.executable, "-m", "segrefiner", *arguments])
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=files, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert not done.stdout, "messages never take the place of results"
    assert (code == 0 or closed.startswith("2")) == (not done.stderr)


def test_terminals_get_no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(ValueError, match="nothing is piped in"):
        streams.check_streams({"IMAGE": "-"}, {})
    with pytest.raises(OSError, match="is a terminal"):
        streams.check_streams({}, {"-o": "-"})
