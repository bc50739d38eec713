"""Standard input and output in place of files: the argument `-`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from ...errors import InputError, OutputError, reason

STANDARD: Literal["-"] = "-"
"""What stands for standard input or output; a file of that name is written `./-`."""

MOST_BYTES = 1 << 30
"""Of a picture on standard input."""


class FileOrStream(click.Path):
    """A path, as `Path`; or `STANDARD`, as that text. Shells complete it as they complete paths."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """Tell `-` from a file of that name before a `Path` forgets the difference."""
        return STANDARD if value == STANDARD else Path(str(super().convert(value, param, ctx)))


class FilePath(click.Path):
    """A path, as `Path`, for commands that read and write files alone: for them `-` is a slip."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse `-`; a file or folder of that name is written `./-`."""
        if value == STANDARD:
            self.fail("- is standard input or output, which `refine` alone reads and writes: give a path.", param, ctx)
        return super().convert(value, param, ctx)


def takes_standard_output(given: Mapping[str, object]) -> bool:
    """Whether, of a command's arguments, one sends a picture to standard output."""
    return STANDARD in (given.get("output"), given.get("cutout"), given.get("overlay"))


def check_streams(inputs: Mapping[str, object], outputs: Mapping[str, object]) -> None:
    """Check that standard input and output are asked for once at most, and lead somewhere; and that no file is lost.

    Args:
        inputs: What may come from standard input, by its name on the command line.
        outputs: What may go to standard output, likewise.

    Raises:
        InputError: Two inputs are `-`, or it is a terminal.
        OutputError: The same of outputs, or standard output is closed, or an output is the file of another or an input.
    """
    reading = [name for name, given in inputs.items() if given == STANDARD]
    writing = [name for name, given in outputs.items() if given == STANDARD]
    if len(reading) > 1:
        raise InputError(f"{' and '.join(reading)} are both -, but standard input has one picture: give one as a file")
    if len(writing) > 1:
        raise OutputError(f"{' and '.join(writing)} are both -, but standard output takes one: give a file for another")
    files = {name: given for name, given in outputs.items() if isinstance(given, Path)}
    read = {name: given for name, given in inputs.items() if isinstance(given, Path)}
    for name, path in files.items():
        if twice := [other for other, taken in files.items() if other != name and _is_same(taken, path)]:
            raise OutputError(f"{name} and {twice[0]} are both {str(path)!r}: give each a file of its own")
        if lost := [other for other, taken in read.items() if _is_same(taken, path)]:
            raise OutputError(f"{name} is {str(path)!r}, which is {lost[0]} and would be lost: choose another name")
    if reading and sys.stdin is not None and sys.stdin.isatty():
        raise InputError(f"{reading[0]} is -, but nothing is piped in: write cat FILE | segrefiner …, or give the file")
    if writing and sys.stdout is None:
        raise OutputError(f"{writing[0]} is -, but standard output is closed: send it into a file or a pipe")
    if writing and sys.stdout.isatty():
        raise OutputError(f"{writing[0]} is -, but standard output is a terminal: send it into a file or a pipe")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, there or not; a link leads where it points."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # One of them is not there.
        return os.path.realpath(one) == os.path.realpath(other)


def read_standard(name: str) -> bytes:
    """All of standard input.

    Args:
        name: What is read, for messages.

    Raises:
        InputError: There is nothing, or too much, or it cannot be read.
    """
    try:
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
    except (OSError, ValueError, AttributeError) as error:  # Without a console there is none.
        raise InputError(f"{name}: standard input cannot be read ({reason(error)}): give a file") from error
    if not content:
        raise InputError(f"{name} is -, but standard input is empty: did the command before the pipe fail?")
    if len(content) > MOST_BYTES:
        raise InputError(f"{name}: standard input has more than {MOST_BYTES >> 20} MiB: give a file")
    return content


def write_standard(content: bytes) -> None:
    """Write to standard output, whole; where nobody reads any more, `BrokenPipeError` ends the command quietly."""
    stream = sys.stdout.buffer
    left = memoryview(content)
    try:
        while left:
            # A stream without a buffer, as PYTHONUNBUFFERED makes it, writes what the pipe takes.
            left = left[stream.write(left) or 0 :]
        stream.flush()
    except OSError as error:
        fail_output(error)


def fail_output(error: OSError) -> NoReturn:
    """Raise `OutputError` where standard output cannot be written, or `BrokenPipeError` where nobody reads any more.

    What is still buffered leads nowhere then: Python would try, and complain, once more when it ends.
    """
    _forget_standard_output()
    if isinstance(error, BrokenPipeError):
        raise error
    raise OutputError(f"standard output cannot be written ({reason(error)}): write to a file") from error


def _forget_standard_output() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # No file stands behind it.
    finally:
        os.close(nowhere)
