"""Training photos by number, and sources made of other sources.

A source reads lazily and by number, so that worker processes can share it and a stopped run finds its place again.
`layouts` opens folders, `coco` COCO and LVIS files, `shards` WebDataset shards.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MaskError, SizeMismatchError
from ..imaging.listing import names_in
from ..imaging.reading import read_mask


@dataclass(frozen=True)
class Sample:
    """One training photo.

    Attributes:
        name: Unique within its source.
        image: `(H, W, 3)` uint8, RGB.
        mask: `(H, W)` bool, the truth, not empty.
        coarse: `(H, W)` bool, a real coarse mask or one that was made beforehand, or None.
        coarse_kind: Where that comes from: the name of its folder, such as `coarse_deeplab`; empty if that is unknown.
    """

    name: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    coarse: NDArray[np.bool_] | None
    coarse_kind: str = ""


class Source(Protocol):
    """Training photos by number. It can be pickled.

    Attributes:
        name: What messages call the source.
        objects: Whether samples are single objects of photos that show more than these.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - described above

    @property
    def objects(self) -> bool: ...  # noqa: D102 - described above

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Reads one photo. Raises `InputError` where it is missing, damaged, empty or of another size than its mask."""
        ...


def validate(sample: Sample, where: str, coarse: str = "its coarse mask") -> Sample:
    """The sample, if its masks have the photo's size and the truth shows something. Raises `MaskError`."""
    height, width = sample.image.shape[:2]
    for mask, name in ((sample.mask, where), (sample.coarse, coarse)):
        if mask is not None and mask.shape != (height, width):
            raise SizeMismatchError(
                f"{name} is {mask.shape[1]}x{mask.shape[0]} but its photo is {width}x{height}: expected the same size"
            )
    if not sample.mask.any():
        raise MaskError(f"{where} is empty: expected the mask of an object")
    return sample


@dataclass(frozen=True)
class SourceWrapper:
    """A source that shows another one."""

    source: Source

    @property
    def name(self) -> str:
        """What messages call the source."""
        return self.source.name

    @property
    def objects(self) -> bool:
        """Whether samples are single objects of photos that show more than these."""
        return self.source.objects

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Sample:
        """Reads one photo. Raises `InputError` as `Source.read` does."""
        return self.source.read(index)


@dataclass(frozen=True)
class WithCoarse(SourceWrapper):
    """A source whose coarse masks are PNG files that were made beforehand, named like its samples.

    Attributes:
        source: Where photos and truths come from.
        folder: Folder of the coarse masks; samples without one keep what they have.
    """

    folder: Path

    def read(self, index: int) -> Sample:
        """Reads one photo. Raises `InputError` where photo or coarse mask cannot be read."""
        sample = self.source.read(index)
        path = self.folder / names_in(self.folder).find(f"{sample.name}.png")
        if not path.is_file():
            return sample
        return validate(replace(sample, coarse=read_mask(path)), self.source.name, str(path))


@dataclass(frozen=True)
class Head(SourceWrapper):
    """The first photos of a source.

    Attributes:
        source: The source that is cut short.
        count: How many photos to show, at most.
    """

    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.source))


@dataclass(frozen=True)
class ConcatSource:
    """Sources one after another.

    Attributes:
        sources: The sources in order, at least one.
    """

    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """What messages call the source."""
        return " and ".join(source.name for source in self.sources)

    @property
    def objects(self) -> bool:
        """Whether samples of any source are single objects of photos that show more than these."""
        return any(source.objects for source in self.sources)

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def read(self, index: int) -> Sample:
        """One photo; its name begins with the number of its source, since names may recur."""
        which, place = locate(map(len, self.sources), index)
        sample = self.sources[which].read(place)
        return replace(sample, name=f"{which}_{sample.name}")


def data_set_of(name: str) -> str:
    """The letters that a photo's name begins with, by which merged data sets are told apart; may be empty.

    The number of a source that `ConcatSource` puts before it does not count.
    """
    found = re.match(r"(?:\d+_)?([^\W\d_]*)", name)
    return found[1] if found else ""


def locate(counts: Iterable[int], index: int) -> tuple[int, int]:
    """Finds an item in parts that lie one after another: the number of its part, and its place in there.

    Args:
        counts: Number of items of each part.
        index: Number of the item, over all parts.
    """
    ends = list(accumulate(counts))
    which = bisect_right(ends, index)
    return which, index - (ends[which - 1] if which else 0)


def evenly(count: int, most: int) -> list[int]:
    """Numbers of some of `count` items, spread over all of them; `most` at most."""
    return sorted(set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()))


def concatenate(sources: Sequence[Source]) -> Source:
    """All photos of several sources; a single one is given back as it is. Raises `InputError` for none."""
    if not sources:
        raise InputError("no data was named: expected at least one data set")
    return sources[0] if len(sources) == 1 else ConcatSource(tuple(sources))
