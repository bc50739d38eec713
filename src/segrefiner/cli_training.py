"""Seeing and sharing what was trained: `report-training` and `push`."""

from pathlib import Path

import click

from .terminal import errors_in_one_line, say


@click.command("report-training")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page, HTML.  [default: RUN/report.html]")
@errors_in_one_line
def training_report(run: Path, output: Path | None) -> None:
    """Turn the folder RUN of a training run, finished or not, into one page that opens offline."""
    from .training_report import write_training_report

    target = run / "report.html" if output is None else output
    write_training_report(run, target)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
