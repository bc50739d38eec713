"""The law of ledgers: every input of a job is done, failed, or left out with the reason, and all of it is told."""

import json
import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.cli.main import main
from segrefiner.errors import InputError
from segrefiner.imaging.coco_masks import encode_rle
from segrefiner.imaging.files import pictures_below
from segrefiner.imaging.listing import CYCLE, HIDDEN, NO_FILE, NO_PICTURE, NOWHERE, Names, list_pictures
from segrefiner.jobs.coco import coco_job
from segrefiner.jobs.folders import folder_job, semantic_job
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.ledger import Ledger
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save

SIZE = (24, 32)
QUICK = settings(max_examples=25)
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes and links")


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def mask(radius: float = 8) -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return (rows - 12) ** 2 + (columns - 16) ** 2 < radius**2


def picture(path: Path, array: np.ndarray) -> None:
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG"}.get(path.suffix.lower(), "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, kind)


def photo(path: Path) -> None:
    picture(path, np.random.default_rng(len(path.name)).integers(0, 256, (*SIZE, 3)).astype(np.uint8))


def make(path: Path, kind: str, array: np.ndarray) -> None:
    """One of the things that lie in folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "picture":
        picture(path, array)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "nowhere":
        path.symlink_to("nowhere")
    elif kind == "itself":
        path.symlink_to(path.name)
    elif kind == "link":
        elsewhere = path.parents[2] / f"elsewhere {path.name}"
        picture(elsewhere, array)
        path.symlink_to(elsewhere)
    elif kind == "circle":
        path.symlink_to(path.parent, target_is_directory=True)


KINDS = ("picture", "picture", "picture", "empty", "text", "pipe", "nowhere", "itself", "link", "circle")
NAMES = st.sampled_from(["a", "A", "b", COMPOSED, DECOMPOSED, ".hidden", "c d"])
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".jfif", ".txt", "", ".heic"])
FOLDERS = st.sampled_from(["", "sub", "sub/deep", ".away"])
THINGS = st.dictionaries(st.tuples(FOLDERS, NAMES, SUFFIXES), st.sampled_from(KINDS), min_size=1, max_size=9)


def entries(folder: Path) -> set[str]:
    """Everything in a folder but plain folders; of a hidden folder its name alone, and links to folders as they are."""
    found = set()
    for place, folders, files in os.walk(folder):
        hidden = [name for name in folders if name.startswith(".")]
        links = [name for name in folders if Path(place, name).is_symlink()]
        found |= {str(Path(place, name)) for name in [*files, *hidden, *links]}
        folders[:] = [name for name in folders if name not in hidden]
    return found


@QUICK
@given(THINGS, THINGS)
def test_every_entry_of_two_folders_has_one_fate(
    tmp_path_factory: pytest.TempPathFactory, images: dict[Any, str], masks: dict[Any, str]
) -> None:
    root = tmp_path_factory.mktemp("folders")
    for kind, things in (("images", images), ("masks", masks)):
        array = mask() if kind == "masks" else np.random.default_rng(1).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        for (folder, name, suffix), what in things.items():
            make(root / kind / folder / f"{name}{suffix}", what, array)
    (root / "images" / "sure.png").parent.mkdir(exist_ok=True)
    photo(root / "images" / "sure.png")
    picture(root / "masks" / "sure.png", mask())
    job = folder_job(root / "images", root / "masks", root / "out")
    fates = Counter(str(path) for item in job.items for path in item.inputs)
    fates.update(str(root / "images" / name) for name in job.failures)
    fates.update(job.left_out.keys())
    assert set(fates) == entries(root / "images") | entries(root / "masks")
    assert set(fates.values()) == {1}
    assert all(job.left_out.values())
    refiner = Refiner(DenoisingUNet(TINY), pipeline=restless)
    summary = run(job, LocalEngine(refiner, 0), root / "out" / ".segrefiner", config="")
    assert summary.done + summary.failed + summary.left_out == len(job.items) + len(job.failures) + len(job.left_out)
    assert summary.left_out == len(job.left_out) and (summary.total, summary.not_tried) == (len(job.items), 0)


def test_each_kind_of_entry_has_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    things = {"a.png": "picture", "b.jfif": "link", "c.png": "pipe", "d.png": "nowhere", "e.png": "itself"}
    things |= {"f.txt": "text", "g": "picture", ".h.png": "picture", "sub/up.png": "circle", "i.heic": "text"}
    for name, kind in things.items():
        make(folder / name, kind, mask())
    (folder / "empty").mkdir()
    listing = list_pictures(folder)
    assert listing.pictures == (Path("a.png"), Path("b.jfif"))
    assert {one.name.removeprefix(f"{folder}/"): one.reason for one in listing.left_out} == {
        ".h.png": HIDDEN, "c.png": NO_FILE, "d.png": NOWHERE, "e.png": NOWHERE, "f.txt": NO_PICTURE, "g": NO_PICTURE,
        "i.heic": NO_PICTURE, "sub/up.png": CYCLE,
    }  # fmt: skip


def test_linked_folders_are_entered_and_circles_end(tmp_path: Path) -> None:
    """Also where eight folders each have links to all the others, which have 100,000 paths."""
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    photo(elsewhere / "deep" / "a.png")
    folder.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (elsewhere / "own").symlink_to(elsewhere)
    listing = list_pictures(folder)
    assert listing.pictures == (Path("linked/deep/a.png"),)
    assert [one.reason for one in listing.left_out] == [CYCLE, CYCLE]
    for first in range(8):
        photo(tmp_path / "net" / str(first) / "a.png")
        for second in range(8):
            (tmp_path / "net" / str(first) / f"to{second}").symlink_to(tmp_path / "net" / str(second))
    found = list_pictures(tmp_path / "net")
    assert {Path(f"{index}/a.png") for index in range(8)} <= set(found.pictures) and len(found.pictures) < 500


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    make(tmp_path / "folder" / "a.heic", "text", mask())
    with pytest.raises(InputError, match=r"no picture.*left out: 1: no picture by its suffix"):
        pictures_below(tmp_path / "folder")


def test_masks_are_found_under_other_spellings_where_these_can_mean_one_alone(tmp_path: Path) -> None:
    def paired(photos: list[str], masks: list[str], pattern: str | None = None) -> dict[str, list[str]]:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in photos:
            photo(root / "images" / name)
        for name in masks:
            picture(root / "masks" / name, mask())
        photo(root / "images" / "sure.png")
        picture(root / "masks" / "sure.png" if pattern is None else root / "masks" / "sure_1.png", mask())
        job = folder_job(root / "images", root / "masks", root / "out", pattern=pattern)
        assert len(job.failures) + len(job.items) == len(photos) + 1
        of_items = {item.key: sorted(os.path.relpath(p, root / "masks") for p in item.inputs[1:]) for item in job.items}
        assert sum(map(len, of_items.values())) + len(job.left_out) == len(masks) + 1
        return {name: of_items.get(name, []) for name in photos}

    assert paired([f"{COMPOSED}.jpg"], [f"{DECOMPOSED}.png"]) == {f"{COMPOSED}.jpg": [f"{DECOMPOSED}.png"]}
    assert paired(["Sub/A.JPG"], ["sub/a.PNG"]) == {"Sub/A.JPG": ["sub/a.PNG"]}
    assert paired(["sub/a.jpg"], ["sub\\a.png"]) == {"sub/a.jpg": ["sub\\a.png"]}
    assert paired(["B.jpg"], ["b_0.png", "b_1.png"], "{stem}_*") == {"B.jpg": ["b_0.png", "b_1.png"]}
    # The nearer spelling comes first.
    both = paired(["a.jpg", "A.jpg"], ["A.png"])
    assert both == {"a.jpg": [], "A.jpg": ["A.png"]}
    assert paired([f"{COMPOSED}.jpg"], [f"{DECOMPOSED}.png", "CAFÉ.png"])[f"{COMPOSED}.jpg"] == [f"{DECOMPOSED}.png"]
    # Either may be meant.
    assert paired(["a.jpg", "A.jpg"], ["ä.png"]) == {"a.jpg": [], "A.jpg": []}
    assert paired(["bB.jpg", "Bb.jpg"], ["bb.png"]) == {"bB.jpg": [], "Bb.jpg": []}
    assert paired(["bb.jpg"], ["bB.png", "Bb.png"]) == {"bb.jpg": []}


def test_a_name_that_may_mean_several_is_refused(tmp_path: Path) -> None:
    for name in ("a/B.png", "a/b.png", "c.png", f"{COMPOSED}.png"):
        photo(tmp_path / name)
    names = Names(tmp_path)
    for wanted in ("a/b.png", "a/B.png"):
        assert names.find(wanted) == names.find(wanted.replace("/", "\\")) == wanted
    assert names.find("C.PNG") == "c.png" and names.find(f"{DECOMPOSED}.png") == f"{COMPOSED}.png"
    assert names.find("d.png") == "d.png"
    with pytest.raises(InputError, match="may be any of"):
        names.find("A/bB.PNG".replace("bB", "B"))


def test_two_photos_of_one_mask_are_both_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        photo(tmp_path / "images" / name)
    picture(tmp_path / "masks" / "a.png", mask())
    with pytest.raises(InputError, match=r"a\.jpg: a\.png is the mask of this and of another photo, a\.png"):
        folder_job(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    photo(tmp_path / "images" / "b.jpg")
    picture(tmp_path / "masks" / "b.png", mask())
    job = folder_job(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert [item.key for item in job.items] == ["b.jpg"] and set(job.failures) == {"a.jpg", "a.png"}


@pytest.mark.parametrize(("images", "masks"), [("data", "data/masks"), ("data/images", "data")])
def test_of_two_folders_one_within_the_other_each_holds_its_own(tmp_path: Path, images: str, masks: str) -> None:
    photo(tmp_path / images / "a.jpg")
    picture(tmp_path / masks / "a.png", mask())
    job = folder_job(tmp_path / images, tmp_path / masks, tmp_path / "out")
    assert [item.key for item in job.items] == ["a.jpg"] and not job.failures and not job.left_out


def finished(job: Job, refiner: Refiner, state: Path) -> Ledger:
    return run(job, LocalEngine(refiner, 0), state, config="")


@pytest.mark.parametrize(
    ("values", "ignore", "said"),
    [
        ((0, 255), (255,), "label 0 is alone beside"),
        ((255, 7), (255,), "label 7 is alone beside"),
        ((3, 3), (255,), "3"),
        ((255, 255), (255,), "all its labels are ignored"),
        ((4, 5), (4, 5), "all its labels are ignored"),
        ((0, 5), (255,), ""),
        ((0, 255), (), ""),
    ],
)
def test_a_label_map_without_a_contour_is_left_out_and_comes_back(
    values: tuple[int, int], ignore: tuple[int, ...], said: str, tmp_path: Path, refiner: Refiner
) -> None:
    labels = np.where(mask(), values[1], values[0]).astype(np.uint8)
    photo(tmp_path / "images" / "a.jpg")
    picture(tmp_path / "labels" / "a.png", labels)
    job = semantic_job(tmp_path / "images", tmp_path / "labels", tmp_path / "out", ignore=ignore)
    for _ in range(2):
        summary = finished(job, refiner, tmp_path / "state")
        assert (summary.done + summary.skipped, summary.left_out) == ((0, 1) if said else (1, 0))
        assert said in "".join(summary.reasons) and ("--ignore none" in str(summary.reasons)) == ("beside" in said)
    assert (np.asarray(Image.open(tmp_path / "out" / "a.png")) != labels).any() == (not said)


# COCO files.


def coco(root: Path, *rows: dict[str, Any], images: list[dict[str, Any]] | None = None) -> Path:
    for name in ("a.jpg", "sub/b.jpg"):
        photo(root / "images" / name)
    listed = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "sub/b.jpg"}] if images is None else images
    annotations = [{"image_id": 1, "segmentation": encode_rle(mask()), **row} for row in rows]
    (root / "in.json").write_text(json.dumps({"images": listed, "annotations": annotations}))
    return root / "in.json"


def test_crowds_are_told_and_refined_where_they_are_asked_for(tmp_path: Path, refiner: Refiner) -> None:
    crowd = {"iscrowd": 1, "segmentation": encode_rle(mask(6), compressed=False)}
    source, target = coco(tmp_path, {}, crowd, {"image_id": 2, **crowd}), tmp_path / "out.json"
    summary = finished(coco_job(source, tmp_path / "images", target), refiner, tmp_path / "state")
    names = ["annotation 1", "annotation 2"]
    assert (summary.done, [one.name for one in summary.omissions]) == (1, names)
    assert all("--crowds refine" in one.reason for one in summary.omissions)
    before, after = (json.loads(path.read_text())["annotations"] for path in (source, target))
    assert after[0] != before[0] and after[1:] == before[1:]
    job = coco_job(source, tmp_path / "images", target, crowds="refine")
    summary = finished(job, refiner, tmp_path / "state")
    assert (summary.done, summary.left_out) == (2, 0)
    after = json.loads(target.read_text())["annotations"]
    assert all(a["segmentation"] != b["segmentation"] for a, b in zip(after, before, strict=True))
    assert [row.get("iscrowd") for row in after] == [None, 1, 1]


def test_a_file_of_crowds_alone_stops_with_the_option_s_name(tmp_path: Path) -> None:
    source = coco(tmp_path, {"iscrowd": 1}, {"iscrowd": 1, "image_id": 2})
    with pytest.raises(InputError, match=r"all 2 masks are crowds.*--crowds refine"):
        coco_job(source, tmp_path / "images", tmp_path / "out.json")
    assert len(coco_job(source, tmp_path / "images", tmp_path / "out.json", crowds="refine").items) == 2


ROWS = st.sampled_from(
    [
        {},
        {"image_id": 2},
        {"image_id": 3},
        {"image_id": None},
        {"image_id": "1"},
        {"image_id": True},
        {"iscrowd": 1},
        {"segmentation": []},
        {"segmentation": None},
        {"segmentation": [[1, 1, 2]]},
        {"segmentation": [[1, 1, 20, 1, 20, 20], [1, 2]]},
        {"segmentation": [[5, 5, 5, 5, 5, 5]]},
        {"segmentation": {"size": list(SIZE), "counts": "zz"}},
        {"segmentation": encode_rle(mask(0))},
        {"segmentation": encode_rle(~mask(0))},
        {"segmentation": [[float("nan")] * 6]},
        {"segmentation": [[1e999] * 6]},
        {"score": float("nan")},
    ]
)
IMAGES = st.sampled_from(
    [
        [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "sub\\b.jpg"}],
        [{"id": 1, "file_name": "A.JPG"}, {"id": 2, "file_name": "../a.jpg"}, {"id": 4, "file_name": "c.jpg"}],
        [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "/a.jpg"}],
        [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "sub/b.jpg"}, {"id": 2, "file_name": "gone.jpg"}],
        [{"id": 1, "file_name": "pipe.jpg"}, {"id": 2, "file_name": "sub/b.jpg"}, {"id": 5}, 7, None],
    ]
)


@QUICK
@given(st.lists(ROWS, max_size=7), IMAGES)
def test_every_annotation_has_one_fate_and_what_is_written_is_json(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], images: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("coco")
    source = coco(root, *rows, images=images)
    os.mkfifo(root / "images" / "pipe.jpg")
    refiner = Refiner(DenoisingUNet(TINY), pipeline=restless)
    try:
        job = coco_job(source, root / "images", root / "out.json")
    except InputError as error:
        assert "--crowds refine" in str(error) and all(
            row.get("iscrowd") or row.get("image_id", 1) in (None, True) for row in rows
        )
        return
    summary = finished(job, refiner, root / "state")
    text = json.dumps(summary.document())
    written = strictly((root / "out.json").read_text())["annotations"]
    told = [one.name for one in (*summary.failures, *summary.omissions)] + list(summary.remarks)
    images_failed = {one.name.removeprefix("image ") for one in summary.failures}
    for index, row in enumerate(written):
        named = any(name.startswith(f"annotation {index}") for name in told)
        changed = strictly(json.dumps(row["segmentation"])) != rows[index].get("segmentation", encode_rle(mask()))
        lost = "nan" in str(rows[index]).lower() or "inf" in str(rows[index]).lower()
        assert named or changed or lost or str(row["image_id"]) in images_failed, (index, text)
    assert rows or "it lists no mask" in summary.reasons
    # A second run says the same.
    again = finished(job, refiner, root / "state")
    assert sorted(map(str, again.failures)) == sorted(map(str, summary.failures)) and again.done == 0
    assert sorted(map(str, again.omissions)) == sorted(map(str, summary.omissions))


def strictly(text: str) -> Any:
    """The document of a text that is JSON by the standard."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_has_not_become_null_and_are_told(number: str, tmp_path: Path, refiner: Refiner) -> None:
    source = coco(tmp_path, {"score": 8.25, "extra": [{"deep": 8.25}]}, {"score": 0.5})
    source.write_text(source.read_text().replace("8.25", number))
    summary = finished(coco_job(source, tmp_path / "images", tmp_path / "out.json"), refiner, tmp_path / "state")
    written = strictly((tmp_path / "out.json").read_text())["annotations"]
    assert written[0]["score"] is None and written[0]["extra"] == [{"deep": None}] and written[1]["score"] == 0.5
    assert summary.done == 1 and [note.split(" holds")[0] for note in summary.remarks] == ["annotation 0"]


