"""The exceptions a user can meet.

```
SegRefinerError            everything below, for one `except`
├── InputError             what was given cannot be used (also a ValueError)
│   ├── ImageError         the photo
│   └── MaskError          the mask
│       └── SizeMismatchError   the mask does not fit the photo
├── OutputError            the result cannot be written (also an OSError)
├── CheckpointError        weights: missing, malformed, of the wrong shape, not trustworthy
├── ServerError            a segrefiner server cannot be reached, or does not do what it was asked
├── MissingExtraError      an optional package is not installed (also an ImportError)
└── TrainingError          training cannot start or go on
```

`InputWarning` is a warning, not an error.

Every message is one line that says what was given, what was expected and what to do. Each class takes that
line as its only argument, so that errors survive pickling on their way back from worker processes.
"""

from __future__ import annotations

import importlib
import re
from typing import Any


class SegRefinerError(Exception):
    """Root of all errors that segrefiner raises on purpose.

    Names in files are foreign, and may hold what a terminal obeys: a message has escapes in place of such letters, and
    spaces in place of line breaks. Of a long one, which repeats what was given, the middle is left out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


class InputError(SegRefinerError, ValueError):
    """Something given by the user cannot be used."""


class ImageError(InputError):
    """The photo cannot be read, or is not a photo."""


class MaskError(InputError):
    """The mask cannot be read, or does not say what is object and what is background."""


class SizeMismatchError(MaskError):
    """The mask does not have the size of the photo."""


class InputWarning(UserWarning):
    """Something given by the user was taken in one of several ways that it could mean. Messages are those of errors."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


class OutputError(SegRefinerError, OSError):
    """A result cannot be written to the place that was asked for."""


class CheckpointError(SegRefinerError):
    """Weights are missing, malformed, of the wrong shape or not trustworthy."""


class ServerError(SegRefinerError):
    """A segrefiner server cannot be reached, or does not do what it was asked."""


class MissingExtraError(SegRefinerError, ImportError):
    """A part of segrefiner needs an optional package that is not installed."""

    @classmethod
    def needed_by(cls, feature: str, *, package: str, extra: str) -> MissingExtraError:
        """Build the error that tells what to install.

        Args:
            feature: What the user asked for, as the subject of a sentence, such as "the web demo".
            package: The distribution that is absent, such as "gradio".
            extra: The extra of segrefiner that installs it, such as "app".

        Returns:
            The error, ready to be raised.
        """
        return cls(
            f'{feature} needs the package {package!r}, which is not installed; run: pip install "segrefiner[{extra}]"'
        )


class TrainingError(SegRefinerError):
    """Training cannot start or cannot go on."""


_LONGEST, _BEGINNING, _END = 2000, 1200, 400
"""Letters of a message, and those that are kept of a longer one; what to do stands at its end."""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_BEGINNING]} ... {text[-_END:]}"


def _one_line(message: object) -> str:
    return _shortened(printable(_LINE_BREAK.sub(" ", str(message))))


def printable(text: str) -> str:
    """Text on one line, with escapes for what would steer a terminal or is no Unicode: file names hold anything."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_LINE_BREAK = re.compile(r"\s*[\r\n]\s*")


def reason(error: BaseException) -> str:
    """What an error of another library says, on one line, for use within a message."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())


def import_extra(package: str, feature: str, extra: str = "onnx") -> Any:
    """An optional package. Raises `MissingExtraError` where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError.needed_by(feature, package=package, extra=extra) from error
