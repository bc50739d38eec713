"""Command-line options that the benchmarks share."""

from collections.abc import Callable, Collection
from pathlib import Path

import click

OUTPUT = click.Path(path_type=Path, dir_okay=False)


def names_of(known: Collection[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A callback that splits an option's value at commas and refuses names that are not known."""

    def split(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"{', '.join(unknown)}: expected some of {', '.join(known)}")
        if not names:
            raise click.BadParameter(f"is empty: expected some of {', '.join(known)}")
        return list(dict.fromkeys(names))

    return split
