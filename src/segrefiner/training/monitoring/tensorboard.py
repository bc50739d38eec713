"""A training run in TensorBoard: the rows of its logs as scalars, its grids as pictures."""

import math
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import import_extra

_LOSSES = {"loss": "loss/total", "bce": "loss/bce", "texture": "loss/texture"}
_BY_TIMESTEP = "loss_t"


class TensorBoardLog:
    """Writes a run for TensorBoard.

    A run that is continued writes another file into the same folder. What the run had written after the step from
    which it goes on is marked as void, so that TensorBoard shows one line and not two.

    Args:
        folder: Folder of the event files; created if need be. See it with `tensorboard --logdir FOLDER`.
        steps_taken: Steps of the run so far: 0 at its start, those of the checkpoint where it is continued.

    Raises:
        MissingExtraError: The package `tensorboard` is not installed.
    """

    def __init__(self, folder: str | PathLike[str], *, steps_taken: int = 0) -> None:
        import_extra("tensorboard", "writing for TensorBoard", extra="tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=steps_taken + 1)

    def row(self, values: Mapping[str, float]) -> None:
        """Writes a row of the log.

        Args:
            values: `step` and any of `loss`, `bce`, `texture`, `loss_t0` …, which go to the groups `loss` and
                `loss_by_timestep`; all others, such as `lr`, go to `train`. What is no finite number is left out.
        """
        for name, value in values.items():
            if name != "step":
                self._scalar(_tag(name), value, values["step"])

    def validation(self, values: Mapping[str, Any]) -> None:
        """Writes a row of the validation.

        Args:
            values: `step`, `pipeline`, by which the rows are told apart, and figures such as `iou_after`. What is no
                finite number is left out.
        """
        for name, value in values.items():
            if name not in ("step", "pipeline"):
                self._scalar(f"validation/{values['pipeline']}/{name}", value, values["step"])
        self._writer.flush()

    def picture(self, step: int, array: NDArray[np.uint8]) -> None:
        """Writes a grid of examples, `(H, W, 3)` uint8, RGB."""
        self._writer.add_image("examples", array, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Ends the file. Nothing can be written after it."""
        self._writer.close()

    def _scalar(self, tag: str, value: object, step: float) -> None:
        if isinstance(value, int | float) and math.isfinite(value):
            self._writer.add_scalar(tag, value, int(step))


def _tag(name: str) -> str:
    if name.startswith(_BY_TIMESTEP):
        return f"loss_by_timestep/t{name.removeprefix(_BY_TIMESTEP)}"
    return _LOSSES.get(name, f"train/{name}")
