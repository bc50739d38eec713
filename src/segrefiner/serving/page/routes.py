"""What the page's scripts may ask for, answered here: Gradio draws the page and sees nothing that a visitor sends.

Gradio's own routes open the paths and fetch the addresses that a body names, keep what was sent for ever, and are more
with each version. So they are not reached: of Gradio there is the page itself and its theme, asked for by requests
that are made anew, and the files of its front end, from a list. Everything else stands here.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import InputError, SegRefinerError
from ...imaging.json_files import json_text
from ..middleware import client_of
from ..problems import BAD_REQUEST, NOT_FOUND, TOO_LARGE, WRONG_METHOD, GoneError, ProblemError, fault
from .files import PageFiles
from .sessions import Tab, Tabs
from .values import FILES, Reader, parse_body, reader_of, refused

_API = "/gradio_api/"
_FILE = _API + "file="
_DRAWN = ("/", "/theme.css")
"""What Gradio answers."""

_BODY_BYTES = 128 << 10
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_FORWARDED = {b"x-forwarded-proto": re.compile(rb"https?"), b"x-forwarded-host": _HOST}
_TIDY_SECONDS = 60.0
_CSP = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visit:
    """Who began an event, and where its answer goes.

    Attributes:
        tab: The open page.
        event_id: The event's name.
        origin: The page's scheme and host, for addresses of files.
        files: Where files for the visitor are written.
    """

    tab: Tab
    event_id: str
    origin: str
    files: PageFiles

    def progress(self, share: float, what: str) -> None:
        """Tells how far the event is, in [0, 1]."""
        unit = {"index": None, "length": None, "unit": "steps", "progress": share, "desc": what}
        self.tab.tell({"msg": "progress", "event_id": self.event_id, "progress_data": [unit]})

    def file(self, name: str, content: bytes) -> dict[str, Any]:
        """Writes a file for the visitor, and gives it as the front end knows files."""
        return self.known(self.files.add(self.tab.client, name, content).name)

    def known(self, name: str) -> dict[str, Any]:
        """A file of the page as the front end knows files."""
        found = self.files.find(name)
        return {
            "path": name,
            "url": self.origin + _FILE + quote(name),
            "orig_name": name.partition("/")[2],
            "size": None if found is None else found.path.stat().st_size,
            "mime_type": None,
            "is_stream": False,
            "meta": {"_type": "gradio.FileData"},
        }


Handler = Callable[..., Awaitable[Sequence[Any]]]
"""Called with a `Visit` and the values of its inputs; gives what its outputs become, as JSON."""


def update(**properties: Any) -> dict[str, Any]:
    """Other properties of a component; `value` among them. None of them: it stays as it is."""
    return {"__type__": "update", **properties}


@dataclass(frozen=True)
class _Action:
    handler: Handler
    readers: Sequence[Reader]
    event: Reader | None
    outputs: int


class Actions:
    """The page's events and what answers them.

    Gradio is told of inputs and outputs, so that its front end sends the one and takes the other.

    Args:
        files: Among which files that a browser names are looked up.
    """

    def __init__(self, files: PageFiles) -> None:
        self._files = files
        self._actions: dict[int, _Action] = {}

    def on(
        self,
        trigger: Callable[..., Any],
        handler: Handler,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        event: Reader | None = None,
        **options: Any,
    ) -> Any:
        """Ties an event to its handler.

        Args:
            trigger: What Gradio calls a listener, such as `button.click`.
            handler: An async function of the visit and of the inputs' values that gives the outputs' values.
            inputs: Components whose values it takes.
            outputs: Components that it changes.
            event: Reads the event's own data, which is the handler's first value then.
            **options: Of the listener.

        Returns:
            What Gradio gives, to tie more to it.
        """
        tied = trigger(_answered_here, inputs=list(inputs), outputs=list(outputs), api_visibility="private", **options)
        readers = [reader_of(block, self._files) for block in inputs]
        self._actions[tied["id"]] = _Action(handler, readers, event, len(outputs))
        return tied

    def __getitem__(self, index: object) -> _Action:
        if type(index) is not int or index not in self._actions:
            raise refused("this page has no such event")
        return self._actions[index]

    def __iter__(self) -> Any:
        return iter(self._actions)


def _answered_here(*_: Any) -> None:
    raise AssertionError("Gradio was asked for what the page answers itself")


class PageApi:
    """ASGI app of the page.

    Args:
        drawn: Gradio's app.
        actions: What answers events.
        files: The page's own.
        tabs: Who is there.
        stopping: Whether the server is about to stop and has nothing to finish.
    """

    def __init__(
        self, drawn: ASGIApp, actions: Actions, files: PageFiles, tabs: Tabs, stopping: Callable[[], bool]
    ) -> None:
        self._drawn, self._actions, self._files, self._tabs, self._stopping = drawn, actions, files, tabs, stopping
        self._assets = front_end()
        self._tidying: asyncio.TimerHandle | None = None
        self._routes: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/favicon.ico": ("GET", self._favicon),
            "/robots.txt": ("GET", self._robots),
            _API + "upload": ("POST", self._upload),
            _API + "upload_progress": ("GET", self._upload_progress),
            _API + "queue/join": ("POST", self._join),
            _API + "queue/data": ("GET", self._data),
            _API + "cancel": ("POST", self._cancel),
            _API + "reset": ("POST", self._reset),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises `ProblemError` for what the page has no use for."""
        if scope["type"] != "http":
            raise ProblemError(NOT_FOUND, "there is nothing here")
        self._tidy_later()
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path in _DRAWN:
            _check_method(scope, "GET")
            await self._drawn(_anew(scope, path), _no_body(), send)
            return
        request = Request(scope, receive)
        if path in self._routes:
            method, answer = self._routes[path]
            _check_method(scope, method)
            response = await answer(request)
        else:
            found = self._file(path)
            _check_method(scope, "GET")
            response = found
        await response(scope, receive, send)

    def _file(self, path: str) -> Response:
        """A file of the front end or of the page, both from lists."""
        if path in self._assets:
            return FileResponse(self._assets[path], headers={"Cache-Control": "public, max-age=86400"})
        found = self._files.find(path.removeprefix(_FILE)) if path.startswith(_FILE) else None
        if found is None:
            raise ProblemError(NOT_FOUND, "there is nothing here: the page is at /, the API at /v1/")
        shown = found.media_type.startswith("image/")
        return FileResponse(
            found.path,
            media_type=found.media_type,
            filename=found.path.name,
            content_disposition_type="inline" if shown else "attachment",
            headers={"Content-Security-Policy": _CSP, "Cache-Control": "private, max-age=1800"},
        )

    async def _favicon(self, _: Request) -> Response:
        path = self._assets.get("/static/img/logo.svg")
        return Response(status_code=404) if path is None else FileResponse(path)

    async def _robots(self, _: Request) -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")

    async def _upload(self, request: Request) -> Response:
        """Takes files in, and answers the names by which the page knows them from then on."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise refused("the body is no form")
        parser = _InMemory(request.headers, request.stream(), max_files=FILES, max_fields=1, max_part_size=1024)
        try:
            form = await parser.parse()
        except ClientDisconnect as error:
            raise GoneError from error
        except (MultiPartException, UnicodeError, ValueError) as error:
            raise refused("the form is damaged") from error
        try:
            uploads = [one for _, one in form.multi_items() if isinstance(one, UploadFile)]
            return JSONResponse([await asyncio.to_thread(self._taken, request, one) for one in uploads])
        except InputError as error:
            raise ProblemError(TOO_LARGE, str(error)) from error
        finally:
            await form.close()

    def _taken(self, request: Request, upload: UploadFile) -> str:
        name = Path((upload.filename or "file").replace("\\", "/")).name
        return self._files.add(client_of(request.scope), name, upload.file.read()).name

    async def _upload_progress(self, _: Request) -> Response:
        """Bytes that have arrived are known to the browser itself."""
        return StreamingResponse(iter(['data: {"msg": "done"}\n\n']), media_type="text/event-stream")

    async def _join(self, request: Request) -> Response:
        """Begins an event."""
        body = await _body(request, frozenset({"data", "event_data", "fn_index", "trigger_id", "session_hash"}))
        action = self._actions[body.get("fn_index")]
        data, readers = body.get("data"), action.readers
        if not isinstance(data, list) or len(data) != len(readers):
            raise refused(f"the event takes {len(readers)} values")
        values = [read(value) for read, value in zip(readers, data, strict=True)]
        if action.event is not None:
            values.insert(0, action.event(body.get("event_data")))
        tab = self._tabs.open(_name(body), client_of(request.scope))
        origin = request.headers.get("origin") or f"{request.url.scheme}://{request.url.netloc}"

        async def work(event_id: str) -> None:
            visit = Visit(tab, event_id, origin, self._files)
            tab.tell({"msg": "process_starts", "event_id": event_id, "eta": None})
            output, success = await _answered(action, visit, values)
            done = {"msg": "process_completed", "event_id": event_id, "output": output, "success": success}
            tab.tell(done | {"title": None, "used_cache": None, "cache_duration": None, "avg_time": None})

        return JSONResponse({"event_id": self._tabs.begin(tab, body["fn_index"], work)})

    async def _data(self, request: Request) -> Response:
        """The stream of what is told to a tab."""
        tab = self._tabs.find(_name(request.query_params))

        async def stream() -> AsyncIterator[str]:
            async for message in tab.listen(self._stopping):
                yield f"data: {json_text(message)}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _cancel(self, request: Request) -> Response:
        """Ends an event, whose tab is told that it is over."""
        body = await _body(request, frozenset({"session_hash", "event_id", "fn_index"}))
        tab, event_id = self._tabs.find(_name(body)), body.get("event_id")
        if isinstance(event_id, str) and event_id in tab.running:
            tab.cancel(event_id)
            tab.tell({"msg": "process_completed", "event_id": event_id, "output": {}, "success": True, "title": None})
        return JSONResponse({"success": True})

    async def _reset(self, request: Request) -> Response:
        await _body(request, frozenset({"event_id"}))
        return JSONResponse({"success": True})

    def _tidy_later(self) -> None:
        """Once a minute, what is out of date is deleted, whether somebody comes or not."""
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(_TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        self._files.tidy()
        self._tabs.tidy()
        self._tidy_later()


def front_end() -> Mapping[str, Path]:
    """The files of Gradio's front end by the paths at which browsers ask for them."""
    root = Path(gr.__file__).resolve().parent / "templates" / "frontend"
    return {
        f"/{path.relative_to(root).as_posix()}": path
        for name in ("assets", "static")
        for path in (root / name).rglob("*")
        if path.is_file() and path.resolve().is_relative_to(root)
    }


