"""Jobs over folders: who belongs to whom, where results go, and that one bad file fails alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.errors import InputError
from segrefiner.imaging import listing
from segrefiner.imaging.files import pictures_below
from segrefiner.imaging.label_files import LabelMap, write_labels
from segrefiner.imaging.listing import list_pictures
from segrefiner.jobs.folders import Write, folder_job, semantic_job
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.pairing import pair
from segrefiner.jobs.run import run
from segrefiner.ledger import RunSummary
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import refine_labels
from segrefiner.refinement.options import Options

SIZE = (40, 48)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def test_the_refiner_of_these_tests_changes_masks(data: tuple[Path, Path, Path], refiner: Refiner) -> None:
    images, masks, _ = data
    for name in ("a", "b", "sub/a", "sub/c"):
        assert 0 < refiner(images / f"{name}.jpg", masks / f"{name}.png").report.changed < 0.2


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


def finished(job: Job, refiner: Refiner, output: Path) -> RunSummary:
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


@pytest.mark.parametrize(
    "pattern", ["{what}.png", "{}", "{stem", "stem}", "{0}", "{stem.x}", "{stem[0]}", "{stem!x}", "{stem:9z}"]
)
def test_other_words_in_braces_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="pattern"):
        pair([Path("a.jpg")], [Path("a.png")], pattern)


@pytest.mark.parametrize(
    "pattern", ["{stem:-}", "{stem:_a}", "{stem:--{name}}", "{parent:>9}", "{stem!r:-_a}", "{stem:-{}}"]
)
def test_endings_that_are_none_are_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"pattern .* expected .* or \{stem:-_suffix\}"):
        pair([Path("a_a.jpg")], [Path("a.png")], pattern)


@pytest.mark.parametrize(
    ("image", "pattern", "mask"),
    [
        ("ulm/x_leftImg8bit.png", "{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png", "ulm/x_gtFine_labelIds.png"),
        ("x_leftIMG8bit.png", "{stem:-_leftImg8bit}_gtFine_labelIds.png", "x_gtFine_labelIds.png"),
        ("x.rgb.png", "{name:-.rgb.png}.ids.png", "x.ids.png"),
        ("val_rgb/x.jpg", "{parent:-_rgb}_ids/{stem}.png", "val_ids/x.png"),
        ("a[1]_[x].jpg", "{stem:-_[x]}_[y].png", "a[1]_[y].png"),
        ("a_b_b.jpg", "{stem:-_b}_*.png", "a_b_m.png"),
        ("caf\u00e9_\u00e9.jpg", "{stem:-_\u00e9}.png", "caf\u00e9.png"),
    ],
)
def test_patterns_take_endings_off(image: str, pattern: str, mask: str) -> None:
    assert pair([Path(image)], [Path(mask), Path("other.png")], pattern) == {Path(image): [Path(mask)]}


def test_photos_without_the_ending_have_no_mask(tmp_path: Path) -> None:
    for name in ("ulm/a_leftImg8bit", "ulm/b"):
        save(tmp_path / "images" / f"{name}.png", np.zeros((*SIZE, 3), np.uint8))
    save(tmp_path / "masks" / "ulm" / "a_gtFine_labelIds.png", disc(9))
    folders = tmp_path / "images", tmp_path / "masks", tmp_path / "out"
    for job in (folder_job, semantic_job):
        made = job(*folders, pattern="{parent}/{stem:-_leftImg8bit}_gtFine_labelIds.png")
        assert [item.key for item in made.items] == ["ulm/a_leftImg8bit.png"]
        assert "ulm/b.png" in made.failures and "does not end in _leftImg8bit" in made.failures["ulm/b.png"]
        with pytest.raises(InputError, match=r"a_leftImg8bit.png and ulm/a_gtFine_labelIds.png .* give --pair"):
            job(*folders)
        with pytest.raises(InputError, match=r"patterns begin with \{parent\}/"):
            job(*folders, pattern="{stem:-_leftImg8bit}_gtFine_labelIds.png")
        with pytest.raises(InputError, match=r"does not end in _x; is the pattern right\?"):
            job(*folders, pattern="{stem:-_x}_gtFine_labelIds.png")


STRANGE = ["b[1]", "[ab]", "a*", "a?", "[", "]", "[]", "[!a]", "b[[]", "{stem}", "{", "a.b", "ä ö", "a\n", "a\\b"]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize(
    ("pattern", "own"),
    [
        ("{parent}/{stem}.png", "x/{0}/{0}.png"),
        ("{parent}/{stem}_?.png", "x/{0}/{0}_7.png"),
        ("{parent}/{stem}_*", "x/{0}/{0}_7.png"),
        ("*/{name}.png", "y/{0}.jpg.png"),
        ("./masks//{name}.png", "masks/{0}.jpg.png"),
    ],
)
def test_names_match_themselves_alone(name: str, pattern: str, own: str) -> None:
    """Also those that hold what has a meaning in a pattern, in files as in folders."""
    image, mask = Path(f"x/{name}/{name}.jpg"), Path(own.format(name))
    others = [Path(own.format(other)) for other in ("a", "b", "b1", "ab", "ax", "1", *STRANGE) if other != name]
    assert pair([image], [*others, mask], pattern) == {image: [mask]}


def test_a_bracket_in_a_pattern_is_itself() -> None:
    masks = [Path("a[mask].png"), Path("am.png"), Path("aa.png")]
    assert pair([Path("a.jpg")], masks, "{stem}[mask].png") == {Path("a.jpg"): masks[:1]}
    assert pair([Path("a.jpg")], masks, "{stem}[*") == {Path("a.jpg"): masks[:1]}


def test_many_photos_are_paired_at_once() -> None:
    images = [Path(f"{index % 7}/{index}.jpg") for index in range(3000)]
    masks = [Path(f"{index % 7}/{index}_{part}.png") for index in range(3000) for part in range(3)]
    found = pair(images, masks, "{parent}/{stem}_*.png")
    assert found == {image: masks[3 * index : 3 * index + 3] for index, image in enumerate(images)}


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


def test_results_in_one_place_are_refused(data: tuple[Path, Path, Path]) -> None:
    images, masks, output = data
    for other in ("a.tif", "A.png", "Sub/a.png"):
        save(masks / other, disc(5))
        for job in (folder_job, semantic_job):
            with pytest.raises(InputError, match=r"both be written|label maps|another photo"):
                job(images, masks, output, pattern="*/*.*" if "/" in other else "{parent}/*.*")
        (masks / other).unlink()


@pytest.mark.parametrize("kind", [folder_job, semantic_job])
@pytest.mark.parametrize("place", ["photos", "masks"])
def test_photos_whose_masks_are_not_clear_fail_alone(place: str, kind: Any, data: tuple[Path, Path, Path]) -> None:
    images, masks, output = data
    clear = kind(images, masks, output).items
    save((images if place == "photos" else masks) / "a.tif", disc(5))
    job = kind(images, masks, output)
    unclear = {"photos": {"a.jpg", "a.tif"}, "masks": {"a.jpg"}}[place]
    assert set(job.failures) == unclear and [item.key for item in job.items] == [
        item.key for item in clear if item.key not in unclear
    ]
    for why in job.failures.values():
        assert "another photo" in why if place == "photos" else "a.tif" in why
    assert set(job.left_out) == {str(masks / name) for name in ("a.png", "a.tif") if (masks / name).exists()}


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


def test_folders_that_have_nothing_in_common_are_refused(data: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, masks, output = data
    with pytest.raises(InputError, match="pattern"):
        folder_job(images, masks, output, pattern="{stem}_mask.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture"):
        folder_job(images, tmp_path / "empty", output)
    with pytest.raises(InputError, match="no folder"):
        folder_job(tmp_path / "absent", masks, output)


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


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("A.jpg", "a.png", "A.jpg a.png"),
        ("a.JPG", "a.Png", "a.JPG a.Png"),
        ("Sub/a.jpg", "sub/A.PNG", "Sub/a.jpg sub/A.PNG"),
        ("caf\u00e9.jpg", "cafe\u0301.png", "caf\u00e9.jpg cafe\u0301.png"),
        ("CAFE\u0301.jpg", "caf\u00e9.png", "CAFE\u0301.jpg caf\u00e9.png"),
        ("a.jpg A.jpg", "a.png", "a.jpg a.png"),
        ("a.jpg A.jpg", "a.png A.png", "a.jpg a.png A.jpg A.png"),
        ("Ab.jpg aB.jpg", "ab.png", ""),
        ("ab.jpg", "Ab.png aB.png", ""),
        ("ab.jpg", "Ab.png ab.png", "ab.jpg ab.png"),
        ("a.jpg", "b.png", ""),
    ],
)
@pytest.mark.parametrize("pattern", [None, "{parent}/{stem}.png"])
def test_names_are_matched_where_one_alone_is_meant(
    images: str, masks: str, expected: str, pattern: str | None
) -> None:
    if pattern and expected == "" and "Ab.png" in masks:
        pytest.skip("a pattern may stand for several masks")
    found = pair([Path(name) for name in images.split()], [Path(name) for name in masks.split()], pattern)
    told = [str(path) for image, several in found.items() for path in (image, *several) if several]
    assert " ".join(told) == expected


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
