"""Which masks in one folder belong to which photos in another."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from re import compile as compile_pattern
from re import split

from ..errors import InputError
from ..imaging.files import pictures_below
from ..imaging.listing import SPELLINGS, composed, folded, same_names
from .pair_patterns import endings, wanted_names


def pair(images: Sequence[Path], masks: Sequence[Path], pattern: str | None = None) -> dict[Path, list[Path]]:
    """The masks of each photo.

    Names that differ in case, or in how characters are composed, count as the same where one photo alone is meant.

    Args:
        images: Relative to their folder.
        masks: Relative to theirs.
        pattern: How a mask's path follows from its photo's, in which `{parent}`, `{stem}` and `{name}` stand for the
            photo's folder, name without and name with suffix, `{stem:-END}` for a name without its `END`, and `*` and
            `?` match anything: several masks then. By default the same path with any suffix.

    Raises:
        InputError: For other words in braces.
    """
    if pattern is None:
        by_stem: dict[str, list[Path]] = {}
        for mask in masks:
            by_stem.setdefault(_stem(mask), []).append(mask)
        meant = same_names(map(_stem, images), by_stem)
        return {image: by_stem.get(meant.get(_stem(image), ""), []) for image in images}
    named = {image: wanted_names(image, pattern) for image in images}
    wanted = {image: name for image, name in named.items() if name is not None}
    result = _matching(wanted, masks, str)
    for spelling in SPELLINGS:
        used = {mask for found in result.values() for mask in found}
        lacking = {image: name for image, name in wanted.items() if not result[image]}
        found = _matching(lacking, [mask for mask in masks if mask not in used], spelling)
        owners = Counter(mask for several in found.values() for mask in several)
        result |= {image: several for image, several in found.items() if all(owners[mask] == 1 for mask in several)}
    return {image: result.get(image, []) for image in images}


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix()


def _matching(wanted: dict[Path, str], masks: Sequence[Path], spelling: Callable[[str], str]) -> dict[Path, list[Path]]:
    """The masks whose names match each photo's pattern, both spelled in one way."""
    if not wanted:
        return {}
    every: dict[str, list[Path]] = {}
    for mask in masks:
        every.setdefault(spelling(mask.as_posix()), []).append(mask)
    names = sorted(every)
    result = {}
    for image, pattern in wanted.items():
        pattern = spelling(pattern)
        matches = compile_pattern(translate(pattern)).match
        # All masks for each photo would take hours for large folders.
        start = split(r"[*?[]", pattern, maxsplit=1)[0]
        near = names[bisect_left(names, start) : bisect_left(names, start + chr(0x10FFFF))]
        result[image] = [mask for name in near if matches(name) for mask in every[name]]
    return result


def output_name(mask: Path) -> str:
    """Where a refined mask goes, in the folder of the output."""
    return mask.with_suffix(".png").as_posix()


def _clashes(pairs: dict[Path, list[Path]], several: bool) -> dict[Path, str]:
    """The photos of which it is not clear which masks are theirs, or where these go, and why.

    Args:
        pairs: Masks of each photo that has any.
        several: Whether a photo may have more than one.
    """
    photos: dict[Path, list[Path]] = {}
    places: dict[str, set[Path]] = {}
    for image, found in pairs.items():
        for mask in found:
            photos.setdefault(mask, []).append(image)
            # Some file systems know neither case nor composed characters.
            places.setdefault(folded(output_name(mask)), set()).add(mask)
    result: dict[Path, str] = {}
    for image, found in pairs.items():
        for mask in found:
            if others := [other for other in photos[mask] if other != image]:
                result[image] = f"{mask} is the mask of this and of another photo, {others[0]}: expected one"
            elif others := sorted(places[folded(output_name(mask))] - {mask}):
                result[image] = (
                    f"{mask} and {others[0]} would both be written to {output_name(mask)}: rename one of them"
                )
        if len(found) > 1 and not several:
            names = ", ".join(map(str, found[:3]))
            result[image] = f"it has {len(found)} label maps ({names}): expected one; give a pattern"
    return result


@dataclass(frozen=True)
class Matched:
    """Who belongs to whom in two folders.

    Attributes:
        pairs: Masks of each photo that has any.
        failures: Photos that have none, or not clearly, and why.
        left_out: What else lies in the folders.
        notes: Names that were matched although they differ.
    """

    pairs: dict[Path, list[Path]]
    failures: dict[str, str]
    left_out: dict[str, str]
    notes: tuple[str, ...]


