"""What of Gradio the page needs, and nothing else of it.

Gradio answers more than one page asks for: it fetches addresses for its clients, lists runs, serves files of caches in
the working folder, describes itself. The door lets through what the page's own scripts send, and ends their long
connections when the server is about to stop, which would wait for them otherwise.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .server_errors import NOT_FOUND, WRONG_METHOD, ProblemError

_API = "/gradio_api/"
_FILE = _API + "file="
_READ = ("/", "/theme.css", "/config", "/favicon.ico", "/robots.txt", _API + "queue/data", _API + "upload_progress")
_READ_BELOW = ("/assets/", "/static/", "/svelte/", _API + "heartbeat/")
_WRITTEN = tuple(_API + name for name in ("queue/join", "upload", "component_server", "cancel", "reset"))
_LONG = (_API + "heartbeat/", _API + "queue/data")
_LOOKS_SECONDS = 0.2


class Door:
    """ASGI app in front of Gradio's.

    Args:
        app: Gradio's.
        folder: The one whose files may be fetched.
        stopping: Whether the server is about to stop and has nothing to finish.
    """

    def __init__(self, app: ASGIApp, folder: Path, stopping: Callable[[], bool]) -> None:
        self.app, self._folder, self._stopping = app, folder.resolve(), stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises `ProblemError` for what the page has no use for."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
            self._check(scope["method"], path)
            if path.startswith(_LONG):
                await self._until_stopping(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, method: str, path: str) -> None:
        read = path in _READ or path.startswith(_READ_BELOW) or self._is_ours(path)
        if not read and path.rstrip("/") not in _WRITTEN:
            raise ProblemError(NOT_FOUND, "there is nothing here: the page is at /, the API at /v1/")
        if method not in (("GET", "HEAD") if read else ("POST",)):
            raise ProblemError(WRONG_METHOD, "not with this method")

    def _is_ours(self, path: str) -> bool:
        """Whether this names a file in the page's own folder, links followed."""
        if not path.startswith(_FILE):
            return False
        try:
            real = os.path.realpath(path.removeprefix(_FILE))
        except ValueError:  # A zero byte.
            return False
        return Path(real).is_relative_to(self._folder) and os.path.isfile(real)

    async def _until_stopping(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        answer = asyncio.ensure_future(self.app(scope, receive, noted))
        try:
            while not answer.done():
                await asyncio.wait((answer,), timeout=_LOOKS_SECONDS)
                if self._stopping() and not answer.done():
                    break
            else:
                answer.result()
                return
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
        if not begun:
            await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body"})
