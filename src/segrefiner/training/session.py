"""Training from Python: `prepare_run` gives a `TrainingSession`, which estimates a run and runs it.

```python
from segrefiner.training.session import RunHooks, Validation, prepare_run

session = prepare_run(
    "my_photos",
    "run",
    recipe="compact",
    values={"lr": "5e-4"},
    validation=Validation("my_held_out_photos", photos=8),
)
print(f"about {session.estimate().hours:.1f} hours")
hooks = RunHooks(log=lambda row: print(f"step {row['step']:.0f}: loss {row['loss']:.3f}"))
result = session.run(max_minutes=60, hooks=hooks)
print(result.weights, "finished" if result.finished else "stopped: run this again to continue")
```

`torchrun` starts the same program on several processes.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.layouts import open_source
from ..data.packed_photos import PackedPhotos
from ..data.packs import is_pack
from ..data.sources import Source
from ..errors import InputError, TrainingError
from ..imaging.json_files import json_text
from ..model.backends import choose_device, choose_dtype
from ..model.conversion import image_encoder_weights, with_detail, with_image_encoder
from ..model.diffusion import NUM_TIMESTEPS
from ..model.unet import DenoisingUNet
from ..model.weights import BUNDLED, STEPS_KEY, checksum, load, resolve, save
from ..refinement.forking import use_threads
from .batches import BatchSource
from .distributed import ProcessGroup, launched
from .estimate import Estimate, measure
from .loop import Validate, Watch, train
from .monitoring.report import write_training_report
from .monitoring.validation import PackedSource, validate, validation_set
from .overrides import with_values
from .photos import PackingHooks, RunPhotos, open_photos
from .recipe import Recipe
from .recipes import RECIPES
from .run_folder import BEST_NAME, CHECKPOINT_NAME, REPORT_NAME, WEIGHTS_NAME
from .trainer import Trainer

_STARTS = {
    "hr": "those of a run of lr",
    "compact-second": "those of compact",
    "compact-third": "those of compact-second",
    "compact-fourth": "those of compact-third",
    "compact-fifth": "those of compact-fourth",
    "compact-sixth": "those of compact-fifth",
    "compact-general": "those of compact-sixth",
}
"""Recipes that need weights to start from, and which."""

_CUSTOM = "custom"
"""What a recipe is called in the weights' metadata that is none of `RECIPES`."""


@dataclass(frozen=True)
class Validation:
    """Photos that a run is judged on while it trains.

    Attributes:
        data: A data set, as `layouts.open_source` takes it, or a pack.
        photos: How many photos, at most; they are spread over the data set.
        pipelines: "default", "published" or both. The one that the recipe is for decides which weights are the best.

    >>> from segrefiner.training.session import Validation, prepare_run
    >>> held_out = Validation("my_held_out_photos", photos=1, pipelines=("default",))
    >>> session = prepare_run("my_photos", "run", validation=held_out)
    """

    data: str | os.PathLike[str]
    photos: int = 16
    pipelines: tuple[str, ...] = ("default", "published")


