"""The HTTP API: masks and label maps of clients refined by one thread, those of several requests at once.

`create_app` makes the FastAPI application. What a request passes stands in modules of their own: `middleware` (host,
origin, key, size and time), `service` (from place to answer), `forms` (forms to tasks), `worker`
(the thread that computes) and `responses` (results to PNG and JSON). `run` runs it all with uvicorn.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from ..errors import MissingExtraError

try:
    import prometheus_client as _prometheus_client  # noqa: F401
    import python_multipart as _python_multipart  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
    from fastapi import FastAPI, Request, Response
    from fastapi.routing import APIRoute
    from starlette.exceptions import HTTPException
except ModuleNotFoundError as error:
    raise MissingExtraError.needed_by("the server", package=error.name or "fastapi", extra="serve") from error

from .._version import __version__
from ..refinement.refiner import Refiner
from .forms import label_task, mask_task
from .labelstudio.backend import add_backend
from .labelstudio.images import ImageHost
from .limits import Limits
from .metrics import MEDIA_TYPE
from .middleware import LOOPBACK, Guard
from .openapi import DESCRIPTION, HEALTH, LABELS, MASKS, METRICS, MODELS, READY, document
from .problems import as_problem
from .responses import JSON, PNG, ModelEntry, ModelsAnswer, labels_answer, masks_answer
from .service import Service

_NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(
    refiners: Mapping[str, Refiner],
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    page: Callable[[FastAPI], object] | None = None,
    labelstudio: ImageHost | None = None,
) -> FastAPI:
    """The application.

    Args:
        refiners: By the names under which clients ask for them, the default first. Only the server's thread uses them.
        limits: What is put up with.
        api_key: That clients must send, or none.
        hosts: Names that the Host header may have, without port; `None` for any.
        page: Called with the finished app, to mount a web page at `/`; what it mounts is guarded as all else is.
        labelstudio: The Label Studio server for which this is an ML backend, with its own routes; `None` for none.

    Returns:
        The app; its `state.service` is the `Service` behind it.
    """
    limits = limits or Limits()
    service = Service(refiners, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="segrefiner",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/v1/openapi.json",
        # The pages that show the description load scripts from other servers.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Newer versions of FastAPI report to what the environment names, older ones ignore this.
        telemetry=_NO_TELEMETRY,
    )
    app.state.service = service
    app.add_middleware(Guard, limits=limits, metrics=service.metrics, key=api_key, hosts=hosts)
    app.add_exception_handler(HTTPException, _to_guard)
    _add_health(app, service)
    if labelstudio is not None:
        add_backend(app, service, labelstudio)
    _add_api(app, service)
    if page is not None:
        page(app)
    told = cache(lambda: document(app, with_key=api_key is not None))
    app.openapi = told  # type: ignore[method-assign]
    return app


def _to_guard(_: Request, error: Exception) -> Response:
    """FastAPI's own errors, such as for unknown paths, become problems where all others do."""
    raise as_problem(error)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", **HEALTH)
    async def health() -> Response:
        """Whether the process answers at all."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz", **READY)
    async def ready() -> Response:
        """Whether a request would be computed."""
        service.check_ready()
        return Response("ready\n", media_type="text/plain")

    @app.get("/metrics", **METRICS)
    async def metrics() -> Response:
        """Figures in Prometheus' text format."""
        return Response(service.metrics.text(), headers={"Content-Type": MEDIA_TYPE})


def _answer_heads(app: FastAPI) -> None:
    """Whoever may read what a route gives may ask whether it is there."""
    for route in list(app.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)


def _add_api(app: FastAPI, service: Service) -> None:
    models, limits = {name: one.steps for name, one in service.refiners.items()}, service.limits

    @app.get("/v1/models", **MODELS)
    async def list_models() -> ModelsAnswer:
        """The first is taken by requests that name none."""
        entries = service.refiners.items()
        return ModelsAnswer(
            models=[ModelEntry(name=name, default=name == next(iter(models)), steps=one.steps) for name, one in entries]
        )

    @app.post("/v1/refine", **MASKS)
    async def refine(request: Request) -> Response:
        """One mask is answered as PNG unless JSON is preferred, several as JSON: asking for PNG is refused then."""
        return await service.answer(
            request,
            lambda form, decode: mask_task(form, models, limits, decode),
            lambda task: (PNG, JSON) if task.count == 1 else (JSON,),
            lambda kind, task, _, kept: masks_answer(kind, task.settings.model, kept),
        )

    @app.post("/v1/refine/labels", **LABELS)
    async def refine_labels(request: Request) -> Response:
        """Every pixel is decided among all labels, so that there are neither gaps nor overlaps."""
        return await service.answer(
            request,
            lambda form, decode: label_task(form, models, limits, decode),
            lambda _: (PNG, JSON),
            lambda kind, task, given, refined: labels_answer(kind, task.settings.model, refined, given),
        )

    _answer_heads(app)
    known: dict[str, set[str]] = {}
    for route in app.routes:
        if isinstance(route, APIRoute):
            known.setdefault(route.path, set()).update(route.methods or ())

    @app.api_route("/v1/{rest:path}", methods=_METHODS, include_in_schema=False)
    async def nothing(request: Request) -> Response:
        """What a page at `/` must not answer."""
        allowed = known.get(request.url.path)
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))}) if allowed else HTTPException(404)
