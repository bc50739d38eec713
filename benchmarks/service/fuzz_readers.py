"""The readers that `service/fuzz.py` gives inputs to, what makes inputs for each, and one case in its process."""

import io
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.service import fuzz_inputs as inputs
from segrefiner.errors import InputError, SegRefinerError
from segrefiner.imaging.codecs import decoder_process
from segrefiner.imaging.codecs.file_checks import check_file

PIXELS = 20_000_000
"""Of a file, at most."""

SECONDS = 2.0
"""Of the processor, for each megapixel."""

_LONGEST = 5000
"""Letters of a message."""


def images(content: bytes) -> int:
    """The photo reader."""
    from segrefiner.imaging.reading import exif_turned, read_image

    exif_turned(content)
    return read_image(content, max_pixels=PIXELS)[..., 0].size


def masks(content: bytes) -> int:
    """The mask reader, with a threshold that depends on the file."""
    from segrefiner.imaging.reading import read_mask

    thresholds: list[Any] = [None, None, None, 0, 1, 128, 0.5, -1, 10**400, float("nan"), True, "x"]
    return read_mask(content, threshold=thresholds[len(content) % len(thresholds)], max_pixels=PIXELS).size


def labels(content: bytes) -> int:
    """The label reader, and what of its map is taken for background."""
    from segrefiner.imaging.label_files import background_label, labels_png, read_labels

    label_map = read_labels(content, max_pixels=PIXELS)
    _each(lambda: background_label(label_map), lambda: labels_png(label_map))
    return label_map.labels.size


def panoptic(content: bytes) -> int:
    """The reader of panoptic maps."""
    from segrefiner.imaging.label_files import read_ids

    return read_ids(content).size


def rle(content: bytes) -> int:
    """Run-length encodings, as lists and as text; both as a file and as a field of a form have them."""
    from segrefiner.imaging.coco_masks import decode_rle
    from segrefiner.serving.decoding import encoded_masks

    document = json.loads(content)
    size = tuple(document["size"])
    _each(
        lambda: decode_rle(document["given"], size),
        lambda: encoded_masks(json.dumps(document["given"]), size, 9),
    )
    return 0


def polygons(content: bytes) -> int:
    """Polygons."""
    from segrefiner.imaging.coco_masks import draw_polygons

    document = json.loads(content)
    return draw_polygons(document["given"], tuple(document["size"])).size


def coco(content: bytes) -> int:
    """COCO files: of jobs over instances and panoptic maps, of training, and of evaluation."""
    from PIL import Image

    from segrefiner.data.coco import open_coco
    from segrefiner.evaluation.coco import load_detections, load_truth
    from segrefiner.jobs.coco import coco_job
    from segrefiner.jobs.panoptic import panoptic_job

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, file, sound = folder / "images", folder / "a.json", folder / "sound.json"
        pictures.mkdir()
        for number in range(2):
            Image.new("RGB", (60, 40), (number, 0, 0)).save(pictures / f"{number}.png")
        file.write_bytes(content)
        sound.write_text(json.dumps(inputs.coco_document(random.Random(0))))
        _each(
            lambda: _loaded(coco_job(file, pictures, folder / "out.json")),
            lambda: _loaded(coco_job(sound, pictures, folder / "out.json", annotations=file)),
            lambda: _loaded(panoptic_job(file, pictures, pictures, folder / "out")),
            lambda: _samples(open_coco(file, pictures)),
            lambda: load_truth(file),
            lambda: load_detections(file, load_truth(sound)),
        )
    return 0


def manifest(content: bytes) -> int:
    """The books of a job."""
    from segrefiner.jobs.job import Item
    from segrefiner.jobs.manifest import account_of, is_done, read_rows

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "manifest.jsonl"
        path.write_bytes(content)
        for row in read_rows(path)[0].values():
            is_done(Item("0.png", (path,)), row, "1", Path(name))
            account_of(row)
    return 0


_FOREIGN = {
    "": np.zeros((2, 3)),
    "nan": np.float32("nan"),
    "1": np.True_,
    "../x": Decimal("NaN"),
    ".": 1j,
    "-": b"x",
    "a/../../b": np.array(["x"], object),
    " ": np.zeros((8, 8, 3), np.uint8),
    "C:\\x": np.full((8, 8), np.nan),
    "\\\\host\\x": object(),
}
"""What no JSON can hold, in the place of some texts."""


