"""Items of jobs whose beginnings are lines of a file, in a module that the actors of a cluster can import."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrefiner.jobs.job import Item, SavedItem


@dataclass(frozen=True)
class LoggedProcessor:
    """Another processor, of which each beginning is a line in a log that two processes share."""

    inner: Any
    log: Path

    @property
    def root(self) -> Path:
        """See `ItemProcessor`."""
        root: Path = self.inner.root
        return root

    def settings(self) -> dict[str, Any]:
        """See `ItemProcessor`."""
        settings: dict[str, Any] = self.inner.settings()
        return settings

    def load(self, item: Item, contents: Sequence[bytes]) -> tuple[str, Any]:
        """See `ItemProcessor`."""
        return item.key, self.inner.load(item, contents)

    def refine(self, refiner: Any, loaded: tuple[str, Any]) -> Any:
        """See `ItemProcessor`."""
        key, content = loaded
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps({"key": key, "process": os.getpid()}) + "\n")
        # Nothing is done before both machines are at work, whichever is first.
        wait_for(lambda: len({line["process"] for line in lines_of(self.log)}) > 1)
        return self.inner.refine(refiner, content)

    def save(self, item: Item, refined: Any) -> SavedItem:
        """See `ItemProcessor`."""
        saved: SavedItem = self.inner.save(item, refined)
        return saved


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may be growing, or have no line yet."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def wait_for(reached: Callable[[], bool], seconds: float = 600.0) -> None:
    """Wait for a state of the cluster. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster does not come to have two machines at work")
        time.sleep(0.2)