@pytest.mark.parametrize(("listed", "named"), [(1, 1.0), (1.0, 1), ("1", 1.0), (1, "1")])
def test_an_image_id_means_the_same_as_a_whole_number_a_decimal_and_a_string(
    listed: Any, named: Any, tmp_path: Path
) -> None:
    source = coco(tmp_path, {"image_id": named}, images=[{"id": listed, "file_name": "a.jpg"}])
    job = coco_job(source, tmp_path / "images", tmp_path / "out.json")
    assert len(job.items) == 1 and not job.failures
    assert not any(name.startswith(("image ", "annotation")) for name in job.left_out)


def test_images_that_no_annotation_names_are_left_out(tmp_path: Path) -> None:
    source = coco(tmp_path, {})
    job = coco_job(source, tmp_path / "images", tmp_path / "out.json")
    assert job.left_out == {"image 2": "the file has no mask of it"}


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("sub\\b.jpg", "sub/b.jpg"), (".\\sub\\b.jpg", "sub/b.jpg"), ("SUB/B.jpg", "sub/b.jpg"),
        (f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"), (f"{DECOMPOSED}.jpg", f"{COMPOSED}.jpg"),
        ("odd\\name.jpg", "odd\\name.jpg"), ("x/../sub/b.jpg", "sub/b.jpg"), ("gone.jpg", "gone.jpg"),
    ],
)  # fmt: skip
def test_photos_are_found_under_other_spellings(name: str, stored: str, tmp_path: Path) -> None:
    source = coco(tmp_path, {}, images=[{"id": 1, "file_name": name}])
    for other in (f"{COMPOSED}.jpg", f"{DECOMPOSED}.jpg"):
        if other == stored:
            photo(tmp_path / "images" / other)
    photo(tmp_path / "images" / "odd\\name.jpg")
    (item,) = coco_job(source, tmp_path / "images", tmp_path / "out.json").items
    assert item.inputs == (tmp_path / "images" / stored,)


