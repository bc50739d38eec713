"""Panoptic files: ids and segments agree after refinement, all else stays, and what is wrong fails alone."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.errors import InputError
from segrefiner.imaging.coco_masks import tight_box
from segrefiner.imaging.label_files import read_ids, write_ids
from segrefiner.jobs.job import Job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.panoptic import VOID, panoptic_job
from segrefiner.jobs.run import run
from segrefiner.ledger import RunSummary
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.label_maps import refine_labels

HEIGHT, WIDTH = 40, 48
IDS = (3, 700, 70_000, 256**3 - 1)


@pytest.fixture(autouse=True)
def easily_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that have learnt nothing are sure of nothing, and what is tested here is what becomes of changes."""
    monkeypatch.setattr("segrefiner.refinement.label_maps._TRUST", 0.0)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def disc(radius: float, y: float, x: float) -> np.ndarray:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


class Place:
    """Photos, maps, and what belongs into the JSON file: three annotations, of which tests change the second."""

    def __init__(self, root: Path) -> None:
        self.root, self.images, self.maps, self.output = root, root / "images", root / "maps", root / "out"
        ids = np.full((HEIGHT, WIDTH), IDS[0], np.int32)
        ids[disc(10, 20, 14)], ids[disc(8, 20, 34)], ids[disc(5, 34, 24)] = IDS[1:]
        ids[:4], ids[18:22, 20:26] = VOID, VOID
        for index, name in enumerate(("a", "b", "sub/c")):
            photo = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            for folder in (self.images, self.maps):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(self.images / f"{name}.jpg")
            write_ids(self.maps / f"{name}.png", ids)
        self.document: dict[str, Any] = {
            "info": {"ü": [None, 1.5]},
            "images": [
                {"id": image, "file_name": f"{name}.jpg"} for image, name in ((1, "a"), ("two", "b"), (3, "sub/c"))
            ],
            "annotations": [
                {
                    "own": name,
                    "image_id": image,
                    "segments_info": [
                        {"category_id": i % 7, "id": i, "area": 1, "own": ["ü"], "bbox": [], "iscrowd": 0} for i in IDS
                    ],
                    "file_name": f"{name}.png",
                }
                for image, name in ((1, "a"), ("two", "b"), (3, "sub/c"))
            ],
            "categories": [{"id": i, "isthing": 1} for i in range(7)],
        }

    @property
    def second(self) -> Any:
        return self.document["annotations"][1]

    @property
    def segments(self) -> Any:
        return self.second["segments_info"]

    def job(self) -> Job:
        (self.root / "in.json").write_text(json.dumps(self.document))
        return panoptic_job(self.root / "in.json", self.maps, self.images, self.output)

    def finished(self, refiner: Refiner) -> tuple[RunSummary, dict[str, str]]:
        state = self.output / ".segrefiner"
        summary = run(self.job(), LocalEngine(refiner, workers=0), state, config="")
        lines = (state / "failures.jsonl").read_text().splitlines()
        return summary, {row["item"]: row["error"] for row in map(json.loads, lines)}

    def written(self) -> Any:
        return json.loads((self.output / "in.json").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def check(row: Any, ids: np.ndarray) -> None:
    """Everything that COCO's own tools expect of an annotation and its map."""
    assert {segment["id"] for segment in row["segments_info"]} == set(np.unique(ids).tolist()) - {VOID}
    assert len({segment["id"] for segment in row["segments_info"]}) == len(row["segments_info"])
    assert sum(segment["area"] for segment in row["segments_info"]) == np.count_nonzero(ids)
    for segment in row["segments_info"]:
        mask = ids == segment["id"]
        assert segment["area"] == mask.sum() and segment["bbox"] == tight_box(mask)


def test_ids_and_segments_agree_and_all_else_stays(place: Place, refiner: Refiner) -> None:
    summary, failed = place.finished(refiner)
    assert (summary.done, summary.notes, failed) == (3, 0, {})
    given, written = place.document, place.written()
    assert list(written) == list(given)
    for name in ("info", "images", "categories"):
        assert written[name] == given[name]
    for before, after in zip(given["annotations"], written["annotations"], strict=True):
        ids, coarse = read_ids(place.output / after["file_name"]), read_ids(place.maps / before["file_name"])
        check(after, ids)
        np.testing.assert_array_equal(ids == VOID, coarse == VOID)
        assert (ids != coarse).any()
        assert list(after) == list(before)
        assert after | {"segments_info": None} == before | {"segments_info": None}
        for old, new in zip(before["segments_info"], after["segments_info"], strict=True):
            assert list(new) == list(old)
            assert new | {"area": 1, "bbox": []} == old


def test_maps_are_refined_as_label_maps_are(place: Place, refiner: Refiner) -> None:
    place.finished(refiner)
    for name in ("a", "b", "sub/c"):
        expected = refine_labels(
            refiner, place.images / f"{name}.jpg", read_ids(place.maps / f"{name}.png"), ignore=[VOID]
        )
        np.testing.assert_array_equal(read_ids(place.output / f"{name}.png"), expected.labels)


@pytest.mark.parametrize("crowds", [(0,), (1,), (1, 2), (0, 1, 2), (0, 1, 2, 3)])
def test_crowds_and_void_stay(crowds: tuple[int, ...], place: Place, refiner: Refiner) -> None:
    for index in crowds:
        place.segments[index]["iscrowd"] = 1
    summary, failed = place.finished(refiner)
    idle = len(crowds) >= 3
    assert (summary.done, failed) == (3 - idle, {}) and summary.left_out == len(crowds) + idle
    ids, coarse = read_ids(place.output / "b.png"), read_ids(place.maps / "b.png")
    check(place.written()["annotations"][1], ids)
    for value in (VOID, *(IDS[index] for index in crowds)):
        np.testing.assert_array_equal(ids == value, coarse == value)
    if idle:
        np.testing.assert_array_equal(ids, coarse)


def test_a_segment_of_which_nothing_is_left_leaves_the_list_and_is_noted(place: Place, refiner: Refiner) -> None:
    ids = read_ids(place.maps / "b.png")
    ids[8, 40:43] = 256
    write_ids(place.maps / "b.png", ids)
    place.segments.insert(1, {"id": 256, "category_id": 1, "area": 3, "bbox": [40, 8, 3, 1], "iscrowd": 0})
    summary, failed = place.finished(refiner)
    assert (summary.done, summary.notes, failed) == (3, 1, {})
    assert "256" in (place.output / ".segrefiner" / "notes.jsonl").read_text()
    ids = read_ids(place.output / "b.png")
    assert not (ids == 256).any()
    (row,) = (row for row in place.written()["annotations"] if row["own"] == "b")
    check(row, ids)
    assert [segment["id"] for segment in row["segments_info"]] == list(IDS)


def test_area_and_box_are_added_where_they_lack(place: Place, refiner: Refiner) -> None:
    place.second["segments_info"] = [{"id": value, "category_id": 1} for value in IDS]
    place.finished(refiner)
    check(place.written()["annotations"][1], read_ids(place.output / "b.png"))


def test_maps_of_void_or_one_segment_come_back(place: Place, refiner: Refiner) -> None:
    one = np.full((HEIGHT, WIDTH), IDS[2], np.int32)
    write_ids(place.maps / "a.png", one * 0)
    write_ids(place.maps / "b.png", one)
    place.document["annotations"][0]["segments_info"] = []
    place.second["segments_info"] = [{"id": IDS[2], "category_id": 1}]
    summary, failed = place.finished(refiner)
    assert (summary.done, summary.left_out, failed) == (1, 2, {})
    np.testing.assert_array_equal(read_ids(place.output / "a.png"), one * 0)
    np.testing.assert_array_equal(read_ids(place.output / "b.png"), one)
    rows = place.written()["annotations"]
    assert rows[0]["segments_info"] == [] and rows[1]["segments_info"][0]["bbox"] == [0, 0, WIDTH, HEIGHT]


def test_a_second_run_does_nothing_and_writes_the_same(place: Place, refiner: Refiner) -> None:
    place.finished(refiner)
    first = (place.output / "in.json").read_bytes()
    (place.output / "in.json").unlink()
    summary, _ = place.finished(refiner)
    assert (summary.done, summary.skipped) == (0, 3)
    assert (place.output / "in.json").read_bytes() == first


def drop_image(place: Place) -> None:
    place.document["images"].pop(1)


def double_image(place: Place) -> None:
    place.document["images"].append({"id": "two", "file_name": "a.jpg"})


def rename(folder: str, name: Any) -> Any:
    def change(place: Place) -> None:
        (place.second if folder == "maps" else place.document["images"][1]).update(file_name=name)

    return change


def picture(mode: str, size: tuple[int, int]) -> Any:
    return lambda place: Image.new(mode, size).save(place.maps / "b.png")


BAD: dict[str, tuple[Any, str]] = {
    "id twice": (lambda place: place.segments.append(place.segments[0]), "more than once"),
    "id not listed": (lambda place: place.segments.pop(), "does not list"),
    "id not in the map": (lambda place: place.segments.append({"id": 9}), "does not have"),
    "id too large": (lambda place: place.segments.append({"id": 256**3}), "whole number"),
    "id void": (lambda place: place.segments.append({"id": 0}), "whole number"),
    "id negative": (lambda place: place.segments.append({"id": -3}), "whole number"),
    "id text": (lambda place: place.segments.append({"id": "9"}), "whole number"),
    "id float": (lambda place: place.segments[0].update(id=3.0), "whole number"),
    "id bool": (lambda place: place.segments.append({"id": True}), "whole number"),
    "id list": (lambda place: place.segments.append({"id": [9]}), "whole number"),
    "no id": (lambda place: place.segments[0].pop("id"), "whole number"),
    "segment null": (lambda place: place.segments.append(None), "whole number"),
    "no segments": (lambda place: place.second.pop("segments_info"), "segments_info"),
    "segments no list": (lambda place: place.second.update(segments_info={"id": 3}), "no list"),
    "segments null": (lambda place: place.second.update(segments_info=None), "no list"),
    "no file_name": (lambda place: place.second.pop("file_name"), "file_name"),
    "no image_id": (lambda place: place.second.pop("image_id"), "image_id"),
    "image_id unknown": (lambda place: place.second.update(image_id=9), "no entry of the id 9"),
    "image_id list": (lambda place: place.second.update(image_id=["two"]), "no entry"),
    "image not listed": (drop_image, "no entry of the id two"),
    "image listed twice": (double_image, "or several"),
    "map outside": (rename("maps", "../b.png"), "leads out"),
    "map far outside": (rename("maps", "/etc/b.png"), "leads out"),
    "map of another kind": (rename("maps", "b.jpg"), "PNG"),
    "map null": (rename("maps", None), "PNG"),
    "map list": (rename("maps", ["b.png"]), "PNG"),
    "map number": (rename("maps", 5), "PNG"),
    "map absent": (lambda place: (place.maps / "b.png").unlink(), "No such file"),
    "map broken": (lambda place: (place.maps / "b.png").write_text("text"), "not an image"),
    "map grey": (picture("L", (WIDTH, HEIGHT)), "mode L"),
    "map transparent": (picture("RGBA", (WIDTH, HEIGHT)), "transparent"),
    "map small": (picture("RGB", (5, 5)), "5x5"),
    "map turned": (picture("RGB", (HEIGHT, WIDTH)), "40x48"),
    "photo outside": (rename("images", "../images/../in.json"), "leads out"),
    "photo absent": (rename("images", "none.jpg"), "No such file"),
    "photo broken": (lambda place: (place.images / "b.jpg").write_bytes(b""), "empty"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_annotation_fails_alone(change: Any, message: str, place: Place, refiner: Refiner) -> None:
    change(place)
    before = copy.deepcopy(place.document)
    summary, failed = place.finished(refiner)
    assert summary.done == 2
    (told,) = failed.values()
    assert message in told and "\n" not in told
    written = place.written()
    assert written["annotations"][1] == before["annotations"][1] and written["images"] == before["images"]
    assert not (place.output / "b.png").exists()
    for index, name in ((0, "a"), (2, "sub/c")):
        check(written["annotations"][index], read_ids(place.output / f"{name}.png"))


@pytest.mark.parametrize("row", [None, 5, "text", [], {}, {"file_name": {}}])
def test_what_is_no_annotation_fails_alone(row: Any, place: Place, refiner: Refiner) -> None:
    place.document["annotations"][1] = row
    summary, failed = place.finished(refiner)
    assert summary.done == 2 and "expected an object" in failed["annotation 1"]
    assert place.written()["annotations"][1] == row


@pytest.mark.parametrize("entry", [None, 5, {}, {"id": "two"}, {"file_name": "b.jpg"}, {"id": "two", "file_name": 5}])
def test_an_image_that_is_of_no_use_is_told(entry: Any, place: Place, refiner: Refiner) -> None:
    place.document["images"][1] = entry
    summary, failed = place.finished(refiner)
    assert summary.done == 2 and set(failed) == {"images 1", "annotation 1"}


@pytest.mark.parametrize("name", ["a.png", "./a.png", "sub/../a.png", "sub//../a.png", "A.png", "a.PNG"])
def test_two_annotations_of_one_map_fail_both(name: str, place: Place, refiner: Refiner) -> None:
    """Whatever its spelling, for they would be written to one file, on some systems also in other case."""
    place.second["file_name"] = name
    summary, failed = place.finished(refiner)
    assert summary.done == 1 and set(failed) == {"annotation 0", "annotation 1"}
    assert all("several annotations" in why for why in failed.values())
    assert place.written()["annotations"][:2] == place.document["annotations"][:2]


def test_results_in_the_inputs_folders_are_refused(place: Place) -> None:
    for output in (place.maps, place.images, place.root, place.maps / "sub" / ".."):
        place.output = output
        with pytest.raises(InputError, match="inputs"):
            place.job()


def test_what_is_no_panoptic_file_is_refused(place: Place) -> None:
    wrong: list[Any] = [[], None, {}, {"images": []}, {"annotations": []}, {"images": {}, "annotations": []}]
    for document in wrong:
        place.document = document
        with pytest.raises(InputError, match="no panoptic file"):
            place.job()
    for folder in ("maps", "images"):
        other = Place(place.root / folder)
        setattr(other, folder, place.root / "absent")
        with pytest.raises(InputError, match="no folder"):
            other.job()


def test_crowds_can_be_refined_and_a_file_of_crowds_alone_names_the_option(place: Place, refiner: Refiner) -> None:
    for row in place.document["annotations"]:
        for segment in row["segments_info"]:
            segment["iscrowd"] = 1
    with pytest.raises(InputError, match="--crowds refine"):
        place.job()
    job = panoptic_job(place.root / "in.json", place.maps, place.images, place.output, crowds="refine")
    ledger = run(job, LocalEngine(refiner, workers=0), place.output / ".segrefiner", config="")
    assert (ledger.done, ledger.left_out) == (3, 0)
    assert (read_ids(place.output / "b.png") != read_ids(place.maps / "b.png")).any()


def test_maps_and_photos_that_no_annotation_names_are_left_out(place: Place, refiner: Refiner) -> None:
    place.document["annotations"].pop(1)
    (place.maps / "more.txt").touch()
    summary, failed = place.finished(refiner)
    lines = (place.output / ".segrefiner" / "left_out.jsonl").read_text().splitlines()
    assert (summary.done, failed) == (2, {})
    assert {row["item"]: row["reason"] for row in map(json.loads, lines)} == {
        str(place.maps / "b.png"): "no annotation of it",
        str(place.maps / "more.txt"): "no picture by its suffix",
        "image two": "the file has no mask of it",
    }


@pytest.mark.parametrize("name", ["sub\\c", "Sub/c", "sub/C"])
def test_files_are_found_where_one_alone_is_meant(name: str, place: Place, refiner: Refiner) -> None:
    place.document["images"][2]["file_name"] = f"{name}.jpg"
    place.document["annotations"][2]["file_name"] = f"{name}.png"
    summary, failed = place.finished(refiner)
    assert (summary.done, summary.left_out, failed) == (3, 0, {})


@pytest.mark.parametrize("folder", ["", "ulm/", "train/ulm/", "val/ulm/"])
@pytest.mark.parametrize("kind", ["gtFine", "gtCoarse"])
def test_photos_of_cityscapes_are_found_in_the_folders_of_their_cities(
    folder: str, kind: str, place: Place, refiner: Refiner
) -> None:
    """Cityscapes' own script names photos after their maps, and leaves out the cities' folders."""
    photo = place.images / f"{folder}ulm_000001_000019_leftImg8bit.png"
    photo.parent.mkdir(parents=True, exist_ok=True)
    Image.open(place.images / "b.jpg").save(photo)
    (place.images / "b.jpg").unlink()
    place.document["images"][1]["file_name"] = f"ulm_000001_000019_{kind}_leftImg8bit.png"
    assert place.job().items[1].inputs[0] == photo
    summary, failures = place.finished(refiner)
    assert (summary.done, failures) == (3, {})


def test_results_without_images_are_of_the_photos_that_are_called_as_their_maps(place: Place, refiner: Refiner) -> None:
    del place.document["images"]
    (place.images / "b.jpg").rename(place.images / "B.JPG")
    assert [item.inputs[0].name for item in place.job().items] == ["a.jpg", "B.JPG", "c.jpg"]
    summary, failures = place.finished(refiner)
    assert (summary.done, failures) == (3, {}) and "images" not in place.written()


def test_a_photo_of_cityscapes_that_is_nowhere_fails_alone(place: Place, refiner: Refiner) -> None:
    place.document["images"][1]["file_name"] = "ulm_000001_000019_gtFine_leftImg8bit.png"
    summary, failures = place.finished(refiner)
    assert summary.done == 2 and "ulm_000001_000019_gtFine_leftImg8bit.png" in failures["b.png"]


def test_a_result_of_another_kind_in_the_manifest_is_done_again(place: Place, refiner: Refiner) -> None:
    place.finished(refiner)
    manifest = place.output / ".segrefiner" / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row, result in zip(rows, (None, {"segments_info": [7]}, []), strict=True):
        row["result"] = result
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary, failed = place.finished(refiner)
    assert (summary.done, failed) == (3, {})
    for row in place.written()["annotations"]:
        check(row, read_ids(place.output / row["file_name"]))
