"""The tree of exceptions: what catches what, and that errors survive a trip between processes."""

import pickle

import pytest

from segrefiner import errors

EVERY = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("error", EVERY)
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
