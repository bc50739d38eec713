"""Annotation files of every format: what is not a refined mask stays, and masks mean the same wherever they stand."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from helpers.annotated import EVERY, SIZE, coco, disc, files_of, write_photos
from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.cli.main import main
from segrefiner.errors import InputError
from segrefiner.formats.documents import Instance, WrittenPhoto
from segrefiner.formats.masks import decode_mask, encode_mask, scaled
from segrefiner.formats.recognition import FORMATS, SINGLE_FILE, WRITERS, form_of, new_masks, read
from segrefiner.imaging.coco_masks import encode_rle
from segrefiner.jobs.annotations import PhotoFinder, annotations_job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.ledger import Ledger
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.options import Options
from segrefiner.refinement.pipelines import tasks


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def echo(network: Any, jobs: Sequence[tasks.MaskTask], **options: Any) -> Iterator[tasks.TaskResult]:
    yield from (tasks.TaskResult(job.mask.float(), (), 1) for job in jobs)


@pytest.fixture(scope="module")
def still() -> Refiner:
    """Finds nothing to change."""
    return Refiner(DenoisingUNet(TINY), pipeline=echo)


def done(refiner: Refiner, source: Path, target: Path, **options: Any) -> Ledger:
    job = annotations_job(source, target, **options)
    return run(job, LocalEngine(refiner, workers=0), target.parent / f"{target.name}.state", config="")


def output(root: Path, name: str, source: Path) -> Path:
    """Where a document of a format goes."""
    suffix = {"cvat": ".xml"}.get(name, ".json")
    return root / "out" / (f"new{suffix}" if source.is_file() else "new")


def masks_of(source: Path, images: Path | None = None) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Photo, key, label and mask of all instances."""
    contents = read(source).contents
    for photo in contents.photos:
        path, _ = PhotoFinder(contents, images).find(photo)
        for instance in photo.instances:
            yield path.stem, instance.key, instance.label, decode_mask(instance.mask, SIZE)[0]


@pytest.mark.parametrize("name", EVERY)
def test_the_format_is_recognised(name: str, tmp_path: Path) -> None:
    document = read(EVERY[name](tmp_path))
    assert document.format == name
    assert document.contents.failures == {}
    assert len(list(masks_of(EVERY[name](tmp_path / "again")))) >= 3


