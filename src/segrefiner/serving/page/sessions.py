"""The page's open tabs: what runs for each, what is told to it, and the result that it looks at."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from ...errors import InputError
from ..problems import BUSY, NOT_FOUND, ProblemError, busy

Message = dict[str, Any]

_EVENTS = 64
"""That run at the same time, of all tabs."""

_EVENTS_OF_CLIENT = 24
_EVENTS_OF_TAB = 12
_TABS = 512
_TABS_OF_CLIENT = 128
_MESSAGES = 256
"""That wait for a tab, at most: who reads nothing loses the oldest."""

_UNHEARD_SECONDS = 30.0
"""For which an event runs whose tab listens to nothing."""

_LOOKS_SECONDS = 0.2
_ALIVE_SECONDS = 15.0


class Sized(Protocol):
    """What a tab looks at."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        ...


class Tab:
    """One open page.

    Args:
        client: Who opened it.

    Attributes:
        result: What it looks at.
        used: When it was last heard of.
    """

    def __init__(self, client: str) -> None:
        self.client, self.used = client, time.monotonic()
        self.result: Any = None
        self.running: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self.messages: deque[Message] = deque(maxlen=_MESSAGES)
        self.listener: object | None = None
        self._news = asyncio.Event()

    def tell(self, message: Message) -> None:
        """Leaves a message for its listener."""
        self.messages.append(message)
        self._news.set()

    def cancel(self, event_id: str | None = None) -> None:
        """Ends one of its events, or all."""
        for name, (_, task) in list(self.running.items()):
            if event_id in (None, name):
                task.cancel()

    async def listen(self, stopping: Callable[[], bool]) -> AsyncIterator[Message]:
        """Its messages, until nothing runs any more, another listener comes, or the server is about to stop."""
        me = self.listener = object()
        told = time.monotonic()
        try:
            while self.listener is me and not stopping():
                while self.messages:
                    told = time.monotonic()
                    yield self.messages.popleft()
                if not self.running:
                    # At once: the next event begins when the browser has read this, and opens a stream of its own.
                    yield {"msg": "close_stream", "event_id": None}
                    return
                if time.monotonic() - told > _ALIVE_SECONDS:
                    told = time.monotonic()
                    yield {"msg": "heartbeat", "event_id": None}
                await self._wait()
        finally:
            if self.listener is me:
                self.listener = None
                # Whoever closes the page does not wait for what it began.
                self.cancel()

    async def _wait(self) -> None:
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), _LOOKS_SECONDS)
        except TimeoutError:
            self.used = time.monotonic()


class Tabs:
    """All open pages, and bounds on what they hold together.

    Args:
        result_bytes: Of all results. The longest unused are forgotten beyond it; half of it for one client.
        kept_seconds: For which a tab that is not heard of is remembered.
    """

    def __init__(self, *, result_bytes: int = 2 << 30, kept_seconds: float = 1800.0) -> None:
        self._result_bytes, self._kept = result_bytes, kept_seconds
        self._tabs: dict[str, Tab] = {}

    def find(self, name: str) -> Tab:
        """The tab of this name. Raises `ProblemError` where there is none."""
        tab = self._tabs.get(name)
        if tab is None:
            raise ProblemError(NOT_FOUND, "this page is not known here any more: reload it")
        tab.used = time.monotonic()
        return tab

    def open(self, name: str, client: str) -> Tab:
        """The tab of this name, which may be new. Raises `ProblemError` where there are too many."""
        self.tidy()
        tab = self._tabs.get(name)
        if tab is not None and tab.client == client:
            tab.used = time.monotonic()
            return tab
        idle = sorted((one.used, key) for key, one in self._tabs.items() if not one.running)
        mine = [key for _, key in idle if self._tabs[key].client == client]
        if tab is not None:
            raise ProblemError(NOT_FOUND, "this page is another visitor's: reload it")
        if sum(one.client == client for one in self._tabs.values()) >= _TABS_OF_CLIENT or len(self._tabs) >= _TABS:
            if not (candidates := mine or [key for _, key in idle]):
                raise busy(BUSY, "too many pages are open: try again later", 10)
            del self._tabs[candidates[0]]
        return self._tabs.setdefault(name, Tab(client))

    def begin(self, tab: Tab, index: int, work: Callable[[str], Awaitable[None]]) -> str:
        """Runs work for a tab.

        Args:
            tab: Whose listener is told.
            index: The number by which the page knows what it began.
            work: Called with the event's name; tells the tab of its end itself.

        Returns:
            The event's name.

        Raises:
            ProblemError: Too much runs.
        """
        mine = sum(len(one.running) for one in self._tabs.values() if one.client == tab.client)
        total = sum(len(one.running) for one in self._tabs.values())
        if len(tab.running) >= _EVENTS_OF_TAB or mine >= _EVENTS_OF_CLIENT or total >= _EVENTS:
            raise busy(BUSY, "the page has too much to do: try again later", 5)
        event_id = secrets.token_hex(16)

        async def run() -> None:
            try:
                await work(event_id)
            finally:
                del tab.running[event_id]

        tab.running[event_id] = (index, asyncio.ensure_future(run()))
        asyncio.get_running_loop().call_later(_UNHEARD_SECONDS, self._end_unheard, tab, event_id)
        return event_id

    def check_fits(self, nbytes: int) -> None:
        """Raises `InputError` for a result that is too large to be looked at."""
        if nbytes > self._result_bytes // 2:
            raise InputError(
                f"the results would take {nbytes / 1e9:.1f} GB, more than the page keeps for a visitor "
                f"({self._result_bytes / 2e9:.1f} GB): give a smaller photo or fewer objects, or use the command line"
            )

    def keep(self, tab: Tab, result: Sized) -> None:
        """Remembers what a tab looks at, and forgets older results of others if there is no room."""
        tab.result, tab.used = result, time.monotonic()
        for client, limit in ((tab.client, self._result_bytes // 2), (None, self._result_bytes)):
            holding = [one for one in self._tabs.values() if one.result is not None and client in (None, one.client)]
            holding.sort(key=lambda one: one.used)
            while len(holding) > 1 and sum(one.result.nbytes for one in holding) > limit:
                holding.pop(0).result = None

    def tidy(self) -> None:
        """Forgets the tabs of which nothing was heard for long."""
        before = time.monotonic() - self._kept
        for name in [name for name, tab in self._tabs.items() if tab.used < before and not tab.running]:
            del self._tabs[name]

    def _end_unheard(self, tab: Tab, event_id: str) -> None:
        if tab.listener is None:
            tab.cancel(event_id)