def options(content: bytes) -> int:
    """Photos, masks and options of a call of a `Refiner`, with a tiny network."""
    given = {name: _with_foreign(value) for name, value in json.loads(content).items()}
    photo, mask = np.zeros((12, 12, 3), np.uint8), np.eye(12, dtype=bool)
    refiner = _refiner()
    named = {name: given[name] for name in ("seed", "steps", "threshold", "max_shift", "strength")}
    _each(
        lambda: refiner(photo, mask, **named),
        lambda: refiner(photo, given["mask"]),
        lambda: refiner(given["image"], mask),
        lambda: list(refiner.instances(photo, [mask], given["boxes"])),
        lambda: list(refiner.instances(photo, given["masks"])),
    )
    return 0


def command(content: bytes) -> int:
    """Arguments of the commands, as far as they are read before a command runs."""
    from segrefiner.cli.main import main

    name, *arguments = json.loads(content)
    read: Any = main.commands[name]
    if isinstance(read, click.Group):
        read = next(iter(read.commands.values()))
    try:
        with read.make_context(name, arguments):
            return 0
    except (click.ClickException, click.exceptions.Exit) as error:
        raise InputError(f"the command line is refused: {type(error).__name__}") from error


def form(content: bytes) -> int:
    """Fields of the server's forms, and bodies of the page's events."""
    from segrefiner.serving.forms import LabelFields, MaskFields, _boxes
    from segrefiner.serving.page.values import parse_body

    fields = json.loads(content)
    whole = fields.pop("body").encode("utf-8", "surrogatepass")
    _each(
        lambda: MaskFields.model_validate(fields).settings({"tiny": 1}),
        lambda: LabelFields.model_validate(fields),
        lambda: _boxes(str(fields.get("boxes", ""))),
        lambda: parse_body(whole, frozenset({"a", "size"})),
        told=_problem,
    )
    return 0


def event(content: bytes) -> int:
    """Values that a browser sends for the components of the page."""
    import gradio as gr

    from segrefiner.serving.page.values import read_index, reader_of

    files, value = _page_files(), json.loads(content)
    blocks = (gr.Image(), gr.File(), gr.ImageEditor(), gr.Radio(["a"]), gr.Dropdown([]), gr.Checkbox(), gr.Slider(1, 6),
              gr.Number())  # fmt: skip
    readers = [reader_of(block, files) for block in blocks]
    _each(*(lambda read=read: read(value) for read in readers), lambda: read_index(value, 3), told=_problem)
    return 0


def _problem(error: Exception) -> str:
    """What a client is told."""
    from pydantic import ValidationError

    from segrefiner.serving.problems import ProblemError, as_problem

    if not isinstance(error, ValidationError | ProblemError | SegRefinerError):
        raise error
    problem = as_problem(error)
    if problem.kind.status >= 500:
        raise error
    return problem.detail


@cache
def _refiner() -> Any:
    import torch

    from helpers.tiny import TINY
    from segrefiner.model.unet import DenoisingUNet
    from segrefiner.refinement.refiner import Refiner

    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), steps=1)


@cache
def _page_files() -> Any:
    from segrefiner.serving.page.files import PageFiles

    return PageFiles()


