"""What happens on the page: from what is given to what is shown."""

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import ImageError, InputError, MaskError
from ...imaging.codecs.decoder_process import KilledError
from ...imaging.files import png_bytes
from ...imaging.reading import Photo as ReadPhoto
from ...imaging.reading import check_fits
from ...refinement.held_back import held_back
from ...refinement.options import Options
from ...rendering.cutout import cutout
from ...rendering.overlay import overlay
from ..service import Service
from .annotation_files import FILES as FORMAT_FILES
from .annotation_files import annotation_files
from .components import FROM_BOX, FROM_FILE, WAYS, held_legend, number_table
from .files import PageFile
from .inputs import Mask, Photo, box_around, mask_in_box, painted_mask, typed_box
from .pictures import (
    HELD_COLOURS,
    animation,
    confidence_picture,
    held_picture,
    numbers,
    shown_photo,
    slider_pair,
    way_frames,
)
from .reading import (
    OBJECTS,
    annotated_objects,
    apart,
    declared_pixels,
    is_annotations,
    read_layers,
    read_objects,
    read_photo,
)
from .routes import Visit, update
from .sessions import Tabs
from .values import FILES
from .watching import Meter, PageWork, RefinementTrace, refine_watched

_CANVAS_SIDE = 1000
_TELL_SECONDS = 0.1
_WEBP_QUALITY = 85

RunningTask = Callable[[str, ReadPhoto, Sequence[Mask], int, PageWork], Awaitable[list[RefinementTrace]]]
"""Does work with the refiner of this name, for a photo and masks, with so many diffusion steps."""

Outputs: TypeAlias = Sequence[Any]


@dataclass(frozen=True)
class Shown:
    """What a visitor looks at, kept in memory until it is long unused or others need the room.

    Attributes:
        source: The photo as it was read.
        file: Name of the photo's file.
        photo: `(H, W, 3)` uint8, sRGB: what is shown.
        labels: What each object is.
        coarse: `(H, W)` bool by the objects' names.
        watched: Their refinements, in the same order.
        soft: Whether the cut-out's edge is soft.
        max_shift: As it was given.
    """

    source: ReadPhoto
    file: str
    photo: Photo
    labels: list[str]
    coarse: dict[str, Mask]
    watched: list[RefinementTrace]
    soft: bool
    max_shift: float | None

    @property
    def name(self) -> str:
        """Of the photo's file, without its ending."""
        return Path(self.file).stem

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return bytes_shown(self.source, len(self.coarse))

    def of(self, chosen: str | None) -> tuple[str, Mask, RefinementTrace]:
        """The chosen object, or the first."""
        names = list(self.coarse)
        index = names.index(chosen) if chosen in names else 0
        return names[index], self.coarse[names[index]], self.watched[index]


def bytes_shown(photo: ReadPhoto, objects: int) -> int:
    """Memory that a photo's results take: for each object the coarse mask, the refined one, and its probability."""
    pixels = photo.pixels
    # With a profile there is a copy in the colours of the screen.
    return pixels.nbytes * (1 if photo.profile is None else 2) + objects * pixels[..., 0].size * 6


