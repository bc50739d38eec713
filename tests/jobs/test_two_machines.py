"""A Ray cluster of two machines, of which one dies, and the rules of its pool of actors without Ray."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segrefiner import InputError
from segrefiner.jobs import cluster
from segrefiner.jobs.cluster import _Pool
from segrefiner.jobs.job import Item, ItemOutcome

ROOT = Path(__file__).parents[2]


class RayError(Exception):
    pass


class TaskError(RayError):
    cause = ValueError("inside")


class Actor:
    """Stands in for an actor: it dies of some items, and opens or not."""

    def __init__(self, ray: "Ray") -> None:
        self.ray, self.alive, self.held = ray, True, Counter[str]()
        self.opens = ray.opens(len(ray.actors))
        ray.actors.append(self)
        self.open = SimpleNamespace(remote=lambda: Call(self, None))
        self.refine = SimpleNamespace(remote=self._refine)

    def _refine(self, item: Item) -> "Call":
        self.ray.begun[item.key] += 1
        self.held[item.key] += 1
        if item.payload == "deadly" and self.ray.begun[item.key] > 1:
            # What an actor died of is tried by itself.
            assert self.held.total() == 1
        assert self.held.total() <= 2
        return Call(self, item)


class Call:
    def __init__(self, actor: Actor, item: Item | None) -> None:
        self.actor, self.item = actor, item


class Ray:
    """Stands in for the module: calls end in the order in which they were made."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=TaskError)

    def __init__(self, opens: Callable[[int], str | None] = lambda number: "") -> None:
        self.opens, self.actors, self.begun, self.killed = opens, list[Actor](), Counter[str](), list[Actor]()

    def wait(self, calls: list[Call], timeout: float) -> tuple[list[Call], list[Call]]:
        ready = [call for call in calls if call.item or call.actor.opens is not None]
        return ready[:1], ready[1:]

    def get(self, call: Call) -> Any:
        if not call.actor.alive or call.actor.opens == "dies":
            raise RayError("the actor died\nof something")
        if call.item is None:
            return call.actor.opens
        if call.item.payload == "deadly":
            call.actor.alive = False
            raise RayError("the actor died")
        del call.actor.held[call.item.key]
        if call.item.payload == "strange":
            raise TaskError("strange")
        return ItemOutcome(call.item.key)

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor)


def outcomes(ray: Ray, count: int, actors: int = 2, **payloads: str) -> dict[str, str]:
    items = [Item(str(number), (), payloads.get(f"_{number}")) for number in range(count)]
    pool = _Pool(ray, lambda: Actor(ray), actors, items)
    found: list[ItemOutcome] = []
    while pool.is_busy:
        found += pool.ended()
    pool.close()
    assert set(ray.killed) == set(ray.actors)
    assert len(found) == len({one.key for one in found})
    return {one.key: one.error for one in found}


def test_every_item_has_one_outcome_whatever_actors_die_of() -> None:
    ray = Ray()
    found = outcomes(ray, 12, _1="deadly", _2="deadly", _7="strange")
    assert len(found) == 12 and {key for key, error in found.items() if error} == {"1", "2", "7"}
    assert "3 actors died" in found["1"] and "inside" in found["7"]
    assert ray.begun["1"] == ray.begun["2"] == 3
    # Others die along once at most, for then each is by itself.
    assert max(ray.begun[key] for key in found if key not in {"1", "2"}) <= 2


def test_one_machine_does_all_where_the_other_has_no_room() -> None:
    ray = Ray(lambda number: None if number else "")
    assert len(outcomes(ray, 5)) == 5 and set(ray.begun.values()) == {1}


def test_few_items_start_few_actors() -> None:
    ray = Ray()
    outcomes(ray, 1, actors=8)
    assert len(ray.actors) == 1


@pytest.mark.parametrize(
    ("opens", "said"), [("dies", "die while they load"), ("no such model", "no such model"), (None, "no room")]
)
def test_a_cluster_that_cannot_work_is_told(opens: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if opens is None:
        monkeypatch.setattr(cluster, "_PATIENCE_S", 0.0)
    with pytest.raises(InputError, match=said):
        outcomes(Ray(lambda number: opens), 3)


def scenes(folder: Path, count: int) -> None:
    """Cars on a road under a sky, with labels."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        labels = np.full((72, 96), 3, np.uint8)
        labels[: 20 + number] = 0
        for left in (8, 34):
            labels[36:56, left + number : left + number + 28] = 8
        photo = rng.integers(0, 256, (12, 3), np.uint8)[labels]
        Image.fromarray(photo).save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{number}.png")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="two addresses of one machine")
def test_a_machine_that_dies_loses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    scenes(tmp_path / "data", 6)
    command = [
        sys.executable,
        "-m",
        "benchmarks.service.cluster",
        str(tmp_path / "data"),
        "--scenes",
        "6",
        "--side",
        "96",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal to the local engine's: True") == 2
    assert done.stdout.count("after they were reported done: 0") == 2
