"""Photos as easy as photos can be, bright discs on dark ground, as a source for training."""

from dataclasses import dataclass, field

import numpy as np

from segrefiner.data.sources import Sample
from segrefiner.errors import ImageError


@dataclass(frozen=True)
class Discs:
    """Photos of 60 x 70 pixels and more; those with the numbers in `broken` cannot be read."""

    count: int = 5
    broken: frozenset[int] = field(default_factory=frozenset)
    name: str = "discs"
    objects: bool = False

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        """One photo; every second one has a coarse mask."""
        if index in self.broken:
            raise ImageError(f"disc {index} is broken")
        rows, columns = np.mgrid[: 60 + index, : 70 + 2 * index]
        distance = np.hypot(rows - 30 - index, columns - 33)
        mask = distance < 12 + index
        noise = np.random.default_rng(index).integers(-10, 10, (*mask.shape, 3))
        image = (np.where(mask[..., None], 220, 40) + noise).astype(np.uint8)
        return Sample(f"disc{index}", image, mask, distance < 16 + index if index % 2 else None)
