"""Jobs over folders: photos with masks of the same names, or with label maps."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from pathlib import Path
from re import compile as compile_pattern
from re import split
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.codecs.option_checks import finite_number
from ..imaging.files import pictures_below, write_png
from ..imaging.label_conventions import VOID, recognised
from ..imaging.label_files import LabelMap, read_ids, read_labels, write_ids, write_labels
from ..imaging.listing import SPELLINGS, composed, folded, same_names
from ..imaging.reading import check_fits, check_same_size, read_mask, read_photo
from ..refinement.options import PLAIN, Options
from .job import Item, Job, SavedItem, written
from .pair_patterns import endings, wanted_names

if TYPE_CHECKING:
    from ..refinement.label_maps import RefinedLabels
    from ..refinement.refiner import Refiner, Result
    from ..refinement.report import Report

Write = Literal["mask", "soft", "soft16", "cutout"]


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


def _output(mask: Path) -> str:
    """Where a refined mask goes."""
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
            places.setdefault(folded(_output(mask)), set()).add(mask)
    result: dict[Path, str] = {}
    for image, found in pairs.items():
        for mask in found:
            if others := [other for other in photos[mask] if other != image]:
                result[image] = f"{mask} is the mask of this and of another photo, {others[0]}: expected one"
            elif others := sorted(places[folded(_output(mask))] - {mask}):
                result[image] = f"{mask} and {others[0]} would both be written to {_output(mask)}: rename one of them"
        if len(found) > 1 and not several:
            names = ", ".join(map(str, found[:3]))
            result[image] = f"it has {len(found)} label maps ({names}): expected one; give a pattern"
    return result


@dataclass(frozen=True)
class _Matched:
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


def _matched(images: Path, masks: Path, output: Path, pattern: str | None, *, several: bool) -> _Matched:
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
    for target in (place / _output(mask) for found in pairs.values() for mask in found):
        if target in inputs:
            raise InputError(f"{target} is an input and would be overwritten: choose another output")
    return _Matched(pairs, failures, left_out, () if pattern else _guesses(pairs))


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


def folder_job(
    images: Path,
    masks: Path,
    output: Path,
    *,
    pattern: str | None = None,
    threshold: float | None = None,
    write: Write = "mask",
    options: Options = PLAIN,
) -> Job:
    """Refines the masks of photos.

    Args:
        images: Folder of photos, with folders in it.
        masks: Folder of masks.
        output: Folder for refined masks, at the paths of the coarse ones, as PNG.
        pattern: Of `pair`.
        threshold: Of `reading.read_mask`.
        write: What is written: masks, probabilities in 8 or 16 bit, or the object cut out.
        options: Of each refinement.

    Raises:
        InputError: The folders are not as described, or there is no photo whose masks are clear.
    """
    if threshold is not None:
        threshold = finite_number("threshold", threshold)
    output = output.absolute()
    matched = _matched(images, masks, output, pattern, several=True)
    items = [
        Item(image.as_posix(), (images / image, *(masks / m for m in found)), [_output(m) for m in found])
        for image, found in matched.pairs.items()
    ]
    work = MaskProcessor(output, threshold, write, options)
    return Job(items, work, failures=matched.failures, left_out=matched.left_out, notes=matched.notes)


@dataclass(frozen=True)
class MaskProcessor:
    """A photo and its masks → refined masks; an item's payload is where each goes."""

    root: Path
    threshold: float | None
    write: Write
    options: Options

    def settings(self) -> dict[str, Any]:  # noqa: D102 - described by the protocol
        return {"kind": "folder", "threshold": self.threshold, "write": self.write, **self.options.settings()}

    def load(self, item: Item, contents: Sequence[bytes]) -> Any:  # noqa: D102
        photo = read_photo(contents[0], name=f"photo {str(item.inputs[0])!r}")
        masks, failures = {}, {}
        for name, path, content in zip(item.payload, item.inputs[1:], contents[1:], strict=True):
            try:
                mask = read_mask(content, threshold=self.threshold)
                check_fits(photo, mask)
                masks[name] = mask
            except InputError as error:
                failures[str(path)] = str(error)
        if not masks:
            raise InputError("; ".join(f"{path}: {why}" for path, why in failures.items()))
        return photo, masks, failures

    def refine(self, refiner: "Refiner", loaded: Any) -> Any:  # noqa: D102
        photo, masks, failures = loaded
        pictures, reports = {}, {}
        results = refiner.many(((photo, mask) for mask in masks.values()), options=self.options)
        for name, result in zip(masks, results, strict=True):
            pictures[name], reports[name] = self._picture(result), summary_of(result.report)
        return photo if self.write == "cutout" else None, pictures, reports, failures

    def _picture(self, result: "Result") -> NDArray[Any]:
        """What is written, in as few bytes as that takes, for a photo may have many masks."""
        if self.write == "mask":
            return result.mask
        full = 65535 if self.write == "soft16" else 255
        return np.rint(result.probability * np.float64(full)).astype(np.uint16 if full > 255 else np.uint8)

    def save(self, item: Item, refined: Any) -> SavedItem:  # noqa: D102
        photo, pictures, reports, failures = refined
        for name, picture in pictures.items():
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if self.write == "cutout":
                from ..rendering.cutout import cutout

                picture = cutout(photo.pixels, picture / np.float32(255))
            write_png(target, picture, profile=photo.profile if photo is not None else None)
        idle = {name: report["note"] for name, report in reports.items() if "note" in report}
        if len(idle) == len(reports):
            idle = {item.key: "; ".join(dict.fromkeys(idle.values()))}
        outputs = written(self.root, [self.root / name for name in pictures])
        notes = tuple(f"{name}: {said}" for name, report in reports.items() for said in report.get("warnings", ()))
        return SavedItem(outputs, reports, failures, notes, left_out=idle)