@dataclass(frozen=True)
class RunHooks(Watch):
    """Callables that follow a session's run, in the first process alone. Each has a default that does nothing.

    Attributes:
        ready: Takes the recipe when photos and network are there, before the first step.
        packing: Callables that follow the packing of photos.

    >>> from segrefiner.training.session import RunHooks, prepare_run
    >>> hooks = RunHooks(log=lambda row: print(f"step {row['step']:.0f}"))
    >>> result = prepare_run("my_photos", "run").run(log_every=5, hooks=hooks)
    step 5
    """

    ready: Callable[[Recipe], None] = lambda recipe: None
    packing: PackingHooks = field(default_factory=PackingHooks)


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        weights: File of the weights that the run gives.
        report: Page with curves, validation, pictures and recipe.
        step: Steps that the run has taken.
        finished: Whether that is all of the recipe; otherwise `TrainingSession.run` continues the run.
        rank: Number of this process among those of the run; process 0 has written the files.

    >>> from segrefiner.training.session import prepare_run
    >>> result = prepare_run("my_photos", "run").run()
    >>> print(result.weights, result.report, result.finished)
    run/model.safetensors run/report.html True
    """

    weights: Path
    report: Path
    step: int
    finished: bool
    rank: int = 0


@dataclass(frozen=True)
class _Start:
    """What a run begins with: a trained network from a file, pretrained weights of the image encoder, or nothing."""

    path: Path | None = None
    network: DenoisingUNet | None = None
    encoder: dict[str, Tensor] | None = None


def prepare_run(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    recipe: str | Recipe | None = None,
    start: str | os.PathLike[str] | None = None,
    values: Mapping[str, str] | None = None,
    coarse: str | os.PathLike[str] | None = None,
    validation: Validation | None = None,
    device: str = "auto",
    workers: int = 1,
    micro_batch: int | None = None,
) -> "TrainingSession":
    """Prepares a training run: checks the recipe, loads the weights to start from and opens the data. Writes nothing.

    Args:
        data: Data sets, as `layouts.open_source` takes them, or one pack.
        output: Folder of the run; a checkpoint in it is continued.
        recipe: A name out of `recipes.RECIPES`, or a recipe; by default `compact`, or `finetune` with `start`.
        start: Weights to start from, as `weights.resolve` takes them; the network then has their shape. By default the
            run starts from random weights, that of `finetune` from the bundled ones.
        values: Text that replaces values of the recipe by name, as `overrides.with_values` takes it.
        coarse: Folder of coarse masks that were made beforehand.
        validation: Photos to validate on; by default none.
        device: "auto", "cpu", "cuda" or "cuda:1".
        workers: Processes that read photos, where they are not packed into memory; 0 reads in this one.
        micro_batch: Crops that go through the network at once, at most, where memory is short.

    Returns:
        The run, not yet begun.

    Raises:
        InputError: There is no such recipe, value, device or data, or they do not suit each other.
        CheckpointError: The weights cannot be found or read.
        MissingExtraError: The recipe adds an image encoder and its pretrained weights are not installed.

    >>> from segrefiner.training.session import prepare_run
    >>> session = prepare_run("my_photos", "run", values={"lr": "5e-4"}, device="cpu")
    >>> session.name, session.recipe.lr
    ('compact', 0.0005)
    >>> result = session.run(max_minutes=60)
    >>> mine = Refiner.from_pretrained(result.weights)
    """
    name, chosen = _recipe_of(recipe, start)
    if start is None and name == "finetune":
        start = BUNDLED
    path = None if start is None else resolve(start)
    network = None if path is None else load(path)
    chosen = with_values(_shaped_like(network, chosen), values or {})
    began = _started(path, network, chosen)
    target = choose_device(device, apple=False)
    use_threads()
    entries = [data] if isinstance(data, str | os.PathLike) else list(data)
    photos = open_photos(entries, Path(output), chosen, None if coarse is None else Path(coarse))
    return TrainingSession(
        name, chosen, Path(output), photos, began, validation, target, workers=workers, micro_batch=micro_batch
    )


class TrainingSession:
    """A training run that can be estimated, begun and continued. `prepare_run` makes it.

    Attributes:
        name: Name of the recipe, "custom" for one that is not in `recipes.RECIPES`.
        recipe: The recipe in full, with the shape of the network.
        output: Folder of the run.

    >>> from segrefiner.training.session import prepare_run
    >>> session = prepare_run("my_photos", "run")
    >>> print(session.name, session.output, session.recipe.steps)
    compact run 5
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        output: Path,
        photos: RunPhotos,
        start: _Start,
        validation: Validation | None,
        device: torch.device,
        *,
        workers: int,
        micro_batch: int | None,
    ) -> None:
        self.name, self.recipe, self.output = name, recipe, output
        self._photos, self._start, self._validation = photos, start, validation
        self._device, self._workers, self._micro_batch = device, workers, micro_batch

    def estimate(self) -> Estimate:
        """Measures what the run will take, on a few crops of each size. Writes nothing into the run's folder.

        Raises:
            InputError: The first photos cannot be read, or the recipe does not suit them.
            TrainingError: The processes of the run do not find each other.

        >>> from segrefiner.training.session import prepare_run
        >>> estimate = prepare_run("my_photos", "run").estimate()
        >>> estimate.photos, estimate.hours > 0
        (4, True)
        """
        processes, device = launched(self._device)
        feed, photos = self._photos.sample_batches(self.recipe, device, workers=self._workers)
        trainer = self._trainer(feed, device, processes)
        parameters = sum(p.numel() for p in trainer.net.parameters())
        measured = tuple(measure(trainer, feed))
        return Estimate(self.recipe, photos, parameters, measured, processes.world)

    def run(
        self,
        *,
        max_minutes: float = math.inf,
        checkpoint_minutes: float = 3.0,
        log_every: int = 50,
        hooks: RunHooks = RunHooks(),
    ) -> RunResult:
        """Trains to the recipe's end or for so many minutes, and writes weights and report into the run's folder.

        A checkpoint in the folder is continued. SIGTERM and Ctrl-C end the run after the step under way.

        Args:
            max_minutes: Stop, with a checkpoint, after this time.
            checkpoint_minutes: Time between checkpoints.
            log_every: Steps between rows of the log.
            hooks: Follow the run, in the first process alone.

        Returns:
            How the run ended.

        Raises:
            InputError: Photos cannot be read, or the recipe does not suit them.
            TrainingError: Training failed, as `loop.train` says, or the folder's checkpoint is of another recipe. The
                weights of the last good checkpoint are in the folder.
            OutputError: Something cannot be written; the last checkpoint stays whole.

        >>> from segrefiner.training.session import prepare_run
        >>> session = prepare_run("my_photos", "run")
        >>> result = session.run(max_minutes=60, checkpoint_minutes=10)
        >>> result.finished, result.step
        (True, 5)
        """
        processes, device = launched(self._device)
        feed = self._photos.batches(self.recipe, device, processes, workers=self._workers, hooks=hooks.packing)
        trainer, first = self._trainer(feed, device, processes), processes.rank == 0
        weights, report = self.output / WEIGHTS_NAME, self.output / REPORT_NAME
        notes = self._metadata()
        if first:
            hooks.ready(self.recipe)
        try:
            finished = train(
                trainer,
                self.output,
                max_minutes=max_minutes,
                checkpoint_minutes=checkpoint_minutes,
                log_every=log_every,
                validate=self._judge() if first else None,
                keep_best=lambda net, step: _save(net, self.output / BEST_NAME, notes, step),
                watch=hooks,
            )
        except TrainingError:
            if first:
                self._save_last_good(trainer, weights, notes)
            raise
        if first:
            _save(trainer.result(), weights, notes, trainer.step)
            write_training_report(self.output, report)
        return RunResult(weights, report, trainer.step, finished, processes.rank)

    def _save_last_good(self, trainer: Trainer, weights: Path, notes: dict[str, str]) -> None:
        """Writes the weights of the folder's checkpoint, where there is one."""
        if (self.output / CHECKPOINT_NAME).exists():
            trainer.load(self.output / CHECKPOINT_NAME)
            _save(trainer.result(), weights, notes, trainer.step)

    def _trainer(self, feed: BatchSource, device: torch.device, processes: ProcessGroup) -> Trainer:
        trainer = Trainer(feed, self.recipe, device, processes=processes, micro_batch=self._micro_batch)
        if self._start.network is not None:
            trainer.start_from(self._start.network)
        if self._start.encoder is not None:
            trainer.start_encoder_from(self._start.encoder)
        return trainer

    def _metadata(self) -> dict[str, str]:
        """What the weights say of the run that made them."""
        notes = {"recipe": json_text({"name": self.name, **self.recipe.to_dict()})}
        if best_steps := _best_steps(self.recipe):
            notes[STEPS_KEY] = str(best_steps)
        if self._start.path is not None:
            notes["started_from_sha256"] = checksum(self._start.path)
        return notes

    def _judge(self) -> Validate | None:
        """What validates a network in this run; None without photos to validate on."""
        if self._validation is None:
            return None
        recipe, samples = self.recipe, validation_set(_validation_source(self._validation), self._validation.photos)
        # The one that the recipe is for comes first: it decides which weights are the best.
        order = ("published", "default") if recipe.streamed else ("default", "published")
        chosen = [pipeline for pipeline in order if pipeline in self._validation.pipelines]
        steps, instance = _best_steps(recipe) or NUM_TIMESTEPS, getattr(recipe.views, "per_photo", 0) == 1

        def judge(net: DenoisingUNet) -> list[dict[str, Any]]:
            dtype = choose_dtype("auto", next(net.parameters()).device)
            return validate(net, samples, chosen, steps=steps, dtype=dtype, instance=instance)

        return judge


