"""Forms of clients to tasks of the worker: only what is on the list, decoded safely, kept in memory."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ..errors import ImageError, InputError, MaskError
from ..imaging.codecs.decoder_process import KilledError
from ..imaging.codecs.file_checks import Size, check_file
from ..imaging.codecs.pictures import Given
from ..imaging.label_files import LabelMap
from ..imaging.reading import Photo, check_fits, check_same_size
from ..model.diffusion import NUM_TIMESTEPS
from ..refinement.cost import estimated_cost
from ..refinement.label_maps import RefinedLabels, refine_labels
from ..refinement.options import Options
from ..refinement.refiner import Result
from ..refinement.report import Report
from . import decoding as pictures
from .limits import Limits
from .problems import BAD_REQUEST, PARAMETER, TOO_LARGE, UNSUPPORTED_TYPE, GoneError, ProblemError
from .worker import Settings, Task

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of JPEG, PNG, BMP and TIFF. WebP has its length before its name."""

Decode: TypeAlias = Callable[..., Any]
"""Calls a function with its arguments in a process that can be killed, as `Decoder.run` does."""

_FIELDS = 32
_FIELD_BYTES = 8 << 20
"""Of a field that is no file, such as encodings."""

_LETTERS = 200
_LETTERS_OF = {"rle": _FIELD_BYTES, "boxes": 16_000}
"""Of a field's text, before anything reads it; most are numbers."""

_JSON: dict[str, Any] = {"contentMediaType": "application/json"}

_FARTHEST = 1e9
_IGNORED = 255
"""Label that is no class where the client does not say, as in `segrefiner semantic`."""


class Common(BaseModel):
    """What may be asked for in every form, as the fields' text."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str | None = Field(None, description="One of /v1/models; the first of them if there is none.")
    steps: int | None = Field(None, ge=1, le=NUM_TIMESTEPS, description="Diffusion steps; what suits the model best.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Same seed, same result.")
    max_shift: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Pixels from the coarse contour beyond which nothing changes."
    )
    strength: float = Field(1, ge=0, le=1, description="Less for surer changes only; 0 changes nothing.")
    trust: float | None = Field(
        None,
        ge=0,
        le=1,
        description="In the coarse mask: 0 keeps every change, 1 none. By default what is likely right.",
    )

    def settings(self, models: Mapping[str, int]) -> Settings:
        """What the worker is asked for; raises `ProblemError` for a model that is not offered."""
        model = next(iter(models)) if self.model is None else self.model
        if model not in models:
            raise wrong("model", f"there is no such model: expected one of {', '.join(models)}")
        return Settings(model, Options(self.seed, self.steps, self.max_shift, self.strength, self.trust))


class MaskFields(Common):
    """The fields of a form with masks."""

    soft: bool = Field(False, description="Answer probabilities of 8 bit, 0-255, beside or instead of masks.")
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="Foreground of mask files with more than two values, as stored."
    )
    rle: str | None = Field(
        None, description="Instead of mask files: a COCO RLE or a list of them, as JSON.", json_schema_extra=_JSON
    )
    boxes: str | None = Field(
        None, description="JSON: [x0, y0, x1, y1] of each mask's object, in pixels.", json_schema_extra=_JSON
    )


class LabelFields(Common):
    """The fields of a form with a label map."""

    ignore: Annotated[list[Annotated[int, Field(ge=0, le=65535)]], Field(max_length=_FIELDS)] = Field(
        [_IGNORED], description="Label that is no class; again for more, or none."
    )


@dataclass(frozen=True)
class Kept:
    """What an answer needs of a result.

    Attributes:
        mask: `(H, W)` bool.
        probability: `(H, W)` uint8, 0-255, if it was asked for.
        report: What changed.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.uint8] | None
    report: Report


class _InMemory(MultiPartParser):
    """Keeps uploads in memory, where the limit on the body bounds them, and never on disk."""

    spool_max_size = 1 << 62
    whole = False

    def on_end(self) -> None:
        """Comes with the last boundary: a form without one was cut off, and its last parts are lost."""
        self.whole = True


