"""The commands that prepare training data: `pack`, `shards`, `coarse`, `snap`, `composites`, `labels`, `check`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared.common import FAILED, SEED, exit_on_error, item_bar
from .shared.ledger import ledger_options, omission_lines
from .shared.messages import conclude, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..data.alignment import Offset
    from ..data.sources import Source

_SHOWN = 20
_strict, _json = ledger_options

_coarse_option = click.option("--coarse", type=click.Path(path_type=Path), help="Folder of coarse masks, NAME.png.")


@click.group()
def data() -> None:
    """Prepare training data.

    DATA is a folder in the layout of DIS-5K, ThinObject-5K or HRSOD, a folder of your own (images/, masks/, coarse*/),
    a folder of shards, or annotations of COCO or LVIS as FILE.json or FILE.json@IMAGES.
    """


def _report(failures: Sequence[tuple[int, str]]) -> None:
    """Lists what could not be read, and ends with the status for that."""
    for index, text in failures[:_SHOWN]:
        say(f"photo {index}: {text}", err=True)
    if len(failures) > _SHOWN:
        say(f"… and {len(failures) - _SHOWN} more", err=True)
    if failures:
        sys.exit(FAILED)


def _tell(offsets: "Mapping[str, Offset]", *, err: bool = False) -> None:
    """Says by how much masks are off where edges clearly tell."""
    for name, offset in sorted(offsets.items()):
        if offset:
            conclude(f"masks of {name or 'this data'} are off the photos' edges: {offset}", err=err)


def _open(spec: str, coarse: Path | None) -> "Source":
    from ..data.layouts import open_source

    return open_source(spec, coarse)


@data.command()
@click.argument("source", metavar="DATA")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--size", type=click.IntRange(64), default=384, show_default=True, help="Long side in pixels.")
@click.option("--align", is_flag=True, help="Put right what all masks of a data set are off by, see `data check`.")
@_coarse_option
@exit_on_error
def pack(source: str, target: Path, size: int, align: bool, coarse: Path | None) -> None:
    """Pack the photos of DATA into one small file for `train`."""
    from ..data.alignment import Aligned, measure_offsets
    from ..data.packs import pack_source
    from ..imaging.files import check_output

    check_output(target, suffix=None)
    opened = _open(source, coarse)
    if align:
        offsets = measure_offsets(opened, progress=item_bar("looking"))
        _tell(offsets)
        opened = Aligned(opened, offsets)
    count, failures = pack_source(opened, target, size=size, progress=item_bar("packing"))
    conclude(f"{target}: {count} photos, {target.stat().st_size / 1e6:.1f} MB")
    _report(failures)


@data.command()
@click.argument("source", metavar="DATA")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True, help="Photos in each.")
@_coarse_option
@exit_on_error
def shards(source: str, target: Path, per_shard: int, coarse: Path | None) -> None:
    """Write the photos of DATA as WebDataset shards into the folder TARGET, for object stores."""
    from ..data.shards import write_shards

    count, failures = write_shards(_open(source, coarse), target, per_shard=per_shard, progress=item_bar("writing"))
    conclude(f"{target}: {count} photos in {-(-count // per_shard)} shards")
    _report(failures)


@data.command("coarse")
@click.argument("source", metavar="DATA")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for NAME.png.")
@click.option(
    "--kind",
    type=click.Choice(["published", "ours", "low-resolution", "grabcut"]),
    default="published",
    show_default=True,
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes; 0 for none.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Picture of some of them to look at, PNG.")
@exit_on_error
def coarse_masks(source: str, output: Path, kind: str, seed: int, workers: int, sheet: Path | None) -> None:
    """Make coarse masks for the photos of DATA; run again to go on."""
    from ..data.coarse.files import coarse_sheet, write_coarse
    from ..imaging.files import check_output, write_png

    if sheet is not None:
        check_output(sheet)
    opened = _open(source, None)
    written, failures = write_coarse(
        opened, output, kind=kind, seed=seed, workers=workers, progress=item_bar("making", len(opened))
    )
    if sheet is not None:
        write_png(sheet, coarse_sheet(opened, output))
    conclude(f"{output}: {written} coarse masks written, {len(opened) - written - len(failures)} were there")
    _report(failures)


@data.command()
@click.argument("source", metavar="DATA", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--by", "other", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True,
              help="Folder with a strong network's masks of the same objects, NAME.png.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for NAME.png.")
@exit_on_error
def snap(source: Path, other: Path, output: Path) -> None:
    """Write the true masks of the folder DATA with contours moved onto edges where a strong network shows them.

    A contour moves by two pixels at most, and only where the photo's edges clearly prefer the other one; all other
    masks are written as they are. Run again to go on.
    """
    from dataclasses import replace

    from ..data.alignment import snap_truth
    from ..data.layouts import find_photos, open_folder
    from ..errors import InputError
    from ..imaging.files import write_png

    output.mkdir(parents=True, exist_ok=True)
    opened, failures, written, moved = open_folder(source), [], 0, 0
    files = [replace(photo, coarse=path if (path := other / f"{photo.name}.png").is_file() else None)
             for photo in find_photos(source)]  # fmt: skip
    opened = replace(opened, photos=tuple(files))
    for index in item_bar("snapping")(range(len(opened))):
        target = output / f"{files[index].name}.png"
        if target.exists():
            continue
        try:
            sample = opened.read(index)
        except InputError as error:
            failures.append((index, str(error)))
            continue
        mask = sample.mask if sample.coarse is None else snap_truth(sample.image, sample.mask, sample.coarse)
        write_png(target, mask)
        written += 1
        moved += bool((mask != sample.mask).any())
    there = len(opened) - written - len(failures)
    conclude(f"{output}: {written} masks written, {moved} of them moved, {there} were there")
    _report(failures)


@data.command()
@click.argument("photos", metavar="PHOTOS")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for images/ and masks/.")
@click.option("--cutouts", type=click.Path(path_type=Path), help="Folder of cut-outs with alpha, PNG or WebP.")
@click.option("--count", type=click.IntRange(1), default=1000, show_default=True, help="Composites in the folder.")
@click.option("--size", type=click.IntRange(64), default=480, show_default=True, help="Long side in pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes; 0 for none.")
@exit_on_error
def composites(photos: str, output: Path, cutouts: Path | None, count: int, size: int, seed: int, workers: int) -> None:
    """Put cut-outs, or thin structures without --cutouts, on PHOTOS, with exact masks; run again to go on.

    PHOTOS is DATA whose photos serve as backgrounds. Thin structures are drawn: wires, spokes, strings, branches,
    fences, vessels and leaves. Names begin with cutout_ or thin_.
    """
    from ..data.composites.files import Materials, find_cutouts, write_composites

    materials = Materials(_open(photos, None), find_cutouts(cutouts) if cutouts else (), size, seed)
    written, failures = write_composites(
        materials, output, count=count, workers=workers, progress=item_bar("composing", count)
    )
    conclude(f"{output}: {written} composites written, {count - written - len(failures)} were there")
    _report(failures)


@data.command()
@click.argument("source", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for images/ and masks/.")
@click.option("--prefix", default="labels", show_default=True, help="Letters that names begin with.")
@click.option("--per-photo", type=click.IntRange(1), default=5, show_default=True, help="Masks of each, at most.")
@click.option("--ignore", type=int, multiple=True, help="Label that is never shown, such as void; may be repeated.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@exit_on_error
def labels(source: Path, output: Path, prefix: str, per_photo: int, ignore: tuple[int, ...], seed: int) -> None:
    """Make masks of the label maps of FOLDER, images/ and labels/: classes and their parts; run again to go on."""
    from ..data.label_masks import write_label_masks

    written, kept, failures = write_label_masks(
        source, output, prefix=prefix, count=per_photo, ignore=ignore, seed=seed, progress=item_bar("choosing")
    )
    conclude(f"{output}: {written} masks written, {kept} were there")
    _report(failures)


@data.command()
@click.argument("source", metavar="DATA")
@click.option("--all", "everything", is_flag=True, help="Read every photo, not only a hundred of them.")
@_coarse_option
@_strict
@_json
@exit_on_error
def check(source: str, everything: bool, coarse: Path | None, strict: bool, as_json: bool) -> None:
    """Read photos of DATA, say what there is, and what is wrong or left out.

    Where the masks of a data set (the letters that photos' names begin with) lie beside the photos' edges, it says so,
    too: `data pack --align` puts that right.
    """
    import numpy as np

    from ..data.alignment import Edges
    from ..data.layouts import left_out
    from ..data.sources import evenly
    from ..errors import InputError

    opened = _open(source, coarse)
    omissions = left_out(opened)
    count, edges = len(opened), Edges()
    chosen = evenly(count, count if everything else 100)
    failures, sides, shares, with_coarse = [], [], [], 0
    for index in item_bar("reading")(chosen):
        try:
            sample = opened.read(index)
        except InputError as error:
            failures.append((index, str(error)))
            continue
        sides.append(max(sample.mask.shape))
        shares.append(float(sample.mask.mean()))
        with_coarse += sample.coarse is not None
        edges.add(sample)
    code = FAILED if failures or (strict and omissions) else 0
    if as_json:
        from ..imaging.json_files import json_text

        click.echo(json_text({
            "total": count, "read": len(chosen) - len(failures), "failed": len(failures), "left_out": len(omissions),
            "failures": [{"name": f"photo {index}", "reason": why} for index, why in failures],
            "left_out_names": [{"name": entry.name, "reason": entry.reason} for entry in omissions],
            "exit_code": code,
        }))  # fmt: skip
    conclude(
        f"{opened.name}: {count} {'objects' if opened.objects else 'photos'}, {len(chosen)} of them read", err=as_json
    )
    if sides:
        conclude(
            f"long sides {min(sides)} to {max(sides)} pixels, the masks {100 * np.median(shares):.1f} % of the photo "
            f"(median), {with_coarse} with a coarse mask, {len(failures)} unreadable",
            err=as_json,
        )
        _tell(edges.offsets(), err=as_json)
    for line in omission_lines(omissions):
        conclude(f"left out {line}", err=True)
    _report(failures)
    sys.exit(code)
