"""The tree of exceptions: what catches what, and that errors survive a trip between processes."""

import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from segrefiner import errors
from segrefiner.cli.main import main

EVERY = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("error", [error for error in EVERY if not issubclass(error, Warning)])
def test_one_except_catches_everything(error: type[Exception]) -> None:
    assert issubclass(error, errors.SegRefinerError)


@pytest.mark.parametrize("error", EVERY)
def test_the_tree_in_the_docstring_is_complete(error: type[Exception]) -> None:
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.SizeMismatchError, errors.MaskError),
        (errors.MaskError, ValueError),
        (errors.ImageError, ValueError),
        (errors.OutputError, OSError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_errors_are_also_what_python_programmers_expect(error: type, builtin: type) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", EVERY)
def test_errors_survive_pickling(error: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error("photo 'a.png' is empty")))
    assert type(copy) is error
    assert str(copy) == "photo 'a.png' is empty"


def test_a_missing_extra_says_what_to_install() -> None:
    error = errors.MissingExtraError.needed_by("the web demo", package="gradio", extra="app")
    message = str(error)
    assert "\n" not in message
    assert message.startswith("the web demo needs the package 'gradio'")
    assert 'pip install "segrefiner[app]"' in message
    assert str(pickle.loads(pickle.dumps(error))) == message


HOSTILE = "\x1b]0;stolen\x07\x9b31m\r\n\u202e\udc80name"


def test_what_a_terminal_would_obey_is_escaped_in_every_message() -> None:
    for kind in EVERY:
        told = str(kind(f"tensor {HOSTILE} is wrong"))
        assert told.isprintable() and "stolen" in told and "\\x1b" in told
        assert str(pickle.loads(pickle.dumps(kind(HOSTILE)))) == str(kind(HOSTILE))
    assert (
        str(errors.InputError("photo 'café 写真 🐱.jpg' does not exist")) == "photo 'café 写真 🐱.jpg' does not exist"
    )


def test_long_messages_keep_their_beginning_and_end() -> None:
    for kind in EVERY:
        told = str(kind(f"photo {'a' * 100_000} is absent; check the path"))
        assert len(told) < 2000 and told.startswith("photo aaa") and told.endswith("aaa is absent; check the path")
        assert str(pickle.loads(pickle.dumps(kind(told)))) == told


def test_the_command_line_prints_no_foreign_letters_as_they_are(tmp_path: Path) -> None:
    name = str(tmp_path / "\x1b]0;stolen\x07.png")
    Path(name).write_bytes(b"no picture")
    result = CliRunner().invoke(main, ["refine", name, name, "-o", str(tmp_path / "out.png")])
    assert result.exit_code == 1 and "\x1b" not in result.stderr and "stolen" in result.stderr
    assert result.stderr.count("\n") == 1
