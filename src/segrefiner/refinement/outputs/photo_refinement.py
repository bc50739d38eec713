"""One photo and how it is refined, for everything that another library found in it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, SizeMismatchError
from ...imaging.reading import ImageSource, read_mask
from ..label_maps import refine_labels
from ..refiner import Refiner, Result

_NO_IMAGE = "image is None: give the photo in which the masks were found"
_NOT_FULL_SIZE = (
    "outputs of another size than the photo's must be post-processed to it first: target_sizes of transformers, "
    "rescale of mmdetection"
)


@dataclass(frozen=True)
class PhotoRefinement:
    """Refines what was found in one photo.

    Attributes:
        refiner: What refines.
        image: The photo; `None` where the outputs have to hold it.
        options: As for `Refiner.many`.
        ignore: Labels of label maps that are no class.
    """

    refiner: Refiner
    image: ImageSource | None
    options: dict[str, Any] = field(default_factory=dict)
    ignore: Sequence[int] = ()

    def masks(self, masks: Iterable[NDArray[Any]]) -> Iterator[tuple[NDArray[np.bool_], Result]]:
        """Each coarse mask `(H, W)` bool and its result; refined masks overlap at most where coarse ones do."""
        options, coarse = dict(self.options), []
        threshold = options.pop("threshold", None)

        def read() -> Iterator[NDArray[np.bool_]]:
            for mask in masks:
                coarse.append(np.packbits(one := read_mask(mask, threshold=threshold)))
                yield one

        results = self.refiner.instances(self._photo(), read(), separate=True, **options)
        for index, result in enumerate(self._advised(results)):
            shape = result.mask.shape
            yield np.unpackbits(coarse[index], count=result.mask.size).view(bool).reshape(shape), result

    def labels(self, labels: NDArray[Any], ignore: Sequence[int] = ()) -> NDArray[Any]:
        """A label map `(H, W)` of whole numbers of any type, refined."""
        whole = labels.astype(np.int64) if labels.dtype.kind == "f" else labels
        ignored = [*self.ignore, *ignore]
        try:
            refined = refine_labels(self.refiner, self._photo(), whole, ignore=ignored, **self.options)
        except SizeMismatchError as error:
            raise SizeMismatchError(f"{error}; {_NOT_FULL_SIZE}") from error
        return refined.labels.astype(labels.dtype)

    def _photo(self) -> ImageSource:
        if self.image is None:
            raise InputError(_NO_IMAGE)
        return self.image

    def _advised(self, results: Iterable[Result]) -> Iterator[Result]:
        try:
            yield from results
        except SizeMismatchError as error:
            raise SizeMismatchError(f"{error}; {_NOT_FULL_SIZE}") from error
