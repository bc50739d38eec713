"""Laws of training data: each published layout is read whole, and what is wrong is said."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from helpers import miniature
from segrefiner.cli.main import main
from segrefiner.data.layouts import left_out, open_source
from segrefiner.data.packs import around_object, pack_source
from segrefiner.data.shards import INDEX_NAME, open_shards, write_shards
from segrefiner.data.sources import Sample, concatenate
from segrefiner.errors import InputError

# Builder, number of its first scene, samples.
LAYOUTS: dict[str, tuple[Callable[[Path], Path], int, int]] = {
    "DIS": (miniature.dis, 0, 4),
    "ThinObject": (miniature.thinobject, 10, 4),
    "HRSOD": (miniature.hrsod, 20, 3),
    "own": (miniature.folder, 30, 4),
    "COCO": (miniature.coco, 40, 4),
    "LVIS": (miniature.lvis, 40, 4),
}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("build", "first", "count"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_recognised_and_read(
    tmp_path: Path, build: Callable[[Path], Path], first: int, count: int
) -> None:
    source = pickle.loads(pickle.dumps(open_source(build(tmp_path))))
    assert len(source) == count and source.name
    names = set()
    for index in range(count):
        sample = source.read(index)
        photo, mask = miniature.scene(first + index)
        assert np.abs(sample.image.astype(int) - photo).mean() < 6
        # Every third COCO object is a polygon, the disc's box.
        assert iou(sample.mask, mask) == 1 or (source.objects and index % 3 == 2 and iou(sample.mask, mask) > 0.6)
        names.add(sample.name)
    assert len(names) == count
    assert source.objects == (build in (miniature.coco, miniature.lvis))


def test_coarse_masks_are_found_beside_the_photos_or_in_a_folder(tmp_path: Path) -> None:
    own = open_source(miniature.folder(tmp_path / "own"))
    assert [own.read(i).coarse is not None for i in range(4)] == [False, True, False, True]
    objects = miniature.lvis(tmp_path / "lvis")
    (tmp_path / "made").mkdir()
    names = [open_source(objects).read(i).name for i in range(4)]
    mask = open_source(objects).read(1).mask
    Image.fromarray(~mask).save(tmp_path / "made" / f"{names[1]}.png")
    source = open_source(objects, tmp_path / "made")
    assert [source.read(i).coarse is not None for i in range(4)] == [False, True, False, False]
    np.testing.assert_array_equal(source.read(1).coarse, ~mask)
    with pytest.raises(InputError, match="coarse"):
        open_source(objects, tmp_path / "nowhere")


def test_sources_one_after_another_hold_all_photos_of_each(tmp_path: Path) -> None:
    parts = [open_source(build(tmp_path / str(i))) for i, (build, _, _) in enumerate(LAYOUTS.values())]
    source = concatenate(parts)
    assert len(source) == sum(map(len, parts)) and source.objects
    index, names = 0, set()
    for part in parts:
        for inner in range(len(part)):
            sample = source.read(index)
            np.testing.assert_array_equal(sample.image, part.read(inner).image)
            names.add(sample.name)
            index += 1
    assert len(names) == len(source) and concatenate(parts[:1]) is parts[0]


def test_shards_hold_what_was_written(tmp_path: Path) -> None:
    source = open_source(miniature.folder(tmp_path / "own", 5))
    count, failures = write_shards(source, tmp_path / "shards", per_shard=2)
    assert (count, failures) == (5, [])
    shards = pickle.loads(pickle.dumps(open_source(tmp_path / "shards")))
    assert len(shards) == 5 and sorted(p.name for p in (tmp_path / "shards").iterdir()) == [
        "photos-000000.tar", "photos-000001.tar", "photos-000002.tar", INDEX_NAME
    ]  # fmt: skip
    for index in (4, 0, 3, 1, 2):
        a, b = source.read(index), shards.read(index)
        assert a.name == b.name and (a.coarse is None) == (b.coarse is None)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert np.abs(a.image.astype(int) - b.image).mean() < 5


def test_shards_are_fetched_once_from_a_store(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    write_shards(open_source(miniature.folder(tmp_path / "own", 3)), tmp_path / "shards", per_shard=2)
    store = fsspec.filesystem("memory")
    for path in (tmp_path / "shards").iterdir():
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    shards = open_shards("memory://bucket", cache=tmp_path / "cache")
    local = open_shards(str(tmp_path / "shards"))
    for index in range(3):
        np.testing.assert_array_equal(shards.read(index).mask, local.read(index).mask)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    store.rm("/bucket", recursive=True)
    assert shards.read(2).mask.any()
    with pytest.raises(InputError, match="memory://bucket"):
        open_shards("memory://bucket")


def write_json(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


BAD_COCO: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no lists": (lambda d: d.pop("images"), "no lists"),
    "no objects": (lambda d: d.update(annotations=[]), "no objects"),
    "photos without a name": (lambda d: d["images"][1].pop("file_name"), "without id or name"),
    "a name that no file can have": (lambda d: d["images"][1].update(file_name="\ud800.png"), "without id or name"),
    "a name of zeros": (lambda d: d["images"][1].update(file_name="a\0.png"), "without id or name"),
    "very long names": (lambda d: [i.update(file_name="0" * 5000) for i in d["images"]], "@FOLDER"),
    "an object of a list of photos": (lambda d: d["annotations"][1].update(image_id=[5]), "not listed"),
    "an object of an object": (lambda d: d["annotations"][1].update(image_id={}), "not listed"),
    "an object whose id is a list": (lambda d: d["annotations"][1].update(id=[1]), r"the id \[1\]"),
    "two photos of one id": (lambda d: d["images"][1].update(id=0), "two photos"),
    "two objects of one id": (lambda d: d["annotations"][1].update(id=100), "two annotations"),
    "an object of a nested id": (lambda d: d["annotations"][1].update(id={}), "expected a number or a string"),
    "an object of a nested photo": (lambda d: d["annotations"][1].update(image_id=[7]), "not listed"),
    "an object of no photo": (lambda d: d["annotations"][1].update(image_id=5), "not listed"),
    "photos elsewhere": (lambda d: [i.update(file_name="no/" + i["file_name"]) for i in d["images"]], "@FOLDER"),
}


@pytest.mark.parametrize(("change", "said"), BAD_COCO.values(), ids=BAD_COCO)
def test_bad_annotations_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str) -> None:
    path = write_json(miniature.coco(tmp_path), change)
    with pytest.raises(InputError, match=said):
        open_source(path)


BAD_OBJECTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a photo outside": (lambda d: d["images"][1].update(file_name="../secret.jpg"), "outside"),
    "an absent photo": (lambda d: d["images"][1].update(file_name="none.jpg"), "none.jpg"),
    "counts of another size": (lambda d: d["annotations"][1]["segmentation"].update(counts=[3, 4]), "101"),
    "a polygon of two points": (lambda d: d["annotations"][1].update(segmentation=[[0, 0, 5, 5]]), "101"),
}


@pytest.mark.parametrize(("change", "said"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_bad_object_is_an_error_of_its_own(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    source = open_source(write_json(miniature.coco(tmp_path), change))
    with pytest.raises(InputError, match=said):
        source.read(1)
    assert source.read(0).mask.any() and source.read(2).mask.any()


def test_string_ids_are_as_good_as_numbers(tmp_path: Path) -> None:
    def renamed(document: dict[str, Any]) -> None:
        for entry in document["annotations"]:
            entry.update(id=f"a{entry['id']}", image_id=f"i{entry['image_id']}")
        for entry in document["images"]:
            entry.update(id=f"i{entry['id']}")

    source = open_source(write_json(miniature.coco(tmp_path), renamed))
    assert source.read(0).name.endswith("_a100") and len(source) == 4


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (("DIS", "DIS5K/DIS-TR/gt"), ["DIS-TR/gt", "https://github.com/xuebinqin/DIS"]),
        (("DIS", "DIS5K/DIS-TR/gt/2#Animal#1.png"), ["masks of 1 names", "2#Animal#1"]),
        (("ThinObject", "masks"), ["masks", "ThinObject-5K", "https://"]),
        (("ThinObject", "images/thin_2.jpg"), ["photos of 1 names", "thin_2"]),
        (("HRSOD", "HRSOD_train_mask"), ["HRSOD_train_mask", "https://"]),
        (("own", "masks"), ["masks"]),
    ],
    ids=str,
)
def test_what_is_missing_is_said_and_where_to_get_it(tmp_path: Path, missing: tuple[str, str], said: list[str]) -> None:
    root = LAYOUTS[missing[0]][0](tmp_path)
    (root / missing[1]).rename(tmp_path.parent / f"{tmp_path.name}-away")
    with pytest.raises(InputError) as caught:
        open_source(root)
    for words in said:
        assert words in str(caught.value)


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    for name in ("nothing", "nothing.json"):
        with pytest.raises(InputError, match="nothing"):
            open_source(tmp_path / name)
    (tmp_path / INDEX_NAME).write_text('{"shardlist": [{"url": "gone.tar", "nsamples": 3}]}')
    with pytest.raises(InputError, match=r"gone\.tar"):
        open_source(tmp_path)
    (tmp_path / "gone.tar").write_bytes(b"no tar file")
    with pytest.raises(InputError, match=r"gone\.tar"):
        open_source(tmp_path).read(0)


def test_packs_hold_objects_with_their_surroundings(tmp_path: Path) -> None:
    source = open_source(miniature.lvis(tmp_path))
    count, failures = pack_source(source, tmp_path / "pack", size=64)
    assert (count, failures) == (4, [])
    for index in range(4):
        sample = source.read(index)
        part = around_object(sample, 2.0)
        assert part.mask.sum() == sample.mask.sum()
        rows, columns = (np.flatnonzero(sample.mask.any(axis=axis)) for axis in (1, 0))
        for side, found, whole in zip(part.mask.shape, (rows, columns), sample.mask.shape, strict=True):
            assert side <= min(whole, 2 * len(found) + 2)


def test_a_few_unreadable_photos_are_left_out_of_a_pack(tmp_path: Path) -> None:
    root = miniature.folder(tmp_path / "own")
    (root / "images" / "own1.jpg").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"1 photos cannot be read.*own1\.jpg"):
        pack_source(open_source(root), tmp_path / "pack")
    count, failures = pack_source(open_source(root), tmp_path / "pack", most_failures=0.5)
    assert count == 3 and [index for index, _ in failures] == [1]


def test_the_commands_say_what_they_found(tmp_path: Path) -> None:
    root = miniature.folder(tmp_path / "own")
    (root / "images" / "own1.jpg").write_bytes(b"broken")
    checked = CliRunner().invoke(main, ["data", "check", str(root)])
    assert checked.exit_code == 3 and "4 photos, 4 of them read" in checked.stdout and "1 unreadable" in checked.stdout
    assert "own1.jpg" in checked.stderr
    written = CliRunner().invoke(main, ["data", "shards", str(root), str(tmp_path / "shards"), "--per-shard", "2"])
    assert written.exit_code == 3 and "3 photos in 2 shards" in written.stdout
    packed = CliRunner().invoke(main, ["data", "pack", str(tmp_path / "shards"), str(tmp_path / "pack")])
    assert packed.exit_code == 0 and "3 photos" in packed.stdout


def test_check_names_what_belongs_to_no_photo(tmp_path: Path) -> None:
    root = miniature.folder(tmp_path / "own")
    picture = next((root / "masks").glob("*.png")).read_bytes()
    (root / "masks" / "alone.png").write_bytes(picture)
    (root / "images" / ".hidden.jpg").write_bytes(picture)
    (root / "images" / "notes.txt").touch()
    (root / "images" / "sub").mkdir()
    (root / "images" / "sub" / "deep.png").write_bytes(picture)
    told = CliRunner().invoke(main, ["data", "check", str(root), "--json"])
    said = json.loads(told.stdout)
    assert told.exit_code == said["exit_code"] == 0 and (said["total"], said["failed"], said["left_out"]) == (4, 0, 4)
    names = {Path(row["name"]).name for row in said["left_out_names"]}
    assert names == {"alone.png", ".hidden.jpg", "notes.txt", "deep.png"}
    assert "left out 2, such as" in told.stderr and "4 photos" in told.stderr
    assert CliRunner().invoke(main, ["data", "check", str(root), "--strict"]).exit_code == 3
    (root / "images" / "own1.png").write_bytes(picture)
    with pytest.raises(InputError, match=r"own1\.jpg and own1\.png: expected one photo"):
        open_source(root)


def test_photos_of_annotations_are_found_under_other_spellings(tmp_path: Path) -> None:
    path = miniature.coco(tmp_path)
    plain = open_source(path)
    write_json(path, lambda d: [one.update(id=float(one["id"])) for one in d["images"]])
    write_json(path, lambda d: [one.update(file_name=".\\" + one["file_name"].upper()) for one in d["images"]])
    other = open_source(path)
    for index in range(len(plain)):
        np.testing.assert_array_equal(plain.read(index).image, other.read(index).image)


@pytest.mark.parametrize(
    "change", [lambda d: d["annotations"][1].pop("segmentation"), lambda d: d["annotations"][1].update(segmentation=[])]
)
def test_annotations_of_boxes_alone_are_left_out(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = miniature.coco(tmp_path)
    before = len(open_source(path))
    source = open_source(write_json(path, change))
    assert len(source) == before - 1
    assert "its segmentation is empty" in {entry.reason for entry in left_out(source)}


def test_crowds_of_annotations_are_left_out_by_name(tmp_path: Path) -> None:
    path = miniature.coco(tmp_path)
    before = len(open_source(path))
    write_json(path, lambda document: document["annotations"][0].update(iscrowd=1))
    source = open_source(path)
    assert len(source) == before - sum(e.name == "annotation 0" for e in left_out(source)) == before - 1
    write_json(path, lambda document: [one.update(iscrowd=1) for one in document["annotations"]])
    with pytest.raises(InputError, match=r"no objects but .* left out, such as crowds"):
        open_source(path)


def test_empty_masks_and_other_sizes_are_errors(tmp_path: Path) -> None:
    root = miniature.dis(tmp_path)
    gt = root / "DIS5K" / "DIS-TR" / "gt"
    Image.fromarray(np.zeros((5, 5), bool)).save(gt / "2#Animal#1.png")
    _, mask = miniature.scene(2)
    Image.fromarray(np.zeros_like(mask)).save(gt / "2#Animal#2.png")
    source = open_source(root)
    for index, said in ((1, "5x5"), (2, "empty")):
        with pytest.raises(InputError, match=said):
            source.read(index)
    assert isinstance(source.read(0), Sample)


def test_names_may_differ_in_case_and_composition_where_one_file_is_meant(tmp_path: Path) -> None:
    folder = miniature.folder(tmp_path)
    photo, mask = sorted((folder / "images").iterdir())[0], sorted((folder / "masks").iterdir())[0]
    photo.rename(photo.with_name("Caf\u00e9.JPG"))
    mask.rename(mask.with_name("cafe\u0301.PNG"))
    source = open_source(folder)
    assert len(source) == 4 and {"Caf\u00e9"} <= {source.read(index).name for index in range(4)}
    (folder / "masks" / "CAFE\u0301.png").write_bytes((folder / "masks" / "cafe\u0301.PNG").read_bytes())
    (folder / "masks" / "cafe\u0301.PNG").rename(folder / "masks" / "cafE\u0301.PNG")
    with pytest.raises(InputError, match="lacks the masks of 1 names"):
        open_source(folder)


def test_coarse_masks_made_beforehand_may_have_other_spellings(tmp_path: Path) -> None:
    folder, made = miniature.folder(tmp_path / "own"), tmp_path / "made"
    made.mkdir()
    plain = open_source(folder)
    sample = plain.read(0)
    Image.fromarray(sample.mask).save(made / f"{sample.name.upper()}.PNG")
    assert (open_source(folder, coarse=made).read(0).coarse == sample.mask).all()
