"""The node for ComfyUI, on tensors as ComfyUI hands them over, with a stand-in for its API."""

import ast
import asyncio
import importlib.util
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from helpers.serving import MASK, OTHER, PHOTO, REPORT, refiner
from helpers.stand_ins import comfy
from segrefiner import ImageError, InputError, MaskError, Result, SizeMismatchError

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="not in the source archive")

IMAGE = torch.from_numpy(PHOTO / np.float32(255))[None]
COARSE = torch.from_numpy(MASK).float()[None]
PLAIN: dict[str, Any] = {"strength": 1.0, "max_shift": 0, "steps": 0, "seed": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def package() -> Iterator[ModuleType]:
    """The folder, loaded as ComfyUI loads it: by its path, under a name of its own."""
    api, latest = ModuleType("comfy_api"), ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = comfy.io, comfy.ComfyExtension  # type: ignore[attr-defined]
    name = "custom_nodes.segrefiner"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules |= {"comfy_api": api, "comfy_api.latest": latest, name: module}
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        for one in set(sys.modules) - before:
            if one.startswith(("comfy_api", "custom_nodes")):
                del sys.modules[one]


class Mixer:
    """In place of a refiner: probabilities in which one sees both the image and the mask."""

    def many(self, pairs: Any, **_: Any) -> Iterator[Result]:
        for image, mask in pairs:
            assert image.dtype == np.uint8 and image.shape == (*mask.shape, 3) and mask.dtype == np.float32
            probability = (3 * mask.round() + image[..., 0] / np.float32(255)) / 4
            yield Result(probability >= 0.5, probability, REPORT)


@pytest.fixture
def real(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:

    async def loaded() -> list[Any]:
        extension = await package.comfy_entrypoint()
        assert isinstance(extension, comfy.ComfyExtension)
        await extension.on_load()
        return await extension.get_node_list()

    (found,) = asyncio.run(loaded())
    assert issubclass(found, comfy.ComfyNode)
    monkeypatch.setattr(sys.modules[found.__module__], "_refiner", lambda device: refiner())
    return found


@pytest.fixture
def node(real: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys.modules[real.__module__], "_refiner", lambda device: Mixer())
    return real


def run(node: Any, image: torch.Tensor, mask: torch.Tensor, **options: Any) -> tuple[Any, Any, str]:
    with torch.inference_mode():
        hard, soft, report = comfy.copy_of(node).EXECUTE_NORMALIZED(image=image, mask=mask, **PLAIN | options).result
    for one in (hard, soft):
        assert one.dtype == torch.float32 and one.shape[1:] == image.shape[1:3] and 0 <= one.min() <= one.max() <= 1
    assert set(hard.unique().tolist()) <= {0.0, 1.0} and ((soft >= 0.5) == (hard == 1)).all()
    assert report.count("\n") == len(hard) - 1
    return hard, soft, report


def test_a_mask_is_what_the_refiner_gives(real: Any) -> None:
    expected = refiner()(PHOTO, MASK, seed=5, steps=1, strength=0.5, max_shift=4)
    hard, soft, report = run(real, IMAGE, COARSE, seed=5, steps=1, strength=0.5, max_shift=4)
    np.testing.assert_array_equal(hard[0].numpy() == 1, expected.mask)
    np.testing.assert_array_equal(soft[0].numpy(), expected.probability)
    assert "seed 5" in report and "1 steps" in report


def test_zero_leaves_an_option_out(real: Any) -> None:
    assert torch.equal(run(real, IMAGE, COARSE)[1][0], torch.from_numpy(refiner()(PHOTO, MASK).probability))


def test_batches_go_together_by_the_written_rule(node: Any) -> None:
    images = torch.cat([IMAGE, IMAGE.flip(2)])
    masks = torch.cat([COARSE, torch.from_numpy(OTHER).float()[None]])
    alone = {(i, m): run(node, images[i : i + 1], masks[m : m + 1])[1][0] for i in range(2) for m in range(2)}
    for one_image, one_mask, pairs in (
        (images, masks, [(0, 0), (1, 1)]),
        (images, masks[1:], [(0, 1), (1, 1)]),
        (images[1:], masks, [(1, 0), (1, 1)]),
        (images[:1], masks[:1], [(0, 0)]),
    ):
        soft = run(node, one_image, one_mask)[1]
        assert len(soft) == len(pairs)
        for got, pair in zip(soft, pairs, strict=True):
            assert torch.equal(got, alone[pair]), pair
    for count in ((2, 3), (3, 2)):
        with pytest.raises(InputError, match=f"{count[0]} images and {count[1]} masks"):
            run(node, IMAGE.repeat(count[0], 1, 1, 1), COARSE.repeat(count[1], 1, 1))


def test_what_comfyui_hands_over_besides_is_the_same(node: Any) -> None:
    expected = run(node, IMAGE, COARSE)[1]
    alpha = torch.cat([IMAGE, torch.rand(IMAGE.shape[:3])[..., None]], dim=3)
    with torch.inference_mode():
        for image, mask in (
            (alpha, COARSE),
            (IMAGE, COARSE[0]),
            (IMAGE, COARSE[:, None]),
            (IMAGE * 1.0000001, COARSE * 1.0000001 - 1e-7),
            (IMAGE.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), COARSE),
            (IMAGE.double(), COARSE.double()),
        ):
            assert torch.equal(run(node, image, mask)[1], expected)
    before = COARSE.clone()
    run(node, IMAGE, COARSE)
    assert torch.equal(COARSE, before)


def test_an_empty_mask_comes_back_and_the_report_says_so(real: Any) -> None:
    hard, _, report = run(real, IMAGE, torch.zeros_like(COARSE))
    assert not hard.any() and "empty" in report


@pytest.mark.parametrize(
    ("image", "mask", "error", "words"),
    [
        (IMAGE, torch.zeros(1, 64, 64), SizeMismatchError, "64x64"),
        (IMAGE[0], COARSE, ImageError, "shape"),
        (IMAGE[..., :1], COARSE, ImageError, "shape"),
        (IMAGE[:0], COARSE, ImageError, "shape"),
        (IMAGE, COARSE[:0], MaskError, "shape"),
        (IMAGE, COARSE[None].expand(1, 2, -1, -1), MaskError, "shape"),
        (IMAGE * torch.nan, COARSE, ImageError, "NaN"),
        (IMAGE, COARSE / 0, MaskError, "NaN"),
    ],
)
def test_what_does_not_go_together_is_told_in_one_line(
    image: torch.Tensor, mask: torch.Tensor, error: type[Exception], words: str, node: Any
) -> None:
    with pytest.raises(error, match=words) as told:
        node.execute(image=image, mask=mask, **PLAIN)
    assert "\n" not in str(told.value)


def test_without_segrefiner_it_says_how_to_install_it_and_leaves_pytorch_alone(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = sys.modules[f"{package.__name__}.nodes"]
    monkeypatch.setitem(sys.modules, "segrefiner", None)
    with pytest.raises(ImportError, match="--no-deps") as told:
        nodes._refiner.__wrapped__("cpu")
    assert "\n" not in str(told.value)


def test_the_schema_is_what_execute_takes_and_is_in_plain_words(node: Any) -> None:
    schema = node.GET_SCHEMA()
    taken = list(inspect.signature(node.execute).parameters)
    assert [one.id for one in schema.inputs] == taken and [one.id for one in schema.inputs][2:] == list(PLAIN)
    assert all(one.given.tooltip for one in schema.inputs) and schema.description and schema.category
    assert [one.kind for one in schema.outputs] == ["MASK", "MASK", "STRING"]
    for one in schema.inputs:
        if one.kind in ("INT", "FLOAT"):
            assert one.given.min <= one.given.default <= one.given.max
        if one.kind == "COMBO":
            assert one.given.default in one.given.options


def test_nothing_is_installed_or_fetched_and_pytorch_is_not_named() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    names = [re.split(r"[^A-Za-z0-9_-]", one)[0].lower() for one in project["project"]["dependencies"]]
    assert not {"torch", "torchvision", "segrefiner"} & set(names)
    assert not list(FOLDER.rglob("requirements*.txt")) and not list(FOLDER.rglob("install.py"))
    imported = set()
    for path in FOLDER.rglob("*.py"):
        for one in ast.walk(ast.parse(path.read_text())):
            if isinstance(one, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in one.names}
            elif isinstance(one, ast.ImportFrom) and not one.level:
                imported.add(str(one.module).partition(".")[0])
    assert imported <= {"comfy_api", "functools", "segrefiner", "torch", "typing"}


def test_the_registry_s_fields_are_there() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    assert {"PublisherId", "DisplayName", "Icon"} <= set(project["tool"]["comfy"])
    told = project["project"]
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", told["name"]) and "comfyui" not in told["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["version"]) and "Repository" in told["urls"]


def test_the_workflow_fits_the_node(node: Any) -> None:
    schema = node.define_schema()
    flow = json.loads((FOLDER / "example_workflows" / "refine_mask.json").read_text())
    nodes = {one["id"]: one for one in flow["nodes"]}
    (own,) = [one for one in flow["nodes"] if one["type"] == schema.node_id]
    sockets = [one for one in schema.inputs if not one.widget]
    assert [(one["name"], one["type"]) for one in own["inputs"]] == [(one.id, one.kind) for one in sockets]
    assert [(one["name"], one["type"]) for one in own["outputs"]] == [(o.display_name, o.kind) for o in schema.outputs]
    values = iter(own["widgets_values"])
    for one in schema.inputs:
        if one.widget:
            value = next(values)
            assert value in one.given.options if one.kind == "COMBO" else one.given.min <= value <= one.given.max
            assert value == one.given.default or one.id == "device"
            if one.given.control_after_generate:
                assert next(values) in ("fixed", "increment", "decrement", "randomize")
    assert not list(values)
    for link, source, slot, target, place, kind in flow["links"]:
        assert nodes[source]["outputs"][slot]["type"] == nodes[target]["inputs"][place]["type"] == kind
        assert link in nodes[source]["outputs"][slot]["links"] and nodes[target]["inputs"][place]["link"] == link
    assert flow["last_node_id"] == max(nodes) and flow["last_link_id"] == max(link[0] for link in flow["links"])
