"""Runs a job on a Ray cluster: a pool of actors, each with a model, that share the file system with the driver.

The driver hands each actor an item or two at a time and enters an outcome as soon as it comes, so that whatever was
reported is never done again. When an actor dies, of an item or with its machine, another one is started wherever the
cluster has room, and the others go on meanwhile with what it had begun.
"""

import logging
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import InputError, import_extra, reason
from ..openmp import WAIT_POLICY, wait_policy
from ..refinement.refiner import Refiner
from .job import Item, ItemOutcome, ItemProcessor, failure, load, refine, save
from .local import Workers

_IN_FLIGHT = 2
"""Items that an actor has begun: one is refined and written while the other is read."""
_ATTEMPTS = 3
"""How often an item is begun, if actors die meanwhile: it may be the fault of their machines."""
_LOOK_UP_S = 1.0
"""Between two questions whether to stop, where no outcome comes."""
_PATIENCE_S = 900.0
"""For which the cluster may have no actor: one that grows starts a machine in that time."""


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
        remote = self._ray.remote(Actor).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_concurrency=_IN_FLIGHT,
            runtime_env={"env_vars": {WAIT_POLICY: wait_policy()}},
        )
        # Actors of other machines may work in another folder.
        found = [replace(item, inputs=tuple(path.absolute() for path in item.inputs)) for item in items]
        threads = max(1, round(self.cpus))
        pool = _Pool(self._ray, lambda: remote.remote(self.settings, work, threads), self.actors, found)
        try:
            while pool.is_busy and not stop():
                for outcome in pool.ended():
                    yield outcome
                    if stop():
                        return
        finally:
            pool.close()


@dataclass(eq=False)
class _Member:
    """An actor of a pool; `is_open` once it has its model, `alone` while it does an item of which another one died."""

    actor: Any
    is_open: bool = False
    alone: bool = False


class _Pool:
    """Actors, what each of them does, and what waits.

    An item of which an actor died is begun again by itself, lest it takes others along.

    Args:
        ray: The module.
        start: Starts an actor.
        count: Of actors.
        items: What is to be done.
    """

    def __init__(self, ray: Any, start: Callable[[], Any], count: int, items: Sequence[Item]) -> None:
        self._ray, self._start = ray, start
        self._waiting, self._suspects = deque(items), deque[Item]()
        self._begun: Counter[str] = Counter()
        self._members: list[_Member] = []
        self._calls: dict[Any, tuple[_Member, Item | None]] = {}
        self._died_unopened, self._limit = 0, _ATTEMPTS * count
        self._last_open = time.monotonic()
        for _ in range(min(count, len(items))):
            self._add()

    @property
    def is_busy(self) -> bool:
        """Whether any item has no outcome yet."""
        return bool(self._waiting or self._suspects) or any(item for _, item in self._calls.values())

    def ended(self) -> Iterator[ItemOutcome]:
        """Hand out what waits, and wait for a moment for outcomes. Raises `InputError` where no actor can work."""
        self._hand_out()
        done, _ = self._ray.wait(list(self._calls), timeout=_LOOK_UP_S)
        for call in done:
            # Not there any more where its actor died of another one.
            if call in self._calls:
                yield from self._end(call)
        if any(member.is_open for member in self._members):
            self._last_open = time.monotonic()
        elif time.monotonic() - self._last_open > _PATIENCE_S:
            raise InputError(
                f"the Ray cluster had no room for an actor for {_PATIENCE_S / 60:g} minutes; what is done stays done: "
                "see `ray status`, and run the same command to go on"
            )

    def close(self) -> None:
        """End the actors."""
        for member in self._members:
            self._ray.kill(member.actor)

    def _add(self) -> None:
        member = _Member(self._start())
        self._members.append(member)
        self._calls[member.actor.open.remote()] = (member, None)

    def _hand_out(self) -> None:
        """Give every actor what it can begin; suspects go first, to actors that have nothing else."""
        counts = Counter(id(member) for member, _ in self._calls.values())
        for turn in range(_IN_FLIGHT):
            for member in self._members:
                if not member.is_open or member.alone or counts[id(member)] != turn:
                    continue
                if self._suspects and turn == 0:
                    item, member.alone = self._suspects.popleft(), True
                elif self._waiting:
                    item = self._waiting.popleft()
                else:
                    continue
                counts[id(member)] += 1
                self._begun[item.key] += 1
                self._calls[member.actor.refine.remote(item)] = (member, item)

    def _end(self, call: Any) -> Iterator[ItemOutcome]:
        member, item = self._calls[call]
        try:
            value = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            # An actor that lives, and met what it should have told.
            if item is None:
                raise InputError(_innermost(error)) from error
            value = failure(item.key, error.cause)
        except self._ray.exceptions.RayError as error:
            yield from self._replace(member, error)
            return
        del self._calls[call]
        if item is None:
            if value:
                raise InputError(value)
            member.is_open, self._died_unopened = True, 0
            return
        member.alone = False
        del self._begun[item.key]
        yield value

    def _replace(self, member: _Member, error: Exception) -> Iterator[ItemOutcome]:
        """Starts another actor for one that died, and puts back what it had begun.

        Yields the failure of an item of which too many actors died.
        """
        items = [item for one, item in self._calls.values() if one is member and item]
        self._calls = {call: pair for call, pair in self._calls.items() if pair[0] is not member}
        self._members.remove(member)
        # It may live where the network alone has failed.
        self._ray.kill(member.actor)
        if not member.is_open:
            self._died_unopened += 1
            if self._died_unopened >= self._limit:
                raise InputError(f"actors of the Ray cluster die while they load the model ({_innermost(error)})")
        for item in items:
            if self._begun[item.key] < _ATTEMPTS:
                self._suspects.append(item)
                continue
            told = f"{_ATTEMPTS} actors died of it: is a file damaged, or memory too small?"
            yield ItemOutcome(item.key, error=told)
        self._add()


class Actor:
    """One process with a model, and another one that decodes files within bounds, for it may be killed at them.

    Args:
        settings: Of `Refiner.from_pretrained`.
        work: How items are done.
        threads: That the model computes with.
    """

    def __init__(self, settings: dict[str, Any], work: ItemProcessor, threads: int) -> None:
        self._settings, self._work, self._threads = settings, work, threads
        self._refining, self._calling = threading.Lock(), threading.Lock()

    def open(self) -> str:
        """Load the model; returns why not, or an empty string."""
        torch.set_num_threads(self._threads)
        try:
            self._refiner = Refiner.from_pretrained(**self._settings)
        except Exception as error:  # Whatever it is, each actor would meet it.
            return reason(error)
        self._workers = Workers(1)
        return ""

    def refine(self, item: Item) -> ItemOutcome:
        """Do an item. It is read while another one is refined and written."""
        with self._calling:
            call = self._workers.call(load, self._work, item)
        loaded = call.result()
        if isinstance(loaded, ItemOutcome):
            return loaded
        states, content = loaded
        # An actor that dies of an item is not in the middle of writing another one.
        with self._refining:
            refined = refine(self._work, self._refiner, item, content)
            return refined if isinstance(refined, ItemOutcome) else save(self._work, item, states, *refined)


def _innermost(error: BaseException) -> str:
    """What ended a job, without the traces of other processes around it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return reason(error) if len(lines) < 2 else lines[-1].strip()
