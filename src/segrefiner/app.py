"""The web page: a photo and a rough mask in, the difference to look at out.

`build_page` makes the page with Gradio and `mount` puts it at `/` of the server. What is given becomes arrays in
`app_inputs`, is refined in `app_work`, drawn in `app_pictures`; `app_layout` has the components, `app_events` what
happens, and `app_door` keeps all of Gradio out that the page does not need.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import MissingExtraError

try:
    import cv2 as _cv2  # noqa: F401
    import gradio as gr
    from fastapi import FastAPI
    from starlette.routing import Mount
except ModuleNotFoundError as error:
    raise MissingExtraError.needed_by("the web page", package=error.name or "gradio", extra="app") from error

from .app_door import Door
from .app_events import Events, Run
from .app_layout import (
    CSS,
    FROM_FILE,
    SCROLL,
    WAYS,
    Inputs,
    inputs,
    lay_out_samples,
    lead,
    outputs,
    theme,
)
from .app_work import Watched, Work
from .diffusion import silent
from .refiner import Refiner
from .server_queue import Settings, Task
from .server_service import Service

MAX_PIXELS = 50_000_000

_KEPT_SECONDS = 1800
"""For which a visitor's pictures stay after they were last used, in memory and as files."""

_SESSIONS = 48
"""Visitors whose results are in memory, at most."""


def build_page(
    refiner: Refiner | Mapping[str, Refiner], *, max_pixels: int = MAX_PIXELS, run: Run | None = None
) -> gr.Blocks:
    """The page.

    Visitors' files lie in a private folder, which is deleted when the process ends.

    Args:
        refiner: What refines, or several by name, the default first.
        max_pixels: Photos with more are refused before they are decoded.
        run: Does the work; by default one task after the other in threads of this process.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    refiners = dict(refiner) if isinstance(refiner, Mapping) else {refiner.name: refiner}
    folder = _private_folder()
    events = Events(run or _one_by_one(refiners), max_pixels, folder)
    with gr.Blocks(
        title="segrefiner", analytics_enabled=False, delete_cache=(_KEPT_SECONDS // 3, _KEPT_SECONDS)
    ) as page:
        _compose(events, list(refiners), next(iter(refiners.values())).steps, lay_out_samples(folder))
    page.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    page.state_session_capacity = _SESSIONS
    page.GRADIO_CACHE = str(folder)
    return page


def mount(app: FastAPI) -> None:
    """Puts the page at `/` of a server that `server.create_app` makes, whose thread and limits are the page's too."""
    service: Service = app.state.service
    limits = service.limits

    async def run(model: str, photo: Any, masks: Sequence[Any], work: Work) -> list[Watched]:
        def alone(refiner: Refiner, *, on_progress: Any) -> list[Watched]:
            return work(refiner, on_progress)

        # A model is chosen from a list, but what a browser sends is not bound to it.
        name = model if model in service.refiners else next(iter(service.refiners))
        task = Task(Settings(name), photo, list(masks), keep=lambda _: None, alone=alone, count=len(masks))
        return list(await service.compute(task))

    page = build_page(service.refiners, max_pixels=limits.pixels, run=run)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme(),
        css=CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limits.upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        allowed_paths=[],
    )
    mounted = app.router.routes[-1]
    assert isinstance(mounted, Mount)
    mounted.app = Door(mounted.app, Path(page.GRADIO_CACHE), lambda: service.stopping and service.idle)


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="segrefiner-page-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Gradio has no other way to be told its folder, and asks at each request.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _one_by_one(refiners: Mapping[str, Refiner]) -> Run:
    lock = threading.Lock()

    async def run(model: str, photo: Any, masks: Sequence[Any], work: Work) -> list[Watched]:
        def locked() -> list[Watched]:
            with lock:
                return work(refiners[model], silent)

        return await asyncio.to_thread(locked)

    return run


def _compose(events: Events, models: list[str], steps: int, sample_files: list[tuple[str, str]]) -> None:
    """Lays out the page and ties its handlers to it."""
    shown = gr.State(None, time_to_live=_KEPT_SECONDS)
    lead()
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            given, groups, gallery = inputs(models, steps, [photo for photo, _ in sample_files])
            with gr.Row():
                start = gr.Button("Refine the mask", variant="primary", elem_id="refine", scale=3, min_width=150)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
        with gr.Column(scale=7, min_width=280):
            out, stage = outputs()

    def sample(event: gr.SelectData) -> tuple[Any, ...]:
        photo, mask = sample_files[event.index]
        return photo, FROM_FILE, [mask], gr.File(visible=True), *[gr.Column(visible=False)] * 2

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    _tie_ways(events, given, groups, quiet)
    refining: dict[str, Any] = {
        "fn": events.refine,
        "inputs": given.all(),
        "outputs": shown,
        "api_visibility": "private",
        "show_progress_on": [stage.empty, out.slider],
        "concurrency_limit": None,
    }
    view = {"inputs": [shown, out.chosen, stage.look, stage.part], **quiet}
    all_of_it = [stage.empty, stage.results, *out.all()]
    files = {"inputs": [shown, out.chosen], "outputs": out.all()[6:], **quiet}
    picked = gallery.select(sample, outputs=[given.photo, given.way, given.masks, *groups], **quiet)
    begun = [start.click(**refining), picked.success(**refining)]
    for event in begun:
        drawn = event.success(events.describe, outputs=all_of_it, **view)
        drawn.success(None, js=SCROLL, api_visibility="private")
        drawn.success(events.write, **files)
    out.chosen.input(events.describe, outputs=all_of_it, **view).success(events.write, **files)
    for choice in (stage.look, stage.part):
        choice.change(events.compare, outputs=out.slider, **view)
    stage.divider.change(
        lambda place: gr.ImageSlider(slider_position=place), inputs=stage.divider, outputs=out.slider, **quiet
    )
    stop.click(None, cancels=begun, api_visibility="private")


def _tie_ways(events: Events, given: Inputs, groups: list[Any], quiet: dict[str, Any]) -> None:
    """Shows what a way to give the mask needs, with the photo to paint on."""

    def turn(way: str) -> tuple[Any, ...]:
        return gr.File(visible=way == FROM_FILE), gr.Column(visible=way != FROM_FILE), gr.Column(visible=way == WAYS[2])

    photo_and_way = {"inputs": [given.photo, given.way], "outputs": given.canvas, **quiet}
    given.way.input(turn, inputs=given.way, outputs=groups, **quiet).success(events.to_canvas, **photo_and_way)
    given.photo.change(events.to_canvas, **photo_and_way)
