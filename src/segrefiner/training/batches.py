"""Batches for training: cut from photos in memory on the training device, or from files by worker processes.

Everything about a sample follows from the recipe's seed and the sample's number, counted over the whole run. So a run
that was stopped goes on where it was, on any number of processes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.coarse.masks import coarse_mask
from ..data.coarse.polygons import polygon_coarse
from ..data.coarse.published import published_coarse
from ..data.crop_geometry import ViewConfig
from ..data.packed_photos import CropBatch, PackedPhotos, shuffled
from ..data.published_crops import Crop, PublishedViews, mirrored, patch, published_object_view, resized
from ..data.sources import Sample, Source, data_set_of
from ..errors import InputError, TrainingError
from ..imaging.shapes.distances import signed_distance
from .recipe import Recipe, StepSlice

BatchSource: TypeAlias = Callable[[Iterable[StepSlice]], Iterator[CropBatch]]
"""Takes the process's parts of steps and gives the batch of each, in order."""

_NEIGHBOURS = 20
"""Photos after one that cannot be read that are tried in its place."""


def generator_of(recipe: Recipe, sample: int, device: torch.device, *, noise: bool = False) -> Generator:
    """Seeds the draws of a group of samples.

    Args:
        recipe: Gives the seed.
        sample: Number of the group's first sample, counted over the whole run.
        device: Where the draws are made.
        noise: Whether they are of timesteps and mixed masks, and not of crops.
    """
    return Generator(device).manual_seed(2 * (recipe.seed * 1_000_000_007 + sample) + noise)


def packed_batches(photos: PackedPhotos, recipe: Recipe) -> BatchSource:
    """Batches of photos in memory.

    Raises:
        InputError: The recipe's crops are cut from files, or it draws data sets that are not among the photos.
    """
    views = recipe.views
    if not isinstance(views, ViewConfig):
        raise InputError("this recipe cuts its crops from files, not from a pack: give it a data set")
    if views.pasted and recipe.group < 2:
        raise InputError("views.pasted shows objects on other crops of their group: set group to 2 or more")
    return partial(_packed, photos, recipe, views, times_drawn(photos.names, recipe.draws_of, photos.coarse_kinds))


def times_drawn(
    names: Sequence[str], draws: Mapping[str, float], coarse_kinds: Sequence[str] = ()
) -> NDArray[np.float64]:
    """How often each photo is drawn in an epoch, on average: `(n,)`, with a mean of one.

    Args:
        names: The photos' names.
        draws: How often those of a data set, or with one kind of real coarse mask, are drawn against others, by its
            name. Where both are named, a photo is drawn as often as their product.
        coarse_kinds: Kind of each photo's real coarse mask (`sources.Sample.coarse_kind`); by default none has one.

    Raises:
        InputError: No photo is of one of these data sets or kinds, or none is drawn.
    """
    sets = list(map(data_set_of, names))
    kinds = list(coarse_kinds) or [""] * len(sets)
    known = {*sets, *kinds} - {""}
    if missing := draws.keys() - known:
        raise InputError(f"draws names {min(missing)}, but the photos are of {', '.join(sorted(known))}")
    times = np.array([draws.get(one, 1.0) * draws.get(kind, 1.0) for one, kind in zip(sets, kinds, strict=True)])
    if not times.any():
        raise InputError("draws leaves no photo to train on")
    return times / times.mean()


def _packed(
    photos: PackedPhotos, recipe: Recipe, views: ViewConfig, times: NDArray[np.float64], portions: Iterable[StepSlice]
) -> Iterator[CropBatch]:
    order = _Order(len(photos), recipe.seed, times)
    for portion in portions:
        perfect = recipe.large_perfect if portion.large else recipe.coarse.perfect
        coarse = replace(recipe.coarse, perfect=perfect)
        shown = views
        if portion.large and recipe.large_object_share is not None:
            shown = replace(views, object_share=recipe.large_object_share)
        parts = []
        for group in portion.groups:
            indices = torch.tensor([order[sample] for sample in group], device=photos.device)
            generator = generator_of(recipe, group.start, photos.device)
            batch = photos.batch(indices, portion.size, generator, shown, coarse)
            parts.append(_with_drawn(batch, group, recipe))
        yield parts[0] if len(parts) == 1 else _joined(parts)