class _InMemory(MultiPartParser):
    """Keeps uploads in memory, where the limit on the body bounds them."""

    spool_max_size = 1 << 62


async def _answered(action: _Action, visit: Visit, values: Sequence[Any]) -> tuple[dict[str, Any], bool]:
    """What an event gives, as the front end takes it; of the server's own faults only that there was one."""
    title = "Not yet"
    try:
        data = list(await action.handler(visit, *values))
        assert len(data) == action.outputs
        return {"data": data, "is_generating": False, "changed_state_ids": [], "render_config": None}, True
    except (SegRefinerError, ProblemError) as error:
        # The front end shows messages as HTML, and they repeat what a visitor called a file.
        message = escape(str(error))
    except Exception as error:
        _log.error("the page failed: %s", fault(error))
        title, message = "Sorry", "Something failed inside the server, whose log says more."
    return {"error": message, "title": title, "duration": None, "visible": True}, False


async def _body(request: Request, keys: frozenset[str]) -> dict[str, Any]:
    content = b""
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > _BODY_BYTES:
                raise ProblemError(TOO_LARGE, f"the body is larger than {_BODY_BYTES >> 10} KiB: reload the page")
    except ClientDisconnect as error:
        raise GoneError from error
    return parse_body(content, keys)


def _name(values: Mapping[str, Any]) -> str:
    """The tab's name. Raises `ProblemError` for what is none."""
    name = values.get("session_hash")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ProblemError(BAD_REQUEST, "session_hash is no name of a page: reload it")
    return name


def _check_method(scope: Scope, method: str) -> None:
    allowed = ("GET", "HEAD") if method == "GET" else (method,)
    if scope["method"] not in allowed:
        raise ProblemError(WRONG_METHOD, "not with this method", headers={"Allow": ", ".join(allowed)})


def _anew(scope: Scope, path: str) -> Scope:
    """The request for the page with nothing in it that a client chose but the name of the host."""
    given = Headers(scope=scope)
    host = given.get("host", "").encode("latin-1")
    headers = [(b"host", host if _HOST.fullmatch(host) else b"localhost")]
    headers += [
        (name, value) for name, value in scope["headers"] if name in _FORWARDED and _FORWARDED[name].fullmatch(value)
    ]
    kept = ("type", "asgi", "http_version", "method", "scheme", "server", "client")
    return {
        **{name: scope[name] for name in kept if name in scope},
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
    }


def _no_body() -> Receive:
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if told:
            await asyncio.Event().wait()
        told = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive
