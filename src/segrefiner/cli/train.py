"""The commands `train` and `report-training`."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, TrainingError
from .common import SEED, FiniteRange, exit_on_error, item_bar, say

if TYPE_CHECKING:
    import torch

    from ..data.sources import Source
    from ..model.unet import DenoisingUNet
    from ..training.batches import BatchSource
    from ..training.distributed import ProcessGroup
    from ..training.loop import LogRow, Watch
    from ..training.recipes import Recipe
    from ..training.trainer import Trainer

_NAMES = (
    "compact",
    "compact-second",
    "compact-third",
    "compact-fourth",
    "compact-fifth",
    "compact-sixth",
    "compact-general",
    "finetune",
    "lr",
    "hr",
)
_DRY_PHOTOS = 16
_STARTS = {
    "hr": "those of a run of lr",
    "compact-second": "those of compact",
    "compact-third": "those of compact-second",
    "compact-fourth": "those of compact-third",
    "compact-fifth": "those of compact-fourth",
    "compact-sixth": "those of compact-fifth",
    "compact-general": "those of compact-sixth",
}


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="Folder for checkpoint, logs and weights; a checkpoint in it is continued.")  # fmt: skip
@click.option("--recipe", "name", type=click.Choice(_NAMES), help="[default: compact, or finetune with --from]")
@click.option("--from", "before", metavar="MODEL", help="Start from these weights, a name, file, folder or Hub id.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE",
              help="Replace a value of the recipe, such as lr=1e-4 or coarse.perfect=0.2.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1), help="Crops to train on.")
@click.option("--lr", type=FiniteRange(0), help="Peak learning rate.")
@click.option("--seed", type=SEED, help="Of every draw.")
@click.option("--coarse", type=click.Path(path_type=Path), help="Folder of coarse masks that were made beforehand.")
@click.option("--val", metavar="DATA", help="Photos to validate on.  [default: none]")
@click.option("--val-photos", type=click.IntRange(1), default=16, show_default=True)
@click.option("--val-pipelines", type=click.Choice(["both", "default", "published"]), default="both",
              show_default=True)  # fmt: skip
@click.option("--micro-batch", type=click.IntRange(1), help="Crops at a time, at most, where memory is short.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True,
              help="ProcessGroup that read photos, where they are not packed into memory.")  # fmt: skip
@click.option("--max-minutes", type=click.FloatRange(0), default=math.inf, help="Stop with a checkpoint after this.")
@click.option("--checkpoint-minutes", type=FiniteRange(0), default=3.0, show_default=True)
@click.option("--log-every", type=click.IntRange(1), default=50, show_default=True, help="Steps.")
@click.option("--tensorboard", is_flag=True, help="Write event files into the folder, too.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--dry-run", is_flag=True, help="Say what the run would take, by a short measurement.")
@exit_on_error
def train(
    data: tuple[str, ...],
    output: Path,
    name: str | None,
    before: str | None,
    values: tuple[str, ...],
    samples: int | None,
    lr: float | None,
    seed: int | None,
    device: str,
    **options: Any,
) -> None:
    """Train on DATA: data sets, or one file made by `data pack`.

    Start it with torchrun to train on several GPUs or processes:
    torchrun --nproc-per-node 8 -m segrefiner train DATA -o RUN --recipe lr
    """
    from ..model.backends import choose_device
    from ..model.conversion import image_encoder_weights, with_detail, with_image_encoder
    from ..model.weights import load, resolve
    from ..training.distributed import launched
    from ..training.overrides import with_values
    from ..training.recipes import RECIPES

    name = name or ("finetune" if before else "compact")
    if before is None and name in _STARTS:
        raise InputError(f"the recipe {name} starts from trained weights, {_STARTS[name]}: name them with --from")
    before = before or ("compact" if name == "finetune" else None)
    weights = None if before is None else resolve(before)
    shortcuts = {"samples": samples, "lr": lr, "seed": seed}
    recipe = replace(RECIPES[name], **{k: v for k, v in shortcuts.items() if v is not None})  # type: ignore[arg-type]
    start = None if weights is None else load(weights)
    if start is not None:
        stages = start.config.image_stages or recipe.model.image_stages
        detail = start.config.detail_channels or recipe.model.detail_channels
        recipe = replace(recipe, model=replace(start.config, image_stages=stages, detail_channels=detail))
    recipe = with_values(recipe, dict(_pair(value) for value in values))
    stages = recipe.model.image_stages
    encoder = None
    if stages and start is None:
        encoder = image_encoder_weights(stages)
    elif stages and start is not None and not start.config.image_stages:
        start = with_image_encoder(start, stages)
    if start is not None and recipe.model.detail_channels and not start.config.detail_channels:
        start = with_detail(start, recipe.model.detail_channels)
    with launched(choose_device(device)) as (processes, target):
        feed, photos = _feed(data, recipe, output, target, processes, options)
        from ..training.trainer import Trainer

        trainer = Trainer(feed, recipe, target, processes=processes, micro_batch=options["micro_batch"])
        if start is not None:
            trainer.start_from(start)
        if encoder is not None:
            trainer.start_encoder_from(encoder)
        if options["dry_run"]:
            _dry_run(trainer, feed, photos)
        else:
            _run(trainer, output, weights, name, options)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"--set {text!r} has no value: write NAME=VALUE, such as lr=1e-4")
    return name.strip(), value.strip()


def _feed(
    data: tuple[str, ...],
    recipe: "Recipe",
    output: Path,
    device: "torch.device",
    processes: "ProcessGroup",
    options: dict[str, Any],
) -> tuple["BatchSource", int]:
    """The batches of a run, and how many photos they are of; data sets are packed where the recipe asks for that."""
    from ..data.packed_photos import PackedPhotos
    from ..data.packs import is_pack
    from ..training.batches import packed_batches, streamed_batches

    packed = [Path(entry) for entry in data if is_pack(Path(entry))]
    if packed and len(data) > 1:
        raise InputError(f"{packed[0]} is a pack and cannot be mixed with other data: give one pack, or data sets")
    if recipe.streamed:
        if packed:
            raise InputError(f"this recipe cuts its crops from files: give it a data set, not the pack {packed[0]}")
        source = _source(data, options["coarse"])
        return streamed_batches(source, recipe, device, workers=options["workers"]), len(source)
    pack = packed[0] if packed else output / "photos.pack"
    if not pack.exists():
        source = _source(data, options["coarse"])
        if options["dry_run"]:
            return _feed_of_some(source, recipe, device), len(source)
        if processes.rank == 0:
            _pack(source, pack, recipe)
    processes.barrier()
    photos = PackedPhotos(pack, device)
    return packed_batches(photos, recipe), len(photos)


def _pack(source: "Source", pack: Path, recipe: "Recipe") -> None:
    """Packs photos for a run; what cannot be read is noted in the run's list of failures."""
    from ..data.alignment import Aligned, measure_offsets
    from ..data.packs import pack_source
    from ..training.run_folder import FAILURES_NAME

    pack.parent.mkdir(parents=True, exist_ok=True)
    if recipe.align:
        source = Aligned(source, measure_offsets(source, progress=item_bar("looking")))
    _, failures = pack_source(source, pack, size=recipe.pack_size, progress=item_bar("packing"))
    from ..imaging.json_files import json_text

    with (pack.parent / FAILURES_NAME).open("a") as file:
        for index, reason in failures:
            file.write(json_text({"name": f"{source.name}[{index}]", "reason": reason}) + "\n")
    if failures:
        click.echo(f"{len(failures)} photos cannot be read: see {pack.parent / FAILURES_NAME}", err=True)


