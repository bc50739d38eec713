"""The photos of a training run: opened, packed where the recipe keeps them in memory, and turned into batches."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..data.alignment import Aligned, measure_offsets
from ..data.layouts import every_coarse, open_source
from ..data.packed_photos import PackedPhotos
from ..data.packs import is_pack, pack_source
from ..data.sources import Head, Source, concatenate
from ..errors import InputError
from ..imaging.json_files import json_text
from .batches import BatchSource, packed_batches, streamed_batches
from .distributed import ProcessGroup
from .recipe import Recipe
from .run_folder import FAILURES_NAME, PACK_NAME

_ESTIMATE_PHOTOS = 16
"""Photos that an estimate packs: enough to fill a batch, few enough to take a moment."""


@dataclass(frozen=True)
class PackingHooks:
    """Callables that follow the packing of photos, in the first process alone.

    Attributes:
        looking: Wraps the photos' numbers while the offset of their masks is measured, for a progress bar.
        packing: Wraps the photos' numbers while they are packed, for a progress bar.
        unreadable: Takes the number of photos that could not be read, if any, and the file that lists them.
    """

    looking: Callable[[Iterable[int]], Iterable[int]] = iter
    packing: Callable[[Iterable[int]], Iterable[int]] = iter
    unreadable: Callable[[int, Path], None] = lambda count, path: None


@dataclass(frozen=True)
class RunPhotos:
    """The photos of a run.

    Attributes:
        source: The data sets; None where the run trains on a pack that exists.
        pack: The pack in which the run keeps its photos, made or to be made; None where it reads files as it trains.
    """

    source: Source | None
    pack: Path | None

    def batches(
        self, recipe: Recipe, device: torch.device, processes: ProcessGroup, *, workers: int, hooks: PackingHooks
    ) -> BatchSource:
        """The batches of a run; the first process packs the photos where the recipe needs a pack that is not there.

        Args:
            recipe: Decides how crops are cut.
            device: Where the batches live.
            processes: All of them must call this.
            workers: Processes that read photos, where they are not packed; 0 reads in this one.
            hooks: Follow the packing.

        Raises:
            InputError: Too many photos cannot be read, the pack is damaged, or the recipe does not suit the photos.
            OutputError: The pack cannot be written.
        """
        if self.pack is None:
            return self._streamed(recipe, device, workers)
        if not self.pack.exists() and processes.rank == 0:
            _pack(self._source, self.pack, recipe, hooks)
        processes.barrier()
        return packed_batches(PackedPhotos(self.pack, device), recipe)

    def sample_batches(self, recipe: Recipe, device: torch.device, *, workers: int) -> tuple[BatchSource, int]:
        """Batches to measure with, and the number of photos of the whole run. Leaves no file behind.

        Args:
            recipe: Decides how crops are cut.
            device: Where the batches live.
            workers: Processes that read photos, where they are not packed; 0 reads in this one.

        Raises:
            InputError: None of the first photos can be read, or the recipe does not suit the photos.
        """
        if self.pack is None:
            return self._streamed(recipe, device, workers), len(self._source)
        if self.pack.exists():
            photos = PackedPhotos(self.pack, device)
            return packed_batches(photos, recipe), len(photos)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "pack"
            pack_source(Head(self._source, _ESTIMATE_PHOTOS), path, size=recipe.pack_size, most_failures=1.0)
            # The first photos may be of one data set alone.
            return packed_batches(PackedPhotos(path, device), replace(recipe, draws=())), len(self._source)

    @property
    def _source(self) -> Source:
        if self.source is None:
            raise InputError(f"{self.pack} is gone: give the data sets that it was made of")
        return self.source

    def _streamed(self, recipe: Recipe, device: torch.device, workers: int) -> BatchSource:
        return streamed_batches(self._source, recipe, device, workers=workers)


def open_photos(
    data: Sequence[str | os.PathLike[str]], output: Path, recipe: Recipe, coarse: Path | None = None
) -> RunPhotos:
    """Opens the data of a run. Nothing is decoded or written yet.

    Args:
        data: Data sets, as `layouts.open_source` takes them, or one pack.
        output: Folder of the run, which keeps the pack that is made of data sets.
        recipe: Decides whether photos are packed.
        coarse: Folder of coarse masks that were made beforehand.

    Raises:
        InputError: There is no such data, a pack is mixed with other data, or the recipe reads files and the data is a
            pack.
    """
    names = [os.fspath(entry) for entry in data]
    packed = [Path(name) for name in names if is_pack(Path(name))]
    if packed and len(names) > 1:
        raise InputError(f"{packed[0]} is a pack and cannot be mixed with other data: give one pack, or data sets")
    if packed and recipe.streamed:
        raise InputError(f"this recipe cuts its crops from files: give it a data set, not the pack {packed[0]}")
    if packed:
        return RunPhotos(None, packed[0])
    pack = None if recipe.streamed else output / PACK_NAME
    if pack is not None and pack.exists():
        return RunPhotos(None, pack)
    return RunPhotos(concatenate([every_coarse(open_source(name, coarse)) for name in names]), pack)


def _pack(source: Source, pack: Path, recipe: Recipe, hooks: PackingHooks) -> None:
    """Packs photos for a run; those that cannot be read go to the run's list of failures."""
    pack.parent.mkdir(parents=True, exist_ok=True)
    if recipe.align:
        source = Aligned(source, measure_offsets(source, progress=hooks.looking))
    _, failures = pack_source(source, pack, size=recipe.pack_size, progress=hooks.packing)
    with (pack.parent / FAILURES_NAME).open("a") as file:
        for index, reason in failures:
            file.write(json_text({"name": f"{source.name}[{index}]", "reason": reason}) + "\n")
    if failures:
        hooks.unreadable(len(failures), pack.parent / FAILURES_NAME)
