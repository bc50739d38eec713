"""Which format a file or folder has; `read` opens any of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MaskError
from ..imaging.coco_masks import tight_box
from ..imaging.files import Json
from .coco import CocoDocument, is_annotations, is_panoptic, read_records, write_coco
from .cvat import CvatDocument, write_cvat
from .documents import Document, Format, Kind, Results, WrittenPhoto
from .folders import JsonFolder, files_below
from .json_edits import read_json_file, read_values
from .labelme import LabelMeDocument, is_labelme, write_labelme
from .labelstudio import LabelStudioDocument, is_json_min, is_labelstudio, write_labelstudio
from .masks import Form, Mask, decode_mask, encode_mask
from .sa1b import Sa1bDocument, is_sa1b, write_sa1b
from .yolo import YoloDocument, description_files, label_files, write_yolo

FORMATS: tuple[Format, ...] = ("coco", "sa1b", "yolo", "labelme", "cvat", "labelstudio")
"""Those that can be written anew."""
SINGLE_FILE: tuple[Format, ...] = ("coco", "lvis", "cvat", "labelstudio")
"""Those whose documents are one file; others are folders, or files of folders."""
_EXPECTED = (
    "expected COCO or LVIS annotations, COCO results, SA-1B, LabelMe or Label Studio JSON, CVAT's annotations.xml, or "
    "a YOLO data set with data.yaml or labels/"
)


def read(source: Path, *, annotations: Path | None = None) -> Document:
    """Reads an annotation file, or a folder of them, of any format that is known.

    Args:
        source: The file or folder.
        annotations: For COCO results, the COCO file that says how photos and categories are called.

    Returns:
        Its photos and masks in `contents`; `write` gives the same document with other masks.

    Raises:
        InputError: It is none, or damaged as a whole.

    >>> from segrefiner.formats.recognition import read
    >>> document = read(Path("annotations.json"))
    >>> [(photo.names[0], len(photo.instances)) for photo in document.contents.photos]
    [('photo.jpg', 2)]
    """
    if source.is_dir():
        return _read_folder(source)
    suffix = source.suffix.lower()
    if suffix in _PACKED:
        raise InputError(f"{source} is packed: unpack it, and name the folder or the file in it")
    if suffix == ".xml":
        return CvatDocument(source)
    if suffix in (".yaml", ".yml"):
        return YoloDocument(source)
    if suffix != ".json":
        raise InputError(f"{source} has none of the formats that are known: {_EXPECTED}")
    return _read_json(source, annotations)


def _read_folder(source: Path) -> Document:
    problems: list[str] = []
    found = {path: _json_kind(path, problems) for path in files_below(source, ".json")[:_LOOKED_AT]}
    whole = [path for path, kind in found.items() if kind in SINGLE_FILE]
    kinds = {kind for kind in found.values() if kind and kind not in SINGLE_FILE}
    if len(kinds) > 1:
        raise InputError(f"{source} holds files of several formats, {' and '.join(sorted(map(str, kinds)))}: name one")
    if "labelme" in kinds:
        return LabelMeDocument(JsonFolder(source))
    if "sa1b" in kinds:
        return Sa1bDocument(JsonFolder(source))
    if label_files(source):
        return YoloDocument(source)
    if alone := _only_file(source, whole):
        return read(alone)
    for data_set in (YoloDocument(one) for one in [source, *description_files(source)[:1]]):
        if data_set.labels:
            return data_set
    unread = f" ({problems[0]})" if problems else ""
    raise InputError(f"{source} holds none of the formats that are known{unread}: {_EXPECTED}; or name the file itself")


_LOOKED_AT = 100
"""Files of a folder that are opened to see what they are."""
_PACKED = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar")


def _only_file(source: Path, found: Sequence[Path]) -> Path | None:
    """The one file of a folder that holds the annotations of all photos. Raises `InputError` for several."""
    tables = [path for path in files_below(source, ".xml") if path.name == "annotations.xml"]
    files = [*found, *tables]
    if len(files) > 1:
        names = ", ".join(path.relative_to(source).as_posix() for path in files[:3]) + (" …" if len(files) > 3 else "")
        raise InputError(f"{source} holds {len(files)} files of annotations, {names}: name one")
    return next(iter(files), None)


def _json_kind(path: Path, problems: list[str]) -> Format | None:
    """What a file of a folder is; problems take why it is unread."""
    try:
        value = read_values(path).value
    except InputError as error:
        problems.append(str(error))
        return None
    kinds: dict[Format, Callable[[Any], bool]] = {
        "sa1b": is_sa1b, "labelme": is_labelme, "labelstudio": is_labelstudio, "coco": is_annotations
    }  # fmt: skip
    return next((kind for kind, is_kind in kinds.items() if is_kind(value)), None)


def _read_json(source: Path, annotations: Path | None) -> Document:
    file = read_json_file(source)
    if is_sa1b(file.value):
        return Sa1bDocument(JsonFolder(source))
    if is_labelme(file.value):
        return LabelMeDocument(JsonFolder(source))
    if is_panoptic(file.value):
        raise InputError(f"{source} is of COCO's panoptic format, with PNG files as masks: use segrefiner panoptic")
    if is_json_min(file.value):
        raise InputError(f"{source} is a JSON-MIN export of Label Studio, which has no place for masks: export JSON")
    if is_labelstudio(file.value):
        return LabelStudioDocument(source, file)
    if isinstance(file.value, list) and annotations:
        return CocoDocument(source, read_records(source, annotations, file=file))
    try:
        records = read_records(source, file=file)
    except InputError:
        records = None
    # A list may be of anything; an empty one is what a network found nothing in.
    known = records and (not records.is_results or not records.rows or any(map(_is_result, records.rows)))
    if records is None or not known:
        raise InputError(f"{source} has none of the formats that are known: {_EXPECTED}")
    return CocoDocument(source, records)


def _is_result(row: Any) -> bool:
    return isinstance(row, dict) and "image_id" in row


BITMAPS: Mapping[Format, Form | None] = {
    "coco": "rle", "lvis": "rle", "sa1b": "rle", "yolo": None, "labelme": "png", "cvat": "cvat", "labelstudio": "brush"
}  # fmt: skip
"""How each format writes pixels."""
OUTLINES: Mapping[Format, Form] = {
    "coco": "polygons", "lvis": "polygons", "sa1b": "polygons", "yolo": "ring", "labelme": "ring", "cvat": "ring",
    "labelstudio": "ring",
}  # fmt: skip
"""How each format writes polygons."""


def form_of(stored: Mapping[str, Any], kind: Kind, target: Format, *, same: bool) -> Form:
    """How a stored mask is written.

    Args:
        stored: The mask as it was read.
        kind: As it was read, as pixels, or as polygons.
        target: The format to write.
        same: Whether it is the one that was read.

    Raises:
        InputError: The format has no pixels, and they are asked for.
    """
    bitmap = BITMAPS[target]
    if bitmap is None:
        if kind == "rle":
            raise InputError(f"{target} holds polygons alone: give --as polygon, or none")
        return OUTLINES[target]
    if kind == "polygon" or (kind == "same" and "polygons" in stored):
        return OUTLINES[target]
    if same and isinstance(stored.get("rle"), dict) and isinstance(stored["rle"].get("counts"), list):
        return "counts"
    return bitmap


def new_masks(document: Document, masks: Mapping[tuple[str, str], Mask], kind: Kind = "same") -> Results:
    """What `Document.write` takes, of arrays.

    Args:
        document: From `read`.
        masks: `(H, W)` bool, by the keys of photo and instance. Those that are equal to the document's, or empty, are
            passed over: what stands there stays, character by character.
        kind: How they are written.

    Raises:
        InputError: The format has no pixels, and they are asked for.

    >>> from segrefiner.formats.masks import decode_mask
    >>> from segrefiner.formats.recognition import new_masks, read
    >>> document, masks = read(Path("annotations.json")), {}
    >>> for photo in document.contents.photos:
    ...     for one in photo.instances:
    ...         coarse, notes = decode_mask(one.mask, (96, 128))
    ...         masks[photo.key, one.key] = refiner(photo.names[0], coarse).mask
    >>> document.write(Path("refined.json"), new_masks(document, masks))
    """
    found: dict[str, dict[str, Json]] = {}
    for photo in document.contents.photos:
        for instance in photo.instances:
            mask = masks.get((photo.key, instance.key))
            if mask is None or not mask.any() or _is_same(instance.mask, mask):
                continue
            value, _ = encode_mask(mask, form_of(instance.mask, kind, document.format, same=True))
            new = {"mask": value, "area": float(mask.sum()), "bbox": tight_box(mask), "size": list(mask.shape)}
            found.setdefault(photo.key, {})[instance.key] = new
    return found


def _is_same(stored: Json, mask: Mask) -> bool:
    try:
        return bool(np.array_equal(decode_mask(stored, (mask.shape[0], mask.shape[1]))[0], mask))
    except MaskError:
        return False


WRITERS: Mapping[Format, Callable[[Path, Sequence[str], Sequence[WrittenPhoto]], None]] = {
    "coco": write_coco,
    "sa1b": write_sa1b,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "cvat": write_cvat,
    "labelstudio": write_labelstudio,
}
"""What writes a new document: the target, the labels in their order, and the photos."""
