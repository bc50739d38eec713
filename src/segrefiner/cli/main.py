"""The command line. Commands import what they need when they run, so that `--help` is immediate."""

import click

from .._version import __version__
from ..openmp import sleep_while_waiting
from .agents import mcp
from .annotations import annotations
from .data import data
from .evaluate import evaluate, report
from .jobs import coco, folder, panoptic, semantic
from .model import convert, export, push
from .models import models
from .refine import refine, video
from .serve import serve
from .shared.messages import add_verbosity
from .train import train, training_report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="segrefiner")
def main() -> None:
    """Refine coarse segmentation masks."""
    # Before any command imports PyTorch; worker processes inherit it.
    sleep_while_waiting()


for _command in (
    folder,
    coco,
    annotations,
    semantic,
    panoptic,
    evaluate,
    report,
    data,
    train,
    training_report,
    push,
    models,
    serve,
    mcp,
    refine,
    video,
    convert,
    export,
):
    main.add_command(_command)
add_verbosity(main)