def _with_foreign(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_foreign(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_foreign(one) for one in value]
    return _FOREIGN.get(value, value) if isinstance(value, str) else value


def _loaded(job: Any) -> None:
    """What a job does before it refines."""
    from segrefiner.jobs.job import read_inputs

    for item in list(job.items)[:4]:
        # What is not the package's own is an item's failure, too, but one whose message is a riddle.
        _each(lambda item=item: job.work.load(item, read_inputs(item)[1]), also=OSError)


def _samples(source: Any) -> None:
    for index in range(min(4, len(source))):
        _each(lambda index=index: source.read(index))


def _each(
    *calls: Callable[[], Any], also: type[Exception] = SegRefinerError, told: Callable[[Exception], str] = str
) -> None:
    """Make all calls. Raises `InputError` where all of them were refused, and what is no refusal."""
    messages = []
    for call in calls:
        try:
            call()
        except SegRefinerError as error:
            messages.append(str(error))
        except also as error:
            messages.append(type(error).__name__)
        except Exception as error:
            if told is str:
                raise
            messages.append(told(error))
        else:
            continue
        _check_message(messages[-1])
    if len(messages) == len(calls):
        raise InputError(messages[-1])


def _check_message(message: str) -> None:
    if not (message.isprintable() and 0 < len(message) < _LONGEST):
        raise AssertionError(f"told badly, in {len(message)} letters: {message!r:.300}")


def _arguments(draw: random.Random) -> bytes:
    """Arguments as a system hands them over: without zeros, and bytes that are no text as Python stands for them."""
    from segrefiner.cli.main import main

    name = draw.choice(sorted(main.commands))
    read: Any = main.commands[name]
    if isinstance(read, click.Group):
        read = next(iter(read.commands.values()))
    given: list[str] = []
    for parameter in read.params:
        if draw.random() < 0.5:
            value = inputs.anything(draw)
            text = value if isinstance(value, str) else json.dumps(value)
            named = [max(parameter.opts, key=len)] if isinstance(parameter, click.Option) else []
            flag = isinstance(parameter, click.Option) and parameter.is_flag
            given += [*named, *([] if flag else [text.replace("\ud800", "\udc80").replace("\0", "")])]
    return json.dumps([name, *given]).encode()


def _call_document(draw: random.Random) -> bytes:
    plain = {"seed": 0, "steps": 1, "threshold": 0.5, "max_shift": 3, "strength": 1, "boxes": [[1, 2, 9, 9]]}
    plain |= {"mask": [[0, 1]] * 12, "image": " ", "masks": [[[0, 1] * 6] * 12]}
    return json.dumps({name: inputs.changed(draw, value, 0.3) for name, value in plain.items()}).encode()


def _fields(draw: random.Random) -> bytes:
    names = ("steps", "seed", "max_shift", "strength", "model", "soft", "threshold", "rle", "boxes", "ignore", "x")
    text = json.dumps(inputs.anything(draw)) if draw.random() < 0.7 else "[[1, 2, 3, 4]]"
    given = {draw.choice(names): draw.choice((text, text[:9], "1", "nan", "-1", "true")) for _ in range(3)}
    if draw.random() < 0.1:
        given["boxes"] = "1,".join(["["] + [""] * 7000)
    body = inputs.json_file(draw, {"a": [1, None], "size": {"b": "c"}}, 0.3)
    return json.dumps(given | {"body": body.decode("latin-1")}).encode()


def _event(draw: random.Random) -> bytes:
    file = {"path": "x/y", "url": None, "meta": {"_type": "gradio.FileData"}, "orig_name": "y", "is_stream": False}
    canvas = {"background": file, "layers": [file, None], "composite": None, "id": None}
    value = draw.choice((file, [file], canvas, {"index": 1}, 3, "a", True, None))
    return json.dumps(inputs.changed(draw, value, 0.2)).encode()


def _json(document: Callable[[random.Random], Any]) -> Callable[[random.Random], bytes]:
    return lambda draw: json.dumps(document(draw)).encode()


@dataclass(frozen=True)
class Reader:
    """What makes inputs, and what reads them and says how many pixels it gave."""

    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], int]


READERS = {
    "images": Reader(inputs.picture_file, images),
    "masks": Reader(inputs.picture_file, masks),
    "labels": Reader(inputs.picture_file, labels),
    "panoptic": Reader(inputs.picture_file, panoptic),
    "rle": Reader(_json(inputs.rle_document), rle),
    "polygons": Reader(_json(inputs.polygon_document), polygons),
    "coco": Reader(
        lambda draw: inputs.json_file(draw, inputs.coco_document(draw), draw.choice((0.01, 0.03, 0.08))), coco
    ),
    "manifest": Reader(inputs.manifest_rows, manifest),
    "options": Reader(_call_document, options),
    "command": Reader(_arguments, command),
    "form": Reader(_fields, form),
    "event": Reader(_event, event),
}


def case(name: str, content: bytes) -> list[Any]:
    """Read one input in a process that can be killed.

    Returns:
        What came of it: "read", "refused", or a violation; seconds of the processor; megapixels, one at least; and by
        how many MiB the process grew meanwhile, where the system tells.
    """
    # What is killed here is a violation: the bound of jobs and servers is lower.
    decoder_process._BASE_SECONDS, decoder_process._SECONDS_PER_MEGAPIXEL = SECONDS, SECONDS
    before, begun, pixels = _forgotten_peak(), time.process_time(), 0
    try:
        pixels = READERS[name].read(content)
        outcome = "read"
    except SegRefinerError as error:
        outcome = "refused"
        try:
            _check_message(str(error))
        except AssertionError as told:
            outcome = str(told)
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"[:300]
    seconds = time.process_time() - begun
    return [outcome, seconds, max(1.0, (pixels or _declared(content)) / 1e6), (_peak() - before) / 1024]


def _declared(content: bytes) -> int:
    """Pixels that a file's header claims, as far as they are granted."""
    try:
        size = check_file(io.BytesIO(content), InputError)
    except InputError:
        return 0
    return min(size.pixels, PIXELS) if size else 0


def _forgotten_peak() -> int:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _peak()


def _peak() -> int:
    """The most memory that this process had, in KiB."""
    try:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 0