def summary_of(report: "Report") -> dict[str, Any]:
    """What a manifest says of a refinement."""
    shown: dict[str, Any] = {
        "changed": round(report.changed, 6),
        "agreement": round(report.agreement, 4),
        "predicted_gain": round(report.predicted_gain, 4),
    }
    shown |= {"note": report.note} if report.note else {}
    return shown | ({"warnings": list(report.warnings)} if report.warnings else {})


def semantic_job(
    images: Path,
    labels: Path,
    output: Path,
    *,
    pattern: str | None = None,
    ignore: Sequence[int] | None = None,
    options: Options = PLAIN,
) -> Job:
    """Refines label maps of photos.

    Args:
        images: Folder of photos, with folders in it.
        labels: Folder of label maps, 8 or 16 bit, with or without a palette.
        output: Folder for refined label maps, at the paths of the coarse ones, as PNG.
        pattern: Of `pair`; a photo must have one label map.
        ignore: Labels that are no class; by default those of the data set that names or palettes belong to, or 255.
        options: Of each refinement.

    Raises:
        InputError: The folders are not as described, or there is no photo whose label map is clear.
    """
    output = output.absolute()
    matched = _matched(images, labels, output, pattern, several=False)
    items = [
        Item(image.as_posix(), (images / image, labels / found[0]), _output(found[0]))
        for image, found in matched.pairs.items()
    ]
    convention = recognised(labels, [found[0] for found in matched.pairs.values()])
    notes = matched.notes
    if ignore is None:
        ignore = convention.ignore if convention else (VOID,)
        notes = ((convention.sentence(),) if convention else ()) + notes
    work = LabelMapProcessor(
        output, tuple(ignore), options, as_colours=convention is not None and convention.as_colours
    )
    return Job(items, work, failures=matched.failures, left_out=matched.left_out, notes=notes)


@dataclass(frozen=True)
class LabelMapProcessor:
    """A photo and its label map → the refined one; an item's payload is where it goes."""

    root: Path
    ignore: tuple[int, ...]
    options: Options
    as_colours: bool = False

    def settings(self) -> dict[str, Any]:  # noqa: D102 - described by the protocol
        return {"kind": "semantic", "ignore": list(self.ignore), **self.options.settings()}

    def load(self, item: Item, contents: Sequence[bytes]) -> Any:  # noqa: D102
        photo = read_photo(contents[0], name=f"photo {str(item.inputs[0])!r}")
        label_map = LabelMap(read_ids(contents[1])) if self.as_colours else read_labels(contents[1])
        check_same_size(photo.pixels, label_map.labels, image_source=contents[0])
        return photo, label_map

    def refine(self, refiner: "Refiner", loaded: Any) -> Any:  # noqa: D102
        from ..refinement.label_maps import refine_labels

        photo, label_map = loaded
        refined = refine_labels(refiner, photo, label_map.labels, ignore=self.ignore, options=self.options)
        # Without a report, no label had a contour to refine, or all are noise.
        idle = "" if refined.reports else _idle(label_map.labels, self.ignore, refined.warnings)
        return replace(label_map, labels=refined.labels), _without_labels(refined), idle

    def save(self, item: Item, refined: Any) -> SavedItem:  # noqa: D102
        label_map, said, idle = refined
        target = self.root / item.payload
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.as_colours:
            write_ids(target, label_map.labels)
        else:
            write_labels(target, label_map)
        notes = [f"no pixel is left of {said['vanished']}"] if said["vanished"] else []
        notes += said.get("warnings", [])
        named = tuple(f"{item.payload}: {note}" for note in notes)
        return SavedItem(written(self.root, [target]), said, notes=named, left_out={item.key: idle} if idle else {})


def _idle(labels: NDArray[Any], ignore: Sequence[int], warnings: Sequence[str]) -> str:
    """Why there is nothing to refine in a label map of fewer than two classes, or of what is left as it is."""
    present = np.unique(labels).tolist()
    ignored = ", ".join(str(value) for value in present if value in ignore)
    classes = [str(value) for value in present if value not in ignore]
    if len(classes) > 1:
        return f"{warnings[-1]}: written as it was"
    if not classes:
        return f"all its labels are ignored ({ignored}): written as it was; if one is a class, do not ignore it"
    if not ignored:
        return f"label {classes[0]} is alone, without a contour: written as it was"
    return (
        f"label {classes[0]} is alone beside what is ignored ({ignored}): written as it was; "
        f"if {ignored} is a class, do not ignore it (--ignore none)"
    )


def _without_labels(refined: "RefinedLabels") -> dict[str, Any]:
    said = {"changed": round(refined.changed, 6), "vanished": list(refined.vanished)}
    return said | ({"warnings": list(refined.warnings)} if refined.warnings else {})
