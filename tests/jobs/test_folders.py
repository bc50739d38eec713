"""Jobs over folders: who belongs to whom, where results go, and that one bad file fails alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.jobs.folders import SIZE, disc, finished, photos_and_masks, save
from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.errors import InputError
from segrefiner.imaging import listing
from segrefiner.imaging.files import pictures_below
from segrefiner.imaging.listing import list_pictures
from segrefiner.jobs.folders import Write, folder_job, semantic_job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.options import Options


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def test_the_refiner_of_these_tests_changes_masks(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, _ = data
    for name in ("a", "b", "sub/a", "sub/c"):
        assert 0 < refiner(images / f"{name}.jpg", masks / f"{name}.png").report.changed < 0.2


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path, Path]:
    return photos_and_masks(tmp_path)


def failures(output: Path) -> dict[str, str]:
    lines = (output / ".segrefiner" / "failures.jsonl").read_text().splitlines()
    return {row["item"]: row["error"] for row in map(json.loads, lines)}


def files(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if not path.parts[0].startswith("."))


def test_pictures_are_found_whatever_their_suffix_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "x/y/c.TiFf", ".d.png", ".e/f.png", "x/.g/h.png", "i.txt", "j", "k.png.bak"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert pictures_below(tmp_path).pictures == (Path("a.png"), Path("b.JPG"), Path("x/y/c.TiFf"))


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


def test_a_bad_photo_fails_alone(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    (images / "b.jpg").write_bytes((images / "b.jpg").read_bytes()[:200])
    (images / "sub" / "a.jpg").write_bytes(b"")
    for job in (folder_job(images, masks, output / "masks"), semantic_job(images, masks, output / "labels")):
        summary = finished(job, refiner, job.work.root)
        assert (summary.done, set(failures(job.work.root))) == (2, {"b.jpg", "sub/a.jpg"})
        assert files(job.work.root) == ["a.png", "sub/c.png"]


def test_an_empty_and_a_full_mask_come_back_and_are_left_out(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    save(masks / "a.png", disc(0))
    save(masks / "b.png", ~disc(0))
    summary = finished(folder_job(images, masks, output), refiner, output)
    assert (summary.done, summary.failed, summary.left_out) == (2, 0, 2)
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(output / name)), np.asarray(Image.open(masks / name)) * 255)


def test_masks_of_many_values_need_a_threshold(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    for path in masks.rglob("*.png"):
        save(path, (np.asarray(Image.open(path)) * 150 + np.arange(SIZE[1], dtype=np.uint8)).astype(np.uint8))
    assert finished(folder_job(images, masks, output), refiner, output).failed == 4
    summary = finished(folder_job(images, masks, output, threshold=128), refiner, output)
    assert (summary.done, summary.failed) == (4, 0)
    expected = refiner(images / "a.jpg", masks / "a.png", threshold=128).mask
    np.testing.assert_array_equal(np.asarray(Image.open(output / "a.png")) > 0, expected)


def test_options_reach_the_refiner(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    still = Options(strength=0)
    finished(folder_job(images, masks, output, options=still), refiner, output)
    for name in files(output):
        np.testing.assert_array_equal(np.asarray(Image.open(output / name)) > 0, np.asarray(Image.open(masks / name)))
    settings = [
        folder_job(images, masks, output, options=o).work.settings() for o in (still, Options(seed=1), Options())
    ]
    assert len({str(given) for given in settings}) == 3


def test_of_several_masks_one_bad_one_fails_alone(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    save(masks / "a_1.png", disc(8))
    (masks / "a_2.png").write_bytes(b"")
    job = folder_job(images, masks, output, pattern="{parent}/{stem}_*.png")
    summary = finished(job, refiner, output)
    assert summary.done == 1 and files(output) == ["a_1.png"]
    assert any("a_2.png" in name for name in failures(output))


def test_inputs_are_never_overwritten(data: tuple[Path, Path, Path]) -> None:
    images, masks, _ = data
    for output in (images, masks, masks / "sub" / ".."):
        for job in (folder_job, semantic_job):
            with pytest.raises(InputError, match="inputs"):
                job(images, masks, output)
    # Outputs that mirror folders of the inputs' names.
    save(masks / "masks" / "b.png", disc(3))
    for job in (folder_job, semantic_job):
        with pytest.raises(InputError, match="overwritten"):
            job(images, masks, masks.parent, pattern="masks/{stem}.png")


@pytest.mark.parametrize("within", ["images/refined", "masks/a_refined", "masks/sub/c_/refined"])
def test_what_an_earlier_run_wrote_is_no_input(
    within: str, data: tuple[Path, Path, Path], refiner: Refiner, tmp_path: Path
) -> None:
    images, masks, _ = data
    output = tmp_path / within
    for done, skipped in ((4, 0), (0, 4)):
        summary = finished(folder_job(images, masks, output, pattern="{parent}/{stem}*.png"), refiner, output)
        assert (summary.done, summary.skipped, summary.failed) == (done, skipped, 0)
    assert files(output) == ["a.png", "b.png", "sub/a.png", "sub/c.png"]


def test_results_may_lie_beside_the_inputs(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, output = data
    summary = finished(folder_job(images, masks, output.parent), refiner, output.parent)
    assert (summary.done, summary.failed) == (4, 0)
    assert (output.parent / "sub" / "a.png").exists()


def test_photos_and_masks_may_share_a_folder(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, _, output = data
    save(images / "a_mask.png", disc(9))
    save(images / "b_mask.png", disc(9))
    summary = finished(folder_job(images, images, output, pattern="{parent}/{stem}_mask.png"), refiner, output)
    assert summary.done == 2 and set(failures(output)) == {"sub/a.jpg", "sub/c.jpg"}
    assert files(output) == ["a_mask.png", "b_mask.png"]
    for name in ("a", "b"):
        (images / f"{name}_mask.png").rename(images / f"{name}.png")
    job = folder_job(images, images, output, pattern="{parent}/{stem}.png")
    assert [item.key for item in job.items] == ["a.jpg", "b.jpg"]
    assert set(job.failures) == {"sub/a.jpg", "sub/c.jpg"}


def strange_folders(root: Path, seed: int) -> tuple[Path, Path]:
    """Photos and masks with all that folders of users hold, drawn by a seed."""
    random = np.random.default_rng(seed)
    folders = root / "images", root / "masks"
    photo, mask = random.integers(0, 256, (*SIZE, 3)).astype(np.uint8), disc(9)
    makers: list[Callable[[Path], object]] = [
        lambda path: save(path.with_suffix(".jpg"), photo if "images" in path.parts else np.uint8(mask) * 255),
        lambda path: save(path.with_suffix(".png"), photo if "images" in path.parts else np.uint8(mask) * 255),
        lambda path: path.with_suffix(".jfif").write_bytes((root / "photo.jpg").read_bytes()),
        lambda path: path.with_suffix(".png").write_bytes(b"broken"),
        lambda path: path.with_suffix(".txt").write_text("text"),
        lambda path: path.with_name(f".{path.name}.png").write_text("hidden"),
        lambda path: path.with_suffix(".png").symlink_to(root / "nowhere"),
        lambda path: path.with_suffix(".jpg").symlink_to(path.with_suffix(".jpg").name),
        lambda path: os.mkfifo(path.with_suffix(".png")),
        lambda path: path.with_suffix(".png").symlink_to("/dev/zero"),
        lambda path: path.with_suffix(".jpg").symlink_to(root / "photo.jpg"),
        lambda path: path.symlink_to(path.parent, target_is_directory=True),
        lambda path: path.symlink_to(root / "more", target_is_directory=True),
        lambda path: None,
    ]
    save(root / "photo.jpg", photo)
    save(root / "more" / "z.png", np.uint8(mask) * 255)
    for folder in folders:
        save(folder / "always.png", photo if folder.name == "images" else np.uint8(mask) * 255)
        for name in ("a", "b", "sub/c", "sub/d", "sub/deep/e", "f"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Few photos and masks would belong together if all kinds were equally frequent.
            makers[int(random.integers(len(makers))) if random.random() < 0.6 else 0](path)
    return folders


def everything(folder: Path) -> set[str]:
    """All files, links and pipes as a walk that follows links finds them, but for what lies within a cycle."""
    found = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        place = Path(base)
        found |= {str(place / name) for name in names}
        for name in list(folders):
            inner = place / name
            if inner.resolve() in (place.resolve(), *place.resolve().parents):
                folders.remove(name)
                found.add(str(inner))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_everything_in_folders_is_done_failed_or_left_out(seed: int, refiner: Refiner, tmp_path: Path) -> None:
    images, masks = strange_folders(tmp_path, seed)
    output = tmp_path / "out"
    job = folder_job(images, masks, output)
    ledger = run(job, LocalEngine(refiner, workers=0), output / ".segrefiner", config="")
    failed, left_out = ({entry.name for entry in part} for part in (ledger.failures, ledger.omissions))
    keys = {item.key for item in job.items}
    done = keys - failed - left_out
    assert len(done) == ledger.done + ledger.skipped and ledger.not_tried == 0
    of_items = {str(path) for item in job.items for path in item.inputs}
    absent = {str(images / name) for name in failed - keys}
    assert of_items | absent | (left_out - keys) == everything(images) | everything(masks)
    assert not of_items & absent and not (of_items | absent) & left_out
    assert ledger.left_out == len(left_out) and ledger.failed == len(failed)


def test_links_to_folders_are_followed_and_end(tmp_path: Path) -> None:
    """Also where each folder has two links to the next, which no walk could follow one by one."""
    for index in range(40):
        (tmp_path / "chain" / str(index)).mkdir(parents=True)
        for name in ("x", "y"):
            (tmp_path / "chain" / str(index) / name).symlink_to(f"../{index + 1}")
    (tmp_path / "chain" / "40").mkdir()
    save(tmp_path / "chain" / "40" / "a.png", disc(3))
    found = list_pictures(tmp_path / "chain" / "0")
    assert found.pictures and any("other links lead to" in entry.reason for entry in found.left_out)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "again").symlink_to("../loop")
    (tmp_path / "loop" / "there").symlink_to("back")
    (tmp_path / "loop" / "back").symlink_to("there")
    reasons = {Path(entry.name).name: entry.reason for entry in list_pictures(tmp_path / "loop").left_out}
    assert reasons == {"again": listing.CYCLE, "there": listing.NOWHERE, "back": listing.NOWHERE}


def test_why_a_folder_holds_no_picture_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere")
    (tmp_path / "b.txt").touch()
    with pytest.raises(InputError, match=r"1: a link to nowhere; 1: no picture by its suffix"):
        pictures_below(tmp_path)
