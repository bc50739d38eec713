"""What is said of outputs, or of their parts, that come back as they were."""

from collections.abc import Iterable

from ...imaging.reading import warn_of


def note_left(names: Iterable[str]) -> None:
    """Warns of parts with pixels that are not refined."""
    if named := ", ".join(sorted(names)):
        warn_of((f"{named} of outputs stays as it was: only masks and label maps are refined",))


def note_nothing(lacking: str) -> None:
    """Warns that what was found has no masks; an empty text where nothing was found at all."""
    if lacking:
        warn_of((f"outputs has no {lacking}: nothing was refined; give the outputs of a model that makes masks",))
