"""WebDataset shards: tar files of `NAME.image.jpg`, `NAME.mask.png`, `NAME.coarse.png`, on disk or in an object store.

The index beside them is the one of WebDataset's own indexed reader, so other programs find their way, too. Shards that
are not on a disk are fetched whole, once, by fsspec (extra `shards`), which knows s3://, gs://, https:// and many more.
"""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from .. import environment
from ..errors import InputError, MissingExtraError, OutputError, reason
from ..imaging.files import atomic_write
from ..imaging.json_files import json_text
from ..imaging.reading import read_image, read_mask
from ..model.cache import cache_folder
from .sources import Sample, Source, locate, validate

INDEX_NAME = "shards.json"
_KIND = "wids-shard-index-v1"
_PHOTO_QUALITY = 95


@dataclass(frozen=True)
class Shards:
    """The photos of shards.

    Attributes:
        name: Address of the index, for messages.
        urls: Address of each shard.
        counts: Number of photos in each shard.
        cache: Where fetched shards are kept.
        objects: Whether samples are single objects of photos that show more than these.
    """

    name: str
    urls: tuple[str, ...]
    counts: tuple[int, ...]
    cache: Path
    objects: bool = False
    _members: dict[int, list[dict[str, tuple[int, int]]]] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_members": {}}

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, index: int) -> Sample:
        """Reads one photo, and fetches its shard first. Raises `InputError` where one of them cannot be read."""
        which, place = locate(self.counts, index)
        path = self._local(which)
        if which not in self._members:
            self._members[which] = _members(path)
        if len(self._members[which]) != self.counts[which]:
            raise InputError(
                f"{self.urls[which]} holds {len(self._members[which])} photos, its index says {self.counts[which]}"
            )
        parts = {}
        with path.open("rb") as file:
            for kind, (start, length) in self._members[which][place].items():
                file.seek(start)
                parts[kind] = file.read(length)
        where = f"photo {place} of {self.urls[which]}"
        if not {"image", "mask"} <= parts.keys():
            raise InputError(f"{where} has no image or no mask: expected NAME.image.jpg and NAME.mask.png")
        coarse = _mask(parts["coarse"]) if "coarse" in parts else None
        image = read_image(Image.open(io.BytesIO(parts["image"])))
        return validate(Sample(parts["name"].decode(), image, _mask(parts["mask"]), coarse), where)

    def _local(self, which: int) -> Path:
        """The shard as a file on this machine."""
        url = self.urls[which]
        if "://" not in url:
            if not Path(url).is_file():
                raise InputError(f"{url} is missing: it is listed in {self.name}")
            return Path(url)
        target = self.cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.tar"
        if not target.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            content = _fetched(url)
            atomic_write(target, lambda file: file.write(content))
        return target


def _mask(content: bytes) -> Any:
    return read_mask(Image.open(io.BytesIO(content)))


def _members(path: Path) -> list[dict[str, tuple[int, int]]]:
    """Where each photo's parts lie in a shard, by kind; the name is a part that lies in the header of the first one."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                name, _, kind = member.name.partition(".")
                if member.isfile() and kind.split(".")[0] in ("image", "mask", "coarse"):
                    parts = found.setdefault(name, {"name": (member.offset, len(name.encode()))})
                    parts[kind.split(".")[0]] = member.offset_data, member.size
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} cannot be read as a shard ({reason(error)}): fetch it again") from error
    return list(found.values())


def _fetched(url: str) -> bytes:
    if environment.is_offline():
        raise InputError(f"{url} is not on a disk and {environment.OFFLINE} is on: unset it, or fetch the file first")
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError.needed_by("a shard in an object store", package="fsspec", extra="shards") from error
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
    except Exception as error:  # every kind of store has its own tree of errors
        raise InputError(
            f"{url} cannot be fetched ({reason(error)}): check the address and the access to it"
        ) from error
    return content


def is_index(path: Path) -> bool:
    """Whether a path is an index of shards."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _KIND.encode() in file.read(4096)


