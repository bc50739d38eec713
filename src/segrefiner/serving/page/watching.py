"""The page's refinements: one object after the other, each watched on its way."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...imaging.reading import Photo
from ...model.diffusion import OnProgress, Progress, Stage, State
from ...refinement.options import Options
from ...refinement.pipelines.config import DEFAULT
from ...refinement.pipelines.views import find_objects, object_view
from ...refinement.refiner import Refiner, Result
from ...rendering.overlay import Window

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class RefinementTrace:
    """A refined mask and its way.

    Attributes:
        result: As the refiner gave it.
        states: `(S, S)` float32 in {0, 1}, the mask of the largest part's view after each step.
        seen: `(S, S)` float32 in [0, 1], the probability that came out of the last step, if there was one.
        view: `y0, x0, y1, x1` of that view in photo pixels; it may reach beyond the photo.
    """

    result: Result
    states: list[NDArray[np.float32]]
    seen: NDArray[np.float32] | None
    view: Window


class Meter:
    """How far the work has come, written by the thread that computes and read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = (0.0, "waiting for its turn")

    def tell(self, share: float, what: str) -> None:
        """Sets what `read` gives; the share of the work never becomes less."""
        with self._lock:
            self._told = (max(share, self._told[0]), what)

    def read(self) -> tuple[float, str]:
        """The share of the work that is done, in [0, 1], and what is done now."""
        with self._lock:
            return self._told


@dataclass
class _TraceRecorder:
    """Picks from all that a run tells the views of one part of the mask.

    Views come in batches, each step by step; which one of the sorted views begins a batch follows from the sizes of
    those before.
    """

    wanted: int
    states: list[NDArray[np.float32]] = field(default_factory=list)
    seen: NDArray[np.float32] | None = None
    _first: int = 0
    _last: State | None = None

    def watch(self, progress: Progress) -> None:
        state, last = progress.state, self._last
        if progress.stage != Stage.WHOLE_OBJECTS or state is last:
            return
        if last is not None and state.timestep >= last.timestep:
            self._first += len(last.mixed)
        self._last = state
        index = self.wanted - self._first
        if 0 <= index < len(state.mixed):
            self.states.append(state.mixed[index, 0].float().cpu().numpy())
            self.seen = state.probability[index, 0].float().cpu().numpy()


def refine_watched(
    refiner: Refiner, photo: Photo, masks: Sequence[Mask], options: Options, on_progress: OnProgress, meter: Meter
) -> list[RefinementTrace]:
    """Refines masks of one photo one after the other, which is slower than at once, and keeps their ways.

    Args:
        refiner: What refines.
        photo: Read already.
        masks: `(H, W)` bool each.
        options: Of all of them.
        on_progress: Called after each network evaluation.
        meter: Told of each network evaluation.
    """
    done = []
    for index, mask in enumerate(masks):
        place, view = _largest_part(mask)
        watcher = _TraceRecorder(place)
        stages: list[str] = []

        def follow(
            progress: Progress, index: int = index, watcher: _TraceRecorder = watcher, stages: list[str] = stages
        ) -> None:
            on_progress(progress)
            watcher.watch(progress)
            if progress.description not in stages:
                stages.append(progress.description)
            # How many stages there will be shows as they come: each is taken for half of what is left.
            share = 1 - 0.5 ** (len(stages) - 1) * (1 - 0.5 * progress.done / max(1, progress.total))
            named = f"object {index + 1} of {len(masks)}, " if len(masks) > 1 else ""
            meter.tell((index + share) / len(masks), named + progress.description)

        result = refiner(photo, mask, options, on_progress=follow)
        done.append(RefinementTrace(result, watcher.states, watcher.seen, view))
    return done


def _largest_part(mask: Mask) -> tuple[int, Window]:
    """Which of the mask's views, in the order in which they are refined, shows most of the photo, and its window."""
    height, width = mask.shape
    boxes = find_objects(torch.from_numpy(mask), DEFAULT)
    views = sorted((object_view(box, height, width, DEFAULT) for box in boxes), key=lambda view: view.size)
    if not views:
        return 0, (0, 0, height, width)
    place = max(range(len(views)), key=lambda index: views[index].box.width)
    box = views[place].box
    return place, (box.y0, box.x0, box.y1, box.x1)


PageWork = Callable[[Refiner, OnProgress], list[RefinementTrace]]
