"""Refine coarse segmentation masks.

```python
from segrefiner import Refiner

refiner = Refiner.from_pretrained()
result = refiner("photo.jpg", "coarse.png", seed=0)
result.mask  # (H, W) bool
```
"""

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
    from .refinement.refiner import Refiner, Result
    from .refinement.report import Report

__all__ = [
    "CheckpointError",
    "ImageError",
    "InputError",
    "InputWarning",
    "MaskError",
    "MissingExtraError",
    "OutputError",
    "Refiner",
    "Report",
    "Result",
    "SegRefinerError",
    "ServerError",
    "SizeMismatchError",
    "TrainingError",
    "__version__",
]

_FROM_REFINER = ("Refiner", "Report", "Result")


def __getattr__(name: str) -> Any:
    # What needs torch is imported when it is first asked for: importing torch takes seconds.
    if name in _FROM_REFINER:
        from .openmp import sleeping_while_waiting

        with sleeping_while_waiting():
            from .refinement import refiner

        return getattr(refiner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
