"""Runs a job on a Ray cluster: a pool of actors, each with a model, that share the file system with the driver.

Ray Data hands items to actors, starts actors anew that die, and gives their items to others. An item that fails is a
row like any other, since Ray Data ends a whole job for one exception. An item of which actors die would be given to
further ones for ever, so it is counted how often each item was begun.
"""

import json
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, import_extra, reason
from ..openmp import WAIT_POLICY, wait_policy
from ..refinement.refiner import Refiner
from .job import InputState, Item, ItemOutcome, ItemProcessor, SavedItem, load, refine, save
from .local import Workers

_BLOCKS = 1000
"""Parts in which items are handed out: what is done again when an actor dies is one of them."""
_ACTORS_ENVIRONMENT = {"TQDM_DISABLE": "1"}
_ATTEMPTS = 3
"""How often an item is begun, if actors die meanwhile: it may be the fault of their machines."""


class RayEngine:
    """Refines items in the actors of a Ray cluster, in any order.

    Args:
        settings: Of `Refiner.from_pretrained`, which each actor calls.
        address: Of the cluster, as for `ray.init`; by default one is started on this machine and ended with the job.
        actors: How many there are.
        gpus: That each actor takes, also a part of one.
        cpus: That each actor takes, and computes with; by default this process's share of them. With as many as the
            local engine has, results are the same; with others, they differ by rounding.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        address: str | None = None,
        actors: int = 1,
        gpus: float = 0,
        cpus: float | None = None,
    ) -> None:
        self._ray = import_extra("ray", "the engine ray", extra="ray")
        self._data = import_extra("ray.data", "the engine ray", extra="ray")
        self.settings, self.address, self.actors, self.gpus = settings, address, actors, gpus
        self.cpus = cpus or max(1, torch.get_num_threads() // actors)

    def __call__(self, work: ItemProcessor, items: Sequence[Item], stop: Callable[[], bool]) -> Iterator[ItemOutcome]:
        """See `run.Engine`. Raises `InputError` where there is no such cluster, or it cannot do the job."""
        if not items:
            return
        started = not self._ray.is_initialized()
        if started:
            self._start()
        try:
            self._check_room()
            yield from self._outcomes(work, items, stop)
        except self._ray.exceptions.RayError as error:
            raise InputError(f"the Ray cluster ended the job ({_innermost(error)})") from error
        finally:
            if started:
                self._ray.shutdown()

    def _start(self) -> None:
        on_termination = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Of many kinds, for each way in which a cluster can be absent.
            raise InputError(f"no Ray cluster at {self.address or 'this machine'} ({reason(error)})") from error
        # Ray has put its own in its place, which ends this process at once.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_termination)

    def _check_room(self) -> None:
        """Ray would wait for ever for a machine with more than there is; one with an address may yet grow."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        machines = [machine["Resources"] for machine in self._ray.nodes() if machine["Alive"]]
        if self.address is None and not any(
            all(machine.get(kind, 0) >= count for kind, count in wanted.items()) for machine in machines
        ):
            asked = " and ".join(f"{count:g} {kind}" for kind, count in wanted.items() if count)
            raise InputError(f"an actor is to have {asked}, which no machine of the Ray cluster has: ask for less")

    def _outcomes(self, work: ItemProcessor, items: Sequence[Item], stop: Callable[[], bool]) -> Iterator[ItemOutcome]:
        context = self._data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        for handler in logging.getLogger("ray.data").handlers:
            # Its log file still gets all of it. Ray shares the program's own handlers, which are not ours to silence.
            if isinstance(handler, logging.StreamHandler) and handler not in logging.getLogger().handlers:
                handler.setLevel(logging.CRITICAL)
        begun = self._ray.remote(Begun).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        blocks = min(len(items), _BLOCKS)
        rows = self._data.from_items([{"item": _item_to_json(item)} for item in items], override_num_blocks=blocks)
        done = rows.map(
            Actor,
            fn_constructor_args=(self.settings, work, max(1, round(self.cpus)), begun),
            compute=self._data.ActorPoolStrategy(size=self.actors),
            num_gpus=self.gpus,
            num_cpus=self.cpus,
            runtime_env={"env_vars": {**_ACTORS_ENVIRONMENT, WAIT_POLICY: wait_policy()}},
        )
        # Leaving the loop ends the pool.
        for row in done.iter_rows():
            yield _outcome_from_json(row["outcome"])
            if stop():
                return


class Begun:
    """Counts, for all actors, how often each item was begun that was not ended."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """How often, with this time."""
        self._times[key] += 1
        return self._times[key]

    def end(self, key: str) -> None:
        """Forgets an item: when an actor dies later, those that it has ended come again, too."""
        del self._times[key]


class Actor:
    """One process with a model, and another one that decodes files within bounds, for it may be killed at them."""

    def __init__(self, settings: dict[str, Any], work: ItemProcessor, threads: int, begun: Any) -> None:
        import ray

        torch.set_num_threads(threads)
        self.refiner, self.work = Refiner.from_pretrained(**settings), work
        self._begun, self._wait = begun, ray.get
        self._workers = Workers(1)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """One row, an item, to another, its outcome."""
        item = _item_from_json(row["item"])
        if self._wait(self._begun.begin.remote(item.key)) > _ATTEMPTS:
            outcome = ItemOutcome(
                item.key, error=f"{_ATTEMPTS} actors died of it: is a file damaged, or memory too small?"
            )
        else:
            outcome = self._refined(item)
            self._wait(self._begun.end.remote(item.key))
        return {"outcome": _outcome_to_json(outcome)}

    def _refined(self, item: Item) -> ItemOutcome:
        loaded = self._workers.call(load, self.work, item).result()
        if isinstance(loaded, ItemOutcome):
            return loaded
        states, content = loaded
        refined = refine(self.work, self.refiner, item, content)
        return refined if isinstance(refined, ItemOutcome) else save(self.work, item, states, *refined)


def _innermost(error: BaseException) -> str:
    """What ended a job, without the traces of other processes around it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return reason(error) if len(lines) < 2 else lines[-1].strip()


def _item_to_json(item: Item) -> str:
    return json.dumps({"key": item.key, "inputs": [os.path.abspath(p) for p in item.inputs], "payload": item.payload})


def _item_from_json(text: str) -> Item:
    values = json.loads(text)
    return Item(values["key"], tuple(map(Path, values["inputs"])), values["payload"])


def _outcome_to_json(outcome: ItemOutcome) -> str:
    return json.dumps(asdict(outcome))


def _outcome_from_json(text: str) -> ItemOutcome:
    values = json.loads(text)
    saved = values["saved"]
    if saved is not None:
        saved = SavedItem(**{**saved, "notes": tuple(saved["notes"])})
    states = tuple(InputState(**state) for state in values["inputs"])
    return ItemOutcome(values["key"], states, saved, values["error"], values["fatal"])
