"""What a single refinement can be told. Without PyTorch, for processes that only decode and encode."""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from ..errors import InputError
from ..imaging.codecs.option_checks import MAX_SEED, MAX_STEPS, real_number, shown, whole_number

_TRUST = "a number from 0 to 1"


@dataclass(frozen=True)
class Options:
    """How one mask is refined.

    Attributes:
        seed: Same seed, same result, from 0 to 2**63 - 1: to the bit with the same weights, precision, kind of
            processor, number of threads and version of PyTorch.
        steps: Diffusion steps, 1 to 6; `None` for those of the refiner.
        max_shift: How far from the coarse contour pixels may change, in pixels, 0 or more; `None` for anywhere.
        strength: 1 for every change that the pipeline is for, 0 for none; in between, changes need a confidence of
            `1 - strength`.
        trust: In the coarse mask, from 0 to 1: a change is kept where it is at least so likely to be right. 0 keeps
            every change, 1 none; `None`, or 0.5, those that are rather right than wrong, of objects that gain by them.

    Raises:
        InputError: A number is of the wrong kind or outside of its range; the message names it.

    >>> from segrefiner import Options
    >>> careful = Options(max_shift=8, strength=0.5)
    >>> refiner("photo.jpg", "coarse.png", careful, seed=1).report.seed
    1
    """

    seed: int = 0
    steps: int | None = None
    max_shift: float | None = None
    strength: float = 1.0
    trust: float | None = None

    def __post_init__(self) -> None:
        checked = {
            "seed": whole_number("seed", self.seed, 0, MAX_SEED),
            "steps": self.steps if self.steps is None else whole_number("steps", self.steps, 1, MAX_STEPS),
            "max_shift": self.max_shift if self.max_shift is None else _pixels(self.max_shift),
            "strength": real_number("strength", self.strength, 0, 1, expected="a number from 0 to 1"),
            "trust": self.trust if self.trust is None else real_number("trust", self.trust, 0, 1, expected=_TRUST),
        }
        for name, value in checked.items():
            # A whole number of Python stays one: manifests of jobs that have begun hold it as it was given.
            if type(getattr(self, name)) is not int:
                object.__setattr__(self, name, value)

    def settings(self) -> dict[str, Any]:
        """All fields by name, less the trust where none is given: jobs that began without it go on.

        >>> plain, careful = Options(seed=1), Options(seed=1, trust=0.8)
        >>> sorted(plain.settings())
        ['max_shift', 'seed', 'steps', 'strength']
        >>> careful.settings()["trust"]
        0.8
        """
        fields = asdict(self)
        if self.trust is None:
            del fields["trust"]
        return fields

    def changed(self, **fields: Any) -> "Options":
        """Gives a copy with other fields. Raises `InputError` for a field that there is not, or a value it refuses.

        >>> careful = Options(max_shift=8)
        >>> careful.changed(seed=1, strength=0.5)
        Options(seed=1, steps=None, max_shift=8, strength=0.5, trust=None)
        >>> careful.seed
        0
        """
        if unknown := sorted(fields.keys() - self.__dataclass_fields__.keys()):
            names = ", ".join(self.__dataclass_fields__)
            raise InputError(f"there is no option {shown(unknown[0])}: expected one of {names}")
        return Options(**{**asdict(self), **fields})


class OptionFields(TypedDict, total=False):
    """The fields of `Options`, for calls that name some of them."""

    seed: int
    steps: int | None
    max_shift: float | None
    strength: float
    trust: float | None


PLAIN = Options()


def _pixels(value: Any) -> float:
    return real_number("max_shift", value, 0, expected="a number of pixels, 0 or more")
