"""What the commands of the command line share."""

import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, TypeVar

import click

from ... import environment
from ...errors import InputWarning, SegRefinerError, printable
from .messages import is_watched, messages, note, say
from .streams import takes_standard_output

T = TypeVar("T")

FAILED = 3
"""Exit status when some items failed."""


SEED = click.IntRange(0, 2**63 - 1)

device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")

_log = logging.getLogger(__name__)


class FiniteRange(click.FloatRange):
    """Numbers in a range, by default all, without NaN and infinity, which comparisons let through."""

    name = "finite range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; fails for what is none."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def ignored_labels(given: Sequence[str]) -> list[int] | None:
    """The labels of `--ignore`; `None` where it is not given, none of them for the word none."""
    if not all(value.isdecimal() or value == "none" for value in given):
        raise click.BadParameter(f"{', '.join(given)}: expected whole numbers, or none", param_hint="--ignore")
    return [int(value) for value in given if value != "none"] if given else None


def exit_on_error(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command tell its user what is wrong in one line, and exit with 1; with `--json` also as an object."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with messages():
            try:
                environment.check()
                with _notes_in_one_line():
                    command(*args, **kwargs)
            except BrokenPipeError:
                raise  # Nobody reads any more: click ends quietly.
            except (SegRefinerError, OSError) as error:
                told = printable(str(error))
                _log.error("%s", told)
                _log.debug("where it arose:", exc_info=True)
                if kwargs.get("as_json"):
                    # Standard output may be promised to a picture.
                    document = json.dumps({"error": told, "exit_code": 1}, allow_nan=False)
                    with suppress(SegRefinerError):  # Standard output may be what is broken.
                        say(document, err=takes_standard_output(kwargs))
                sys.exit(1)

    return wrapped


@contextmanager
def _notes_in_one_line() -> Iterator[None]:
    """Show each `InputWarning` once, as a line of its own."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any, **named: Any
        ) -> None:
            if issubclass(category, InputWarning):
                note(printable(str(message)))
            else:
                others(message, category, filename, lineno, *more, **named)

        warnings.simplefilter("default", InputWarning)
        warnings.showwarning = show
        yield


def item_bar(title: str, total: int | None = None) -> Callable[[Iterable[T]], Iterable[T]]:
    """A progress bar on standard error around a loop; silent where nobody watches.

    Args:
        title: What is being done.
        total: How many items there are, for iterables that do not know.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return lambda items: track(items, title, total, console=console, disable=not is_watched(console))
