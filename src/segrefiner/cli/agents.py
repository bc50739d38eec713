"""The command `mcp`."""

from pathlib import Path

import click

from .serve import named_models
from .shared.common import FiniteRange, device_option, exit_on_error
from .shared.messages import conclude


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.option("--model", "models", multiple=True, metavar="[NAME=]MODEL",
              help="Folder, file or Hub id; again for more.  [default: the bundled model]")  # fmt: skip
@device_option
@click.option("--max-megapixels", type=FiniteRange(0, min_open=True), default=50.0, show_default=True,
              help="Of a photo.")  # fmt: skip
@click.option("--max-file-mb", type=FiniteRange(0, min_open=True), default=32.0, show_default=True,
              help="Of a photo with its mask.")  # fmt: skip
@exit_on_error
def mcp(
    folders: tuple[Path, ...], models: tuple[str, ...], device: str, max_megapixels: float, max_file_mb: float
) -> None:
    """Offer agents tools that refine masks in these FOLDERs, by MCP over standard input and output."""
    from ..errors import import_extra

    for package in ("mcp", "fastapi", "python_multipart", "prometheus_client"):
        import_extra(package, "tools for agents", extra="mcp")

    from ..jobs.opened import JobModel
    from ..serving.agents.folders import AllowedFolders
    from ..serving.agents.server import serve
    from ..serving.agents.tools import Toolbox
    from ..serving.limits import Limits

    allowed = AllowedFolders(folders)
    opened = {}
    for name, source in named_models(models).items():
        opened[name] = JobModel(model=source, device=device)
        opened[name].refiner.name = name
    limits = Limits(upload_bytes=round(max_file_mb * 1e6), pixels=round(max_megapixels * 1e6))
    conclude(f"tools for {', '.join(map(str, allowed.roots))}; Ctrl-C stops them", err=True)
    serve(Toolbox(opened, allowed, limits))
