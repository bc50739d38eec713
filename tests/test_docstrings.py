"""Examples in docstrings: every public class and function has one, and all of them run.

They run in a folder that holds what they name, such as `photo.jpg` and `annotations.json`. Known to them are the public
names, `np`, `Path`, and `refiner`, the bundled model.
"""

import ast
import doctest
import importlib
import inspect
import json
import queue
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

import segrefiner
from helpers import miniature
from helpers.stand_ins.hub import Hub
from helpers.tiny import TINY
from segrefiner import Refiner
from segrefiner.training.recipe import Recipe
from segrefiner.training.recipes import RECIPES

HEIGHT, WIDTH = 96, 128
ROOT = Path(segrefiner.__file__).parent
TOLD = (
    "data.layouts.open_source",
    "evaluation.metrics.boundary_iou",
    "evaluation.metrics.dice",
    "evaluation.metrics.iou",
    "evaluation.metrics.mba",
    "formats.brush.decode_brush",
    "formats.brush.encode_brush",
    "formats.coco.read_records",
    "formats.masks.decode_mask",
    "formats.masks.encode_mask",
    "formats.recognition.new_masks",
    "formats.recognition.read",
    "imaging.clips.read_clip",
    "imaging.label_files.read_labels",
    "imaging.reading.read_image",
    "imaging.reading.read_mask",
    "imaging.reading.read_photo",
    "model.diffusion.forward_sample",
    "model.diffusion.keep_fine_schedule",
    "model.diffusion.sample",
    "model.diffusion.spaced_timesteps",
    "model.diffusion.transition_to_fine",
    "model.weights.load",
    "model.weights.metadata",
    "model.weights.resolve",
    "model.weights.save",
    "refinement.instances.separate",
    "refinement.label_maps.RefinedLabels",
    "refinement.large_photos.refine_large",
    "refinement.video.write_masks",
    "rendering.overlay.overlay",
    "serving.client.RemoteResult",
    "training.overrides.with_values",
    "training.session.RunHooks",
    "training.session.RunResult",
    "training.session.TrainingSession",
    "training.session.Validation",
    "training.session.prepare_run",
)
"""What the documentation tells users of beside the public names."""


def found(name: str) -> Any:
    """What a name within the package means, such as `refinement.refiner.Refiner.many`."""
    parts = name.split(".") if name else []
    for count in range(len(parts), -1, -1):
        if not (path := ROOT.joinpath(*parts[:count])).with_suffix(".py").is_file() and not path.is_dir():
            continue
        value = importlib.import_module(".".join(("segrefiner", *parts[:count])))
        for part in parts[count:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


def public() -> dict[str, Any]:
    """Classes and functions that users are told of, and the classes' own public methods."""
    named = {name: getattr(segrefiner, name) for name in segrefiner.__all__ if not name.startswith("__")}
    named |= {name: found(name) for name in TOLD}
    for name, value in list(named.items()):
        if inspect.isclass(value):
            own = {key: getattr(value, key) for key in vars(value) if not key.startswith("_") or key == "__call__"}
            named |= {
                f"{name}.{key}": one for key, one in own.items() if inspect.isroutine(one) and one.__name__ == key
            }
    return named


PUBLIC = public()


def documented(node: ast.AST, name: str) -> Iterator[str]:
    """Names of what has an example in a file."""
    if ">>>" in (ast.get_docstring(node) or ""):  # type: ignore[arg-type]
        yield name
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from documented(child, f"{name}.{child.name}".lstrip("."))


def examples() -> list[str]:
    names = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        names += documented(ast.parse(path.read_text(encoding="utf-8")), module)
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_public_has_an_example_of_three_lines(name: str) -> None:
    parsed = doctest.DocTestParser().get_examples(inspect.getdoc(PUBLIC[name]) or "")
    assert sum(len(example.source.splitlines()) for example in parsed) >= 3


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that examples name."""
    folder = tmp_path_factory.mktemp("things")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc, spot = (np.hypot(rows - y, columns - x) < radius for y, x, radius in ((50, 50, 26), (30, 105, 14)))
    noise = np.random.default_rng(0).integers(0, 30, (HEIGHT, WIDTH, 3))
    photo = (np.where((disc | spot)[..., None], 200, 60) + noise).astype(np.uint8)
    shifted = np.roll(disc, (3, -3), (0, 1))
    Image.fromarray(photo).save(folder / "photo.jpg", quality=95)
    Image.fromarray(photo).save(folder / "photo.png")
    for name, mask in (("coarse", shifted), ("other", np.roll(spot, 2, 1))):
        Image.fromarray(mask).save(folder / f"{name}.png")
    labels = np.where(shifted, 7, 0).astype(np.uint8)
    labels[:4] = 255
    Image.fromarray(labels).save(folder / "labels.png")
    for name in ("0001", "0002"):
        for kind, picture in (("frames", photo), ("frame_masks", shifted)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / kind / f"{name}.png")
    squares = [[25, 25, 75, 25, 75, 75, 25, 75], [92, 18, 118, 18, 118, 44, 92, 44]]
    content = {
        "images": [{"id": 1, "file_name": "photo.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "segmentation": [square]}
            for number, square in enumerate(squares, start=1)
        ],
        "categories": [{"id": 1, "name": "disc"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    miniature.folder(folder / "my_photos")
    miniature.folder(folder / "my_held_out_photos", 2)
    return folder


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained()


@pytest.fixture(scope="module")
def url(refiner: Refiner) -> Iterator[str]:
    """Of a server in this process."""
    from segrefiner.serving import run

    urls: queue.Queue[str] = queue.Queue()
    apps: list[Any] = []
    options: dict[str, Any] = {"port": 0, "page": apps.append, "on_ready": urls.put}
    thread = threading.Thread(target=lambda: run.serve({"compact": refiner}, **options))
    thread.start()
    yield urls.get(timeout=20)
    apps[0].state.service.stopping = True
    thread.join(20)


@pytest.mark.parametrize("name", examples())
def test_examples_run(
    name: str,
    things: Path,
    refiner: Refiner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    shutil.copytree(things, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub())
    small = {"model": TINY, "samples": 40, "large_share": 1, "large_size": 32, "pack_size": 96}
    monkeypatch.setitem(RECIPES, "compact", replace(Recipe(), **small))
    known = {name: getattr(segrefiner, name) for name in segrefiner.__all__}
    known |= {"np": np, "Path": Path, "refiner": refiner}
    text = inspect.getdoc(found(name)) or ""
    if "127.0.0.1:8000" in text:
        text = text.replace("http://127.0.0.1:8000", request.getfixturevalue("url"))
    test = doctest.DocTestParser().get_doctest(text, known, name, None, 0)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)