def _feed_of_some(source: "Source", recipe: "Recipe", device: "torch.device") -> "BatchSource":
    """Batches of the first photos, from a pack that is gone again: for a dry run."""
    from tempfile import TemporaryDirectory

    from ..data.packed_photos import PackedPhotos
    from ..data.packs import pack_source
    from ..data.sources import Head
    from ..training.batches import packed_batches

    with TemporaryDirectory() as folder:
        pack_source(Head(source, _DRY_PHOTOS), Path(folder) / "pack", size=recipe.pack_size, most_failures=1.0)
        # These may be of one data set alone.
        return packed_batches(PackedPhotos(Path(folder) / "pack", device), replace(recipe, draws=()))


def _source(data: tuple[str, ...], coarse: Path | None = None) -> "Source":
    from ..data.layouts import every_coarse, open_source
    from ..data.sources import concatenate

    sources = [every_coarse(open_source(entry, coarse)) for entry in data]
    return concatenate(sources)


def _dry_run(trainer: "Trainer", feed: "BatchSource", photos: int) -> None:
    from ..training.estimate import measure, summary

    parameters = sum(p.numel() for p in trainer.net.parameters())
    _say_recipe(trainer.recipe)
    measured = list(measure(trainer, feed))
    for line in summary(trainer.recipe, photos, parameters, measured, trainer.processes.world):
        click.echo(line)