def _recipe_of(recipe: str | Recipe | None, start: str | os.PathLike[str] | None) -> tuple[str, Recipe]:
    """A recipe and its name."""
    if recipe is None:
        recipe = "compact" if start is None else "finetune"
    if isinstance(recipe, Recipe):
        name = next((name for name, known in RECIPES.items() if known == recipe), _CUSTOM)
    elif recipe in RECIPES:
        name, recipe = recipe, RECIPES[recipe]
    else:
        raise InputError(f"there is no recipe {recipe!r}: expected one of {', '.join(RECIPES)}")
    if start is None and name in _STARTS:
        raise InputError(f"the recipe {name} starts from trained weights, {_STARTS[name]}: name them with --from")
    return name, recipe


def _shaped_like(network: DenoisingUNet | None, recipe: Recipe) -> Recipe:
    """The recipe with the shape of the network that it starts from, and the parts that it adds to that network."""
    if network is None:
        return recipe
    stages = network.config.image_stages or recipe.model.image_stages
    detail = network.config.detail_channels or recipe.model.detail_channels
    return replace(recipe, model=replace(network.config, image_stages=stages, detail_channels=detail))


def _started(path: Path | None, network: DenoisingUNet | None, recipe: Recipe) -> _Start:
    """What a run begins with: the network with the parts that the recipe adds."""
    stages, detail = recipe.model.image_stages, recipe.model.detail_channels
    if network is None:
        return _Start(encoder=image_encoder_weights(stages) if stages else None)
    if stages and not network.config.image_stages:
        network = with_image_encoder(network, stages)
    if detail and not network.config.detail_channels:
        network = with_detail(network, detail)
    return _Start(path, network)


def _validation_source(validation: Validation) -> Source:
    path = Path(validation.data)
    if is_pack(path):
        return PackedSource(PackedPhotos(path, torch.device("cpu")))
    return open_source(os.fspath(validation.data))


def _best_steps(recipe: Recipe) -> int | None:
    """Diffusion steps with which the weights refine best: one, where many samples are at T-1; all for the paper's."""
    return 1 if recipe.coarse_timestep_share >= 0.3 else None


def _save(net: DenoisingUNet, path: Path, notes: Mapping[str, str], step: int) -> None:
    save(net, path, metadata={**notes, "trained_steps": str(step)})
