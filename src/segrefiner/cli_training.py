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
    from .training.report import write_training_report

    target = run / "report.html" if output is None else output
    write_training_report(run, target)
    say(str(target))


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="For you alone, if the repository is made now.")
@click.option("--license", "licence", metavar="NAME", help="As the Hub abbreviates it, such as apache-2.0.")
@click.option("--revision", help="Branch to write to.  [default: the main one]")
@click.option("--message", help="Of the commit.")
@errors_in_one_line
def push(
    source: Path, repository: str, private: bool, licence: str | None, revision: str | None, message: str | None
) -> None:
    """Put the weights SOURCE, a .safetensors file or a folder with model.safetensors, on the Hugging Face Hub.

    A card says what they are; a README.md in the folder takes its place. Nothing else is uploaded.
    """
    from .model import publishing
    from .model.weights import metadata, resolve
    from .training.run_folder import validation_until

    path = resolve(source)
    card = source / "README.md"
    trained = str(metadata(path).get("trained_steps", ""))
    address = publishing.push(
        path,
        repository,
        private=private,
        revision=revision,
        message=message or publishing.MESSAGE,
        license=licence,
        validation=validation_until(path.parent, int(trained)) if trained.isdecimal() else (),
        card=card if card.is_file() else None,
    )
    say(address)
    if licence is None and not card.is_file():
        click.echo("segrefiner: no licence was named, so others may not use them; name one with --license", err=True)