def _run(trainer: "Trainer", output: Path, start: Path | None, name: str, options: dict[str, Any]) -> None:
    from ..imaging.json_files import json_text
    from ..model.weights import STEPS_KEY, checksum, save
    from ..training import loop as training
    from ..training.report import write_training_report
    from ..training.run_folder import CHECKPOINT_NAME

    recipe, first = trainer.recipe, trainer.processes.rank == 0
    notes = {"recipe": json_text({"name": name, **recipe.to_dict()})}
    if best_steps := _best_steps(recipe):
        notes[STEPS_KEY] = str(best_steps)
    if start is not None:
        notes["started_from_sha256"] = checksum(start)

    def keep(net: "DenoisingUNet", path: Path, step: int) -> None:
        save(net, path, metadata={**notes, "trained_steps": str(step)})

    weights = output / "model.safetensors"
    with ExitStack() as stack:
        watch = _watch(trainer, output, options["tensorboard"], stack) if first else training.Watch()
        try:
            finished = training.train(
                trainer,
                output,
                max_minutes=options["max_minutes"],
                checkpoint_minutes=options["checkpoint_minutes"],
                log_every=options["log_every"],
                validate=_validation(recipe, options) if first else None,
                keep_best=lambda net, step: keep(net, output / "best.safetensors", step),
                watch=watch,
            )
        except TrainingError:
            if first and (output / CHECKPOINT_NAME).exists():
                trainer.load(output / CHECKPOINT_NAME)
                keep(trainer.result(), weights, trainer.step)
            raise
    if not first:
        return
    keep(trainer.result(), weights, trainer.step)
    write_training_report(output, output / "report.html")
    state = "finished" if finished else "stopped; run the same command again to continue"
    click.echo(f"{weights}: {state} at step {trainer.step} of {recipe.steps}; {output / 'report.html'}")


def _best_steps(recipe: "Recipe") -> int | None:
    """Diffusion steps with which the weights refine best: one, where many samples are at T-1; all for the paper's."""
    return 1 if recipe.coarse_timestep_share >= 0.3 else None


def _validation(recipe: "Recipe", options: dict[str, Any]) -> Callable[["DenoisingUNet"], list[dict[str, Any]]] | None:
    if options["val"] is None:
        return None
    from ..data.layouts import open_source
    from ..data.packed_photos import PackedPhotos
    from ..data.packs import is_pack
    from ..model.backends import choose_dtype
    from ..model.diffusion import NUM_TIMESTEPS
    from ..training.validation import PackedSource, validate, validation_set

    if is_pack(Path(options["val"])):
        import torch

        source: Source = PackedSource(PackedPhotos(Path(options["val"]), torch.device("cpu")))
    else:
        source = open_source(options["val"])
    samples = validation_set(source, options["val_photos"])
    # The one that the recipe is for comes first: it decides which weights are the best.
    order = ("published", "default") if recipe.streamed else ("default", "published")
    chosen = [p for p in order if options["val_pipelines"] in ("both", p)]
    steps, instance = _best_steps(recipe) or NUM_TIMESTEPS, getattr(recipe.views, "per_photo", 0) == 1

    def judge(net: "DenoisingUNet") -> list[dict[str, Any]]:
        dtype = choose_dtype("auto", next(net.parameters()).device)
        return validate(net, samples, chosen, steps=steps, dtype=dtype, instance=instance)

    return judge


def _say_recipe(recipe: "Recipe") -> None:
    from dataclasses import fields

    from rich.console import Console

    console = Console(stderr=True)
    for entry in fields(recipe):
        console.print(f"{entry.name} = {getattr(recipe, entry.name)}", style="dim", highlight=False, soft_wrap=True)


def _watch(trainer: "Trainer", output: Path, tensorboard: bool, stack: ExitStack) -> "Watch":
    """The terminal's line, and TensorBoard where it is asked for."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..training.loop import Watch
    from ..training.tensorboard import TensorBoardLog

    recipe = trainer.recipe
    _say_recipe(recipe)
    console = Console(stderr=True)
    columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    bar = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))
    task = bar.add_task("starting", total=recipe.steps)
    boards: list[TensorBoardLog] = []

    def begin(step: int) -> None:
        bar.update(task, completed=step)
        if tensorboard:
            boards.append(TensorBoardLog(output / "tensorboard", steps_taken=step))
            stack.callback(boards[0].close)

    def log(row: "LogRow") -> None:
        line = f"loss {row['loss']:.4f}  lr {row['lr']:.1e}  {row['samples_per_second']:.1f} samples/s"
        bar.update(task, completed=row["step"], description=line)
        if not console.is_terminal:
            console.print(f"step {row['step']:.0f}/{recipe.steps}  {line}  {row['minutes']:.1f} min", highlight=False)
        for board in boards:
            board.row(row)

    def validation(row: Any) -> None:
        console.print(
            f"step {row['step']}, {row['pipeline']} pipeline, {row['photos']} photos: "
            f"IoU {100 * row['iou_before']:.2f} to {100 * row['iou_after']:.2f}, "
            f"mBA {100 * row['mba_before']:.2f} to {100 * row['mba_after']:.2f}, {100 * row['harmed']:.1f} % harmed",
            highlight=False,
        )
        for board in boards:
            board.validation(row)

    def picture(step: int, array: Any) -> None:
        for board in boards:
            board.picture(step, array)

    return Watch(begin, log, validation, picture)


@click.command("report-training")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page, HTML.  [default: RUN/report.html]")
@exit_on_error
def training_report(run: Path, output: Path | None) -> None:
    """Turn the folder RUN of a training run, finished or not, into one page that opens offline."""
    from ..training.report import write_training_report

    target = run / "report.html" if output is None else output
    write_training_report(run, target)
    say(str(target))
