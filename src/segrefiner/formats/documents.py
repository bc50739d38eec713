"""What annotation files of all formats have in common: photos, and the masks on them.

A mask stays as its file has it, in JSON types, until its turn comes: `masks.decode_mask` makes an array of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from ..imaging.files import Json

Format: TypeAlias = Literal["coco", "lvis", "sa1b", "yolo", "labelme", "cvat", "labelstudio"]
Kind: TypeAlias = Literal["same", "rle", "polygon"]
"""How masks are written: each as it was read, as pixels, or as polygons."""


@dataclass(frozen=True)
class Instance:
    """One object of a photo.

    Attributes:
        key: Its place in the file, unique among its photo's.
        name: What messages call it, such as "annotation 7".
        mask: As the file has it, under a name that `masks.decode_mask` knows.
        label: What it is; empty where that is not known.
        crowd: Whether it is a group of objects.
        score: What a network said.
        group: Instances of one group, if it is not empty, and of one label are parts of one object. Each is refined and
            stays by itself; other formats get the whole object.
        layer: Instances of different layers are different answers about the same objects, such as those of two people
            or of a network; those of one layer are different objects.
    """

    key: str
    name: str
    mask: Json
    label: str = ""
    crowd: bool = False
    score: float | None = None
    group: str = ""
    layer: str = ""


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo and its objects.

    Attributes:
        key: Unique in the document, and the same each time that it is read.
        names: What the photo may be called, below the folder of the photos; the first one that is there counts.
        instances: Its objects.
        size: `(height, width)` as the file says it, if it does.
        embedded: The file that holds the photo itself, in `imageData`, if one does.
        any_suffix: Whether names lack their suffix, which may be that of any picture.
    """

    key: str
    names: tuple[str, ...]
    instances: tuple[Instance, ...] = ()
    size: tuple[int, int] | None = None
    embedded: Path | None = None
    any_suffix: bool = False


@dataclass(frozen=True)
class Contents:
    """What a document says, and what of it cannot be used.

    Attributes:
        photos: All of them, also those without objects.
        failures: What cannot be read, and why.
        left_out: What is no mask and stays as it is, and why.
        notes: What the user should know.
        labels: All labels that the document lists, in its order.
        folders: Where its photos may be, if the user names no folder.
    """

    photos: tuple[AnnotatedPhoto, ...]
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()


Results: TypeAlias = Mapping[str, Mapping[str, Json]]
"""New masks by the keys of photo and instance, with `mask` as `masks.encode_mask` gives it, `area`, `bbox` and the
photo's `size`. `recognition.new_masks` makes them of arrays."""


class Document(Protocol):
    """An annotation file, or a folder of them, that has been read."""

    @property
    def format(self) -> Format:
        """Which format it has."""
        ...

    @property
    def contents(self) -> Contents:
        """What it says."""
        ...

    def write(self, target: Path, results: Results) -> None:
        """Writes the same document with other masks, to a file or folder; all else stays character by character."""
        ...


@dataclass(frozen=True)
class WrittenPhoto:
    """A photo for a new document.

    Attributes:
        name: Path below the folder of the photos.
        size: `(height, width)`.
        objects: Its objects and their masks, `mask`, `area` and `bbox`.
    """

    name: str
    size: tuple[int, int]
    objects: Sequence[tuple[Instance, Json]]


def label_order(labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> list[str]:
    """The labels of a new document: those that were listed, then others as they come."""
    used = (instance.label for photo in photos for instance, _ in photo.objects)
    return list(dict.fromkeys([*labels, *used]))
