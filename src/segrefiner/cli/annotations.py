"""The command for annotation files of any format."""

from pathlib import Path
from typing import Any

import click

from .jobs import crowds_option, refinement_options, run_job, shared_options
from .shared.common import exit_on_error
from .shared.streams import FilePath

_FORMATS = ("coco", "sa1b", "yolo", "labelme", "cvat", "labelstudio")
_path = FilePath()


@click.command()
@click.argument("source", type=_path)
@click.argument("images", type=_path, required=False)
@click.option("-o", "--output", type=_path, required=True, help="File or folder, as the format has it.")
@click.option("--to", type=click.Choice(_FORMATS), help="The format to write.  [default: the one that was read]")
@click.option("--as", "kind", type=click.Choice(["same", "rle", "polygon"]), default="same", show_default=True,
              help="Write masks as they were, as pixels, or as polygons.")  # fmt: skip
@crowds_option
@shared_options
@exit_on_error
def annotations(source: Path, images: Path | None, output: Path, to: Any, kind: Any, crowds: Any, **given: Any) -> None:
    """Refine the masks of the annotation file or folder SOURCE, of photos in the folder IMAGES.

    SOURCE is COCO, LVIS, SA-1B, YOLO, LabelMe, CVAT for images or Label Studio. Without IMAGES, the photos are looked
    for beside it.
    """
    from ..jobs.annotations import annotations_job
    from ..jobs.run import STATE_NAME

    options = refinement_options(given)
    job = annotations_job(source, output, images=images, to=to, kind=kind, crowds=crowds, options=options)
    state = output.with_name(output.name + STATE_NAME) if job.writes_file else output / STATE_NAME
    run_job(job, output, state, given)
