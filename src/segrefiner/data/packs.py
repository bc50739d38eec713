"""Training photos as one small file of encoded pictures, which `packed_photos.PackedPhotos` keeps in memory."""

import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from ..errors import InputError
from ..imaging.files import atomic_write
from ..imaging.json_files import json_text
from ..imaging.shapes.distances import signed_distance
from .layouts import open_folder
from .sources import Sample, Source

PACK_FORMAT = "segrefiner-pack-2"
_FORMATS = ("segrefiner-pack-1", PACK_FORMAT)
"""Layouts that can be read. The first one holds a photo again for each of its masks."""

PACK_SIZE = 384
PARTS = ("photo", "truth", "truth_distance", "real", "real_distance")
MOST_FAILURES = 0.05
"""Share of photos that may be unreadable."""

CONTEXT = 2.0
"""How many times as high and wide as an object is what is packed of its photo, where that shows more."""

_PHOTO_QUALITY = 80

DISTANCE_RANGE = 64.0


def _encoded(picture: Image.Image, **options: object) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    picture.save(buffer, **options)  # type: ignore[arg-type]
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _encode_mask(mask: NDArray[np.bool_], reach: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    distance = Image.fromarray(encode_distance(signed_distance(mask), reach)).convert("RGB")
    # Lossy distances are a seventh of the size; their sign comes from the lossless mask when they are decoded.
    return _encoded(Image.fromarray(mask), format="PNG", optimize=True), _encoded(
        distance, format="WEBP", quality=80, method=4
    )


def _shrunk(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize(size, Image.Resampling.BOX)) >= 128


def _pack_sample(sample: Sample, size: int) -> list[NDArray[np.uint8]]:
    height, width = sample.mask.shape
    scale = min(1.0, size / max(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(sample.image).resize(small, Image.Resampling.LANCZOS)
    parts = [_encoded(picture, format="WEBP", quality=_PHOTO_QUALITY, method=4)]
    for mask in (sample.mask, sample.coarse):
        if mask is None:
            parts += [np.empty(0, np.uint8)] * 2
        else:
            parts += _encode_mask(_shrunk(mask, small), distance_reach(size))
    return parts


def around_object(sample: Sample, context: float) -> Sample:
    """The part of a photo around its object: the object's box, `context` times as high and wide, within the photo."""
    bounds = []
    for axis, limit in ((1, sample.mask.shape[0]), (0, sample.mask.shape[1])):
        found = np.flatnonzero(sample.mask.any(axis=axis))
        pad = (context - 1) / 2 * (found[-1] + 1 - found[0])
        bounds.append(slice(max(0, math.floor(found[0] - pad)), min(limit, math.ceil(found[-1] + 1 + pad))))
    place = bounds[0], bounds[1]
    coarse = None if sample.coarse is None else sample.coarse[place]
    return replace(sample, image=np.ascontiguousarray(sample.image[place]), mask=sample.mask[place], coarse=coarse)


class _Pool:
    """Encoded pictures of one part, equal ones held once; `index` says which one each sample has, -1 for none."""

    def __init__(self) -> None:
        self._blobs: list[NDArray[np.uint8]] = []
        self._places: dict[bytes, int] = {}
        self._index: list[int] = []

    def add(self, blob: NDArray[np.uint8]) -> None:
        """Take the picture of the next sample; an empty one says that it has none."""
        if not len(blob):
            self._index.append(-1)
            return
        place = self._places.setdefault(sha256(blob.tobytes()).digest(), len(self._blobs))
        if place == len(self._blobs):
            self._blobs.append(blob)
        self._index.append(place)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Name suffixes and arrays as a pack holds them."""
        return {
            "": np.concatenate([np.empty(0, np.uint8), *self._blobs]),
            "_ends": np.cumsum([len(blob) for blob in self._blobs], dtype=np.int64),
            "_index": np.array(self._index, np.int64),
        }


@dataclass(frozen=True)
class Pack:
    """What a pack holds, still encoded.

    Attributes:
        names: The samples' names.
        coarse_kinds: Where each sample's coarse mask comes from (`sources.Sample.coarse_kind`).
        size: Long side to which photos were shrunk, in pixels.
        blobs: Encoded pictures of each of `PARTS`.
        index: Which of them each sample has, `(n,)` int64 for each of `PARTS`; -1 for none.
    """

    names: list[str]
    coarse_kinds: list[str]
    size: int
    blobs: dict[str, list[NDArray[np.uint8]]]
    index: dict[str, NDArray[np.int64]]


def read_pack(path: Path) -> Pack:
    """Read a pack. Raises `InputError` where the file is none."""
    try:
        with safe_open(path, framework="numpy") as pack:
            metadata = pack.metadata() or {}
            if metadata.get("format") not in _FORMATS:
                raise InputError(f"{path} is no pack of photos: make one with `segrefiner data pack FOLDER {path}`")
            blobs = {p: np.split(pack.get_tensor(p), pack.get_tensor(f"{p}_ends")) for p in PARTS}
            blobs = {part: split[:-1] for part, split in blobs.items()}
            if metadata["format"] == PACK_FORMAT:
                index = {part: pack.get_tensor(f"{part}_index") for part in PARTS}
            else:
                index = {p: np.array([i if len(b) else -1 for i, b in enumerate(blobs[p])], np.int64) for p in PARTS}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as a pack of photos: {error}") from error
    names = json.loads(metadata["names"])
    kinds = json.loads(metadata.get("coarse_kinds", "null")) or [""] * len(names)
    return Pack(names, kinds, int(metadata["size"]), blobs, index)


def pack_source(
    source: Source,
    target: Path,
    *,
    size: int = PACK_SIZE,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    most_failures: float = MOST_FAILURES,
) -> tuple[int, list[tuple[int, str]]]:
    """Writes training photos as one pack. Of photos with several objects, each object is one, with its surroundings.

    Args:
        source: The photos.
        target: The file to write, replaced only when it is complete.
        size: Photos are shrunk to this long side in pixels; smaller ones are kept as they are.
        progress: Wraps the iteration over the photos' numbers, for a progress bar.
        most_failures: Share of photos that may be unreadable.

    Returns:
        The number of photos, and the numbers of those that could not be read with the reasons.

    Raises:
        InputError: More cannot be read than that, or none can.
    """
    pools = {part: _Pool() for part in PARTS}
    names: list[str] = []
    kinds: list[str] = []
    failures: list[tuple[int, str]] = []
    for index in progress(range(len(source))):
        try:
            sample = source.read(index)
        except InputError as error:
            failures.append((index, str(error)))
            if len(failures) > most_failures * len(source):
                said = "; ".join(text for _, text in failures[-5:])
                raise InputError(f"{source.name}: {len(failures)} photos cannot be read: {said}") from error
            continue
        names.append(sample.name)
        kinds.append(sample.coarse_kind)
        packed = _pack_sample(around_object(sample, CONTEXT) if source.objects else sample, size)
        for part, data in zip(PARTS, packed, strict=True):
            pools[part].add(data)
    if not names:
        raise InputError(f"{source.name} has no photos to pack")
    arrays = {f"{part}{suffix}": array for part, pool in pools.items() for suffix, array in pool.arrays().items()}
    metadata = {
        "format": PACK_FORMAT,
        "size": str(size),
        "names": json_text(names),
        "coarse_kinds": json_text(kinds),
    }
    atomic_write(target, lambda file: file.write(save(arrays, metadata)))
    return len(names), failures


def pack_folder(folder: Path, target: Path, *, size: int = PACK_SIZE) -> int:
    """Writes a data folder as one pack and gives the number of its photos; see `pack_source` and `open_folder`."""
    return pack_source(open_folder(folder), target, size=size)[0]


def is_pack(path: Path) -> bool:
    """Whether a path is a file that says it is a pack; reading it may still fail."""
    try:
        with safe_open(path, framework="numpy") as pack:
            return (pack.metadata() or {}).get("format") in _FORMATS
    except (OSError, SafetensorError):
        return False


def encode_distance(distance: NDArray[np.float32], reach: float = DISTANCE_RANGE) -> NDArray[np.uint8]:
    """Signed distance → uint8, companded by a square root so that it is finest at the contour; saturates at ±reach."""
    companded = np.sign(distance) * np.sqrt(np.minimum(np.abs(distance), reach) / reach)
    return np.clip(np.round(128 + 127 * companded), 1, 255).astype(np.uint8)


def decode_distance(encoded: Tensor, reach: float = DISTANCE_RANGE) -> Tensor:
    """The inverse of `encode_distance` for a float tensor of any shape."""
    companded = (encoded - 128) / 127
    return reach * companded * companded.abs()


def distance_reach(size: int) -> float:
    """Where the distances of photos of this long side saturate, in pixels."""
    return max(DISTANCE_RANGE, size / 6)
