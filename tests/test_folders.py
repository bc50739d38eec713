"""Jobs over folders: who belongs to whom, where results go, and that one bad file fails alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segrefiner import Refiner
from segrefiner.batch import Job, Summary, run
from segrefiner.batch_local import LocalEngine
from segrefiner.errors import InputError
from segrefiner.folders import Write, folder_job, pair, semantic_job
from segrefiner.unet import DenoisingUNet
from tiny import TINY

SIZE = (40, 48)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), steps=1)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Folders of photos, of masks, and for results."""
    for index, name in enumerate(("a", "b", "sub/a", "sub/c")):
        random = np.random.default_rng(index)
        save(tmp_path / "images" / f"{name}.jpg", random.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
        save(tmp_path / "masks" / f"{name}.png", disc(10 + index))
    return tmp_path / "images", tmp_path / "masks", tmp_path / "out"


def disc(radius: float) -> np.ndarray:
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    return (y - 20) ** 2 + (x - 24) ** 2 < radius**2


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def finished(job: Job, refiner: Refiner, output: Path) -> Summary:
    return run(job, LocalEngine(refiner, workers=0), output / ".segrefiner", config="")


def failures(output: Path) -> dict[str, str]:
    lines = (output / ".segrefiner" / "failures.jsonl").read_text().splitlines()
    return {row["item"]: row["error"] for row in map(json.loads, lines)}


def files(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if not path.parts[0].startswith("."))


def test_by_default_a_mask_has_its_photo_s_path_with_any_suffix() -> None:
    images = [Path("a.jpg"), Path("sub/a.jpg"), Path("b.jpg")]
    masks = [Path("a.png"), Path("sub/a.tif"), Path("sub/b.png")]
    assert pair(images, masks) == {images[0]: [masks[0]], images[1]: [masks[1]], images[2]: []}


def test_a_pattern_says_what_masks_are_called() -> None:
    images = [Path("x/a.jpg"), Path("x/b[1].jpg")]
    masks = [Path(name) for name in ("x/a_0.png", "x/a_1.png", "x/ab_0.png", "x/b[1]_7.png", "x/b1_7.png")]
    found = pair(images, masks, "{parent}/{stem}_*.png")
    assert found == {images[0]: masks[:2], images[1]: [masks[3]]}
    assert pair([Path("a.jpg")], [Path("a.jpg.png")], "{parent}/{name}.png") == {Path("a.jpg"): [Path("a.jpg.png")]}
    for bad in ("{what}.png", "{}", "{stem", "{0}"):
        with pytest.raises(InputError, match="pattern"):
            pair(images, masks, bad)


def test_results_mirror_the_masks(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    save(masks / ".hidden" / "a.png", disc(3))
    summary = finished(folder_job(images, masks, output), refiner, output)
    assert (summary.done, summary.failed) == (4, 0)
    assert files(output) == ["a.png", "b.png", "sub/a.png", "sub/c.png"]
    for name in files(output):
        expected = refiner(images / name.replace(".png", ".jpg"), masks / name).mask
        np.testing.assert_array_equal(np.asarray(Image.open(output / name)) > 0, expected)


@pytest.mark.parametrize(("write", "mode"), [("soft", "L"), ("soft16", "I;16"), ("cutout", "RGBA")])
def test_what_is_written_can_be_chosen(
    write: Write, mode: str, data: tuple[Path, Path, Path], refiner: Refiner
) -> None:
    if write == "cutout":
        pytest.importorskip("pymatting")
    images, masks, output = data
    finished(folder_job(images, masks, output, write=write), refiner, output)
    with Image.open(output / "a.png") as picture:
        assert picture.mode == mode
        values = np.asarray(picture)
    probability = refiner(images / "a.jpg", masks / "a.png").probability
    full = 65535 if write == "soft16" else 255
    given = values[..., 3] if write == "cutout" else values
    np.testing.assert_allclose(given / full, probability, atol=0.6 / full)


def test_a_photo_without_a_mask_and_a_bad_file_fail_alone(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    (masks / "b.png").unlink()
    (masks / "sub" / "a.png").write_text("no picture")
    save(masks / "sub" / "c.png", disc(9)[1:])
    summary = finished(folder_job(images, masks, output), refiner, output)
    assert (summary.done, summary.failed) == (1, 3)
    told = failures(output)
    assert "no mask" in told["b.jpg"] and "image file" in told["sub/a.jpg"] and "48x39" in told["sub/c.jpg"]
    assert files(output) == ["a.png"]


def test_of_several_masks_one_bad_one_fails_alone(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    save(masks / "a_1.png", disc(8))
    (masks / "a_2.png").write_bytes(b"")
    job = folder_job(images, masks, output, pattern="{parent}/{stem}_*.png")
    summary = finished(job, refiner, output)
    assert summary.done == 1 and files(output) == ["a_1.png"]
    assert any("a_2.png" in name for name in failures(output))


def test_results_in_one_place_are_refused(data: tuple[Path, Path, Path]) -> None:
    images, masks, output = data
    for other in ("a.tif", "A.png"):
        save(masks / other, disc(5))
        with pytest.raises(InputError, match="both be written"):
            folder_job(images, masks, output, pattern="{parent}/*.*")
        (masks / other).unlink()


def test_inputs_are_never_overwritten(data: tuple[Path, Path, Path]) -> None:
    images, masks, _ = data
    for output in (images, masks, masks / "sub" / ".."):
        with pytest.raises(InputError, match="inputs"):
            folder_job(images, masks, output)


def test_folders_that_have_nothing_in_common_are_refused(data: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, masks, output = data
    with pytest.raises(InputError, match="pattern"):
        folder_job(images, masks, output, pattern="{stem}_mask.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture"):
        folder_job(images, tmp_path / "empty", output)
    with pytest.raises(InputError, match="no folder"):
        folder_job(tmp_path / "absent", masks, output)


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


def test_one_photo_has_one_label_map(data: tuple[Path, Path, Path]) -> None:
    images, labels, output = data
    save(labels / "a_1.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(InputError, match="label maps"):
        semantic_job(images, labels, output, pattern="{parent}/{stem}*.png")
