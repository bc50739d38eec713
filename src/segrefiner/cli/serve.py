"""The command `serve`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .shared.common import FiniteRange, device_option, exit_on_error
from .shared.messages import conclude, note

if TYPE_CHECKING:
    from ..serving.labelstudio.images import ImageHost

_SHORTEST_KEY = 16

_BUNDLED = "compact"
"""As `weights.BUNDLED`, whose module imports PyTorch."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen at; one that other machines reach needs a key.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one.")
@click.option("--model", "models", multiple=True, metavar="[NAME=]MODEL",
              help="Folder, file or Hub id; again for more.  [default: the bundled model]")  # fmt: skip
@device_option
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File whose one line clients must know.")
@click.option("--insecure", is_flag=True, help="Let anyone in who reaches the address.")
@click.option("--max-megapixels", type=FiniteRange(0, min_open=True), default=50.0, show_default=True,
              help="Of a photo.")  # fmt: skip
@click.option("--max-upload-mb", type=FiniteRange(0, min_open=True), default=32.0, show_default=True,
              help="Of a request.")  # fmt: skip
@click.option("--max-views", type=FiniteRange(0, min_open=True), default=1000.0, show_default=True,
              help="Of the network that a request's masks may take, by an estimate.")  # fmt: skip
@click.option("--queue", type=click.IntRange(1), default=32, show_default=True,
              help="Requests inside at the same time; more are told to come back.")  # fmt: skip
@click.option("--label-studio", metavar="URL",
              help="Be an ML backend of this Label Studio server, from which alone photos are fetched.")  # fmt: skip
@click.option("--label-studio-token-file", type=click.Path(path_type=Path),
              help="File with a user's access token for it.  [default: LABEL_STUDIO_API_KEY]")  # fmt: skip
@click.option("--no-page", is_flag=True, help="The HTTP API alone.")
@exit_on_error
def serve(
    host: str,
    port: int,
    models: tuple[str, ...],
    device: str,
    api_key_file: Path | None,
    insecure: bool,
    max_megapixels: float,
    max_upload_mb: float,
    max_views: float,
    queue: int,
    label_studio: str | None,
    label_studio_token_file: Path | None,
    no_page: bool,
) -> None:
    """Serve the HTTP API, and a page to try it out, until interrupted."""
    key = None if api_key_file is None else _read_key(api_key_file)
    sources = named_models(models)
    labelstudio = None if label_studio is None else _image_host(label_studio, label_studio_token_file, max_upload_mb)

    from ..errors import import_extra

    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        import_extra(package, "the server", extra="serve")

    from ..refinement.refiner import Refiner
    from ..serving.limits import Limits
    from ..serving.run import serve as run

    refiners = {}
    for name, source in sources.items():
        refiners[name] = Refiner.from_pretrained(source, device=device)
        # Reports name the model as clients do: where its file lies is none of their business.
        refiners[name].name = name
    limits = Limits(
        upload_bytes=round(max_upload_mb * 1e6), pixels=round(max_megapixels * 1e6), views=max_views, queue=queue
    )

    page, absent = (None, "") if no_page else _page()

    def tell(url: str) -> None:
        conclude(f"{url}: {', '.join(refiners)}; Ctrl-C stops it", err=True)
        if absent:
            note(f"the HTTP API alone: {absent}")
        if labelstudio is not None:
            token = "with a token" if labelstudio.token else "without a token"
            note(f"an ML backend of Label Studio; photos come from {labelstudio.url} alone, {token}")

    run(refiners, host=host, port=port, limits=limits, api_key=key, insecure=insecure, page=page,
        labelstudio=labelstudio, on_ready=tell)  # fmt: skip


def _image_host(url: str, token_file: Path | None, max_upload_mb: float) -> "ImageHost":
    """The Label Studio server; the token is no option, which other users of the machine would see."""
    from ..errors import InputError, reason
    from ..serving.labelstudio.images import ImageHost

    token = os.environ.get("LABEL_STUDIO_API_KEY") or None
    if token_file is not None:
        try:
            token = token_file.read_text("ascii").strip()
        except (OSError, UnicodeError) as error:
            raise InputError(
                f"the token file {str(token_file)!r} cannot be read ({reason(error)}): write one line into it"
            ) from error
    return ImageHost.of(url, token=token, most_bytes=round(max_upload_mb * 1e6))


def _page() -> tuple[Callable[..., object] | None, str]:
    """What mounts the page; where its packages are not installed, nothing and the sentence that says so."""
    from ..errors import MissingExtraError

    try:
        from ..serving.page.page import mount
    except MissingExtraError as error:
        return None, str(error)
    return mount, ""


def _read_key(path: Path) -> str:
    from ..errors import InputError, reason

    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"the key file {str(path)!r} cannot be read ({reason(error)}): write one line into it"
        ) from error
    if len(key) < _SHORTEST_KEY or not key.isprintable() or " " in key:
        raise InputError(
            f"the key file {str(path)!r} holds no key: expected one line of {_SHORTEST_KEY} characters or more without "
            f"spaces, such as: openssl rand -hex 32 > {path.name}"
        )
    return key


def named_models(models: tuple[str, ...]) -> dict[str, str | None]:
    """Models by the names under which clients know them; of a file or folder, its own name without the rest."""
    named: dict[str, str | None] = {}
    for model in models:
        name, equals, source = model.partition("=")
        if not equals:
            source, path = model, Path(model)
            name = path.stem if path.is_file() else path.name if path.is_dir() else model
        if name in named or not name.isprintable() or not name:
            raise click.BadParameter(f"{model}: expected NAME=MODEL with a name of its own", param_hint="--model")
        named[name] = source
    return named or {_BUNDLED: None}
