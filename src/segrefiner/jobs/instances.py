"""The masks of one photo's objects, as jobs over annotation files load, refine and tell of them.

Refined masks of a photo overlap at most where the coarse ones do. Crowds that stay do not count, and neither do masks
of other layers, which are other answers about the same objects.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ..errors import MaskError
from ..formats.masks import decode_mask
from ..imaging.coco_masks import decode_rle, encode_rle, rle_runs
from ..imaging.files import Json
from ..imaging.reading import Photo, check_fits
from ..refinement.options import Options
from .folders import summary_of

if TYPE_CHECKING:
    from ..refinement.refiner import Refiner

Crowds: TypeAlias = Literal["keep", "refine"]
"""What becomes of masks of crowds: they stay as they are, or are refined like others."""
CROWD_STAYS = "a crowd, which stays as it is; --crowds refine refines it"


@dataclass(frozen=True)
class StoredMask:
    """A mask of an annotation file.

    Attributes:
        key: Unique among those of its photo.
        name: What messages call it, such as "annotation 7".
        mask: In a form that `formats.masks.decode_mask` reads.
        layer: Masks of one layer do not take each other's pixels.
        stays: Whether it is loaded only, and not refined.
    """

    key: str
    name: str
    mask: Json
    layer: str = ""
    stays: bool = False


class LoadedMasks(NamedTuple):
    """A photo and those of its masks that are sound.

    Attributes:
        photo: The photo.
        masks: The masks, each with its run-length encoding: thousands of one photo are small as encodings alone.
        failures: The others, and why they are left as they are.
        notes: What of a sound mask was left out.
        name: Of the item, for messages.
    """

    photo: Photo
    masks: list[tuple[StoredMask, Json]]
    failures: dict[str, str]
    notes: list[str]
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of the photo."""
        return self.photo.pixels.shape[0], self.photo.pixels.shape[1]


@dataclass(frozen=True)
class RefinedMask:
    """A mask that was refined.

    Attributes:
        encoding: Its compressed run-length encoding.
        is_changed: Whether any pixel differs from the coarse mask's.
        summary: What the manifest says of it.
    """

    encoding: Json
    is_changed: bool
    summary: Json


@dataclass
class RefinedMasks:
    """What was refined of a photo's masks, and what is to be said.

    Attributes:
        size: `(height, width)` of the photo.
        coarse: The sound masks in their order, each with its encoding.
        refined: By key; masks that are to stay as they were have none.
        failures: Masks that could not be read, and why.
        notes: What the user should know.
        idle: Masks in which there was nothing to refine, and why.
    """

    size: tuple[int, int]
    coarse: list[tuple[StoredMask, Json]]
    refined: dict[str, RefinedMask] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    idle: dict[str, str] = field(default_factory=dict)


def load_masks(name: str, photo: Photo, stored: Iterable[StoredMask], listed: Sequence[int] | None) -> LoadedMasks:
    """Decodes the masks of a photo; those that cannot be used fail alone.

    Args:
        name: Of the item.
        photo: From `read_photo`.
        stored: The masks.
        listed: Height and width of the photo as the file says it, if it does.
    """
    loaded = LoadedMasks(photo, [], {}, [], name)
    for one in stored:
        try:
            _check_size(listed, one.mask, loaded.size)
            encoding, left_out = _encoding(one.mask, loaded.size)
            if photo.orientation > 1:
                check_fits(photo, decode_rle(encoding, loaded.size))
        except MaskError as error:
            loaded.failures[f"{one.name} of image {name}"] = str(error)
            continue
        loaded.masks.append((one, encoding))
        loaded.notes.extend(f"{one.name}: {note}" for note in left_out)
    return loaded


def _check_size(listed: Sequence[int] | None, stored: Json, size: tuple[int, int]) -> None:
    # Encodings know their size. Polygons would be drawn askew, into a photo that EXIF turns for example.
    if listed and tuple(listed) != size and "rle" not in stored:
        given = f"{'polygons' if 'polygons' in stored else 'a mask'} of an image of {listed[1]}x{listed[0]}"
        raise MaskError(f"{given}, but it is {size[1]}x{size[0]} (width x height)")


def _encoding(stored: Json, size: tuple[int, int]) -> tuple[Json, tuple[str, ...]]:
    """A stored mask as a sound run-length encoding, the given one if it is one; and what was left out.

    Raises `MaskError`.
    """
    if "rle" in stored and "size" not in stored:
        rle_runs(stored["rle"], size)
        return stored["rle"], ()
    mask, notes = decode_mask(stored, size)
    return encode_rle(mask), notes


def refine_masks(refiner: "Refiner", loaded: LoadedMasks, options: Options) -> RefinedMasks:
    """Refines the masks of a photo, and keeps those of a layer from taking each other's pixels."""
    result = RefinedMasks(loaded.size, loaded.masks, failures=loaded.failures, notes=list(loaded.notes))
    layers: dict[str, list[tuple[StoredMask, Json]]] = {}
    for stored, encoding in loaded.masks:
        if not stored.stays:
            layers.setdefault(stored.layer, []).append((stored, encoding))
    ceded = sum(_refine_layer(refiner, loaded.photo, masks, options, result) for masks in layers.values())
    if ceded:
        left = "a mask leaves pixels that it" if ceded == 1 else f"{ceded} masks leave pixels that they"
        result.notes.append(f"image {loaded.name}: {left} would have gained to others of the photo")
    return result


def _refine_layer(
    refiner: "Refiner", photo: Photo, masks: list[tuple[StoredMask, Json]], options: Options, result: RefinedMasks
) -> int:
    """Enters the masks of one layer in the result, and says how many leave pixels to others."""
    size, ceded = result.size, 0
    # Decoded when their turn comes.
    coarse = (decode_rle(encoding, size) for _, encoding in masks)
    found = refiner.instances(photo, coarse, separate=True, options=options)
    for (stored, encoding), one in zip(masks, found, strict=True):
        if one.report.note:
            result.idle[stored.name] = one.report.note
        elif not one.mask.any():
            result.notes.append(f"{stored.name}: nothing would be left: kept as it was")
        else:
            ceded += one.report.ceded > 0
            is_changed = bool((one.mask != decode_rle(encoding, size)).any())
            result.refined[stored.key] = RefinedMask(encode_rle(one.mask), is_changed, summary_of(one.report))
            left = [one.report.left] if one.report.left else []
            result.notes += [f"{stored.name}: {said}" for said in (*one.report.warnings, *left)]
    return ceded
