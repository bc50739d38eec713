"""The commands for one photo and for videos: `refine` and `video`."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, InputWarning
from .shared.common import FAILED, SEED, FiniteRange, device_option, exit_on_error, ignored_labels, item_bar
from .shared.ledger import _json, _strict, tell_ledger, tell_names
from .shared.messages import conclude, is_watched, say
from .shared.streams import STANDARD, FileOrStream, FilePath, check_streams, read_standard, write_standard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..imaging.reading import Photo
    from ..ledger import Account
    from ..model.diffusion import Progress
    from ..refinement.refiner import Refiner, Result

_log = logging.getLogger(__name__)
_PIPELINES = ("default", "semantic", "instance")


@click.command()
@click.argument("image", type=FileOrStream())
@click.argument("mask", type=FileOrStream())
@click.option("-o", "--output", type=FileOrStream(), required=True, help="Refined mask, PNG; - for standard output.")
@click.option("--model", help="Alias, folder, .safetensors file or Hub id.  [default: the bundled model]")
@device_option
@click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True)
@click.option("--backend", type=click.Choice(["auto", "torch", "onnxruntime", "openvino"]), default="auto",
              help="What computes the network; the last two take an .onnx file as the model.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1, 6), help="Diffusion steps.  [default: what suits the model best]")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--threshold", type=FiniteRange(), help="Foreground of a mask with more than two values, as stored.")
@click.option("--max-shift", type=FiniteRange(min=0), metavar="PIXELS",
              help="Keep the coarse label farther than this from the coarse contour.  [default: no limit]")  # fmt: skip
@click.option("--strength", type=FiniteRange(0, 1), default=1.0, show_default=True,
              help="Less for surer changes only; 0 changes nothing.")  # fmt: skip
@click.option(
    "--trust",
    type=FiniteRange(0, 1),
    metavar="0..1",
    help="In the coarse mask: 0 keeps every change, 1 none.  [default: as likely right as wrong]",
)
@click.option("--soft", is_flag=True, help="Write probabilities 0-255 instead of 0 and 255.")
@click.option("--bits", type=click.Choice(["8", "16"]), default="8", show_default=True, help="Of --soft.")
@click.option("--cutout", type=FileOrStream(),
              help="The object on its own, with alpha and clean edges: PNG, WebP or TIFF by its ending.")  # fmt: skip
@click.option("--overlay", type=FileOrStream(),
              help="Before/after picture: PNG, WebP, JPEG or TIFF by its ending.")  # fmt: skip
@click.option("--pipeline", type=click.Choice(_PIPELINES), default="default", show_default=True,
              help="The published pipelines are for published checkpoints.")  # fmt: skip
@click.option("--windowed", is_flag=True,
              help="Never hold all of the photo: for pictures of any size; -o may be a TIFF.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@exit_on_error
def refine(
    image: Path | str,
    mask: Path | str,
    output: Path | str,
    model: str | None,
    device: str,
    dtype: str,
    backend: str,
    steps: int | None,
    seed: int,
    threshold: float | None,
    max_shift: float | None,
    strength: float,
    trust: float | None,
    soft: bool,
    bits: str,
    cutout: Path | str | None,
    overlay: Path | str | None,
    pipeline: str,
    windowed: bool,
    as_json: bool,
) -> None:
    """Refine the coarse MASK of the photo IMAGE.

    Either may be - for a picture on standard input, and one of -o, --cutout and --overlay may be - for a PNG on
    standard output, where nothing else is printed then.
    """
    loading: dict[str, Any] = {"model": model, "device": device, "dtype": dtype, "backend": backend}
    settings: dict[str, Any] = {"seed": seed, "steps": steps, "max_shift": max_shift}
    settings |= {"strength": strength, "trust": trust}
    targets = {"-o": output, "--cutout": cutout, "--overlay": overlay}
    if windowed:
        _check_windowed(soft or cutout or overlay or pipeline != "default", image, mask, output)
    check_streams({"IMAGE": image, "MASK": mask}, targets)
    if windowed:
        given = (Path(image), Path(mask), Path(output))
        _refine_windowed(*given, loading, {**settings, "threshold": threshold}, as_json)
        return
    # Inputs and outputs are checked before PyTorch is imported: a wrong path is told at once.
    photo, coarse = _read_pair(image, mask, threshold, targets)

    refiner = _load_refiner(loading, pipeline)
    with _view_bar() as follow:
        result = refiner(photo, coarse, **settings, on_progress=follow)
    _write_mask(output, result.probability if soft else result.mask, int(bits))
    _write_pictures(cutout, overlay, photo, coarse, result)
    files = {name: None if path is None else str(path) for name, path in
             (("output", output), ("cutout", cutout), ("overlay", overlay))}  # fmt: skip
    where = "standard output" if output == STANDARD else output
    document = result.report.to_dict() | files
    _tell_report(f"{where}: {result.report}", document, as_json, STANDARD in targets.values())


def _read_pair(
    image: Path | str, mask: Path | str, threshold: float | None, targets: Mapping[str, Path | str | None]
) -> "tuple[Photo, NDArray[np.bool_]]":
    """Photo and coarse mask, from files or standard input, once it is clear that all targets can be written."""
    from ..imaging.files import check_output, check_picture
    from ..imaging.reading import check_fits, read_mask, read_photo

    kinds = {"--cutout": ("cut-out", True), "--overlay": ("before/after picture", False)}
    for option, path in targets.items():
        if isinstance(path, Path):
            if option in kinds:
                check_picture(path, kinds[option][0], alpha=kinds[option][1])
            else:
                check_output(path)
    piped = "on standard input"
    photo = read_photo(read_standard("IMAGE"), name=f"image {piped}") if image == STANDARD else read_photo(image)
    values = read_standard("MASK") if mask == STANDARD else mask
    coarse = read_mask(values, threshold=threshold, name=f"mask {piped}" if mask == STANDARD else None)
    check_fits(photo, coarse, mask_source=mask if isinstance(mask, Path) else None)
    if isinstance(targets["--cutout"], Path):
        check_picture(targets["--cutout"], "cut-out", alpha=True, size=coarse.shape)
    height, width = coarse.shape
    _log.info("read %s and its mask, %dx%d pixels", photo.name, width, height)
    return photo, coarse


def _load_refiner(loading: dict[str, Any], pipeline: str) -> "Refiner":
    """A model with one of the pipelines that `--pipeline` names."""
    from ..refinement.pipelines.coarse_to_fine import default_pipeline
    from ..refinement.pipelines.published import instance_pipeline, semantic_pipeline
    from ..refinement.refiner import Refiner

    ways = {"default": default_pipeline, "semantic": semantic_pipeline, "instance": instance_pipeline}
    return Refiner.from_pretrained(**loading, pipeline=ways[pipeline])


def _write_mask(target: Path | str, array: "NDArray[Any]", bits: int) -> None:
    from ..imaging.files import png_bytes, write_png

    if isinstance(target, Path):
        write_png(target, array, bits=bits)
        _log.info("wrote %s", target)
    else:
        write_standard(png_bytes(array, bits=bits))


def _write_pictures(
    cutout: Path | str | None,
    overlay: Path | str | None,
    photo: "Photo",
    coarse: "NDArray[np.bool_]",
    result: "Result",
) -> None:
    """Write the object on its own, and the mask before and after, where they are asked for."""
    if cutout is not None:
        from ..rendering.cutout import cutout as cut

        _write_picture(cutout, cut(photo.pixels, result.probability), "cut-out", photo.profile)
    if overlay is not None:
        from ..rendering.overlay import overlay as draw

        _write_picture(overlay, draw(photo.pixels, coarse, result.mask), "before/after picture", photo.profile)


def _write_picture(target: Path | str, array: "NDArray[Any]", what: str, profile: bytes | None) -> None:
    from ..imaging.files import png_bytes, write_picture

    if isinstance(target, Path):
        write_picture(target, array, what, profile=profile)
        _log.info("wrote %s", target)
    else:
        write_standard(png_bytes(array, profile=profile))


def _tell_report(text: str, document: dict[str, Any], as_json: bool, is_taken: bool) -> None:
    """Say what a refinement changed, on standard error where a picture takes standard output."""
    if as_json:
        from ..imaging.json_files import json_text

        say(json_text(document | {"exit_code": 0}), err=is_taken)
    else:
        conclude(text, err=is_taken)


def _check_windowed(unsuited: object, *files: Path | str) -> None:
    """Raises `InputError` for what cannot be read or written in windows."""
    if unsuited:
        raise InputError(
            "--windowed writes the refined mask alone, by the default pipeline: "
            "leave out --soft, --cutout, --overlay and --pipeline"
        )
    if STANDARD in files:
        raise InputError("--windowed reads and writes in parts, which pipes cannot: give files in place of -")


def _refine_windowed(
    image: Path, mask: Path, output: Path, loading: dict[str, Any], settings: dict[str, Any], as_json: bool
) -> None:
    from ..imaging.vips import check_target

    check_target(output)
    from ..refinement.large_photos import refine_large
    from ..refinement.refiner import Refiner

    refiner = Refiner.from_pretrained(**loading)
    with _view_bar() as follow, warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # The reports say it.
        reports = refine_large(refiner, image, mask, output, **settings, on_progress=follow)
    if not reports:
        text = f"{output}: the mask is empty, covers the whole photo or has specks alone: returned as it is"
    elif len(reports) == 1:
        text = f"{output}: {reports[0]}"
    else:
        changed = 100 * sum(report.changed for report in reports)
        notes = "".join(f"; note: {warning}" for warning in reports[0].warnings)
        text = (
            f"{output}: {len(reports)} objects, {changed:.2f} % of pixels changed, "
            f"largest shift {max(report.largest_shift for report in reports):.0f} px "
            f"({reports[0].model}, {reports[0].steps} steps, seed {settings['seed']}){notes}"
        )
    document = {
        "output": str(output),
        "changed": sum(report.changed for report in reports),
        "largest_shift": max((report.largest_shift for report in reports), default=0.0),
        "objects": [report.to_dict() for report in reports],
    }
    _tell_report(text, document, as_json, False)


@click.command()
@click.argument("frames", type=FilePath())
@click.argument("masks", type=FilePath())
@click.option("-o", "--output", type=FilePath(), required=True, help="Folder for masks, PNG.")
@click.option("--smooth", type=FiniteRange(0, 1, max_open=True), default=0.0, show_default=True,
              help="How much of the frame before is kept where nothing has changed.")  # fmt: skip
@click.option("--soft", is_flag=True, help="Write probabilities 0-255 instead of 0 and 255.")
@click.option("--threshold", type=FiniteRange(), help="Foreground of masks with more than two values, as stored.")
@click.option("--objects", is_flag=True,
              help="Masks are label maps, in which a number is an object; so are those with a palette.")  # fmt: skip
@click.option("--ignore", multiple=True, default=("255",), show_default=True,
              help="Of label maps, the number of no object; again for more, or none.")  # fmt: skip
@click.option("--model", help="Alias, folder, .safetensors file or Hub id.  [default: the bundled model]")
@click.option("--seed", type=SEED, default=0, show_default=True)
@device_option
@_strict
@_json
@exit_on_error
def video(
    frames: Path,
    masks: Path,
    output: Path,
    smooth: float,
    soft: bool,
    threshold: float | None,
    objects: bool,
    ignore: tuple[str, ...],
    model: str | None,
    seed: int,
    device: str,
    strict: bool,
    as_json: bool,
) -> None:
    """Refine the MASKS of FRAMES, each a folder of pictures or a video file."""
    from ..imaging.clips import holds_objects, left_out
    from ..ledger import Account, LedgerWriter
    from ..refinement.refiner import Refiner

    if output.resolve() in (frames.resolve(), masks.resolve()):
        raise InputError(f"the output {output} is a folder of inputs: choose another one")
    if objects and (soft or threshold is not None):
        raise InputError("--objects is for label maps, which have no probabilities: leave out --soft and --threshold")
    ignored = ignored_labels(ignore) or []
    refiner = Refiner.from_pretrained(model, device=device)
    omissions = left_out(frames, masks, without=output)
    how: dict[str, Any] = {"smooth": smooth, "seed": seed}
    if objects or (threshold is None and not soft and holds_objects(masks, without=output)):
        results, told = _refine_objects(refiner, frames, masks, output, ignored, how)
    else:
        results, told = _refine_masks(refiner, frames, masks, output, soft, threshold, how)
    with LedgerWriter(len(results)) as writer:
        writer.begin(Account(left_out=omissions, notes=told))
        for name, account in results.items():
            writer.done(name, account, again=False)
    ledger = writer.ledger(results)
    text = f"{output}: {len(results)} frames" + (f", {ledger.left_out} left out" if ledger.left_out else "")
    code = FAILED if strict and ledger.left_out else 0
    tell_ledger(ledger, text + ("" if ledger.done else "; nothing was refined"), as_json, exit_code=code)
    tell_names(ledger)
    sys.exit(code)


def _refine_masks(
    refiner: "Refiner",
    frames: Path,
    masks: Path,
    output: Path,
    soft: bool,
    threshold: float | None,
    how: dict[str, Any],
) -> tuple[dict[str, "Account"], tuple[str, ...]]:
    """Writes the refined masks of one object; gives what became of each frame."""
    from ..imaging.clips import read_clip
    from ..ledger import Account
    from ..refinement.video import refine_video, write_masks

    pairs = read_clip(frames, masks, threshold, without=output)
    results: dict[str, Account] = {}

    def accounted() -> "Iterator[tuple[str, Result]]":
        for name, result in item_bar("refining")(refine_video(refiner, pairs, **how)):
            yield name, result
            left = [result.report.left] if result.report.left else []
            notes = tuple(f"frame {name}: {said}" for said in (*result.report.warnings, *left))
            results[name] = Account(left_out={name: result.report.note} if result.report.note else {}, notes=notes)

    output.mkdir(parents=True, exist_ok=True)
    write_masks(accounted(), output, soft=soft)
    return results, ()


def _refine_objects(
    refiner: "Refiner", frames: Path, masks: Path, output: Path, ignore: list[int], how: dict[str, Any]
) -> tuple[dict[str, "Account"], tuple[str, ...]]:
    """Writes label maps with refined objects; gives what became of each frame, and which objects there were."""
    from ..imaging.clips import read_object_clip
    from ..imaging.label_files import write_labels
    from ..ledger import Account
    from ..refinement.video_objects import refine_objects

    # A later palette that speaks of other objects is told before the first frame is written.
    for _ in read_object_clip(frames, masks, without=output):
        pass
    clip = read_object_clip(frames, masks, without=output)
    output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Account] = {}
    seen: set[int] = set()
    for name, refined in item_bar("refining")(refine_objects(refiner, clip, ignore=ignore, **how)):
        path = output / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, refined.label_map)
        seen |= set(refined.objects)
        notes = [*refined.warnings, *(f"no pixel is left of object {one}" for one in refined.vanished)]
        idle = {} if refined.objects else {name: "it has no object: written as it was"}
        results[name] = Account(left_out=idle, notes=tuple(f"frame {name}: {note}" for note in notes))
    numbers = ", ".join(map(str, sorted(seen))) or "none"
    stay = f"; {', '.join(map(str, ignore))} is no object and stays" if ignore else ""
    return results, (f"masks are label maps, and each number is an object: {numbers}{stay}",)


@contextmanager
def _view_bar() -> Iterator[Callable[["Progress"], None]]:
    """A progress bar on standard error that follows a refinement, stage by stage; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not is_watched(console)) as bars:
        task = bars.add_task("reading", total=None)

        def follow(progress: "Progress") -> None:
            bars.update(task, description=progress.description, completed=progress.done, total=progress.total)

        yield follow
