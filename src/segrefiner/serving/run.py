"""Runs the HTTP API in this process until it is told to stop."""

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from ..errors import InputError, reason
from ..refinement.refiner import Refiner
from .api import create_app
from .labelstudio.images import ImageHost
from .limits import Limits
from .memory import give_back_freed
from .middleware import LOOPBACK
from .problems import BAD_REQUEST, ProblemError, response
from .service import Service
from .signals import killed_after_second_signal

_HEADER_SECONDS = 10.0
"""Until a connection has sent a request's header, from its beginning or the last answer on."""

_WRITE_SECONDS = 300.0
"""Until a client has read most of what was written to it."""

_CLOSING_SECONDS = 10
"""For what is still being sent, and for the page's open connections, when all requests inside are answered."""

_LAST_SECONDS = 5.0
"""From the second signal to the end, whatever is still going on."""

_TICKS_BETWEEN_TRIMS = 50
"""Ticks of the server, ten a second, between two times that freed memory is given back to the system."""

_CONNECTIONS = 512
"""At the same time; for more the longest silent one is closed."""


def serve(
    refiners: Mapping[str, Refiner],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    api_key: str | None = None,
    insecure: bool = False,
    page: Callable[[FastAPI], object] | None = None,
    labelstudio: ImageHost | None = None,
    on_ready: Callable[[str], object] = lambda _: None,
) -> None:
    """Serves until SIGINT or SIGTERM; then new requests get 503, those inside are finished, and this returns.

    A second signal ends the process within seconds, even where it is stuck.

    Args:
        refiners: The refiners by the names under which clients ask for them, the default first.
        host: Address to listen at.
        port: 0 for any that is free.
        limits: The most that clients may send and ask for; `None` for the defaults.
        api_key: The key that clients must send; `None` for none.
        insecure: Whether other machines may use the server without a key.
        page: Called with the finished app, to mount a web page at `/`.
        labelstudio: The Label Studio server for which this is an ML backend; `None` for none.
        on_ready: Called with the server's URL when it answers requests.

    Raises:
        InputError: The address is not this machine's own and there is no key, or nothing can listen there.
    """
    local = is_loopback(host)
    if not local and api_key is None and not insecure:
        raise InputError(
            f"{host} can be reached from other machines: give a key by --api-key-file, or --insecure to let anyone in"
        )
    hosts = LOOPBACK | {f"[{host}]" if ":" in host else host} if local else None
    # First, since an address that is taken should be told before anything is built.
    with _listening(host, port) as listener:
        app = create_app(refiners, limits=limits, api_key=api_key, hosts=hosts, page=page, labelstudio=labelstudio)
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            # Others take the pipe of signals for themselves.
            loop="asyncio",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
            # Nobody's claim to be somebody else is believed.
            proxy_headers=False,
        )
        # What clients send wrong is told to them: they shall not fill the log with it.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}"
        with killed_after_second_signal(_LAST_SECONDS):
            _Server(config, app.state.service, lambda: on_ready(url)).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"nothing can listen at {host}, port {port} ({reason(error)}): choose another --port"
        ) from error


class _Server(uvicorn.Server):
    """Finishes what is inside before it closes its door: until then, those who come are told to come back."""

    def __init__(self, config: uvicorn.Config, service: Service, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._service, self._on_ready = service, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tells when requests are answered from now on."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second one ends at once."""
        if self._service.stopping:
            self.should_exit = self.force_exit = True
        self._service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; asked ten times a second."""
        ended = await super().on_tick(counter)
        if counter % _TICKS_BETWEEN_TRIMS == 0:
            await asyncio.to_thread(give_back_freed)
        return ended or (self._service.stopping and self._service.idle)


class _Connection(H11Protocol):
    """A connection that must not idle inside a header, and whose nonsense is answered as all other problems are."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first request."""
        super().connection_made(transport)
        # Or the end of each answer waits for the client's word that it has the beginning.
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._waits_since = self.loop.time()
        if len(self.connections) > _CONNECTIONS:
            self._make_room()
        self._expect_request()

    def _make_room(self) -> None:
        """Closes the connection that has been without a request for longest, so that silent ones keep nobody out."""
        waiting = [one for one in self.connections if isinstance(one, _Connection) and one._waits()]
        min(waiting, key=lambda one: one._waits_since, default=self).transport.abort()

    def _waits(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def pause_writing(self) -> None:
        """Gives the client some time to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(_WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Takes that back."""
        super().resume_writing()
        self._unread.cancel()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request."""
        super().on_response_complete()
        self._waits_since = self.loop.time()
        self._expect_request()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            told = response(ProblemError(BAD_REQUEST, "this is no HTTP request: correct it"), secrets.token_hex(16))
            headers = [*told.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=headers),
                h11.Data(bytes(told.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _expect_request(self) -> None:
        self.loop.call_later(_HEADER_SECONDS, self._close_unless_busy, self.cycle)

    def _close_unless_busy(self, before: RequestResponseCycle | None) -> None:
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()
