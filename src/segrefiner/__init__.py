"""Refine coarse segmentation masks.

>>> from segrefiner import Refiner
>>> refiner = Refiner.from_pretrained()
>>> result = refiner("photo.jpg", "coarse.png", seed=0)
>>> result.mask.shape, result.mask.dtype
((96, 128), dtype('bool'))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    CheckpointError,
    ImageError,
    InputError,
    InputWarning,
    MaskError,
    MissingExtraError,
    OutputError,
    SegRefinerError,
    ServerError,
    SizeMismatchError,
    TrainingError,
)

if TYPE_CHECKING:
    from .refinement.adapters import refine_outputs
    from .refinement.label_maps import refine_labels
    from .refinement.options import Options
    from .refinement.refiner import Refiner, Result
    from .refinement.report import Report
    from .refinement.video import refine_video
    from .rendering.cutout import cutout
    from .serving.client import Client

__all__ = [
    "CheckpointError",
    "Client",
    "ImageError",
    "InputError",
    "InputWarning",
    "MaskError",
    "MissingExtraError",
    "Options",
    "OutputError",
    "Refiner",
    "Report",
    "Result",
    "SegRefinerError",
    "ServerError",
    "SizeMismatchError",
    "TrainingError",
    "__version__",
    "cutout",
    "refine_labels",
    "refine_outputs",
    "refine_video",
]

_MODULES = {
    "Client": "serving.client",
    "Options": "refinement.options",
    "Refiner": "refinement.refiner",
    "Report": "refinement.report",
    "Result": "refinement.refiner",
    "cutout": "rendering.cutout",
    "refine_labels": "refinement.label_maps",
    "refine_outputs": "refinement.adapters",
    "refine_video": "refinement.video",
}
"""Where names are that are imported when they are first asked for: importing torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .openmp import sleeping_while_waiting

    with sleeping_while_waiting():
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