def match_folders(images: Path, masks: Path, output: Path, pattern: str | None, *, several: bool) -> Matched:
    """Finds the masks of each photo in two folders.

    Args:
        images: Folder of photos, with folders in it.
        masks: Folder of masks; may be the same.
        output: Folder that results go to, and what lies there is no input.
        pattern: Of `pair`.
        several: Whether a photo may have more than one mask.

    Raises:
        InputError: The output is an input, or there is no photo whose masks are clear.
    """
    place = output.resolve()
    if place in (images.resolve(), masks.resolve()):
        raise InputError(f"the output {output} is a folder of inputs: choose another one")
    shared = images.resolve() == masks.resolve()
    # Of two folders one of which lies in the other, each holds its own.
    photos = pictures_below(images, without=[place] if shared else [place, masks])
    coarse = photos if shared else pictures_below(masks, without=[place, images])
    left_out = {entry.name: entry.reason for entry in (*photos.left_out, *coarse.left_out)}
    pairs = pair(photos.pictures, coarse.pictures, pattern)
    if shared:
        pairs = {image: [mask for mask in found if mask != image] for image, found in pairs.items()}
        used = {mask for found in pairs.values() for mask in found}
        pairs = {image: found for image, found in pairs.items() if found or image not in used}
    else:
        used = {mask for found in pairs.values() for mask in found}
        no_photo = f"no photo in {images} for it" + (f" by the pattern {pattern}" if pattern else "")
        left_out |= {str(masks / mask): no_photo for mask in coarse.pictures if mask not in used}
    failures = {image.as_posix(): _no_mask(image, masks, pattern) for image, found in pairs.items() if not found}
    if len(failures) == len(pairs):
        first = next(iter(pairs), photos.pictures[0])
        told = _advice(first, coarse.pictures, pattern)
        raise InputError(f"none of the {len(pairs)} photos in {images} has a mask in {masks}: {told}")
    pairs = {image: found for image, found in pairs.items() if found}
    clashes = _clashes(pairs, several)
    if len(clashes) == len(pairs):
        image, why = next(iter(clashes.items()))
        raise InputError(f"{image}: {why}; so it is with every photo that has a mask: is the pattern right?")
    failures |= {image.as_posix(): why for image, why in clashes.items()}
    found_again = {mask for image in clashes for mask in pairs[image] if not shared or mask.as_posix() not in failures}
    left_out |= {str(masks / mask): "the mask of a photo that failed" for mask in found_again}
    pairs = {image: found for image, found in pairs.items() if image not in clashes}
    inputs = {base.resolve() / path for base, found in ((images, photos), (masks, coarse)) for path in found.pictures}
    for target in (place / output_name(mask) for found in pairs.values() for mask in found):
        if target in inputs:
            raise InputError(f"{target} is an input and would be overwritten: choose another output")
    return Matched(pairs, failures, left_out, () if pattern else _guesses(pairs))


def _no_mask(image: Path, masks: Path, pattern: str | None) -> str:
    if pattern is None:
        return f"no mask in {masks}"
    if wanted_names(image, pattern) is None:
        return f"its name does not end in {' and '.join(endings(pattern))}, which the pattern {pattern} takes off"
    return f"no mask in {masks} for the pattern {pattern}"


def _advice(image: Path, masks: Sequence[Path], pattern: str | None) -> str:
    """What to do where no photo has a mask, by the example of one."""
    mask = masks[0].as_posix()
    if pattern is None:
        example = "{parent}/{stem}_mask.png or {parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png"
        return f"{image} and {mask} have different names; give --pair, such as {example}"
    wanted = wanted_names(image, pattern)
    if wanted is None:
        return f"{image} does not end in {' and '.join(endings(pattern))}; is the pattern right?"
    folders = "; where photos lie in folders, patterns begin with {parent}/" if "{parent}" not in pattern else ""
    return f"of {image} it would be {wanted}, and there is {mask}; is the pattern right?{folders}"


def _guesses(pairs: dict[Path, list[Path]]) -> tuple[str, ...]:
    """Which masks were taken for a photo's although their names differ in case."""
    return tuple(
        f"{mask} is taken for the mask of {image}: their names differ in case alone"
        for image, found in pairs.items()
        for mask in found
        if composed(_stem(mask)) != composed(_stem(image))
    )
