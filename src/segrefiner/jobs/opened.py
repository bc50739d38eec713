"""A model opened for a job, with what names it in the job's manifest."""

from typing import Any

from .._version import __version__
from ..model.backends import model_file
from ..model.weights import checksum
from ..refinement.refiner import Refiner


class JobModel:
    """A refiner, and what results depend on beside the job's own settings: weights, precision and version.

    Args:
        loading: Arguments of `Refiner.from_pretrained`, among them `model`.

    Attributes:
        refiner: The refiner.
        identity: JSON types that differ whenever results may.
    """

    def __init__(self, **loading: Any) -> None:
        self.refiner = Refiner.from_pretrained(**loading)
        self.identity = {
            "weights": checksum(model_file(loading.get("model"))),
            "dtype": str(self.refiner.dtype),
            "backend": type(self.refiner.backend).__name__,
            "version": __version__,
        }
