"""Label maps as data sets store them: what is no class stays, and files come back in the form that they had."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import TINY, restless
from segrefiner import InputError, Refiner
from segrefiner.imaging.label_files import read_ids, write_ids
from segrefiner.jobs.folders import semantic_job
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.model.unet import DenoisingUNet

SIZE = (40, 48)
CITYSCAPES = "{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png"


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def disc(radius: float) -> np.ndarray:
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    return (y - 20) ** 2 + (x - 24) ** 2 < radius**2


def scene(thing: int, ground: int, void: int, dtype: Any = np.uint8) -> np.ndarray:
    """A thing on a ground, with void around it, as in Pascal VOC, and in a corner."""
    labels = np.full(SIZE, ground, dtype)
    labels[disc(14)] = void
    labels[disc(10)] = thing
    labels[:3, :6] = void
    labels[30:, :12] = thing
    return labels


def pascal_palette() -> np.ndarray:
    """Colours of 256 labels: the bits of a label, lowest first, are the highest bits of red, green and blue."""
    palette = np.zeros((256, 3), np.uint8)
    for label in range(256):
        for bit in range(8):
            palette[label, bit % 3] |= ((label >> bit) & 1) << (7 - bit // 3)
    return palette


def store(path: Path, picture: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def photo(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    store(path, Image.fromarray(pixels))


def paletted(labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    picture = Image.fromarray(labels)
    picture.putpalette(palette.tobytes())
    return picture


def chunk(path: Path, kind: bytes) -> bytes:
    """The content of a chunk of a PNG, and nothing where there is none."""
    data = path.read_bytes()
    place = data.find(kind)
    return b"" if place < 0 else data[place + 4 : place + 4 + int.from_bytes(data[place - 4 : place], "big")]


def refined(job: Job, refiner: Refiner, output: Path) -> dict[str, np.ndarray]:
    run(job, LocalEngine(refiner, 0), output / ".segrefiner", config="test")
    paths = sorted(output.rglob("*.png"))
    return {path.relative_to(output).as_posix(): np.asarray(Image.open(path)) for path in paths}


@pytest.mark.parametrize(
    ("name", "form", "void", "said"),
    [
        ("2007_000033", "pascal", 255, "palette of Pascal VOC: 255"),
        ("ADE_val_00000001", "grey", 0, "ADE20K's scene parsing: 0, 255"),
        ("x_gtFine_labelTrainIds", "grey", 255, "labelTrainIds: 255"),
        ("x_gtFine_labelIds", "grey", 1, "labelIds: 0, 1, 2, 3, 255"),
        ("x_gtFine_instanceIds", "wide", 3, "instanceIds: 0, 1, 2, 3"),
        ("_1Gn_xkw7sa_i9GU4mkxxQ", "mapillary", 65, "Mapillary Vistas: 65"),
        ("other", "grey", 255, ""),
    ],
)
def test_conventions(name: str, form: str, void: int, said: str, refiner: Refiner, tmp_path: Path) -> None:
    images, labels, output = (tmp_path / part for part in ("images", "labels", "out"))
    coarse = scene(26001 if form == "wide" else 12, 11, void, np.uint16 if form == "wide" else np.uint8)
    mapillary = np.random.default_rng(1).integers(1, 255, (66, 3)).astype(np.uint8)
    mapillary[:2], mapillary[65] = ((165, 42, 42), (0, 192, 0)), 0
    pictures = {
        "pascal": lambda: paletted(coarse, pascal_palette()),
        "mapillary": lambda: paletted(coarse, mapillary),
    }
    stored = store(labels / f"{name}.png", pictures.get(form, lambda: Image.fromarray(coarse))())
    photo(images / f"{name}.jpg")
    job = semantic_job(images, labels, output)
    assert [said in note and "--ignore" in note for note in job.notes] == ([True] if said else [])
    after = refined(job, refiner, output)[f"{name}.png"]
    assert after.dtype == coarse.dtype and (after != coarse).any()
    np.testing.assert_array_equal(after == void, coarse == void)
    assert set(np.unique(after)) <= set(np.unique(coarse))
    for kind in (b"PLTE", b"tRNS"):
        assert chunk(output / f"{name}.png", kind) == chunk(stored, kind)
    # The user's word counts.
    chosen = semantic_job(images, labels, tmp_path / "chosen", ignore=[77])
    assert chosen.notes == () and chosen.work.settings()["ignore"] == [77]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_files_come_back_in_the_mode_that_they_had(mode: str, refiner: Refiner, tmp_path: Path) -> None:
    coarse = disc(10).astype(np.uint16 if mode == "I;16" else np.uint8)
    if mode == "P":
        picture = paletted(coarse, pascal_palette()[:2])
    else:
        picture = Image.fromarray(coarse * 255 if mode == "1" else coarse)
        picture = picture if mode == "I;16" else picture.convert(mode)
    stored = store(tmp_path / "labels" / "a.png", picture)
    photo(tmp_path / "images" / "a.png")
    refined(semantic_job(tmp_path / "images", tmp_path / "labels", tmp_path / "out"), refiner, tmp_path / "out")
    with Image.open(stored) as before, Image.open(tmp_path / "out" / "a.png") as after:
        assert after.mode == before.mode == mode
        assert not np.array_equal(np.asarray(before), np.asarray(after))
        assert np.array_equal(np.unique(np.asarray(before)), np.unique(np.asarray(after)))
    # Width, height, bits and kind of colour.
    assert chunk(stored, b"IHDR") == chunk(tmp_path / "out" / "a.png", b"IHDR")


def test_cityscapes_as_it_is_unpacked(refiner: Refiner, tmp_path: Path) -> None:
    images, labels, output = tmp_path / "leftImg8bit", tmp_path / "gtFine", tmp_path / "out"
    for city in ("val/ulm", "val/bonn"):
        photo(images / city / "a_000_leftImg8bit.png")
        store(labels / city / "a_000_gtFine_labelIds.png", Image.fromarray(scene(26, 7, 0)))
        store(labels / city / "a_000_gtFine_instanceIds.png", Image.fromarray(scene(26001, 7, 0, np.uint16)))
        store(labels / city / "a_000_gtFine_color.png", Image.new("RGBA", SIZE[::-1], (128, 64, 128, 255)))
    job = semantic_job(images, labels, output, pattern=CITYSCAPES)
    assert len(job.items) == 2 and not job.failures and len(job.left_out) == 4
    found = refined(job, refiner, output)
    assert list(found) == [f"val/{city}/a_000_gtFine_labelIds.png" for city in ("bonn", "ulm")]
    colours = semantic_job(images, labels, tmp_path / "c", pattern=CITYSCAPES.replace("labelIds", "color"))
    ledger = run(colours, LocalEngine(refiner, 0), tmp_path / "c" / ".segrefiner", config="test")
    assert ledger.failed == 2 and "give the file with their numbers" in ledger.failures[0].reason


def test_segments_of_full_ade20k(refiner: Refiner, tmp_path: Path) -> None:
    # Ten times the class's hundreds and its rest in red and green, the number of the instance in blue.
    red, green, blue = (scene(*values, 0, np.int32) for values in ((10, 30), (40, 90), (7, 1)))
    ids = red + 256 * green + 65536 * blue
    photo(tmp_path / "images" / "ADE_train_00000001.jpg")
    (tmp_path / "labels").mkdir()
    write_ids(tmp_path / "labels" / "ADE_train_00000001_seg.png", ids)
    folders = tmp_path / "images", tmp_path / "labels", tmp_path / "out"
    job = semantic_job(*folders, pattern="{parent}/{stem}_seg.png")
    assert "full ADE20K's segments: 0 (unlabelled)" in job.notes[0]
    refined(job, refiner, tmp_path / "out")
    after = read_ids(tmp_path / "out" / "ADE_train_00000001_seg.png")
    assert (after != ids).any() and set(np.unique(after)) == set(np.unique(ids))
    np.testing.assert_array_equal(after == 0, ids == 0)


def test_a_convention_needs_all_names(tmp_path: Path) -> None:
    for name in ("ADE_val_00000001", "b"):
        photo(tmp_path / "images" / f"{name}.jpg")
        store(tmp_path / "labels" / f"{name}.png", Image.fromarray(scene(1, 2, 0)))
    job = semantic_job(tmp_path / "images", tmp_path / "labels", tmp_path / "out")
    assert job.notes == () and job.work.settings()["ignore"] == [255]
    (tmp_path / "labels" / "ADE_val_00000001.png").write_bytes(b"damaged")
    assert semantic_job(tmp_path / "images", tmp_path / "labels", tmp_path / "out").notes == ()
    with pytest.raises(InputError):
        semantic_job(tmp_path / "images", tmp_path / "labels", tmp_path / "labels")
