"""CVAT's annotations.xml of version 1.1: `polygon` and `mask` of each `image`.

All other shapes stay, and so do tracks. Texts are XML without a DTD: entities could make gigabytes of a few lines, or
name files of this machine.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from ..errors import InputError, reason
from ..imaging.files import Json, atomic_write
from ..imaging.listing import ensure_regular
from .documents import AnnotatedPhoto, Contents, Format, Instance, Results, WrittenPhoto, label_order
from .folders import names_below
from .masks import image_size

_MASK = ("rle", "left", "top", "width", "height")
_TAG = re.compile(rb"""<[^\s/>]+(?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*/?>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_OTHERS = ("box", "polyline", "points", "cuboid", "ellipse", "skeleton", "tag")


@dataclass
class _Shape:
    """A polygon or mask: its attributes, where its tag begins, and where the tag that ends it does."""

    kind: str
    attributes: dict[str, str]
    start: int
    end: int = -1


@dataclass
class _Image:
    attributes: dict[str, str]
    shapes: list[_Shape] = field(default_factory=list)


class _Reader:
    """Reads the images of a text; all else is named."""

    def __init__(self) -> None:
        self.images: list[_Image] = []
        self.labels: list[str] = []
        self.others: dict[str, str] = {}
        self.root = ""
        self._path: list[str] = []
        self._open: list[_Shape] = []
        self._text = ""
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.EntityDeclHandler = self._doctype
        self._parser.XmlDeclHandler = self._declaration

    def read(self, content: bytes) -> None:
        self._parser.Parse(content, True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        within = self._path[-1] if self._path else ""
        self.root = self.root or name
        self._path.append(name)
        self._text = ""
        if name == "image" and within == "annotations":
            self.images.append(_Image(attributes))
        elif name == "track" and within == "annotations":
            self.others[f"track {attributes.get('id', '')}"] = "a track, which stays as it is"
        elif within == "image" and name in ("polygon", "mask"):
            self._open.append(_Shape(name, attributes, self._parser.CurrentByteIndex))
            self.images[-1].shapes.append(self._open[-1])
        elif within == "image" and name in _OTHERS:
            place = f"{self.images[-1].attributes.get('name', '')}: {name} {self._parser.CurrentLineNumber}"
            self.others[place] = f"a {name}, which stays as it is"

    def _end(self, name: str) -> None:
        if self._path[-2:] == ["image", name] and name in ("polygon", "mask") and self._open:
            self._open.pop().end = self._parser.CurrentByteIndex
        if self._path[-2:] == ["label", "name"]:
            self.labels.append(self._text.strip())
        self._path.pop()

    def _data(self, text: str) -> None:
        # Only names are read, which are short.
        self._text = (self._text + text)[:1000]

    def _doctype(self, *_: Any) -> None:
        raise InputError("it has a DTD or entities: CVAT writes none, and they are not read")

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if (encoding or "utf-8").lower() not in ("utf-8", "us-ascii", "ascii"):
            raise InputError(f"it is written in {encoding}: expected UTF-8, as CVAT writes it")


@dataclass(frozen=True)
class CvatDocument:
    """An annotations.xml.

    Attributes:
        source: The file.
    """

    source: Path

    @property
    def format(self) -> Format:  # noqa: D102 - described by the protocol
        return "cvat"

    @cached_property
    def _content(self) -> bytes:
        try:
            ensure_regular(self.source)
            return self.source.read_bytes()
        except OSError as error:
            raise InputError(f"{str(self.source)!r} cannot be read ({reason(error)})") from error

    @cached_property
    def _read(self) -> _Reader:
        reader = _Reader()
        try:
            if b"\0" in self._content:
                raise InputError("it is no UTF-8, as CVAT writes it")
            reader.read(self._content)
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error
        except expat.ExpatError as error:
            raise InputError(f"{self.source} is no complete XML ({reason(error)}); export it again") from error
        if reader.root != "annotations":
            raise InputError(f"{self.source} is no file of CVAT: expected <annotations>, got <{reader.root:.40}>")
        return reader

    @cached_property
    def contents(self) -> Contents:  # noqa: D102
        photos, failures = [], {}
        number = 0
        taken: set[str] = set()
        for index, image in enumerate(self._read.images):
            name = image.attributes.get("name", "")
            key = name if name and name not in taken else f"{name} ({index})"
            taken.add(key)
            instances = []
            for place, shape in enumerate(image.shapes):
                told = f"{shape.kind} {place}"
                stored = _stored(shape)
                if stored is None:
                    failures[f"{key}: {told}"] = "its points are no numbers: expected x,y;x,y;x,y"
                else:
                    label, group = (shape.attributes.get(name, "") for name in ("label", "group_id"))
                    instances.append(Instance(str(number), told, stored, label, group=group if group != "0" else ""))
                number += 1
            if not name:
                failures[f"image {index}"] = "it has no name"
                continue
            size = image_size(*(_whole(image.attributes.get(side)) for side in ("height", "width")))
            subset = image.attributes.get("subset")
            names = [*([f"{subset}/{name}"] if subset else []), *names_below(name)]
            photos.append(AnnotatedPhoto(key, tuple(names), tuple(instances), size))
        root = self.source.parent
        folders = (root, root / "images", root.parent / "images")
        return Contents(tuple(photos), failures, dict(self._read.others), (), tuple(self._read.labels), folders)

    def write(self, target: Path, results: Results) -> None:  # noqa: D102
        changed = {int(number): new["mask"] for found in results.values() for number, new in found.items()}
        shapes = [shape for image in self._read.images for shape in image.shapes]
        edits: list[tuple[int, int, bytes]] = []
        for number, mask in changed.items():
            edits += _edits(self._content, shapes[number], mask)
        parts, place = [], 0
        for start, end, text in sorted(edits):
            parts += [self._content[place:start], text]
            place = end
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda stream: stream.write(b"".join([*parts, self._content[place:]])))


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 else None


def _stored(shape: _Shape) -> Json | None:
    if shape.kind == "mask":
        return {"cvat": {name: shape.attributes.get(name, "") for name in _MASK}}
    try:
        pairs = [pair.split(",") for pair in shape.attributes.get("points", "").split(";")]
        return {"polygons": [[float(value) for x, y in pairs for value in (x, y)]]}
    except ValueError:
        return None


def _values(mask: Any) -> tuple[str, dict[str, str]]:
    """The element of a mask and its attributes: one ring, or runs in a box."""
    if isinstance(mask, list):
        pairs = zip(mask[0::2], mask[1::2], strict=True)
        return "polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in pairs)}
    return "mask", {name: str(mask[name]) for name in _MASK}


def _edits(content: bytes, shape: _Shape, mask: Any) -> Iterable[tuple[int, int, bytes]]:
    """The edits that give an element another mask; its other attributes and what is in it stay."""
    kind, values = _values(mask)
    found = _TAG.match(content, shape.start)
    assert found, "the parser has found a tag here"
    tag = found[0]
    left = dict(values)

    def replaced(match: re.Match[bytes]) -> bytes:
        name = match[1].decode()
        if name in left:
            return match[0][: match.start(2) - match.start()] + _quoted(left.pop(name))
        return b"" if name in ("points", *_MASK) else match[0]

    body = _ATTRIBUTE.sub(replaced, tag)
    added = b"".join(f" {name}=".encode() + _quoted(value) for name, value in left.items())
    end = len(body) - (2 if body.endswith(b"/>") else 1)
    while body[end - 1 : end].isspace():
        end -= 1
    body = body[:end] + added + body[end:]
    yield found.start(), found.end(), b"<" + kind.encode() + body[1 + len(shape.kind) :]
    if kind != shape.kind and not tag.endswith(b"/>"):
        name = shape.end + len("</")
        yield name, name + len(shape.kind), kind.encode()


def _quoted(text: str) -> bytes:
    return quoteattr(text).encode()


def write_cvat(target: Path, labels: Sequence[str], photos: Sequence[WrittenPhoto]) -> None:
    """Writes an annotations.xml of photos."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    names = "".join(f"<label><name>{_escaped(name or 'object')}</name></label>" for name in label_order(labels, photos))
    lines.append(f"  <meta><task><labels>{names}</labels></task></meta>")
    for index, photo in enumerate(photos):
        height, width = photo.size
        lines.append(f'  <image id="{index}" name={quoteattr(photo.name)} width="{width}" height="{height}">')
        for instance, new in photo.objects:
            kind, values = _values(new["mask"])
            label = quoteattr(instance.label or "object")
            text = "".join(f" {name}={quoteattr(value)}" for name, value in values.items())
            lines.append(f'    <{kind} label={label} source="auto" occluded="0"{text} z_order="0">')
            lines.append(f"    </{kind}>")
        lines.append("  </image>")
    lines.append("</annotations>")
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, lambda stream: stream.write(("\n".join(lines) + "\n").encode()))


def _escaped(text: str) -> str:
    return quoteattr(text)[1:-1]
