"""Jobs over folders of label maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.jobs.folders import SIZE, disc, finished, photos_and_masks, save
from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.imaging.label_files import LabelMap, write_labels
from segrefiner.jobs.folders import semantic_job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import refine_labels


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path, Path]:
    return photos_and_masks(tmp_path)


@pytest.mark.parametrize(
    ("values", "ignore", "said"),
    [
        ((0, 255), (255,), "label 0 is alone beside what is ignored (255)"),
        ((0, 255), (0, 255), "all its labels are ignored (0, 255)"),
        ((255, 255), (255,), "all its labels are ignored (255)"),
        ((7, 7), (255,), "label 7 is alone, without a contour"),
    ],
)
def test_a_label_map_with_nothing_to_refine_is_left_out_and_written(
    values: tuple[int, int], ignore: tuple[int, ...], said: str, data: tuple[Path, Path, Path], refiner: Refiner
) -> None:
    images, labels, output = data
    coarse = np.where(disc(12), *values).astype(np.uint8)
    save(labels / "a.png", coarse)
    for done, skipped in ((3, 0), (0, 3)):
        ledger = run(
            semantic_job(images, labels, output, ignore=ignore),
            LocalEngine(refiner, workers=0), output / ".segrefiner", config="",
        )  # fmt: skip
        told = {entry.name: entry.reason for entry in ledger.omissions}
        assert said in told["a.jpg"]
        if ignore == (255,):
            assert (ledger.done, ledger.skipped, ledger.left_out) == (done, skipped, 1)
        np.testing.assert_array_equal(np.asarray(Image.open(output / "a.png")), coarse)


def test_label_maps_keep_their_palette_and_what_is_ignored(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, labels, output = data
    coarse = np.where(disc(12), 5, 0).astype(np.uint8)
    coarse[:3] = 255
    picture = Image.fromarray(coarse)
    colours = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8)
    picture.putpalette(colours.tobytes(), "RGB")
    picture.save(labels / "a.png")
    Image.fromarray(coarse.astype(np.uint16) * 200).save(labels / "b.png")
    (labels / "sub" / "a.png").write_text("no picture")
    summary = finished(semantic_job(images, labels, output), refiner, output)
    assert (summary.done, summary.failed) == (3, 1)
    with Image.open(output / "a.png") as written:
        assert written.mode == "P" and written.getpalette("RGB") == colours.tolist()
        values = np.asarray(written)
    np.testing.assert_array_equal(values == 255, coarse == 255)
    assert set(np.unique(values)) <= {0, 5, 255}
    with Image.open(output / "b.png") as written:
        assert written.mode == "I;16" and set(np.unique(np.asarray(written))) <= {0, 1000, 51000}


@pytest.mark.parametrize("ignore", [(), (0,), (255, 70_000), (0, 5)])
def test_label_maps_are_refined_as_arrays_are(
    ignore: tuple[int, ...], data: tuple[Path, Path, Path], refiner: Refiner
) -> None:
    """Of 8 and 16 bit, and with a palette that has no colour for some."""
    images, labels, output = data
    coarse = np.where(disc(12), 5, 0).astype(np.uint8)
    coarse[:9, :9], coarse[-2:] = 9, 255
    colours = np.random.default_rng(0).integers(0, 256, (10, 3)).astype(np.uint8)
    write_labels(labels / "a.png", LabelMap(coarse, colours))
    save(labels / "b.png", coarse)
    save(labels / "sub" / "a.png", coarse.astype(np.uint16) * 257)
    summary = finished(semantic_job(images, labels, output, ignore=ignore), refiner, output)
    # Of one map, and with some labels ignored, one label is left.
    assert (summary.done + summary.left_out, summary.failed) == (4, 0)
    modes: dict[str, Any] = {"a": ("P", 1), "b": ("L", 1), "sub/a": ("I;16", 257)}
    for name, (mode, scale) in modes.items():
        expected = refine_labels(refiner, images / f"{name}.jpg", coarse.astype(np.uint16) * scale, ignore=ignore)
        with Image.open(output / f"{name}.png") as written:
            assert written.mode == mode
            np.testing.assert_array_equal(np.asarray(written), expected.labels)
            assert mode != "P" or written.getpalette("RGB")[:30] == colours.ravel().tolist()


def test_one_photo_has_one_label_map(data: tuple[Path, Path, Path]) -> None:
    images, labels, output = data
    save(labels / "a_1.png", np.zeros(SIZE, np.uint8))
    job = semantic_job(images, labels, output, pattern="{parent}/{stem}*.png")
    assert job.items and list(job.failures) == ["a.jpg"] and "2 label maps" in job.failures["a.jpg"]