def _with_drawn(batch: CropBatch, group: range, recipe: Recipe) -> CropBatch:
    """The batch, some of its coarse masks drawn as the paper's or as annotators' polygons; they go through the CPU."""
    config = recipe.coarse
    if not config.published and not config.polygons:
        return batch
    coarse = batch.coarse.clone()
    for place, sample in enumerate(group):
        random = np.random.default_rng((recipe.seed, sample))
        draw = random.random()
        fine = batch.fine[place, 0].cpu().numpy() > 0
        if draw < config.published:
            coarse[place, 0] = torch.from_numpy(published_coarse(fine, random)).to(coarse)
        elif draw < config.published + config.polygons and not torch.equal(coarse[place], batch.fine[place]):
            coarse[place, 0] = torch.from_numpy(polygon_coarse(fine, random)).to(coarse)
    return replace(batch, coarse=coarse)


def _joined(parts: list[CropBatch]) -> CropBatch:
    image, fine, coarse, distance = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("image", "fine", "coarse", "distance")
    )
    return CropBatch(image, fine, coarse, distance)


class _Order:
    """Which photo each sample of a run shows: all of them once per epoch, or `times` on average, in an own order."""

    def __init__(self, photos: int, seed: int, times: NDArray[np.float64] | None = None) -> None:
        self._photos, self._seed, self._times = photos, seed, times
        self._epoch = lru_cache(maxsize=2)(self._order_of)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        order: NDArray[np.int64] = shuffled(self._photos, epoch, self._seed).numpy()
        if self._times is None or (self._times == 1).all():
            return order
        # Photos lie one after another, each as long as it is drawn often; taken are those at equal distances.
        start = np.random.default_rng((self._seed, epoch)).random()
        taken = np.searchsorted(np.cumsum(self._times), start + np.arange(self._photos), side="right")
        shown: NDArray[np.int64] = taken.clip(max=np.flatnonzero(self._times)[-1])[order]
        return shown

    def __getitem__(self, sample: int) -> int:
        return int(self._epoch(sample // self._photos)[sample % self._photos])


@dataclass(frozen=True)
class _Arrays:
    """A training crop of a worker process, or what was wrong with the photos tried for it."""

    image: NDArray[np.uint8]
    fine: NDArray[np.bool_]
    coarse: NDArray[np.bool_]
    distance: NDArray[np.float32]
    failures: tuple[tuple[str, str], ...]


class StreamedCrops(Dataset[_Arrays]):
    """The crops of a recipe, by the samples' numbers.

    Args:
        source: The photos.
        recipe: A recipe whose crops are `PublishedViews`.

    Raises:
        InputError: The recipe's crops are another kind, or the source is empty.
    """

    def __init__(self, source: Source, recipe: Recipe) -> None:
        if not isinstance(recipe.views, PublishedViews):
            raise InputError("this recipe cuts its crops from a pack, not from files")
        if recipe.draws:
            raise InputError("draws needs a pack, whose photos' names are known: make one with `segrefiner data pack`")
        if not len(source):
            raise InputError(f"{source.name} has no photos to train on")
        self.source, self.recipe, self.views = source, recipe, recipe.views
        self._order: _Order | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_order": None}

    def __getitem__(self, key: tuple[int, int, bool]) -> _Arrays:
        number, size, large = key
        if self._order is None:
            self._order = _Order(len(self.source), self.recipe.seed)
        photo, view = divmod(number, self.views.per_photo)
        sample, failures = self._read(self._order[photo])
        random = np.random.default_rng((self.recipe.seed, photo))
        crop = published_object_view(Crop(sample.image, sample.mask, sample.coarse), size, self.views.pad, random)
        if view:
            crop = patch(crop, size, random)
        random = np.random.default_rng((self.recipe.seed, photo, view))
        crop = resized(crop, size, antialias=self.views.antialias)
        crop = mirrored(crop) if random.random() < self.views.flip else crop
        weighted = self.recipe.contour_weight > 0
        distance = signed_distance(crop.mask) if weighted else np.zeros(crop.mask.shape, np.float32)
        perfect = random.random() < (self.recipe.large_perfect if large else self.recipe.coarse.perfect)
        coarse = crop.mask if perfect else crop.coarse
        if coarse is None:
            coarse = self._coarse(crop, number, random)
        image, mask = np.ascontiguousarray(crop.image), np.ascontiguousarray(crop.mask)
        return _Arrays(image, mask, np.ascontiguousarray(coarse), distance, tuple(failures))

    def _read(self, index: int) -> tuple[Sample, list[tuple[str, str]]]:
        """A photo, or the next one that can be read, and what was wrong with those before it."""
        failures: list[tuple[str, str]] = []
        for step in range(min(_NEIGHBOURS, len(self.source))):
            place = (index + step) % len(self.source)
            try:
                return self.source.read(place), failures
            except InputError as error:
                failures.append((f"{self.source.name}[{place}]", str(error)))
        raise TrainingError(f"{len(failures)} photos in a row cannot be read, the last one: {failures[-1][1]}")

    def _coarse(self, crop: Crop, number: int, random: np.random.Generator) -> NDArray[np.bool_]:
        config = replace(self.recipe.coarse, perfect=0.0, real=0.0)
        if random.random() < config.published:
            return published_coarse(crop.mask, random)
        distance = torch.from_numpy(signed_distance(crop.mask))[None, None]
        generator = generator_of(self.recipe, number, torch.device("cpu"))
        mask: NDArray[np.bool_] = coarse_mask(distance, generator, config)[0, 0].numpy() > 0
        return mask


def streamed_batches(source: Source, recipe: Recipe, device: torch.device, *, workers: int = 1) -> BatchSource:
    """Batches of photos that worker processes read while training goes on.

    Args:
        source: The photos.
        recipe: A recipe whose crops are `PublishedViews`.
        device: Where the batches live.
        workers: Processes that read photos; 0 reads in this one.

    Raises:
        InputError: The recipe's crops are another kind, or the source is empty.
    """
    return partial(_streamed, StreamedCrops(source, recipe), device, workers)


def _streamed(
    crops: StreamedCrops, device: torch.device, workers: int, portions: Iterable[StepSlice]
) -> Iterator[CropBatch]:
    keys = ([(n, p.size, p.large) for group in p.groups for n in group] for p in portions)
    loader = DataLoader(
        crops,
        batch_sampler=_Keys(keys),
        num_workers=workers,
        collate_fn=_collated,
        pin_memory=device.type == "cuda",
        # Forked processes would inherit the locks of this one's threads.
        multiprocessing_context="forkserver" if workers else None,
        generator=Generator(),
    )
    for image, fine, coarse, distance, failures in loader:
        pixels = image.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
        truth, mask, far = (t.to(device, non_blocking=True)[:, None].float() for t in (fine, coarse, distance))
        yield CropBatch(pixels, truth, mask, far, failures)


class _Keys:
    """The keys of each batch, as the loader asks for them."""

    def __init__(self, keys: Iterable[list[tuple[int, int, bool]]]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[list[tuple[int, int, bool]]]:
        return iter(self._keys)


def _collated(crops: list[_Arrays]) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[tuple[str, str], ...]]:
    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(crop, name) for crop in crops]))

    failures = tuple(failure for crop in crops for failure in crop.failures)
    return stack("image"), stack("fine"), stack("coarse"), stack("distance"), failures


@dataclass(frozen=True)
class Example:
    """What the network is shown in a step, and asked for.

    Attributes:
        batch: The crops.
        timesteps: `(B,)` int64.
        mixed: `(B, 1, S, S)` float in {0, 1}.
    """

    batch: CropBatch
    timesteps: Tensor
    mixed: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    def part(self, rows: slice) -> "Example":
        """Some of the samples."""
        b = self.batch
        return Example(
            CropBatch(b.image[rows], b.fine[rows], b.coarse[rows], b.distance[rows]),
            self.timesteps[rows],
            self.mixed[rows],
        )