def _whole(number: Any) -> Any:
    """A whole number as one, for the page's fields give floats; anything else as it is."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


class Handlers:
    """The page's handlers.

    Args:
        run: Does the work.
        service: Decodes files.
        tabs: Where results are kept.
        samples: Each photo and its rough mask.
    """

    def __init__(
        self, run: RunningTask, service: Service, tabs: Tabs, samples: Sequence[tuple[PageFile, PageFile]]
    ) -> None:
        self._run, self._service, self._tabs, self._samples = run, service, tabs, samples

    async def turn(self, visit: Visit, way: str) -> Outputs:
        """What a way to give the mask needs: its file, the canvas, four numbers."""
        return [update(visible=way == FROM_FILE), update(visible=way != FROM_FILE), update(visible=way == WAYS[2])]

    async def sample(self, visit: Visit, index: int) -> Outputs:
        """A sample's photo and its rough mask, as files."""
        photo, mask = (visit.known(file.name) for file in self._samples[index])
        files = update(value=[mask], visible=True)
        return [photo, FROM_FILE, files, *[update(visible=False)] * 2]

    async def divide(self, visit: Visit, place: float) -> Outputs:
        """The slider's handle somewhere else."""
        return [update(slider_position=place)]

    async def to_canvas(self, visit: Visit, path: Path | None, way: str) -> Outputs:
        """The photo to paint on, at a size that is good to paint on; nothing where masks come from files."""
        if path is None or way == FROM_FILE:
            return [None]
        photo = ReadPhoto.from_parts(await self._read([path], read_photo, path))
        srgb = await asyncio.to_thread(photo.srgb)
        background = await _picture(visit, shown_photo(srgb, _CANVAS_SIDE))
        return [{"background": background, "layers": [], "composite": None, "id": None}]

    async def list_objects(self, visit: Visit, path: Path | None, masks: list[Path]) -> Outputs:
        """The objects of an annotation file to choose from; nothing where masks are pictures."""
        if path is None or not is_annotations(masks):
            return [update(choices=[], value=[], visible=False)]
        labels = await self._read(masks, annotated_objects, masks[0], path.name)
        offered = apart(labels)[:FILES]
        first = [str(index) for index in range(min(OBJECTS, len(offered)))]
        more = f", the first {FILES} of {len(labels)}" if len(labels) > FILES else ""
        return [
            update(
                choices=[(name, str(index)) for index, name in enumerate(offered)],
                value=first,
                visible=True,
                label=f"Objects to refine, up to {OBJECTS}{more}",
            )
        ]

    async def refine(
        self,
        visit: Visit,
        path: Path | None,
        way: str,
        masks: list[Path],
        objects: list[int],
        layers: list[Path],
        left: float | None,
        top: float | None,
        right: float | None,
        bottom: float | None,
        steps: float,
        max_shift: float | None,
        strength: float,
        seed: float | None,
        soft: bool,
        model: str | None,
    ) -> Outputs:
        """Refines what is given, telling how far it is."""
        if path is None:
            raise ImageError("there is no photo: drop one, or pick a sample")
        options = Options(_whole(seed), _whole(steps), max_shift, strength)
        visit.progress(0, "reading the photo")
        box = (left, top, right, bottom)
        photo = ReadPhoto.from_parts(await self._read([path], read_photo, path))
        # What is drawn on the page is drawn on the photo as it is shown.
        photo = photo if way == FROM_FILE else replace(photo, orientation=1)
        labels, given = await self._coarse(photo, path.name, way, masks, objects, layers, box)
        coarse = dict(zip(apart(labels), given, strict=True))
        height, width = photo.pixels.shape[:2]
        if max(height, width) > self._service.limits.side:
            raise InputError(
                f"the photo has {width}x{height} pixels, expected sides of at most "
                f"{self._service.limits.side}: cut it into parts"
            )
        self._tabs.check_fits(bytes_shown(photo, len(coarse)))
        meter = Meter()
        work = asyncio.ensure_future(
            self._run(
                model or "",
                photo,
                list(coarse.values()),
                options.steps or 1,
                lambda refiner, on_progress: refine_watched(
                    refiner, photo, list(coarse.values()), options, on_progress, meter
                ),
            )
        )
        try:
            await _told_until_done(work, meter, visit)
            srgb = await asyncio.to_thread(photo.srgb)
            shown = Shown(photo, path.name, srgb, labels, coarse, work.result(), soft, max_shift)
            self._tabs.keep(visit.tab, shown)
            return []
        finally:
            work.cancel()

    async def compare(self, visit: Visit, chosen: str | None, look: str, part: str) -> Outputs:
        """The pictures of the slider."""
        shown = visit.tab.result
        return [None if shown is None else await self._compared(visit, shown, chosen, look, part)]

    async def describe(self, visit: Visit, chosen: str | None, look: str, part: str) -> Outputs:
        """All of the chosen object but its files, in the place of what stood there before."""
        shown = _looked_at(visit)
        name = shown.of(chosen)[0]
        parts = await asyncio.to_thread(self._described, shown, name)
        table, closeup, unsure, held, why, film = parts
        choice = update(choices=[(one, one) for one in shown.coarse], value=name, visible=len(shown.coarse) > 1)
        return [
            update(visible=False),
            update(visible=True),
            choice,
            await self._compared(visit, shown, name, look, part),
            table,
            await _picture(visit, closeup),
            await _picture(visit, unsure),
            await _picture(visit, held),
            why,
            await asyncio.to_thread(visit.file, f"{shown.name}_{name}_way.webp", film),
            *[update(interactive=False)] * (3 + len(FORMAT_FILES)),
        ]

    async def write(self, visit: Visit, chosen: str | None) -> Outputs:
        """The files of the chosen object."""
        written = await asyncio.to_thread(self._written, _looked_at(visit), chosen, visit.files.folder)
        files = [await asyncio.to_thread(visit.file, name, content) for name, content in written]
        return [update(value=file, interactive=True) for file in files]

    async def _coarse(
        self,
        photo: ReadPhoto,
        name: str,
        way: str,
        masks: list[Path],
        objects: list[int],
        layers: list[Path],
        box: tuple[float | None, ...],
    ) -> tuple[list[str], list[Mask]]:
        """What the objects of a photo are, and their rough masks."""
        height, width = photo.pixels.shape[:2]
        if way == FROM_FILE:
            if not masks:
                raise MaskError("there is no mask: drop its file, or choose to paint it or to give a box")
            most = self._service.limits.mask_pixels
            read = partial(read_objects, mask_pixels=most, photo_name=name, chosen=objects)
            names, given = await self._read(masks, read, masks, (height, width))
            for label, mask in zip(names, given, strict=True):
                await asyncio.to_thread(check_fits, photo, mask, mask_source=label)
            return names, given
        painted = painted_mask(await self._read(layers, read_layers, layers), height, width)
        if way == FROM_BOX:
            wanted = typed_box(box, height, width) or box_around(painted)
            return ["object"], [await asyncio.to_thread(mask_in_box, photo.pixels, wanted)]
        if not painted.any():
            raise MaskError("nothing is painted: paint roughly over the object")
        return ["object"], [painted]

    async def _read(self, paths: Sequence[Path], function: Callable[..., Any], *arguments: Any) -> Any:
        """What a reader makes of a visitor's files, in a process that can be killed."""
        most = self._service.limits.pixels
        try:
            pixels = await asyncio.to_thread(declared_pixels, paths, most)
            return await self._service.decoded(pixels, function, *arguments, most)
        except KilledError as error:
            raise InputError(
                f"{', '.join(path.name for path in paths)[:200]}: more time or memory is needed to decode this than "
                "pixels take; open it in an image editor and save it again as PNG"
            ) from error
        except OSError as error:
            raise InputError("a file is no longer here: give it again") from error

    async def _compared(self, visit: Visit, shown: Shown, chosen: str | None, look: str, part: str) -> list[Any]:
        _, coarse, watched = shown.of(chosen)
        pair = await asyncio.to_thread(
            slider_pair, shown.photo, coarse, watched.result.probability, look=look, part=part
        )
        return [await _picture(visit, one) for one in pair]

    def _described(self, shown: Shown, chosen: str) -> tuple[str, Photo, Photo, Photo, str, bytes]:
        _, coarse, watched = shown.of(chosen)
        result = watched.result
        planes = held_back(coarse, result.probability, result.report, max_shift=shown.max_shift)
        frames = way_frames(shown.photo, coarse, result.mask, watched.states, watched.seen, watched.view)
        return (
            number_table(numbers(result.report)),
            overlay(shown.photo, coarse, result.mask),
            confidence_picture(shown.photo, result.probability),
            held_picture(shown.photo, coarse | result.mask, planes),
            held_legend([(why.value, HELD_COLOURS[why], int(plane.sum())) for why, plane in planes.items()]),
            animation(frames),
        )

    def _written(self, shown: Shown, chosen: str | None, folder: Path) -> list[tuple[str, bytes]]:
        name, _, watched = shown.of(chosen)
        result = watched.result
        stem = shown.name if len(shown.coarse) == 1 else f"{shown.name}_{name}"
        refined = [one.result.mask for one in shown.watched]
        formats = annotation_files(shown.file, shown.labels, refined, folder)
        alpha: NDArray[Any] = result.probability if shown.soft else result.mask.astype(np.float32)
        return [
            (f"{stem}_mask.png", png_bytes(result.mask)),
            (f"{stem}_soft.png", png_bytes(result.probability, bits=16)),
            (f"{stem}_cutout.png", png_bytes(cutout(shown.source.pixels, alpha), profile=shown.source.profile)),
            *((f"{shown.name}_{name}{FORMAT_FILES[name]}", content) for name, content in formats.items()),
        ]


def _looked_at(visit: Visit) -> Shown:
    if visit.tab.result is None:
        raise InputError("the result is no longer here: refine the mask again")
    return visit.tab.result


async def _told_until_done(work: asyncio.Future[Any], meter: Meter, visit: Visit) -> None:
    """Tells a visitor how far the work has come, until it is done."""
    told = None
    while not work.done():
        if (now := meter.read()) != told:
            told = now
            visit.progress(*now)
        await asyncio.wait((work,), timeout=_TELL_SECONDS)


async def _picture(visit: Visit, picture: Photo) -> dict[str, Any]:
    """A picture to look at, as a file for the visitor."""

    def written() -> dict[str, Any]:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "WEBP", quality=_WEBP_QUALITY)
        return visit.file("image.webp", stream.getvalue())

    return await asyncio.to_thread(written)
