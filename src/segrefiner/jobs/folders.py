"""Jobs over folders: photos with masks of the same names, or with label maps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..imaging.codecs.option_checks import finite_number
from ..imaging.files import write_png
from ..imaging.label_conventions import VOID, recognised
from ..imaging.label_files import LabelMap, read_ids, read_labels, write_ids, write_labels
from ..imaging.reading import check_fits, check_same_size, read_mask, read_photo
from ..refinement.options import PLAIN, Options
from .job import Item, Job, SavedItem, written
from .pairing import match_folders, output_name

if TYPE_CHECKING:
    from ..refinement.label_maps import RefinedLabels
    from ..refinement.refiner import Refiner, Result
    from ..refinement.report import Report

Write = Literal["mask", "soft", "soft16", "cutout"]


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
        pattern: Of `pairing.pair`.
        threshold: Of `reading.read_mask`.
        write: What is written: masks, probabilities in 8 or 16 bit, or the object cut out.
        options: Of each refinement.

    Raises:
        InputError: The folders are not as described, or there is no photo whose masks are clear.
    """
    if threshold is not None:
        threshold = finite_number("threshold", threshold)
    output = output.absolute()
    matched = match_folders(images, masks, output, pattern, several=True)
    items = [
        Item(image.as_posix(), (images / image, *(masks / m for m in found)), [output_name(m) for m in found])
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
        notes = tuple(
            f"{name}: {said}"
            for name, report in reports.items()
            for said in (*report.get("warnings", ()), *([report["left"]] if "left" in report else []))
        )
        return SavedItem(outputs, reports, failures, notes, left_out=idle)


def summary_of(report: "Report") -> dict[str, Any]:
    """What a manifest says of a refinement."""
    shown: dict[str, Any] = {
        "changed": round(report.changed, 6),
        "agreement": round(report.agreement, 4),
        "predicted_gain": round(report.predicted_gain, 4),
    }
    shown |= {"note": report.note} if report.note else {}
    shown |= {"left": report.left} if report.left else {}
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
        pattern: Of `pairing.pair`; a photo must have one label map.
        ignore: Labels that are no class; by default those of the data set that names or palettes belong to, or 255.
        options: Of each refinement.

    Raises:
        InputError: The folders are not as described, or there is no photo whose label map is clear.
    """
    output = output.absolute()
    matched = match_folders(images, labels, output, pattern, several=False)
    items = [
        Item(image.as_posix(), (images / image, labels / found[0]), output_name(found[0]))
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
