"""The command `models`: which weights are at hand, whose they are, of what, and whether they are whole."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckpointError
from .shared.common import FAILED, exit_on_error
from .shared.messages import conclude, note, say

if TYPE_CHECKING:
    from ..model.inventory import KnownModel

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def models() -> None:
    """List, fetch and verify models.

    MODEL is an alias, a folder, a .safetensors file, a Hub id owner/name[@revision] or an https:// address, each with
    #sha256=… behind it where the file must be a certain one.
    """


@models.command("list")
@_json
@exit_on_error
def list_models(as_json: bool) -> None:
    """List the models that are on this machine: the bundled one, and what was downloaded."""
    from ..model.inventory import cache_folders, known_models

    found, unreadable = known_models()
    if as_json:
        _print({"models": [model.to_dict() for model in found],
                "unreadable": [{"name": name, "reason": why} for name, why in unreadable.items()],
                "cache": [str(folder) for folder in cache_folders()], "exit_code": 0})  # fmt: skip
    else:
        _tell(found)
        conclude(f"downloads are kept in {' and '.join(map(str, cache_folders()))}", err=True)
    for name, why in unreadable.items():
        note(f"{name} is left out: {why}")


@models.command()
@click.argument("model")
@_json
@exit_on_error
def fetch(model: str, as_json: bool) -> None:
    """Download MODEL, verify it, and print where it lies."""
    from ..model.inventory import fetch_card, verify_model
    from ..model.weights import display_name, hub_repository, resolve

    repository = hub_repository(model)
    path = resolve(model)
    if repository is not None:
        fetch_card(*repository)
    found = verify_model(path, display_name(model))
    _print(found.to_dict() | {"exit_code": 0}) if as_json else say(str(found.path))
    if found.license is None:
        note(f"{found.name} names no licence: ask its author before you use it")


@models.command("path")
@click.argument("model", required=False)
@_json
@exit_on_error
def print_path(model: str | None, as_json: bool) -> None:
    """Print where MODEL lies, without downloading it; by default the bundled one."""
    from ..model.weights import resolve

    path = resolve(model, local_files_only=True)
    _print({"path": str(path), "exit_code": 0}) if as_json else say(str(path))


@models.command()
@click.argument("model", required=False)
@exit_on_error
def card(model: str | None) -> None:
    """Print the card of MODEL, by default the bundled one: what it learnt from, under which licences."""
    from ..model.inventory import read_card
    from ..model.weights import display_name, resolve

    text = read_card(resolve(model, local_files_only=True))
    if text is None:
        raise CheckpointError(f"{display_name(model)} has no card: ask its author what it learnt from")
    for line in text.rstrip().splitlines():
        say(line)


@models.command()
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@_json
@exit_on_error
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Read every MODEL in full, as far as it is on this machine, and compare its checksum; by default all of them.

    Exits with 3 where one is damaged, or is not the file that it was.
    """
    from ..model.inventory import known_models, recorded_checksum, verify_model
    from ..model.weights import display_name, resolve

    results: list[dict[str, Any]] = []
    if names:
        given = [(display_name(name), name) for name in names]
    else:
        found, unreadable = known_models()
        given = [(model.name, str(model.path)) for model in found]
        results += [{"name": name, "ok": False, "reason": why} for name, why in unreadable.items()]
    for name, source in given:
        try:
            path = resolve(source, local_files_only=True)
            # `resolve` compares with the checksum that the name gives.
            compared = "#sha256=" in source or recorded_checksum(path) is not None
            results.append({"ok": True, "reason": "", "compared": compared, **verify_model(path, name).to_dict()})
        except CheckpointError as error:
            results.append({"name": name, "ok": False, "reason": str(error)})
    code = 0 if all(result["ok"] for result in results) else FAILED
    if as_json:
        _print({"models": results, "exit_code": code})
    for result in results:
        if result["ok"]:
            known = "whole" if result["compared"] else "readable, with no checksum to be compared with"
            conclude(f"{result['name']}: {known}, SHA-256 {result['sha256']}", err=as_json)
        else:
            say(f"segrefiner: {result['name']}: {result['reason']}", err=True)
    sys.exit(code)


def _print(document: dict[str, Any]) -> None:
    say(json.dumps(document, allow_nan=False))


def _tell(found: "Sequence[KnownModel]") -> None:
    for model in found:
        licence, megabytes = model.license or "no licence named", model.size / 1e6
        say(f"{model.name}\n  {licence}, {megabytes:.1f} MB, {model.parameters / 1e6:.1f} M parameters, best with "
            f"{model.steps} steps\n  {model.path}\n  SHA-256 {model.sha256}")  # fmt: skip
    conclude("what the bundled model learnt from, and under which licences: segrefiner models card", err=True)
