"""What is hostile or damaged in an annotation file is refused item by item, in one line, and stays as it is."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.annotated import EVERY, SIZE, coco, cvat, files_of, labelme, labelstudio, sa1b, write_photos, yolo
from helpers.tiny import TINY, restless
from segrefiner import Refiner
from segrefiner.errors import InputError, MaskError
from segrefiner.formats.masks import decode_mask
from segrefiner.formats.recognition import read
from segrefiner.jobs.annotations import annotations_job
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.run import run
from segrefiner.ledger import Ledger
from segrefiner.model.unet import DenoisingUNet


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def done(refiner: Refiner, source: Path, target: Path, images: Path | None = None) -> Ledger:
    job = annotations_job(source, target, images=images)
    return run(job, LocalEngine(refiner, workers=0), target.parent / "state", config="")


FIRST_PHOTO = {
    "coco": (coco, "", '"a.png"'),
    "sa1b": (sa1b, "sa_1.json", '"sa_1.png"'),
    "labelme": (labelme, "a.json", '"a.png"'),
    "cvat": (cvat, "", '"a.png"'),
    "labelstudio": (labelstudio, "", '"/data/upload/1/0a1b2c3d-a.png"'),
}
"""How a document is made, in which file of it the first photo is named, and what it is called."""


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "..\\\\secret.png", "x/../../secret.png"])
@pytest.mark.parametrize("format", FIRST_PHOTO)
def test_a_photo_outside_is_refused_alone(format: str, name: str, refiner: Refiner, tmp_path: Path) -> None:
    make, file, before = FIRST_PHOTO[format]
    root = tmp_path / "inner"
    source = make(root)
    write_photos(tmp_path, "secret.png")
    write_photos(root, "secret.png")
    path = source / file if file else source
    path.write_text(path.read_text(encoding="utf-8").replace(before, f'"{name}"', 1), encoding="utf-8")
    target = tmp_path / "out" / (source.name if source.is_file() else "new")
    images = source if source.is_dir() else root / "images"
    ledger = done(refiner, source, target, images)
    assert ledger.done == 1 and len(ledger.failures) == 1, ledger
    assert "secret.png" in ledger.failures[0].reason


@pytest.mark.parametrize("name", EVERY)
def test_a_lost_photo_fails_alone_and_its_masks_stay(name: str, refiner: Refiner, tmp_path: Path) -> None:
    source = EVERY[name](tmp_path)
    photo = next(path for path in sorted(tmp_path.rglob("*.png")) if path.stem in ("b", "sa_2"))
    photo.unlink()
    target = tmp_path / "out" / (source.name if source.is_file() else "new")
    ledger = done(refiner, source, target)
    assert (ledger.done, len(ledger.failures)) == (1, 1)
    assert files_of(target).keys() == files_of(source).keys()


def edited_json(path: Path, change: Callable[[Any], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


BAD_POINTS = [
    [], [[1, 1], [2, 2]], [[1, 1], [2, 2], [3]], [[1, 1], [2, 2], [math.nan, 3]], [[1, 1], [2, 2], [1e300, 3]],
    [[1, 1], [2, 2], ["x", 3]], "text", None, 5, [[1, 1], [2, 2], [10**400, 1]], [[True, 1], [2, 2], [3, 3]],
]  # fmt: skip


@pytest.mark.parametrize("points", BAD_POINTS)
def test_bad_points_of_labelme_fail_alone(points: Any, refiner: Refiner, tmp_path: Path) -> None:
    source = labelme(tmp_path)
    edited_json(source / "a.json", lambda d: d["shapes"][0].update(points=points))
    ledger = done(refiner, source, tmp_path / "out")
    assert [entry.name.split(" of ")[0] for entry in ledger.failures] == ["a.json: shape 0"], ledger.failures
    assert ledger.done == 2


@pytest.mark.parametrize("points", BAD_POINTS)
def test_bad_points_of_label_studio_fail_alone(points: Any, refiner: Refiner, tmp_path: Path) -> None:
    source = labelstudio(tmp_path)
    edited_json(source, lambda d: d[0]["annotations"][0]["result"][0]["value"].update(points=points))
    ledger = done(refiner, source, tmp_path / "out.json")
    assert [entry.name.split(" of ")[0] for entry in ledger.failures] == ["task 0: annotations 0 result 0"]
    assert ledger.done == 2


@pytest.mark.parametrize("mask", [None, "", "not base 64!", "aGVsbG8=", 5, ["x"], "iVBORw0KGgo=", {"a": 1}, "\ud800"])
def test_bad_masks_of_labelme_fail_alone(mask: Any, refiner: Refiner, tmp_path: Path) -> None:
    source = labelme(tmp_path)
    edited_json(source / "a.json", lambda d: d["shapes"][2].update(mask=mask))
    ledger = done(refiner, source, tmp_path / "out")
    assert [entry.name.split(" of ")[0] for entry in ledger.failures] == ["a.json: shape 2"]
    assert ledger.done == 2


@pytest.mark.parametrize(
    "rle",
    [None, "", [], [256], [-1], [0.5], ["x"], [0, 0, 0, 1], [255] * 8, [0, 0, 48, 0, 57, 27, 255, 0], [True] * 9, "abc",
     [10**30], [0] * 40],
)  # fmt: skip
def test_bad_bytes_of_label_studio_fail_alone(rle: Any, refiner: Refiner, tmp_path: Path) -> None:
    source = labelstudio(tmp_path)
    edited_json(source, lambda d: d[1]["annotations"][0]["result"][0]["value"].update(rle=rle))
    ledger = done(refiner, source, tmp_path / "out.json")
    assert [entry.name.split(" of ")[0] for entry in ledger.failures] == ["task 1: annotations 0 result 0"]
    assert ledger.done == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(data=None), lambda t: t.update(data={"image": 5}),
        lambda t: t["data"].update(image="data:x"),
        lambda t: t["annotations"][0]["result"][0].update(original_width=-1),
        lambda t: t["annotations"][0]["result"][0].update(original_width=9),
        lambda t: t["annotations"][0]["result"][0].update(image_rotation=90),
    ],
)  # fmt: skip
def test_bad_tasks_of_label_studio_fail_alone(change: Any, refiner: Refiner, tmp_path: Path) -> None:
    source = labelstudio(tmp_path)
    edited_json(source, lambda d: change(d[0]))
    ledger = done(refiner, source, tmp_path / "out.json")
    assert len(ledger.failures) == 1 and ledger.done >= 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('rle="', 'rle="9, '), ('rle="', 'rle="-1, '), ('rle="', 'rle="x, '), ('rle="', f'rle="{"9" * 5000}, '),
        ('left="', 'left="9'), ('left="', 'left="-'), ('top="', 'top="nan'), ('rle="', 'lre="'),
        ('points="12.25', 'points="NaN'), ('points="12.25', 'points="1e999'), ('points="12.25', 'points="9999'),
        ('points="12.25', 'points=";'), ('points="', 'stniop="'),
    ],
)  # fmt: skip
def test_bad_shapes_of_cvat_fail_alone(before: str, after: str, refiner: Refiner, tmp_path: Path) -> None:
    source = cvat(tmp_path)
    text = source.read_text(encoding="utf-8")
    assert before in text
    source.write_text(text.replace(before, after, 1), encoding="utf-8")
    ledger = done(refiner, source, tmp_path / "out.xml")
    assert (ledger.done, len(ledger.failures)) == (2, 1), ledger.failures
    assert after.encode() in (tmp_path / "out.xml").read_bytes()


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://localhost/a.dtd">',
        '<!DOCTYPE annotations>',
    ],
)  # fmt: skip
def test_xml_with_a_dtd_or_entities_is_refused(head: str, tmp_path: Path) -> None:
    source = cvat(tmp_path)
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("<annotations>", f"{head}<annotations>", 1), encoding="utf-8")
    with pytest.raises(InputError, match="DTD or entities"):
        _ = read(source).contents


@pytest.mark.parametrize(
    "text", ["<a>" * 100_000, "<annotations>&x;</annotations>", "\0", '<?xml encoding="x"?>', "<\0a\0/\0>\0"]
)
def test_broken_xml_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError) as error:
        _ = read(tmp_path / "a.xml").contents
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    ["0", "0 0.1", "0 0.1 0.1 0.5 0.5 nan 0.9", "0 0.1 0.1 0.5 0.5 1e400 0.9", "0 0.1 0.1 0.5 0.5 50 0.9",
     "x 1 1 1 1 1 1",
     "-1 0.1 0.1 0.5 0.5 0.1 0.9", "0.5 0.1 0.1 0.5 0.5 0.1 0.9", "0 0.1 0.1 0.5 0.5 0.1 y", "é"],
)  # fmt: skip
def test_bad_lines_of_yolo_fail_alone(line: str, refiner: Refiner, tmp_path: Path) -> None:
    source = yolo(tmp_path)
    path = source / "labels" / "val" / "b.txt"
    path.write_text(f"{line}\n{path.read_text()}", encoding="utf-8")
    ledger = done(refiner, source, tmp_path / "out")
    assert [entry.name.split(" of ")[0] for entry in ledger.failures] == ["labels/val/b.txt line 1"], ledger.failures
    assert ledger.done == 2
    assert (tmp_path / "out" / "labels" / "val" / "b.txt").read_text(encoding="utf-8").startswith(f"{line}\n1 ")


def test_a_text_of_yolo_that_is_none_fails_alone_and_is_copied(refiner: Refiner, tmp_path: Path) -> None:
    source = yolo(tmp_path)
    (source / "labels" / "val" / "b.txt").write_bytes(b"\xff\xfe0 1")
    ledger = done(refiner, source, tmp_path / "out")
    assert (ledger.done, [entry.name for entry in ledger.failures]) == (1, ["labels/val/b.txt"])
    assert (tmp_path / "out" / "labels" / "val" / "b.txt").read_bytes() == b"\xff\xfe0 1"


DESCRIPTIONS = ["names: 5", "names: {a: b}", "names: [", "[" * 900, "!!python/object:x", "\0"]


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_a_bad_description_of_yolo_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    source = yolo(tmp_path)
    (source / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=r"data\.yaml") as error:
        _ = read(source).contents
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b'{"shapes": [' + b"1" * 5000 + b"]}", b"\xff\xff", b"null"])
@pytest.mark.parametrize("make", [sa1b, labelme])
def test_a_broken_file_of_a_folder_fails_alone_and_is_copied(
    make: Callable[[Path], Path], content: bytes, refiner: Refiner, tmp_path: Path
) -> None:
    source = make(tmp_path)
    (source / "z.json").write_bytes(content)
    ledger = done(refiner, source, tmp_path / "out")
    assert ledger.done == 2 and len(ledger.failures) + len([e for e in ledger.omissions if e.name == "z.json"]) == 1
    assert (tmp_path / "out" / "z.json").read_bytes() == content


def test_records_of_any_kind_raise_no_other_error(tmp_path: Path) -> None:
    strange = [None, True, 1.5, "x", [], {}, [[]], math.inf, 10**400]
    for name in ("coco", "sa1b", "labelme", "labelstudio"):
        source = EVERY[name](tmp_path / name)
        paths = [source] if source.is_file() else sorted(source.glob("*.json"))[:1]
        for path in paths:
            if path.suffix != ".json":
                continue
            text = path.read_text()
            for where in places(json.loads(text)):
                for value in strange:
                    document = json.loads(text)
                    put(document, where, value)
                    path.write_text(json.dumps(document))
                    try:
                        contents = read(source).contents
                    except InputError:
                        continue
                    for photo in contents.photos:
                        for instance in photo.instances:
                            try:
                                assert decode_mask(instance.mask, SIZE)[0].dtype == np.bool_
                            except MaskError as error:
                                assert "\n" not in str(error)
            path.write_text(text)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in a document, of lists the first one only."""
    found = [above] if above else []
    if isinstance(value, dict):
        for name, one in value.items():
            found += places(one, (*above, name))
    elif isinstance(value, list) and value:
        found += places(value[0], (*above, 0))
    return found


def put(document: Any, where: tuple[Any, ...], value: Any) -> None:
    for step in where[:-1]:
        document = document[step]
    document[where[-1]] = value


@pytest.mark.parametrize(("make", "name"), [(labelme, "z.json"), (sa1b, "z.json"), (yolo, "labels/z.txt")])
def test_pipes_and_links_to_nowhere_are_left_out(
    make: Callable[[Path], Path], name: str, refiner: Refiner, tmp_path: Path
) -> None:
    source = make(tmp_path)
    os.mkfifo(source / name)
    (source / name).with_stem("y").symlink_to("nowhere")
    ledger = done(refiner, source, tmp_path / "out")
    assert ledger.done == 2 and ledger.failures == ()
    assert {entry.name for entry in ledger.omissions} >= {name, name.replace("z", "y")}