@pytest.mark.parametrize("name", ["..\\secret.jpg", "sub\\..\\..\\secret.jpg", "\\secret.jpg"])
def test_backslashes_lead_nowhere_else(name: str, tmp_path: Path) -> None:
    photo(tmp_path / "secret.jpg")
    source = coco(tmp_path, {}, images=[{"id": 1, "file_name": name}])
    job = coco_job(source, tmp_path / "images", tmp_path / "out.json")
    places = [path.resolve().parent for item in job.items for path in item.inputs]
    assert places in ([], [tmp_path / "images"]) and bool(places) != ("image 1" in job.failures)


# The commands.


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    for name in ("a", "b", "c"):
        photo(tmp_path / "images" / f"{name}.jpg")
        picture(tmp_path / "masks" / f"{name}.png", mask())
    return tmp_path


def command(place: Path, *arguments: object) -> Result:
    name, *rest = map(str, arguments)
    quick = ["--model", place / "tiny.safetensors", "--dtype", "fp32", "--steps", 1, "--workers", 0]
    return CliRunner().invoke(main, [name, *rest, *map(str, quick)])


def folder(place: Path, *options: object) -> Result:
    return command(place, "folder", place / "images", place / "masks", "-o", place / "out", *options)


def test_json_is_the_ledger_and_words_go_to_standard_error(place: Path) -> None:
    os.mkfifo(place / "masks" / "pipe.png")
    picture(place / "masks" / "alone.png", mask())
    (place / "masks" / "b.png").write_bytes(b"")
    (place / "masks" / "c.png").unlink()
    result = folder(place, "--json")
    said = strictly(result.stdout)
    assert result.exit_code == said["exit_code"] == 3
    assert (said["total"], said["done"], said["skipped"], said["failed"], said["left_out"]) == (2, 1, 0, 2, 2)
    assert [row["name"] for row in said["failures"]] == ["c.jpg", "b.jpg"] and all(
        r["reason"] for r in said["failures"]
    )
    assert said["left_out_reasons"] == {NO_FILE: 1, f"no photo in {place}/images for it": 1}
    assert {Path(row["name"]).name for row in said["left_out_names"]} == {"pipe.png", "alone.png"}
    assert "1 done, 2 failed" in result.stderr and "alone.png: no photo in" in result.stderr
    state = place / "out" / ".segrefiner"
    assert len((state / "left_out.jsonl").read_text().splitlines()) == 2
    again = strictly(folder(place, "--json").stdout)
    assert (again["done"], again["skipped"], again["failed"], again["left_out"]) == (0, 1, 2, 2)
    plan = folder(place, "--json", "--dry-run")
    said = strictly(plan.stdout)
    assert plan.exit_code == 0 and said["would_do"] == ["b.jpg"] and said["not_tried"] == 1
    assert (said["failed"], said["left_out"], said["skipped"], said["dry_run"]) == (1, 2, 1, True)