@pytest.mark.parametrize("name", EVERY)
def test_without_a_change_the_file_comes_back_equal(name: str, still: Refiner, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    target = output(tmp_path, name, source)
    ledger = done(still, source, target)
    assert (ledger.done, ledger.failures) == (2, ())
    assert files_of(target) == files_of(source)


@pytest.mark.parametrize("name", EVERY)
def test_a_strength_of_zero_changes_no_byte(name: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    target = output(tmp_path, name, source)
    done(Refiner(DenoisingUNet(TINY)), source, target, options=Options(strength=0.0))
    assert files_of(target) == files_of(source)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["same", "rle", "polygon"])
def test_the_written_masks_are_the_refined_ones(name: str, kind: Any, refiner: Refiner, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    target = output(tmp_path, name, source)
    if (name, kind) == ("yolo", "rle"):
        with pytest.raises(InputError, match="yolo holds polygons alone"):
            annotations_job(source, target, kind=kind)
        return
    ledger = done(refiner, source, target, kind=kind)
    assert (ledger.done, ledger.failures) == (2, ())
    contents = read(source).contents
    photos = {path.stem: path for path, _ in map(PhotoFinder(contents, None).find, contents.photos)}
    before, after = list(masks_of(source)), list(masks_of(target, next(iter(photos.values())).parents[name == "yolo"]))
    assert [one[:3] for one in after] == [one[:3] for one in before]
    layers = [(photo.key, instance.layer) for photo in contents.photos for instance in photo.instances]
    for layer in dict.fromkeys(layers):
        chosen = [index for index, one in enumerate(layers) if one == layer]
        photo, coarse = photos[before[chosen[0]][0]], [before[index][3] for index in chosen]
        expected = refiner.instances(photo, coarse, separate=True)
        for index, given, result in zip(chosen, coarse, expected, strict=True):
            assert (result.mask != given).any()
            np.testing.assert_array_equal(after[index][3], result.mask)
    kinds = {next(iter(i.mask)) for photo in read(target).contents.photos for i in photo.instances}
    assert ("polygons" not in kinds) if kind == "rle" else kind == "same" or kinds == {"polygons"}


def touching() -> list[np.ndarray]:
    """Three discs side by side, the last two of which overlap."""
    return [disc(9, x=x) for x in (14, 32, 46)]


def several(name: str, root: Path) -> tuple[Path, Path]:
    """A document of a format with several masks of one photo, and the folder of the photo."""
    write_photos(root / "images", "a.png")
    form = form_of({}, "same", "coco" if name == "lvis" else name, same=False)
    objects = [
        (Instance(str(index), "", {}, "cat"), {"mask": encode_mask(mask, form)[0], "area": 1.0, "bbox": [0, 0, 1, 1]})
        for index, mask in enumerate(touching())
    ]
    source = root / {"coco": "in.json", "lvis": "in.json", "cvat": "in.xml", "labelstudio": "in.json"}.get(name, "in")
    WRITERS["coco" if name == "lvis" else name](source, ["cat"], [WrittenPhoto("a.png", SIZE, objects)])
    if name == "lvis":
        source.write_text(source.read_text().replace('"file_name": "', '"coco_url": "http://host/images/'))
    return source, root / "images" if name != "lvis" else root


@pytest.mark.parametrize("name", EVERY)
def test_masks_of_a_photo_do_not_take_each_others_pixels(name: str, refiner: Refiner, tmp_path: Path) -> None:
    source, images = several(name, tmp_path)
    coarse = [mask for _, _, _, mask in masks_of(source, images)]
    alone = [refiner(tmp_path / "images" / "a.png", mask).mask for mask in coarse]
    assert (overlap(alone) > overlap(coarse)).any(), "the law would hold by itself"
    ledger = done(refiner, source, output(tmp_path, name, source), images=images)
    assert (ledger.done, ledger.failures) == (1, ())
    refined = [mask for _, _, _, mask in masks_of(output(tmp_path, name, source), images)]
    for first, second in combinations(range(3), 2):
        assert not (refined[first] & refined[second] & ~(coarse[first] & coarse[second])).any()
    assert any("masks leave pixels that" in remark for remark in ledger.remarks)


def overlap(masks: Sequence[np.ndarray]) -> np.ndarray:
    return np.sum(masks, axis=0)


def test_answers_of_several_people_about_one_photo_do_not_compete(refiner: Refiner, tmp_path: Path) -> None:
    source, images = several("labelstudio", tmp_path)
    (task,) = json.loads(source.read_text())
    task["annotations"] = [{"result": [one]} for one in task["annotations"][0]["result"]]
    source.write_text(json.dumps([task]))
    ledger = done(refiner, source, tmp_path / "out.json", images=images)
    assert ledger.remarks == ()
    for mask, (_, _, _, refined) in zip(touching(), masks_of(tmp_path / "out.json", images), strict=True):
        np.testing.assert_array_equal(refined, refiner(images / "a.png", mask).mask)


@pytest.mark.parametrize("name", EVERY)
def test_of_a_changed_file_all_but_the_masks_stays(name: str, refiner: Refiner, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    target = output(tmp_path, name, source)
    done(refiner, source, target)
    for key, content in files_of(source).items():
        other = files_of(target)[key]
        if key.endswith("data.yaml"):
            assert other == content
        elif name == "yolo":
            assert without_masks_txt(other) == without_masks_txt(content)
        elif name == "cvat":
            assert without_masks_xml(other) == without_masks_xml(content)
        else:
            assert without_masks(json.loads(other)) == without_masks(json.loads(content))
            assert names_in_order(json.loads(other)) == names_in_order(json.loads(content))
    if name == "coco":
        assert b'"version": 1.500e+0' in target.read_bytes()


def without_masks(value: Any) -> Any:
    names = ("segmentation", "area", "bbox", "points", "mask", "rle")
    if isinstance(value, dict):
        is_box = value.get("shape_type") == "rectangle"
        return {name: without_masks(one) for name, one in value.items() if is_box or name not in names}
    return [without_masks(one) for one in value] if isinstance(value, list) else value


def names_in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return [(name, names_in_order(one)) for name, one in value.items() if name != "segmentation"]
    return [names_in_order(one) for one in value if isinstance(one, dict)] if isinstance(value, list) else None


def without_masks_xml(content: bytes) -> str:
    return re.sub(r" (points|rle|left|top|width|height)=(\"[^\"]*\"|'[^']*')", "", content.decode())


def without_masks_txt(content: bytes) -> str:
    return re.sub(r"(?m)^(\d+)( [\d.]+ [\d.]+){3,}", r"\1", content.decode())


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", EVERY)
def test_another_format_holds_the_same_masks(name: str, to: Any, still: Refiner, tmp_path: Path) -> None:
    if name == to:
        return
    source = EVERY[name](tmp_path)
    target = tmp_path / "out" / {"coco": "new.json", "labelstudio": "new.json", "cvat": "new.xml"}.get(to, "new")
    ledger = done(still, source, target, to=to)
    assert (ledger.done, ledger.failures) == (2, ())
    before = sorted(masks_of(source), key=lambda one: (one[0], one[3].sum()))
    images = source if name in ("sa1b", "labelme") else source / "images" if name == "yolo" else tmp_path / "images"
    images = tmp_path if name == "lvis" else images
    after = sorted(masks_of(target, images), key=lambda one: (one[0], one[3].sum()))
    assert [one[0] for one in after] == [one[0] for one in before]
    if "sa1b" not in (name, to):
        assert [one[2] for one in after] == [one[2] for one in before]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(other[3], one[3])


def test_a_chain_through_all_formats_changes_no_pixel(still: Refiner, tmp_path: Path) -> None:
    source = start = coco(tmp_path)
    for step, to in enumerate(("sa1b", "labelme", "cvat", "labelstudio", "yolo", "coco")):
        suffix = {"cvat": ".xml", "coco": ".json", "labelstudio": ".json"}.get(to, "")
        target = tmp_path / f"step{step}{suffix}"
        ledger = done(still, source, target, to=to, images=tmp_path / "images")
        assert ledger.failures == ()
        source = target
    images = tmp_path / "images"
    before, after = ({(one[0], one[3].sum()): one[3] for one in masks_of(path, images)} for path in (start, source))
    assert before.keys() == after.keys() and len(before) == 3
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


def test_crowds_stay_are_counted_and_told(refiner: Refiner, tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["annotations"][2]["iscrowd"] = 1
    source.write_text(json.dumps(document))
    ledger = done(refiner, source, tmp_path / "out.json")
    assert [entry.name for entry in ledger.omissions] == ["annotation 2"]
    assert "--crowds refine" in ledger.omissions[0].reason
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["annotations"][2] == document["annotations"][2]
    done(refiner, source, tmp_path / "all.json", crowds="refine")
    assert json.loads((tmp_path / "all.json").read_text())["annotations"][2] != document["annotations"][2]
    ledger = done(refiner, source, tmp_path / "yolo", to="yolo")
    assert "cannot mark" in ledger.omissions[0].reason
    assert sum(len(path.read_text().splitlines()) for path in (tmp_path / "yolo").rglob("labels/*.txt")) == 2
    for row in document["annotations"]:
        row["iscrowd"] = 1
    source.write_text(json.dumps(document))
    with pytest.raises(InputError, match="all 3 masks are crowds, which stay: give --crowds refine"):
        annotations_job(source, tmp_path / "none.json")


@pytest.mark.parametrize(
    ("flag", "is_crowd"),
    [("0", False), ("1", True), (1.0, True), (0.0, False), ("0.0", False), ("False", False), (True, True),
     (None, False), ("", False), (float("nan"), False)],
)  # fmt: skip
def test_a_flag_of_crowds_means_the_same_however_it_is_written(flag: Any, is_crowd: bool, tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["annotations"][0]["iscrowd"] = flag
    source.write_text(json.dumps(document))
    crowds = [one.crowd for photo in read(source).contents.photos for one in photo.instances if one.key == "0"]
    assert crowds == [is_crowd]


@pytest.mark.parametrize("to", ["yolo", "labelme", "cvat", "labelstudio"])
def test_a_polygon_that_leaves_the_photo_draws_the_same_in_every_format(
    to: Any, still: Refiner, tmp_path: Path
) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["annotations"] = document["annotations"][:1]
    document["annotations"][0]["segmentation"] = [[-30, 20, 60, -20, 80, 30, 20, 60]]
    source.write_text(json.dumps(document))
    target = tmp_path / {"cvat": "new.xml", "labelstudio": "new.json"}.get(to, "new")
    done(still, source, target, to=to)
    (one,) = (instance for photo in read(target).contents.photos for instance in photo.instances)
    values = [value for ring in scaled(one.mask["polygons"], one.mask.get("scale"), SIZE) for value in ring]
    assert min(values) >= 0 and max(values) <= SIZE[1] and max(values[1::2]) <= SIZE[0]
    (before,) = (mask for *_, mask in masks_of(source))
    np.testing.assert_array_equal(decode_mask(one.mask, SIZE)[0], before)


def test_a_second_run_does_nothing_and_writes_the_same(refiner: Refiner, tmp_path: Path) -> None:
    source, target = coco(tmp_path), tmp_path / "deep" / "out.json"
    done(refiner, source, target)
    first = target.read_bytes()
    target.unlink()
    ledger = done(refiner, source, target)
    assert (ledger.done, ledger.skipped) == (0, 2) and target.read_bytes() == first


def test_what_a_polygon_joins_is_told_once_for_a_photo(still: Refiner, tmp_path: Path) -> None:
    source = EVERY["sa1b"](tmp_path)
    ledger = done(still, source, tmp_path / "out", to="yolo")
    assert sorted(ledger.remarks) == [
        "sa_1.json: annotation 1 has 1 hole, joined to its outline by lines without width, for a polygon has none",
        "sa_2.json: annotation 0 has 2 parts, joined to its outline by lines without width, for a polygon has none",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("text.txt", "none of the formats that are known"),
        ("export.zip", "unpack it"),
        ("instances.json.gz", "unpack it"),
        ("panoptic.json", "use segrefiner panoptic"),
        ("min.json", "JSON-MIN .* export JSON"),
        ("broken", "none of the formats .*no complete JSON"),
        ("empty.json", "none of the formats"),
        ("absent.json", "No such file"),
        ("folder", "none of the formats"),
        ("deep.json", "cannot be read as JSON"),
        ("other.xml", "no file of CVAT"),
        ("broken.xml", "no complete XML"),
    ],
)
def test_what_is_no_annotation_file_is_told_in_one_line(given: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.json").write_text('{"shapes": [')
    segments = {"image_id": 1, "file_name": "a.png", "segments_info": []}
    contents = {
        "panoptic.json": json.dumps({"images": [], "annotations": [segments], "categories": []}),
        "min.json": json.dumps([{"image": "/data/upload/a.png", "id": 1, "annotator": 1, "annotation_id": 3}]),
    } | {"deep.json": "[" * 100_000, "empty.json": "{}", "other.xml": "<a/>", "broken.xml": "<annotations>"}
    if given not in ("absent.json", "folder", "broken"):
        (tmp_path / given).write_text(contents.get(given, ""))
    with pytest.raises(InputError, match=said) as error:
        annotations_job(tmp_path / given, tmp_path / "out")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sa1b", "yolo", "labelme"])
def test_the_output_may_not_lie_in_the_folder_of_the_input(name: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    for target in (source, source / "refined"):
        with pytest.raises(InputError, match="choose another"):
            annotations_job(source, target)


def test_two_photos_of_one_name_but_the_suffix_need_two_names(still: Refiner, tmp_path: Path) -> None:
    source = coco(tmp_path)
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "a.jpg")
    source.write_text(source.read_text().replace("b.png", "a.jpg"))
    ledger = done(still, source, tmp_path / "out", to="yolo")
    assert ledger.done == 1 and "rename one" in ledger.failures[0].reason


def test_empty_masks_are_left_out_and_stay(refiner: Refiner, tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["annotations"][0]["segmentation"] = []
    document["annotations"][1]["segmentation"] = encode_rle(np.zeros(SIZE, bool))
    source.write_text(json.dumps(document))
    ledger = done(refiner, source, tmp_path / "out.json")
    assert [entry.name for entry in ledger.omissions] == ["annotation 0", "annotation 1"]
    assert json.loads((tmp_path / "out.json").read_text())["annotations"][:2] == document["annotations"][:2]


def test_the_parts_of_a_group_become_one_object_of_another_format(still: Refiner, tmp_path: Path) -> None:
    source = EVERY["labelme"](tmp_path)
    document = json.loads((source / "a.json").read_text())
    corners = [[[2, 2], [9, 2], [9, 9]], [[20, 30], [40, 30], [30, 40]]]
    plain = {"group_id": 7, "shape_type": "polygon", "flags": {}}
    document["shapes"] = [{"label": label, "points": one, **plain} for label in ("cat", "dog") for one in corners]
    (source / "a.json").write_text(json.dumps(document))
    parts = [mask for photo, _, label, mask in masks_of(source) if (photo, label) == ("a", "cat")]
    ledger = done(still, source, tmp_path / "coco.json", to="coco")
    assert ledger.failures == ()
    found = [(label, mask) for photo, _, label, mask in masks_of(tmp_path / "coco.json", source) if photo == "a"]
    assert [label for label, _ in found] == ["cat", "dog"]
    for _, mask in found:
        np.testing.assert_array_equal(mask, parts[0] | parts[1])
    done(still, source, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(source)


@pytest.mark.parametrize("name", EVERY)
def test_masks_are_replaced_from_python(name: str, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    target = output(tmp_path, name, source)
    document = read(source)
    masks = {
        (photo.key, one.key): decode_mask(one.mask, SIZE)[0]
        for photo in document.contents.photos
        for one in photo.instances
    }
    document.write(target, new_masks(document, masks))
    assert files_of(target) == files_of(source)
    shifted = {key: np.roll(mask, 1, axis=1) for key, mask in masks.items()}
    document.write(target, new_masks(document, shifted))
    for photo in read(target).contents.photos:
        for one in photo.instances:
            np.testing.assert_array_equal(decode_mask(one.mask, SIZE)[0], shifted[photo.key, one.key])


@pytest.mark.slow
@pytest.mark.parametrize(("to", "is_file"), [("coco", True), ("cvat", True), ("yolo", False), ("labelme", False)])
def test_the_format_says_whether_the_target_is_a_file(to: Any, is_file: bool, still: Refiner, tmp_path: Path) -> None:
    """A name may have any suffix, or none: the job's state must not make a folder where its file goes."""
    source = coco(tmp_path)
    for name in ("refined", "refined.v2", "refined.json"):
        target = tmp_path / "out" / name
        command = ["annotations", str(source), "-o", str(target), "--to", to, "--workers", "0", "--strength", "0"]
        assert annotations_job(source, target, to=to).writes_file is is_file
        assert CliRunner().invoke(main, command).exit_code == 0
        assert target.is_file() is is_file and target.is_dir() is not is_file


@pytest.mark.parametrize(("name", "text"), [
    ("a.json", '{"images": [], "annotations": []}'), ("a.xml", "<annotations/>"),
])  # fmt: skip
def test_a_file_without_any_mask_is_left_out_by_name(name: str, text: str, tmp_path: Path) -> None:
    source = tmp_path / name
    source.write_text(text)
    assert annotations_job(source, tmp_path / "out" / name).left_out == {str(source): "it lists no mask"}


@pytest.mark.parametrize("to", [one for one in FORMATS if one != "coco"])
def test_a_photo_that_is_listed_twice_is_written_once(to: Any, still: Refiner, tmp_path: Path) -> None:
    source = coco(tmp_path)
    document = json.loads(source.read_text())
    document["images"].append(document["images"][0] | {"id": 77})
    document["annotations"][2]["image_id"] = 77
    source.write_text(json.dumps(document))
    target = output(tmp_path, to, source if to in SINGLE_FILE else tmp_path).with_suffix(
        ".xml" if to == "cvat" else ".json"
    )
    ledger = done(still, source, target, to=to)
    assert (ledger.done, ledger.failures) == (3, ())
    said = f"2 entries are of {tmp_path / 'images' / 'a.png'}: it is written once, with their masks"
    assert annotations_job(source, target.with_name("again" + target.suffix), to=to).notes == (said,)
    new = read(target).contents.photos
    assert sorted((Path(photo.names[0]).stem, len(photo.instances)) for photo in new) == [("a", 2), ("b", 1)]