def open_shards(index: str, cache: Path | None = None) -> Shards:
    """Shards by their index.

    Args:
        index: The index, or a folder with `shards.json`; a path or any address that fsspec knows.
        cache: Where fetched shards are kept; by default a folder of the user's cache.

    Raises:
        InputError: It is no index, or a local shard that it lists is missing.
        MissingExtraError: It is not on a disk and fsspec is not installed.
    """
    remote = "://" in index
    if not index.endswith(".json"):
        index = f"{index.rstrip('/')}/{INDEX_NAME}"
    try:
        content = _fetched(index) if remote else Path(index).read_bytes()
        listed = json.loads(content)["shardlist"]
        entries = [(str(entry["url"]), int(entry["nsamples"])) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{index} is no index of shards ({reason(error)}): make one with `segrefiner data shards`"
        ) from error
    folder = index.rpartition("/")[0] if remote else str(Path(index).parent)
    urls = tuple(url if "://" in url or os.path.isabs(url) else f"{folder}/{url}" for url, _ in entries)
    if missing := [url for url in urls if "://" not in url and not Path(url).is_file()]:
        raise InputError(f"{index} lists shards that are missing: {', '.join(missing[:5])}")
    if not sum(count for _, count in entries):
        raise InputError(f"{index} lists no photos")
    place = cache or cache_folder() / "shards"
    return Shards(index, urls, tuple(count for _, count in entries), place)


def write_shards(
    source: Source,
    folder: Path,
    *,
    per_shard: int = 1000,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> tuple[int, list[tuple[int, str]]]:
    """Writes photos as shards, and their index at the end.

    Args:
        source: The photos.
        folder: Where to; created if need be.
        per_shard: Photos in each.
        progress: Wraps the iteration over numbers of photos.

    Returns:
        The number of photos written, and the numbers of those that could not be read with the reasons.

    Raises:
        OutputError: Something cannot be written.
        InputError: No photo can be read.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({reason(error)}): choose another folder") from error
    listed: list[dict[str, Any]] = []
    failures: list[tuple[int, str]] = []
    waiting: list[Sample] = []
    for index in progress(range(len(source))):
        try:
            waiting.append(source.read(index))
        except InputError as error:
            failures.append((index, str(error)))
        if len(waiting) == per_shard:
            listed.append(_written(waiting, folder, len(listed)))
            waiting = []
    if waiting:
        listed.append(_written(waiting, folder, len(listed)))
    if not listed:
        raise InputError(
            f"{source.name}: no photo can be read, such as: {failures[0][1] if failures else 'it is empty'}"
        )
    document = json_text({"__kind__": _KIND, "wids_version": 1, "shardlist": listed}, indent=1)
    atomic_write(folder / INDEX_NAME, lambda file: file.write(document.encode()))
    return sum(entry["nsamples"] for entry in listed), failures


def _written(samples: list[Sample], folder: Path, number: int) -> dict[str, Any]:
    """Writes a shard and gives its entry of the index."""
    path = folder / f"photos-{number:06d}.tar"
    with tempfile.TemporaryFile() as content:
        with tarfile.open(fileobj=content, mode="w") as shard:
            for place, sample in enumerate(samples):
                # Names may hold dots and slashes, which mean something in a shard.
                name = "".join(c if c.isalnum() or c in "-_" else "_" for c in sample.name) or str(place)
                _add(shard, f"{name}.image.jpg", Image.fromarray(sample.image), "JPEG", quality=_PHOTO_QUALITY)
                _add(shard, f"{name}.mask.png", Image.fromarray(sample.mask), "PNG")
                if sample.coarse is not None:
                    _add(shard, f"{name}.coarse.png", Image.fromarray(sample.coarse), "PNG")
        content.seek(0)
        data = content.read()
    atomic_write(path, lambda file: file.write(data))
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()  # the index's own kind of checksum
    return {"url": path.name, "md5sum": digest, "nsamples": len(samples), "filesize": len(data)}


def _add(shard: tarfile.TarFile, name: str, picture: Image.Image, kind: str, **options: Any) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    info = tarfile.TarInfo(name)
    info.size = buffer.tell()
    buffer.seek(0)
    shard.addfile(info, buffer)
