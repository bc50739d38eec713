"""The weights on this machine, bundled and downloaded: whose they are, and whether they are whole.

Every file has a checksum to be compared with, from when it was made or downloaded: `SHA256SUMS` beside the bundled
weights, a record beside a download from a web address, and in the Hub's cache the name of the file itself.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import cache, hub
from .weights import BUNDLED, FILE_NAME, best_steps, checksum, load, metadata, parameter_count, resolve
from .weights_checks import bad_file

_SUMS, _CARD = "SHA256SUMS", "README.md"
_BUNDLED_LICENCE = "apache-2.0"
_LICENCE = re.compile(r"^license:\s*['\"]?([\w.-]+)", re.ASCII | re.MULTILINE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_CARD = 1 << 20


@dataclass(frozen=True)
class KnownModel:
    """Weights on this machine.

    Attributes:
        name: What `--model` and `Refiner.from_pretrained` take for them; the path where no shorter name is known.
        license: As the Hub abbreviates it, such as "apache-2.0"; `None` where none is named.
        size: Bytes of the file.
        sha256: Checksum of the file.
        path: Where it lies.
        steps: Diffusion steps with which it refines best.
        parameters: How many.
    """

    name: str
    license: str | None
    size: int
    sha256: str
    path: Path
    steps: int
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return asdict(self) | {"path": str(self.path)}


def cache_folders() -> list[Path]:
    """Where downloads are kept: those from web addresses, and those from the Hugging Face Hub."""
    return [cache.cache_folder() / "weights", hub.cache_folder()]


def known_models() -> tuple[list[KnownModel], dict[str, str]]:
    """Find the weights on this machine.

    Returns:
        The bundled ones first; and why others, by name, cannot be used.
    """
    found: list[KnownModel] = []
    unreadable: dict[str, str] = {}
    for name, path in ((BUNDLED, None), *_downloaded()):
        try:
            found.append(inspect_model(resolve(None) if path is None else path, name))
        except CheckpointError as error:
            unreadable[name] = str(error)
    found += [inspect_model(path, name) for name, path in _of_hub()]
    return found, unreadable


def inspect_model(path: Path, name: str) -> KnownModel:
    """Describe a weights file by its header and its checksum. Raises `CheckpointError` where it is none."""
    return KnownModel(
        name=name,
        license=_licence(path, name),
        size=path.stat().st_size,
        sha256=checksum(path),
        path=path,
        steps=best_steps(path),
        parameters=parameter_count(path),
    )


def read_card(path: Path) -> str | None:
    """The text that lies beside a weights file and says what it learnt from; `None` where there is none."""
    try:
        with (path.parent / _CARD).open("rb") as stream:
            return stream.read(_LONGEST_CARD).decode("utf-8", "replace")
    except OSError:
        return None


def verify_model(path: Path, name: str) -> KnownModel:
    """Read all of a weights file and compare it with its record.

    Raises:
        CheckpointError: It is no weights file, a parameter is damaged, or it is not the file that it was.
    """
    load(path)
    # With the bundled weights come others, which decide what of a refinement is kept.
    beside = [path.parent / other for other in _bundled_sums()] if path == resolve(None) else []
    for each in dict.fromkeys([path, *beside]):
        found, expected = checksum(each), recorded_checksum(each)
        if expected is not None and found != expected:
            raise bad_file(each, f"has the SHA-256 {found}, expected {expected}; remove it and fetch it again")
    return inspect_model(path, name)


def recorded_checksum(path: Path) -> str | None:
    """The checksum that a file had when it was made or downloaded; `None` where nothing says so."""
    if path.parent == resolve(None).parent:
        return _bundled_sums().get(path.name)
    if (origin := cache.read_origin(path)) is not None:
        return origin.sha256
    # The Hub's cache names large files by their checksum.
    name = path.resolve().name
    return name if path.is_symlink() and _SHA256.fullmatch(name) else None


def _bundled_sums() -> dict[str, str]:
    """Checksums of the bundled files, by their names."""
    lines = (resolve(None).parent / _SUMS).read_text("ascii").splitlines()
    return {name: found for found, name in map(str.split, lines)}


def _licence(path: Path, name: str) -> str | None:
    if name == BUNDLED:
        return _BUNDLED_LICENCE
    if isinstance(named := metadata(path).get("license"), str) and named:
        return named
    head = (read_card(path) or "").split("---")
    # The header of a model card stands between its first two lines of dashes.
    match = _LICENCE.search(head[1]) if len(head) > 2 and not head[0].strip() else None
    return match[1] if match else None


def _downloaded() -> Iterator[tuple[str, Path]]:
    """Downloads from web addresses, by their addresses where these are known."""
    for path in sorted((cache.cache_folder() / "weights").glob("*/*")):
        if path.is_file() and not path.name.endswith(cache.SIDE_FILES):
            origin = cache.read_origin(path)
            yield str(path) if origin is None else origin.address, path


def _of_hub() -> Iterator[tuple[str, Path]]:
    """Weights of segrefiner in the Hub's cache, in which other programs keep their models, too."""
    for path in sorted(hub.cache_folder().glob(f"models--*--*/snapshots/*/{FILE_NAME}")):
        try:
            metadata(path)
        except CheckpointError:
            continue
        owner, _, repository = path.parents[2].name.removeprefix("models--").partition("--")
        yield f"{owner}/{repository}@{path.parent.name}", path


def fetch_card(repository: str, revision: str | None) -> None:
    """Fetch the card of a Hub repository beside its weights, which says what may be done with them, if it has one."""
    try:
        hub.fetch(repository, _CARD, revision=revision)
    except CheckpointError:
        return  # A repository need not have one.
