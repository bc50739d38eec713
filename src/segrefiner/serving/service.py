"""What the routes share: the worker, how many requests may be inside, and how long each of them may take."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..imaging.codecs.decoder_process import Decoder
from ..refinement.refiner import Refiner
from .forms import Decode, check_cost, declared_pixels, read_form
from .limits import Limits
from .metrics import Metrics
from .problems import BUSY, OUT_OF_TIME, STOPPING, GoneError, ProblemError, busy
from .responses import chosen_type
from .worker import QueueFullError, StoppedError, Task, Worker

T = TypeVar("T")
Asked = TypeVar("Asked")

_SMALL_PIXELS = 4_000_000
"""Of a request's files: more are decoded one request after the other, so that small ones never wait for them."""

_SMALL, _LARGE, _ENCODING = 2, 1, 2
"""Threads that decode small and large files, each with a process, and that encode; each may hold a large picture."""


@dataclass(frozen=True)
class Lane:
    """Threads that do one kind of work, and the processes that they decode with, if they do."""

    threads: ThreadPoolExecutor
    decoder: Decoder | None


class Service:
    """Takes requests through reading, decoding, waiting, computing and encoding.

    Args:
        refiners: By name, the default first.
        limits: What is put up with.

    Attributes:
        stopping: Whether new requests are turned away.
    """

    def __init__(self, refiners: Mapping[str, Refiner], limits: Limits) -> None:
        self.refiners, self.limits, self.metrics = dict(refiners), limits, Metrics()
        self.stopping = False
        self._inside = self._receiving = 0
        self._worker: Worker | None = None
        self._lanes: dict[str, Lane] = {}

    @property
    def idle(self) -> bool:
        """Whether no request is inside, or on its way in."""
        return not self._inside and not self._receiving

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this lasts, requests can be answered."""
        worker = Worker(self.refiners, waiting_bytes=self.limits.waiting_bytes, on_batch=self.metrics.batch)
        self.metrics.watch_queue(lambda: worker.waiting)
        with ExitStack() as stack:
            for name, threads in (("small", _SMALL), ("large", _LARGE), ("encoding", _ENCODING)):
                decoder = None if name == "encoding" else Decoder(threads, self.limits.pixels)
                if decoder is not None:
                    stack.callback(decoder.close)
                self._lanes[name] = Lane(
                    stack.enter_context(ThreadPoolExecutor(threads, f"segrefiner-{name}")), decoder
                )
            for lane in ("small", "large"):
                await self._in_lane(lane, self.decoder(lane).wait)
            self._worker = worker
            try:
                yield
            finally:
                await asyncio.to_thread(worker.stop)

    async def answer(
        self,
        request: Request,
        prepare: Callable[[FormData, Decode], tuple[Task, Asked]],
        offered: Callable[[Task], Sequence[str]],
        respond: Callable[[str, Task, Asked, Any], Response],
    ) -> Response:
        """The answer to a form.

        Args:
            request: Whose body has not been read yet.
            prepare: The form's task, and what `respond` has to know of the form beside it; it decodes files by what it
                is given for that.
            offered: Media types in which the task's result can be given.
            respond: The answer in the chosen type.

        Raises:
            ProblemError: There is none, for one of many reasons.
            GoneError: The client does not wait for it any more.
        """

        async def computed(form: FormData) -> Response:
            task, asked = await self._prepared(form, prepare)
            kind = chosen_type(",".join(request.headers.getlist("accept")), offered(task))
            result = await self._computed(task)
            return await self._in_lane("encoding", respond, kind, task, asked, result)

        return await self._inside_with(request, lambda: read_form(request, self.limits), computed)

    async def answer_body(self, request: Request, respond: Callable[[bytes], Awaitable[Response]]) -> Response:
        """The answer to a request with any other body, within the same bounds; raises as `answer` does."""

        async def body() -> bytes:
            try:
                return await request.body()
            except ClientDisconnect as error:
                raise GoneError from error

        return await self._inside_with(request, body, respond)

    async def _inside_with(
        self, request: Request, read: Callable[[], Awaitable[T]], work: Callable[[T], Awaitable[Response]]
    ) -> Response:
        """What is made, at a place inside, of a body that is read before."""
        self.check_ready()
        self._check_room()
        # Who sends slowly holds no place meanwhile; when the server is about to stop, they may finish.
        self._receiving += 1
        try:
            given = await read()
        finally:
            self._receiving -= 1
        with self.place():
            return await _within(self.limits.request_seconds, request, work(given))

    async def refined(
        self, form: FormData, prepare: Callable[[FormData, Decode], tuple[Task, Asked]]
    ) -> tuple[Task, Asked, Any]:
        """The task of a form that is no request's own, what else the form asks, and the task's result.

        It has the bounds of a request's form; who calls this holds a `place`. Raises `ProblemError` and `InputError`.
        """

        async def result() -> tuple[Task, Asked, Any]:
            task, asked = await self._prepared(form, prepare)
            return task, asked, await self._computed(task)

        try:
            return await asyncio.wait_for(result(), self.limits.request_seconds)
        except TimeoutError:
            raise out_of_time() from None

    async def _prepared(
        self, form: FormData, prepare: Callable[[FormData, Decode], tuple[Task, Asked]]
    ) -> tuple[Task, Asked]:
        try:
            pixels = await self._in_lane("small", declared_pixels, form, self.limits)
            lane = "small" if pixels <= _SMALL_PIXELS else "large"
            return await self._in_lane(lane, prepare, form, self.decoder(lane).run)
        finally:
            await form.close()

    async def compute(self, task: Task) -> Any:
        """What a task gives that is no request's, at a place inside as requests have. Raises `ProblemError`."""
        self.check_ready()
        with self.place():
            check_cost(task.cost, self.limits)
            try:
                return await asyncio.wait_for(self._computed(task), self.limits.request_seconds)
            except TimeoutError:
                raise out_of_time() from None

    def check_ready(self) -> None:
        """Raises `ProblemError` if a new request would not be computed."""
        if self.stopping or self._worker is None or not self._worker.alive:
            raise self._stopping()
        if self._worker.silent_seconds() > self.limits.stuck_seconds:
            raise busy(BUSY, "what is computed gives no sign any more: the server needs a restart", 60)

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places inside, which bound what requests hold in memory."""
        self._check_room()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def _check_room(self) -> None:
        if self._inside >= self.limits.queue:
            raise self._busy(f"{self.limits.queue} requests wait already")

    async def _computed(self, task: Task) -> Any:
        assert self._worker is not None
        try:
            self._worker.submit(task)
            await asyncio.wait_for(asyncio.wrap_future(task.started), self.limits.queue_seconds)
            result = await asyncio.wrap_future(task.finished)
        except QueueFullError:
            raise self._busy("the pictures that wait fill the memory meant for them") from None
        except TimeoutError:
            raise self._busy(f"the request's turn did not come within {self.limits.queue_seconds:g} s") from None
        except StoppedError:
            raise self._stopping() from None
        finally:
            task.abandon()
        self.metrics.refined(task.count)
        return result

    async def decoded(self, pixels: int, function: Callable[..., T], *arguments: Any) -> T:
        """What a function makes of files with so many pixels, in a process that can be killed. Raises `KilledError`."""
        lane = "small" if pixels <= _SMALL_PIXELS else "large"
        return await self._in_lane(lane, self.decoder(lane).run, function, *arguments)

    def decoder(self, lane: str) -> Decoder:
        """The processes of a lane that decodes."""
        decoder = self._lanes[lane].decoder
        assert decoder is not None
        return decoder

    async def _in_lane(self, lane: str, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._lanes[lane].threads, function, *arguments)

    def _busy(self, why: str) -> ProblemError:
        assert self._worker is not None
        return busy(BUSY, f"{why}: try again later", self._worker.seconds_ahead())

    def _stopping(self) -> ProblemError:
        return busy(STOPPING, "the server is about to stop: try again when it runs again", 5)


def out_of_time() -> ProblemError:
    """The problem of a request whose time is over."""
    return ProblemError(OUT_OF_TIME, "the answer took too long: send fewer masks or a smaller photo")


async def _within(seconds: float, request: Request, work: Awaitable[T]) -> T:
    """What the work gives, unless time is up or the client goes away before."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, watching), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if watching.done():
            raise GoneError
        raise out_of_time()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Returns when the client does not wait any more; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
