"""The web page: a photo and a rough mask in, the difference to look at out.

`mount` puts the page at `/` of the server. Gradio draws it, from the components in `components`; what its scripts ask
for is answered by `routes`, through `values`, which checks every value, and `handlers`, which says what
happens. `inputs` makes arrays of what is given, `watching` refines them, and `pictures` draws them.
"""

import asyncio
import atexit
import os
from collections.abc import Sequence
from typing import Any

from ...errors import MissingExtraError

try:
    import cv2 as _cv2  # noqa: F401
    import gradio as gr
    from fastapi import FastAPI
    from starlette.routing import Mount
    from starlette.types import ASGIApp
except ModuleNotFoundError as error:
    raise MissingExtraError.needed_by("the web page", package=error.name or "gradio", extra="app") from error

from ...refinement.cost import estimated_cost
from ...refinement.refiner import Refiner
from ..service import Service
from ..worker import Settings, Task
from .components import CSS, SCROLL, Inputs, inputs, lead, outputs, sample_files, theme
from .files import PageFile, PageFiles
from .handlers import Handlers
from .routes import Actions, PageApi
from .sessions import Tabs
from .values import read_index
from .watching import PageWork, RefinementTrace

_KEPT_SECONDS = 1800.0
"""For which a visitor's pictures stay after they were last used, in memory and as files."""


def mount(app: FastAPI) -> None:
    """Puts the page at `/` of a server that `api.create_app` makes, whose thread and limits are the page's too."""
    service: Service = app.state.service
    files, tabs = PageFiles(kept_seconds=_KEPT_SECONDS), Tabs(kept_seconds=_KEPT_SECONDS)
    atexit.register(files.close)
    actions = Actions(files)

    async def draw() -> ASGIApp:
        return _drawn(build_page(service, actions, files, tabs), f"{files.folder}{os.sep}")

    # Where no event loop runs, Gradio makes some for its queues, which are never started, and leaves them open.
    drawn = asyncio.run(draw())
    app.mount("/", PageApi(drawn, actions, files, tabs, lambda: service.stopping and service.idle))


def build_page(service: Service, actions: Actions, files: PageFiles, tabs: Tabs) -> gr.Blocks:
    """The page as Gradio draws it.

    Args:
        service: Refines.
        actions: Are told what answers the page's events.
        files: Where visitors' files lie.
        tabs: Where their results are kept.
    """

    async def run(model: str, photo: Any, masks: Sequence[Any], steps: int, work: PageWork) -> list[RefinementTrace]:
        def alone(refiner: Refiner, *, on_progress: Any) -> list[RefinementTrace]:
            return work(refiner, on_progress)

        # A model is chosen from a list, but what a browser sends is not bound to it.
        name = model if model in service.refiners else next(iter(service.refiners))
        cost = await asyncio.to_thread(estimated_cost, masks, steps, most=service.limits.views)
        task = Task(Settings(name), photo, list(masks), lambda _: None, alone, len(masks), cost)
        return list(await service.compute(task))

    # Gradio copies what it shows at first into its own folder, and has no other way to be told which that is.
    os.environ["GRADIO_TEMP_DIR"] = str(files.folder)
    # It makes another one for edits of the page, which there are none of, at a place that it was told when it was
    # imported: one for all users of a machine, which may be another user's.
    vars(gr.routes)["DEFAULT_TEMP_DIR"] = str(files.folder)
    samples = sample_files(files)
    events = Handlers(run, service, tabs, samples)
    refiners = service.refiners
    with gr.Blocks(title="segrefiner", analytics_enabled=False) as page:
        _compose(events, actions, list(refiners), next(iter(refiners.values())).steps, samples)
    return page


def _drawn(page: gr.Blocks, folder: str) -> ASGIApp:
    """Gradio's app of a page, on its own: its queue is never started, and nothing of it is mounted."""
    apart = FastAPI()
    gr.mount_gradio_app(
        apart,
        page,
        path="/",
        theme=theme(),
        css=CSS,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        allowed_paths=[],
    )
    page.config = _without(page.config, folder)
    mounted = apart.router.routes[-1]
    assert isinstance(mounted, Mount)
    return mounted.app


def _without(value: Any, folder: str) -> Any:
    """JSON with the page's files by the names that visitors know, instead of where they lie."""
    if isinstance(value, dict):
        return {key: _without(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_without(one, folder) for one in value]
    return value.replace(folder, "") if isinstance(value, str) else value


def _compose(
    events: Handlers, actions: Actions, models: list[str], steps: int, samples: Sequence[tuple[PageFile, PageFile]]
) -> None:
    """Lays out the page and ties its handlers to it."""
    lead()
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            given, groups, gallery = inputs(models, steps, [str(photo.path) for photo, _ in samples])
            with gr.Row():
                start = gr.Button("Refine the mask", variant="primary", elem_id="refine", scale=3, min_width=150)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80)
        with gr.Column(scale=7, min_width=280):
            out, stage = outputs()

    quiet: dict[str, Any] = {"show_progress": "hidden"}
    _tie_ways(events, actions, given, groups, quiet)
    refining: dict[str, Any] = {"show_progress_on": [stage.empty, out.slider]}
    view = [out.chosen, stage.look, stage.part]
    all_of_it = [stage.empty, stage.results, *out.all()]
    picked = actions.on(
        gallery.select,
        events.sample,
        [],
        [given.photo, given.way, given.masks, *groups[1:]],
        event=lambda event: read_index(event, len(samples)),
        **quiet,
    )
    begun = [actions.on(tied, events.refine, given.all(), [], **refining) for tied in (start.click, picked.success)]
    for event in begun:
        drawn = actions.on(event.success, events.describe, view, all_of_it, **quiet)
        drawn.success(None, js=SCROLL, api_visibility="private")
        actions.on(drawn.success, events.write, [out.chosen], out.files(), **quiet)
    chosen = actions.on(out.chosen.input, events.describe, view, all_of_it, **quiet)
    actions.on(chosen.success, events.write, [out.chosen], out.files(), **quiet)
    for choice in (stage.look, stage.part):
        actions.on(choice.change, events.compare, view, [out.slider], **quiet)
    actions.on(stage.divider.change, events.divide, [stage.divider], [out.slider], **quiet)
    stop.click(None, cancels=begun, api_visibility="private")


def _tie_ways(events: Handlers, actions: Actions, given: Inputs, groups: list[Any], quiet: dict[str, Any]) -> None:
    """Shows what a way to give the mask needs, with the photo to paint on."""
    photo_and_way = [given.photo, given.way]
    turned = actions.on(given.way.input, events.turn, [given.way], groups, **quiet)
    actions.on(turned.success, events.to_canvas, photo_and_way, [given.canvas], **quiet)
    actions.on(given.photo.change, events.to_canvas, photo_and_way, [given.canvas], **quiet)
    for changed in (given.masks.change, given.photo.change):
        actions.on(changed, events.list_objects, [given.photo, given.masks], [given.objects], **quiet)
