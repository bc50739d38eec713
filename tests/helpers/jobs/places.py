"""A job over small texts, and the folders that it reads and writes."""

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segrefiner import InputError
from segrefiner.imaging.files import atomic_write
from segrefiner.jobs.job import Item, Job, SavedItem, written
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.manifest import settings_hash
from segrefiner.jobs.run import run
from segrefiner.ledger import RunSummary


@dataclass(frozen=True)
class Shout:
    """Texts in capitals. An item's payload says what goes wrong; the "refiner" is a list, and told what it gets."""

    root: Path
    version: int = 1
    seconds: float = 0

    def settings(self) -> dict[str, Any]:
        return {"version": self.version}

    def load(self, item: Item, contents: Sequence[bytes]) -> tuple[Item, str]:
        if item.payload == "deadly":
            os._exit(1)
        if b"unreadable" in contents[0]:
            raise InputError(f"{item.inputs[0].name} is\nno text")
        return item, contents[0].decode()

    def refine(self, refiner: Any, loaded: tuple[Item, str]) -> str:
        item, text = loaded
        if item.payload == "unrefined":
            raise RuntimeError("out of memory")
        time.sleep(self.seconds)
        refiner.append(item.key)
        return f"{text.upper()} {self.version} {item.payload}"

    def save(self, item: Item, refined: str) -> SavedItem:
        if (self.root / "full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.txt")
        target = self.root / item.key
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda stream: [stream.write(refined.encode()) for _ in range(1000)])
        failures = {f"{item.key} part 2": "no text there"} if item.payload == "in part" else {}
        left_out = {item.key: "nothing there"} if item.payload == "left out" else {}
        notes = ("short",) if item.payload == "in part" else ()
        return SavedItem(written(self.root, [target]), refined, failures, notes, left_out)


@dataclass
class Place:
    """A job's inputs, outputs and state."""

    folder: Path

    def __post_init__(self) -> None:
        for folder in (self.inputs, self.root):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def root(self) -> Path:
        return self.folder / "out"

    @property
    def state(self) -> Path:
        return self.root / ".segrefiner"

    def items(self, names: str = "abcd", **payloads: str) -> list[Item]:
        """Items of one letter each, whose files are made where they are absent."""
        for name in names:
            if not (self.inputs / name).exists():
                (self.inputs / name).write_text(f"text {name}")
        return [Item(f"{name}.txt", (self.inputs / name,), payloads.get(name)) for name in names]

    def run(
        self, items: list[Item], *, workers: int = 0, version: int = 1, **options: Any
    ) -> tuple[RunSummary, list[str]]:
        """The summary of a run, and the items it has refined."""
        refined: list[str] = []
        finish = options.pop("finish", lambda results: None)
        job = Job(items, Shout(self.root, version), finish, options.pop("failures", {}))
        config = settings_hash(job.work.settings())
        engine = LocalEngine(refined, workers)  # type: ignore[arg-type]
        return run(job, engine, self.state, config=config, **options), [name[0] for name in refined]

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / name).read_text().splitlines()]

    def outputs(self) -> dict[str, bytes]:
        return files_below(self.root)


def files_below(root: Path) -> dict[str, bytes]:
    """Every file, but those of the state; temporary ones too."""
    paths = (path for path in root.rglob("*") if path.is_file() and ".segrefiner" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
