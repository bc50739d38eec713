"""A recipe's values by name: replaced from text, as a command line gives it, and compared."""

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from ..data.crop_geometry import ViewConfig
from ..data.published_crops import PublishedViews
from ..errors import InputError
from ..model.unet import BASE, COMPACT
from .recipe import CosineDecay, LinearDecay, Recipe, StepDecay

_NAMED: dict[str, dict[str, Any]] = {
    "model": {"base": BASE, "compact": COMPACT},
    "decay": {"linear": LinearDecay(), "cosine": CosineDecay(), "step": StepDecay()},
    "views": {"packed": ViewConfig(), "published": PublishedViews()},
}


def with_values(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """A recipe with some of its values replaced.

    Args:
        recipe: The one to start from.
        values: Text by name: `lr`, `views.zoom` for a value within a value, several numbers with commas between them,
            `none`; and `model`, `decay` and `views` by the names base, compact; linear, cosine, step; packed,
            published.

    Raises:
        InputError: There is no such value, or the text is none of its type.

    >>> from segrefiner.training.overrides import with_values
    >>> from segrefiner.training.recipe import Recipe
    >>> recipe = with_values(Recipe(), {"lr": "5e-4", "views.zoom": "0.5,2", "decay": "cosine"})
    >>> recipe.lr, recipe.views.zoom
    (0.0005, (0.5, 2.0))
    """
    for name, text in values.items():
        recipe = _with_value(recipe, name.split("."), text, name)
    return recipe


def _with_value(value: Any, path: list[str], text: str, full: str) -> Any:
    names = [entry.name for entry in fields(value)]
    if path[0] not in names:
        raise InputError(f"a recipe has no value {full!r}: expected {', '.join(names)}")
    inner = getattr(value, path[0])
    if len(path) > 1:
        if not is_dataclass(inner):
            raise InputError(f"{full!r} names a value within {path[0]}, which is a single one: {inner}")
        return replace(value, **{path[0]: _with_value(inner, path[1:], text, full)})
    if is_dataclass(inner):
        named = _NAMED.get(path[0], {})
        if text not in named:
            choices = ", ".join([*named, *(f"{full}.{entry.name}=…" for entry in fields(inner))])
            raise InputError(f"{full} is {text!r}, expected one of {choices}")
        return replace(value, **{path[0]: named[text]})
    return replace(value, **{path[0]: _parsed(typing.get_type_hints(type(value))[path[0]], text, full)})


def _parsed(kind: Any, text: str, name: str) -> Any:
    """Text as a value of a type of `Recipe`'s: a number, a truth value, text, None or a tuple of them."""
    if isinstance(kind, types.UnionType):
        if text.lower() == "none" and type(None) in typing.get_args(kind):
            return None
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is tuple:
        inner, *others = typing.get_args(kind)
        parts = [part for part in text.strip("()[] ").split(",") if part.strip()]
        if others and others[0] is not Ellipsis and len(parts) != 1 + len(others):
            raise InputError(f"{name} is {text!r}, expected {1 + len(others)} numbers with commas between them")
        return tuple(_parsed(inner, part.strip(), name) for part in parts)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{name} is {text!r}, expected true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        what = {int: "a whole number", float: "a number"}.get(kind, str(kind))
        raise InputError(f"{name} is {text!r}, expected {what}") from error


def differences(saved: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """The values, by dotted name, in which two recipes given as plain JSON types differ; None where one lacks it."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys([*asked, *saved]):
        a, b = saved.get(name), asked.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found[prefix + name] = a, b
    return found
