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

    >>> try:
    ...     refiner("photo.jpg", "missing.png")
    ... except SegRefinerError as error:
    ...     print(error)
    mask 'missing.png' does not exist; check the path
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


class InputError(SegRefinerError, ValueError):
    """Something given by the user cannot be used.

    >>> try:
    ...     Options(steps=9)
    ... except InputError as error:
    ...     print(error)
    steps is 9: expected a whole number from 1 to 6
    """


class ImageError(InputError):
    """The photo cannot be read, or is not a photo.

    >>> try:
    ...     refiner(np.zeros((48, 64, 7), np.uint8), "coarse.png")
    ... except ImageError as error:
    ...     print(error)
    image (array (48, 64, 7) uint8) has shape (48, 64, 7), expected (H, W), (H, W, 3) or (H, W, 4); give one photo...
    """


class MaskError(InputError):
    """The mask cannot be read, or does not say what is object and what is background.

    >>> try:
    ...     refiner("photo.jpg", np.full((96, 128), 2.5))
    ... except MaskError as error:
    ...     print(error)
    mask (array (96, 128) float64) has floats from 2.5 to 2.5, expected probabilities in [0, 1]; apply a sigmoid...
    """


class SizeMismatchError(MaskError):
    """The mask does not have the size of the photo.

    >>> try:
    ...     refiner("photo.jpg", np.ones((64, 48), bool))
    ... except SizeMismatchError as error:
    ...     print(error)
    mask (array (64, 48) bool) is 48x64 but image 'photo.jpg' is 128x96 (width x height): give a mask...
    """


class InputWarning(UserWarning):
    """Something given by the user was taken in one of several ways that it could mean. Messages are those of errors.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", InputWarning)  # Guesses are errors now.
    ...     result = refiner("photo.jpg", "coarse.png")
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(_one_line(message))


class OutputError(SegRefinerError, OSError):
    """A result cannot be written to the place that was asked for.

    >>> try:
    ...     refiner.save_pretrained("photo.jpg")
    ... except OutputError as error:
    ...     print(error)
    the folder 'photo.jpg' cannot be made (File exists); choose another one
    """


class CheckpointError(SegRefinerError):
    """Weights are missing, malformed, of the wrong shape or not trustworthy.

    >>> try:
    ...     Refiner.from_pretrained("missing.safetensors")
    ... except CheckpointError as error:
    ...     print(error)
    weights file 'missing.safetensors' does not exist; check the path
    """


class ServerError(SegRefinerError):
    """A segrefiner server cannot be reached, or does not do what it was asked.

    >>> try:
    ...     Client("http://127.0.0.1:9").models()
    ... except ServerError as error:
    ...     print(error)
    http://127.0.0.1:9 does not answer as it should (Connection refused): check that it runs
    """


class MissingExtraError(SegRefinerError, ImportError):
    """A part of segrefiner needs an optional package that is not installed.

    >>> try:
    ...     raise MissingExtraError.needed_by("the web demo", package="gradio", extra="app")
    ... except ImportError as error:
    ...     print(error)
    the web demo needs the package 'gradio', which is not installed; run: pip install "segrefiner[app]"
    """

    @classmethod
    def needed_by(cls, feature: str, *, package: str, extra: str) -> MissingExtraError:
        """Build the error that tells what to install.

        Args:
            feature: What the user asked for, as the subject of a sentence, such as "the web demo".
            package: The distribution that is absent, such as "gradio".
            extra: The extra of segrefiner that installs it, such as "app".

        Returns:
            The error, ready to be raised.

        >>> error = MissingExtraError.needed_by("the web demo", package="gradio", extra="app")
        >>> isinstance(error, ImportError)
        True
        >>> print(error)
        the web demo needs the package 'gradio', which is not installed; run: pip install "segrefiner[app]"
        """
        return cls(
            f'{feature} needs the package {package!r}, which is not installed; run: pip install "segrefiner[{extra}]"'
        )


class TrainingError(SegRefinerError):
    """Training cannot start or cannot go on.

    >>> from segrefiner.training.session import prepare_run
    >>> result = prepare_run("my_photos", "run").run()
    >>> try:
    ...     prepare_run("my_photos", "run", values={"lr": "5e-4"}).run()
    ... except TrainingError as error:
    ...     print(error)
    run/checkpoint.pt was made by another recipe (lr: 0.001 there, 0.0005 asked for): use its values or another folder
    """


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
