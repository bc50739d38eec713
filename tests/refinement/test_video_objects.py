"""Videos of several objects, as DAVIS and YouTube-VOS store them: a palette's index is an object."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from helpers.tiny import TINY, restless
from segrefiner import InputError, Refiner
from segrefiner.cli.main import main
from segrefiner.imaging.clips import holds_objects, read_object_clip
from segrefiner.imaging.label_files import LabelMap, read_labels, write_labels
from segrefiner.imaging.reading import Photo
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save
from segrefiner.refinement.video_objects import refine_objects

HEIGHT, WIDTH = 48, 64
PALETTE = np.random.default_rng(9).integers(1, 255, (256, 3)).astype(np.uint8)
PALETTE[0] = 0


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), pipeline=restless)


def frame(index: int, *more: tuple[int, tuple[slice, slice]]) -> tuple[str, Photo, LabelMap]:
    """Two objects that touch, as photo and label map, with more labels in boxes."""
    pixels = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:40, 8:30], labels[10:40, 30:54] = 1, 2
    for label, box in more:
        labels[box] = label
    return f"{index:05d}", Photo(pixels), LabelMap(labels, PALETTE)


LATER, VOID = (7, np.s_[42:46, 4:12]), (255, np.s_[8:42, 28:32])


def folders(place: Path, clip: list[tuple[str, Photo, LabelMap]]) -> tuple[Path, Path]:
    for name, photo, label_map in clip:
        for folder in ("frames", "masks"):
            (place / folder).mkdir(exist_ok=True)
        Image.fromarray(photo.pixels).save(place / "frames" / f"{name}.png")
        write_labels(place / "masks" / f"{name}.png", label_map)
    return place / "frames", place / "masks"


def command(place: Path, *more: str) -> Result:
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), place / "tiny.safetensors")
    given = ["video", *map(str, (place / "frames", place / "masks", "-o", place / "out"))]
    return CliRunner().invoke(main, [*given, "--model", str(place / "tiny.safetensors"), *more])


def test_objects_take_nothing_that_another_keeps(refiner: Refiner) -> None:
    clip = [frame(index) for index in range(3)]
    for (name, photo, coarse), (refined_name, refined) in zip(clip, refine_objects(refiner, clip), strict=True):
        assert refined_name == name and refined.objects == (1, 2) and refined.label_map.palette is PALETTE
        labels = refined.label_map.labels
        assert (labels != coarse.labels).any()
        alone = {one: refiner(photo, coarse.labels == one).mask for one in (1, 2)}
        for one, other in ((1, 2), (2, 1)):
            kept = (coarse.labels == one) & alone[one]
            np.testing.assert_array_equal(labels[kept], one)
            # What a refined object has, its own mask has.
            assert not ((labels == one) & ~alone[one]).any()
            given_up = (coarse.labels == one) & ~alone[one] & ~alone[other]
            np.testing.assert_array_equal(labels[given_up], 0)


def test_objects_come_and_go(refiner: Refiner) -> None:
    none = frame(1)
    none[2].labels[:] = 0
    clip = [none, frame(2), frame(3, LATER), none, frame(4), none]
    refined = [one for _, one in refine_objects(refiner, clip, smooth=0.5)]
    assert [one.objects for one in refined] == [(), (1, 2), (1, 2, 7), (), (1, 2), ()]
    assert not refined[0].label_map.labels.any() and not refined[5].label_map.labels.any()
    # A frame is its own, whatever else is refined, where nothing was before it.
    for index in (1, 4):
        alone = next(one for _, one in refine_objects(refiner, [clip[index]], smooth=0.5))
        np.testing.assert_array_equal(alone.label_map.labels, refined[index].label_map.labels)


def test_void_stays(refiner: Refiner) -> None:
    clip = [frame(index, VOID) for index in range(2)]
    for (_, _, coarse), (_, refined) in zip(clip, refine_objects(refiner, clip), strict=True):
        np.testing.assert_array_equal(refined.label_map.labels == 255, coarse.labels == 255)
        assert refined.objects == (1, 2)
    everything = next(one for _, one in refine_objects(refiner, clip, ignore=[]))
    assert everything.objects == (1, 2, 255)
    with pytest.raises(InputError, match="the background of mask 00000 is 0, which is ignored"):
        next(refine_objects(refiner, clip, ignore=[0]))


def test_equal_frames_are_steadied_to_equal_maps(refiner: Refiner) -> None:
    clip = [frame(0)] * 3
    maps = [one.label_map.labels for _, one in refine_objects(refiner, clip, smooth=0.7)]
    assert all((one == maps[0]).all() for one in maps)
    with pytest.raises(InputError, match="smooth"):
        refine_objects(refiner, clip, smooth=1)


@pytest.mark.parametrize("mode", ["palette", "transparent", "white first", "grey"])
def test_the_background_is_no_object(mode: str, refiner: Refiner) -> None:
    name, photo, label_map = frame(0)
    palette: Any = {
        "palette": PALETTE,
        "transparent": np.dstack([PALETTE[None], np.full((1, 256), 255, np.uint8)])[0],
        "white first": np.array([[255, 255, 255], [0, 0, 0], [9, 9, 9]], np.uint8),
        "grey": None,
    }[mode]
    if mode == "transparent":
        palette[2, 3] = 0
    background = {"transparent": 2, "white first": 1}.get(mode, 0)
    refined = next(one for _, one in refine_objects(refiner, [(name, photo, LabelMap(label_map.labels, palette))]))
    assert refined.objects == tuple(one for one in (0, 1, 2) if one != background)


def test_the_command_keeps_palettes(tmp_path: Path) -> None:
    clip = [frame(0), frame(1, LATER, VOID), frame(2)]
    clip[2][2].labels[:] = 0
    _, masks = folders(tmp_path, clip)
    done = command(tmp_path, "--json", "--smooth", "0.5")
    told = json.loads(done.stdout)
    assert done.exit_code == 0, done.output
    assert (told["total"], told["done"], told["left_out"]) == (3, 2, 1)
    assert "each number is an object: 1, 2, 7; 255 is no object and stays" in done.stderr
    assert "00002: it has no object: written as it was" in done.stderr
    for name, _, coarse in clip:
        before, after = read_labels(masks / f"{name}.png"), read_labels(tmp_path / "out" / f"{name}.png")
        np.testing.assert_array_equal(after.palette, before.palette)
        np.testing.assert_array_equal(after.labels == 255, coarse.labels == 255)
        assert set(np.unique(after.labels)) <= set(np.unique(coarse.labels))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("colour", "mask 00001 shows 0 in the colour"),
        ("kind", "mask 00000 has a palette and 00001 has none"),
        ("size", "5x5"),
        ("missing", "lacks 1 of 2 masks: 00001"),
        ("damaged", "00001"),
        ("colours", "give the file with their numbers"),
    ],
)
def test_bad_masks_are_told_before_a_frame_is_written(spoil: str, said: str, tmp_path: Path) -> None:
    _, masks = folders(tmp_path, [frame(0), frame(1)])
    target = masks / "00001.png"
    labels = read_labels(target).labels
    if spoil == "colour":
        write_labels(target, LabelMap(labels, PALETTE[::-1].copy()))
    elif spoil == "kind":
        write_labels(target, LabelMap(labels))
    elif spoil == "size":
        write_labels(target, LabelMap(labels[:5, :5], PALETTE))
    elif spoil == "colours":
        Image.fromarray(PALETTE[labels]).save(target)
    else:
        target.write_bytes(target.read_bytes()[:60])
        if spoil == "missing":
            target.unlink()
    done = command(tmp_path)
    assert done.exit_code == 1 and said in done.stderr and done.stderr.count("\n") == 1, done.output
    assert not (tmp_path / "out").exists()


def test_grey_numbers_are_objects_where_that_is_said(tmp_path: Path) -> None:
    frames, masks = folders(
        tmp_path, [(name, photo, LabelMap(one.labels)) for name, photo, one in [frame(0), frame(1)]]
    )
    assert not holds_objects(masks)
    assert "3 different values" in command(tmp_path).stderr
    done = command(tmp_path, "--objects", "--ignore", "none")
    assert done.exit_code == 0 and "each number is an object: 1, 2\n" in done.stderr
    assert "leave out --soft" in command(tmp_path, "--objects", "--soft").stderr
    assert "expected whole numbers, or none" in command(tmp_path, "--ignore", "void").stderr
    with pytest.raises(InputError, match="is no folder"):
        list(read_object_clip(frames, masks / "00000.png"))


def test_palettes_of_greys_are_masks(tmp_path: Path) -> None:
    name, photo, label_map = frame(0)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    _, masks = folders(tmp_path, [(name, photo, LabelMap((label_map.labels == 1) * np.uint8(255), greys))])
    assert not holds_objects(masks) and command(tmp_path).exit_code == 0
    with Image.open(tmp_path / "out" / f"{name}.png") as written:
        assert written.mode == "L"


def test_unused_colours_may_differ(tmp_path: Path) -> None:
    frames, masks = folders(tmp_path, [frame(0), frame(1)])
    other = PALETTE.copy()
    other[200:] = 3
    write_labels(masks / "00001.png", LabelMap(read_labels(masks / "00001.png").labels, other))
    assert len(list(read_object_clip(frames, masks))) == 2 and holds_objects(masks)