def test_strict_counts_what_was_left_out(place: Path) -> None:
    assert folder(place, "--strict").exit_code == 0
    (place / "masks" / "notes.txt").write_text("a list")
    for options in ((), ("--dry-run",)):
        assert folder(place, *options).exit_code == 0
        strict = folder(place, "--strict", *options)
        assert strict.exit_code == 3 and f"{place}/masks/notes.txt: {NO_PICTURE}" in strict.stderr + strict.stdout
        assert strictly(folder(place, "--strict", "--json", *options).stdout)["exit_code"] == 3


def test_a_job_that_did_nothing_says_so_and_why(place: Path) -> None:
    for name in "abc":
        picture(place / "masks" / f"{name}.png", np.where(mask(), 255, 0).astype(np.uint8))
    result = command(place, "semantic", place / "images", place / "masks", "-o", place / "out")
    assert result.exit_code == 0 and "0 done, 3 left out" in result.stdout
    assert "nothing was refined" in result.stdout and "--ignore none" in result.stderr
    source = coco(place)
    result = command(place, "coco", source, place / "images", "-o", place / "out.json")
    assert "0 done" in result.stdout and "it lists no mask" in result.stderr


def test_an_error_is_json_too(place: Path) -> None:
    source = coco(place, {"iscrowd": 1})
    result = command(place, "coco", source, place / "images", "-o", place / "out.json", "--json")
    said = strictly(result.stdout)
    assert result.exit_code == said["exit_code"] == 1 and "--crowds refine" in said["error"]
    assert result.stderr.count("\n") == 1
    result = command(place, "coco", source, place / "images", "-o", place / "out.json", "--crowds", "refine", "--json")
    assert result.exit_code == 0 and strictly(result.stdout)["done"] == 1


@pytest.mark.parametrize("name", ["a\x1b[31m.txt", "a\nb.txt", os.fsdecode(b"a\xff.txt")])
def test_odd_names_are_told_on_one_line_without_steering_the_terminal(place: Path, name: str) -> None:
    (place / "masks" / name).touch()
    result = folder(place, "--json", "--dry-run")
    (row,) = strictly(result.stdout)["left_out_names"]
    assert result.stdout.encode("utf-8") and row["reason"] == NO_PICTURE
    # The sum, three photos, and the name.
    assert "\x1b" not in result.stderr and result.stderr.count("\n") == 5
