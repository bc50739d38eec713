"""How much a command says: `-v` and `-q`, and where messages of the package go.

| level | what | shown |
|---|---|---|
| ERROR | why something failed | always |
| WARNING | notes: what was guessed, left out or could surprise | without `-q` |
| INFO | what is done, file by file: what was read, which model computes where, what was written | with `-v` |
| DEBUG | how: batches, and where in the code an error arose | with `-vv` |

All of it goes to standard error, one line each. Results go to standard output and are no messages.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ...errors import printable
from .streams import fail_output

if TYPE_CHECKING:
    from rich.console import Console

_PACKAGE = "segrefiner"
_KEY = "segrefiner.verbosity"
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_log, _package = logging.getLogger(__name__), logging.getLogger(_PACKAGE)
_HINT = "Say more: what is read, computed and written; -vv for how."


def say(text: str, *, err: bool = False) -> None:
    """Print lines, with escapes for what the terminal would obey, or its encoding lacks.

    Args:
        text: The lines. Where the stream is closed they are for nobody.
        err: Whether they go to standard error.

    Raises:
        OutputError: Standard output cannot be written.
        BrokenPipeError: Nobody reads it any more.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return
    try:
        click.echo("\n".join(_encodable(line, stream.encoding) for line in text.split("\n")), err=err)
    except OSError as error:
        if not err:
            fail_output(error)


def _encodable(line: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return printable(line).encode(encoding, "backslashreplace").decode(encoding)


def conclude(text: str, *, err: bool = False) -> None:
    """Print what a command has done, unless its user wants to hear of errors alone."""
    if not is_quiet():
        say(text, err=err)


def note(text: str) -> None:
    """Tell, on standard error, what was guessed or could surprise, unless errors alone are wanted."""
    _log.warning("note: %s", text)


def is_quiet() -> bool:
    """Whether errors alone are wanted: `-q`."""
    return not _package.isEnabledFor(logging.WARNING)


def is_watched(console: "Console") -> bool:
    """Whether somebody looks at a terminal and wants to see progress."""
    return console.is_terminal and not is_quiet()


def add_verbosity(command: click.Command) -> None:
    """Give a command, and all commands below it, the options `-v` and `-q`."""
    command.params += [
        click.Option(["-v", "--verbose"], count=True, expose_value=False, callback=_louder, help=_HINT),
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_quieter, help="Say errors alone."),
    ]
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        add_verbosity(inner)


def _louder(ctx: click.Context, _: click.Parameter, value: int) -> None:
    _change(ctx, value)


def _quieter(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    _change(ctx, -int(value))


def _change(ctx: click.Context, by: int) -> None:
    """Enter a wish; `-v` and `-q` may stand before and after the command's name, but not both."""
    so_far = ctx.meta.get(_KEY, 0)
    if by * so_far < 0:
        raise click.UsageError("-v and -q ask for opposite things: leave one of them out", ctx)
    ctx.meta[_KEY] = so_far + by


@contextmanager
def messages() -> Iterator[None]:
    """Show the package's log on standard error while a command runs, as far as its user wants it."""
    context = click.get_current_context(silent=True)
    wish = context.meta.get(_KEY, 0) if context else 0
    handler, before = _Lines(), _package.level
    _package.addHandler(handler)
    _package.setLevel(_LEVELS[max(-1, min(2, wish)) + 1])
    try:
        yield
    finally:
        _package.removeHandler(handler)
        _package.setLevel(before)


class _Lines(logging.Handler):
    """Prints records on standard error, each line after the program's name."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one; nobody who reads is no reason to fail."""
        if sys.stderr is None:  # print() would take standard output in its place.
            return
        try:
            text = record.getMessage()
            if record.exc_info and _package.isEnabledFor(logging.DEBUG):
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            for line in text.split("\n"):
                # Not click.echo: a progress bar catches what goes to sys.stderr and keeps out of its way.
                print(_encodable(f"{_PACKAGE}: {line}", sys.stderr.encoding), file=sys.stderr, flush=True)
        except OSError:
            pass
