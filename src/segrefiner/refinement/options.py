"""What a single refinement can be told. Without PyTorch, for processes that only decode and encode."""

from dataclasses import dataclass

from ..imaging.codecs.option_checks import check_options


@dataclass(frozen=True)
class Options:
    """Of each refinement, as of `Refiner.many`. Raises `InputError` for what it does not take."""

    seed: int = 0
    steps: int | None = None
    max_shift: float | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        names = ("seed", "steps", "max_shift", "strength")
        for name, value in zip(names, check_options(*(getattr(self, name) for name in names)), strict=True):
            # A whole number of Python stays one: manifests of jobs that have begun hold it as it was given.
            if type(getattr(self, name)) is not int:
                object.__setattr__(self, name, value)


PLAIN = Options()