async def read_form(request: Request, limits: Limits) -> FormData:
    """The parts of a multipart body.

    Raises:
        ProblemError: It is none, is damaged, or has too many parts or fields that are too large.
        GoneError: The client went away in the middle.
    """
    if request.query_params:
        raise ProblemError(PARAMETER, "parameters stand in the URL: send them as fields of the form")
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise ProblemError(UNSUPPORTED_TYPE, "the body is no form: send multipart/form-data, as curl -F does")
    parser = _InMemory(
        request.headers,
        request.stream(),
        max_files=limits.masks + 1,
        max_fields=_FIELDS,
        max_part_size=_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except ClientDisconnect as error:
        raise GoneError from error
    except (MultiPartException, FormParserError, UnicodeError) as error:
        said = getattr(error, "message", "") or "it is damaged"
        raise ProblemError(BAD_REQUEST, f"the form cannot be read: {said}") from error
    if not parser.whole:
        raise ProblemError(BAD_REQUEST, "the form ends in the middle: send all of it")
    return form


def mask_task(form: FormData, models: Mapping[str, int], limits: Limits, decode: Decode) -> tuple[Task, MaskFields]:
    """The task of a form with a photo and its masks.

    Args:
        form: As it was sent.
        models: Names that it may ask for.
        limits: What is put up with.
        decode: Calls a function that reads a file, within bounds.

    Raises:
        ProblemError: A part is missing, not on the list, or larger than the limits.
        InputError: Photo and masks cannot be read or do not fit together.
    """
    files, fields = _parts(form, {"image", "mask"})
    given = MaskFields.model_validate(_once(fields))
    settings = given.settings(models)
    photo = _photo(files, limits, decode)
    uploads = files.get("mask", [])
    if bool(uploads) == (given.rle is not None):
        raise wrong("mask", "expected masks as files named mask, or as the field rle, and not both")
    boxes = None if given.boxes is None else _boxes(given.boxes)
    size = (photo.pixels.shape[0], photo.pixels.shape[1])

    def from_file(upload: UploadFile) -> NDArray[np.bool_]:
        content = _picture(upload, "mask", MaskError, limits)
        mask = _decoded(decode, "mask", MaskError, pictures.mask, content, given.threshold, limits.pixels)
        check_fits(photo, mask, mask_source=content)
        return mask

    def from_rle(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        check_fits(photo, mask)
        return mask

    if uploads:
        _check_count(len(uploads), photo, limits)
        masks = _each(from_file, uploads)
    else:
        most = min(limits.masks, limits.mask_pixels // max(1, size[0] * size[1]))
        found = _decoded(decode, "rle", MaskError, pictures.encoded_masks, given.rle, size, most)
        if isinstance(found, int):
            _check_count(found, photo, limits)
        masks = _each(from_rle, found)
    if boxes is not None and len(boxes) != len(masks):
        raise wrong("boxes", f"{len(boxes)} boxes for {len(masks)} masks: expected one for each, or none at all")
    cost = _cost(masks, settings, models, limits)

    def keep(result: Result) -> Kept:
        soft = np.rint(result.probability * 255).astype(np.uint8) if given.soft else None
        return Kept(result.mask, soft, result.report)

    def with_boxes(refiner: Any, **more: Any) -> list[Kept]:
        return [keep(one) for one in refiner.instances(photo, masks, boxes, options=settings.options, **more)]

    alone = None if boxes is None else with_boxes
    return Task(settings, photo, masks, keep, alone, cost=cost), given


def label_task(form: FormData, models: Mapping[str, int], limits: Limits, decode: Decode) -> tuple[Task, LabelMap]:
    """The task of a form with a photo and its label map; the errors are those of `mask_task`."""
    files, fields = _parts(form, {"image", "labels"})
    ignore = fields.pop("ignore", None)
    # As the option of the command line, where "none" stands for an empty list.
    told = {} if ignore is None else {"ignore": [] if ignore == ["none"] else ignore}
    given = LabelFields.model_validate(_once(fields) | told)
    settings = given.settings(models)
    photo = _photo(files, limits, decode)
    content = _picture(_one(files, "labels"), "label map", MaskError, limits)
    label_map = LabelMap(*_decoded(decode, "label map", MaskError, pictures.labels, content, limits.pixels))
    labels = label_map.labels
    check_same_size(photo.pixels, labels)
    values = np.setdiff1d(labels, given.ignore)
    _check_count(len(values), photo, limits)
    cost = _cost((labels == value for value in values), settings, models, limits)

    def refined(refiner: Any, **more: Any) -> RefinedLabels:
        return refine_labels(refiner, photo, labels, ignore=given.ignore, options=settings.options, **more)

    return Task(settings, photo, [], lambda result: result, refined, len(values), cost), label_map


def check_cost(cost: float, limits: Limits) -> None:
    """Raises `ProblemError` for more work than the server does for one request."""
    if cost > limits.views:
        raise ProblemError(
            TOO_LARGE,
            f"the masks take more than {limits.views:g} views of the network, this server's limit: send fewer of them, "
            "or masks without noise, whose every speck is a contour",
        )


def _cost(masks: Iterable[NDArray[np.bool_]], settings: Settings, models: Mapping[str, int], limits: Limits) -> float:
    cost = estimated_cost(masks, settings.options.steps or models[settings.model], most=limits.views)
    check_cost(cost, limits)
    return cost


def _boxes(text: str) -> list[tuple[float, ...]]:
    """The boxes of a field: `x0, y0, x1, y1` each."""
    try:
        boxes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong("boxes", "is no JSON: expected [[x0, y0, x1, y1], …]") from error
    if not isinstance(boxes, list):
        raise wrong("boxes", "is no list: expected [[x0, y0, x1, y1], …]")
    for index, box in enumerate(boxes):
        numbers = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
        if not numbers or not all(abs(side) < _FARTHEST for side in box):
            raise wrong("boxes", f"box {index} is no [x0, y0, x1, y1] of finite numbers")
    return [tuple(map(float, box)) for box in boxes]


def wrong(parameter: str, message: str) -> ProblemError:
    """The problem of one parameter."""
    return ProblemError(PARAMETER, f"{parameter}: {message}", errors=[(parameter, message)])


def _parts(form: FormData, names: set[str]) -> tuple[dict[str, list[UploadFile]], dict[str, list[Any]]]:
    """Files and fields by name; names of files and types that clients claim are not looked at."""
    files: dict[str, list[UploadFile]] = {}
    fields: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in names:
                raise wrong(name[:40], f"is no file that is read here: expected {' and '.join(sorted(names))}")
            files.setdefault(name, []).append(value)
        elif name in names:
            raise wrong(name, "is text: send it as a file, as curl -F name=@FILE does")
        elif len(value) > (most := _LETTERS_OF.get(name, _LETTERS)):
            raise wrong(name[:40], f"has {len(value)} letters: expected {most} at most")
        else:
            fields.setdefault(name, []).append(value)
    return files, fields


def _once(fields: dict[str, list[Any]]) -> dict[str, Any]:
    for name, values in fields.items():
        if len(values) > 1:
            raise wrong(name[:40], f"is given {len(values)} times: expected it once")
    return {name: values[0] for name, values in fields.items()}


def _one(files: dict[str, list[UploadFile]], name: str) -> UploadFile:
    uploads = files.get(name, [])
    if len(uploads) != 1:
        raise wrong(name, f"is sent {len(uploads)} times: expected one file")
    return uploads[0]


def declared_pixels(form: FormData, limits: Limits) -> int:
    """How many pixels a form's files have by their headers, and all that are allowed where one does not say.

    Raises:
        ProblemError: A file is of no type that is read, or larger than the limits.
        InputError: A file is one of those that take more to decode than their pixels do.
    """
    total = 0
    for name, upload in form.multi_items():
        # Files of other names are refused later, whatever they are.
        if isinstance(upload, UploadFile) and name in ("image", "mask", "labels"):
            error = ImageError if name == "image" else MaskError
            size = _checked_size(_content(upload, name), name, error, limits)
            total += size.pixels if size else limits.pixels
    return total


def _photo(files: dict[str, list[UploadFile]], limits: Limits, decode: Decode) -> Photo:
    content = _picture(_one(files, "image"), "image", ImageError, limits)
    return Photo.from_parts(_decoded(decode, "image", ImageError, pictures.photo, content, limits.pixels))


def _picture(upload: UploadFile, name: str, error: type[InputError], limits: Limits) -> bytes:
    """A file's content, if its first bytes are of a format on the list and its header claims no more than allowed."""
    content = _content(upload, name)
    _checked_size(content, name, error, limits)
    return content


def _content(upload: UploadFile, name: str) -> bytes:
    upload.file.seek(0)
    content = upload.file.read()
    webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    if content and not webp and not content.startswith(_SIGNATURES):
        raise ProblemError(
            UNSUPPORTED_TYPE, f"{name} is of no type that is read here: send PNG, JPEG, WebP, TIFF or BMP"
        )
    return content


def _checked_size(content: bytes, name: str, error: type[InputError], limits: Limits) -> Size | None:
    given = Given(f"{name} ({len(content)} bytes)", error)
    size = check_file(io.BytesIO(content), lambda problem: given.refuse(f"{problem}; save it again as PNG"))
    if size is None:
        return None
    claimed = f"{name} has {size.width}x{size.height} pixels, "
    if size.pixels > limits.pixels:
        limit = f"{limits.pixels / 1e6:g} megapixels"
        raise ProblemError(TOO_LARGE, f"{claimed}more than this server's limit of {limit}: make it smaller")
    if max(size.width, size.height) > limits.side:
        raise ProblemError(TOO_LARGE, f"{claimed}expected sides of at most {limits.side} pixels: cut it into parts")
    return size


def _decoded(decode: Decode, name: str, error: type[InputError], function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return decode(function, *arguments)
    except KilledError as killed:
        raise error(
            f"{name} takes more time or memory to decode than its pixels do: open it in an image editor and save it "
            "again as PNG"
        ) from killed


def _check_count(count: int, photo: Photo, limits: Limits) -> None:
    if count > limits.masks:
        raise ProblemError(TOO_LARGE, f"{count} masks: expected at most {limits.masks} in one request")
    height, width = photo.pixels.shape[:2]
    if count * height * width > limits.mask_pixels:
        raise ProblemError(
            TOO_LARGE,
            f"{count} masks of {width}x{height} pixels: expected at most "
            f"{limits.mask_pixels / 1e6:g} megapixels of masks in one request; send fewer of them at a time",
        )


def _each(read: Callable[[Any], NDArray[np.bool_]], given: list[Any]) -> list[NDArray[np.bool_]]:
    """Reads all masks, and says which one is wrong where there are several."""
    masks = []
    for number, one in enumerate(given, 1):
        try:
            masks.append(read(one))
        except InputError as error:
            raise type(error)(f"mask {number} of {len(given)}: {error}" if len(given) > 1 else str(error)) from error
    return masks
