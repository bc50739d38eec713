"""The commands for weights: `convert`, `export` and `push`."""

from pathlib import Path

import click

from .shared.common import exit_on_error
from .shared.messages import conclude, note, say


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--fp32", is_flag=True, help="Keep 32-bit weights; the default halves the file.")
@exit_on_error
def convert(source: Path, target: Path, fp32: bool) -> None:
    """Convert the published checkpoint SOURCE (.pth) to the safetensors file TARGET."""
    import torch

    from ..imaging.json_files import json_text
    from ..model.conversion import convert as convert_checkpoint

    config = convert_checkpoint(source, target, dtype=torch.float32 if fp32 else torch.float16)
    conclude(f"{target}: {json_text(config.to_dict())}")


@click.group()
def export() -> None:
    """Write a model for another program."""


@export.command("onnx")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--model", help="Alias, folder, .safetensors file or Hub id.  [default: the bundled model]")
@click.option("--dtype", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@exit_on_error
def onnx_file(target: Path, model: str | None, dtype: str) -> None:
    """Write a model as the ONNX file TARGET, with any batch and size."""
    from ..model.onnx_export import export_onnx
    from ..model.weights import STEPS_KEY, best_steps, checksum, load, resolve

    source = resolve(model)
    notes = {STEPS_KEY: str(best_steps(source)), "exported_from_sha256": checksum(source)}
    export_onnx(load(source), target, dtype=dtype, metadata=notes)
    conclude(f"{target}: {dtype}, {target.stat().st_size / 1e6:.1f} MB")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="For you alone, if the repository is made now.")
@click.option("--license", "licence", metavar="NAME", help="As the Hub abbreviates it, such as apache-2.0.")
@click.option("--revision", help="Branch to write to.  [default: the main one]")
@click.option("--message", help="Of the commit.")
@exit_on_error
def push(
    source: Path, repository: str, private: bool, licence: str | None, revision: str | None, message: str | None
) -> None:
    """Put the weights SOURCE, a .safetensors file or a folder with model.safetensors, on the Hugging Face Hub.

    A card says what they are; a README.md in the folder takes its place. Nothing else is uploaded.
    """
    from ..model import publishing
    from ..model.weights import metadata, resolve
    from ..training.run_folder import validation_until

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
        note("no licence was named, so others may not use them; name one with --license")
