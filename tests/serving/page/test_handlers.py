"""What the page makes of its inputs, what it shows, and what its door lets through."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.serving import HEIGHT, MASK, OTHER, PHOTO, REPORT, WIDTH, encoded, header_only, refiner
from segrefiner.errors import ImageError, InputError, MaskError, SizeMismatchError
from segrefiner.formats.masks import decode_mask
from segrefiner.formats.recognition import read as read_annotations
from segrefiner.model.diffusion import silent
from segrefiner.refinement.held_back import HeldBack
from segrefiner.refinement.options import Options
from segrefiner.serving.page.annotation_files import annotation_files
from segrefiner.serving.page.pictures import (
    HELD_COLOURS,
    LOOKS,
    PARTS,
    SIDE,
    animation,
    confidence_picture,
    held_picture,
    numbers,
    slider_pair,
    way_frames,
)
from segrefiner.serving.page.watching import Meter, refine_watched

inputs = pytest.importorskip("segrefiner.serving.page.inputs")
reading = pytest.importorskip("segrefiner.serving.page.reading")
held_legend = pytest.importorskip("segrefiner.serving.page.components").held_legend

PIXELS = 1_000_000
PROBABILITY = np.where(OTHER, np.float32(0.9), np.float32(0.1))


def file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_files_are_objects_of_their_own_names(tmp_path: Path) -> None:
    paths = [file(tmp_path, "dog.png", encoded(MASK)), file(tmp_path, "cat.png", encoded(OTHER))]
    names, masks = reading.read_objects(paths, PHOTO.shape[:2], PIXELS)
    assert names == ["dog", "cat"] and (masks[0] == MASK).all() and (masks[1] == OTHER).all()


def test_a_label_map_is_all_of_its_objects(tmp_path: Path) -> None:
    labels = np.where(MASK, 3, 0).astype(np.uint8)
    labels[40:46, 50:60] = 7
    names, masks = reading.read_objects([file(tmp_path, "map.png", encoded(labels))], PHOTO.shape[:2], PIXELS)
    assert names == ["label 3", "label 7"]
    assert all((mask == (labels == value)).all() for mask, value in zip(masks, (3, 7), strict=True))


def test_a_soft_mask_is_one_object_cut_in_its_middle(tmp_path: Path) -> None:
    soft = np.asarray(
        Image.fromarray(MASK.astype(np.uint8) * 255).resize((2 * WIDTH, 2 * HEIGHT)).resize((WIDTH, HEIGHT))
    )
    assert len(np.unique(soft)) > 2
    names, masks = reading.read_objects([file(tmp_path, "soft.png", encoded(soft))], PHOTO.shape[:2], PIXELS)
    assert names == ["soft"] and (masks[0] == (soft >= 128)).all()


def test_what_cannot_be_read_is_told_by_the_visitors_names(tmp_path: Path) -> None:
    broken = file(tmp_path, "holiday.jpg", b"no photo")
    for read in (
        lambda: reading.read_photo(broken, PIXELS),
        lambda: reading.read_objects([broken], PHOTO.shape[:2], PIXELS),
    ):
        with pytest.raises(InputError) as caught:
            read()
        assert "holiday.jpg" in str(caught.value) and str(tmp_path) not in str(caught.value)
    with pytest.raises(ImageError, match="pixels"):
        reading.read_photo(file(tmp_path, "large.png", header_only(5000, 5000)), PIXELS)
    with pytest.raises(MaskError, match="pixels"):
        reading.read_objects([file(tmp_path, "large_mask.png", header_only(5000, 5000))], PHOTO.shape[:2], PIXELS)
    with pytest.raises(SizeMismatchError):
        reading.read_objects([file(tmp_path, "small.png", encoded(MASK[1:]))], PHOTO.shape[:2], PIXELS)
    with pytest.raises(InputError, match="too many"):
        reading.read_objects([broken] * (reading.OBJECTS + 1), PHOTO.shape[:2], PIXELS)


def test_painting_is_scaled_to_the_photo() -> None:
    layer = np.where(MASK, np.uint8(200), np.uint8(0))
    assert (inputs.painted_mask([layer], HEIGHT, WIDTH) == MASK).all()
    large = inputs.painted_mask([layer], 4 * HEIGHT, 4 * WIDTH)
    assert abs(large.mean() - MASK.mean()) < 0.01
    assert not inputs.painted_mask([], HEIGHT, WIDTH).any()


def test_boxes_are_typed_whole_or_not_at_all() -> None:
    assert inputs.box_around(MASK) == (15, 10, 45, 30)
    assert inputs.typed_box((1, 2, 30, 40), HEIGHT, WIDTH) == (1, 2, 30, 40)
    assert inputs.typed_box((None,) * 4, HEIGHT, WIDTH) is None
    for numbers_ in ((1, 2, 3, None), (5, 5, 5, 9), (0, 0, WIDTH + 1, 9), (-1, 0, 9, 9)):
        with pytest.raises(InputError):
            inputs.typed_box(numbers_, HEIGHT, WIDTH)
    with pytest.raises(MaskError, match="painted"):
        inputs.box_around(np.zeros((9, 9), bool))


@pytest.mark.parametrize("scale", [1, 16])
def test_what_stands_out_in_a_box_is_found_and_nothing_outside_it(scale: int) -> None:
    noise = np.random.default_rng(0).integers(0, 30, (HEIGHT, WIDTH, 3))
    photo = (np.where(MASK[..., None], (200, 60, 60), (40, 90, 40)) + noise).astype(np.uint8)
    photo, mask = (array.repeat(scale, 0).repeat(scale, 1) for array in (photo, MASK))
    box = tuple(scale * side for side in (10, 5, 50, 36))
    found = inputs.mask_in_box(photo, box)  # type: ignore[arg-type]
    assert (found & mask).sum() / (found | mask).sum() > 0.9
    assert (found == inputs.mask_in_box(photo, box)).all()  # type: ignore[arg-type]
    outside = np.ones_like(mask)
    outside[box[1] : box[3], box[0] : box[2]] = False
    assert not found[outside].any()


def test_boxes_that_tell_nothing_are_refused() -> None:
    for box in ((0, 0, WIDTH, HEIGHT), (3, 3, 6, 30)):
        with pytest.raises(MaskError):
            inputs.mask_in_box(PHOTO, box)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("part", PARTS)
def test_both_sides_of_the_slider_show_the_same_place(look: str, part: str) -> None:
    before, after = slider_pair(PHOTO, MASK, PROBABILITY, look=look, part=part)
    assert before.shape == after.shape and before.dtype == np.uint8 and (before != after).any()
    same = slider_pair(PHOTO, OTHER, OTHER.astype(np.float32), look=LOOKS[2], part=part)
    assert (same[0] == same[1]).all()


def test_pictures_are_no_larger_than_screens() -> None:
    large = np.zeros((3, 3 * SIDE, 3), np.uint8)
    mask = np.zeros(large.shape[:2], bool)
    assert max(slider_pair(large, mask, mask.astype(np.float32))[0].shape) == SIDE
    assert max(confidence_picture(large, mask.astype(np.float32)).shape) == SIDE


def test_amber_is_where_the_network_is_unsure() -> None:
    probability = np.ones((200, 300), np.float32)
    probability[50:80, 60:90] = 0.5
    shown = confidence_picture(np.zeros((200, 300, 3), np.uint8), probability)[..., 0]
    scale = shown.shape[0] / 200
    bright = shown > 128
    assert abs(bright.sum() - 900 * scale**2) < 140 * scale**2 and bright[round(65 * scale), round(75 * scale)]


@pytest.mark.parametrize("steps", [1, 4])
def test_the_way_goes_from_the_rough_mask_to_the_result(steps: int) -> None:
    meter, told = Meter(), []
    (first, second) = refine_watched(
        refiner(), PHOTO, [MASK, OTHER], Options(steps=steps), lambda _: told.append(meter.read()[0]), meter
    )
    assert 1 <= len(first.states) <= steps and set(np.unique(first.states[0])) <= {0, 1}
    assert told == sorted(told) and 0 <= told[0] <= told[-1] <= 1
    assert (second.result.mask == refiner()(PHOTO, OTHER, steps=steps).mask).all()
    frames = way_frames(PHOTO, MASK, first.result.mask, first.states, first.seen, first.view)
    assert 2 + len(first.states) <= len(frames) <= 3 + len(first.states) and len({f.shape for f in frames}) == 1
    film = Image.open(io.BytesIO(animation(frames)))
    assert film.format == "WEBP" and film.size == frames[0].shape[1::-1]


def test_of_a_mask_in_parts_the_largest_is_watched() -> None:
    mask = np.zeros((300, 300), bool)
    mask[5:25, 5:25] = mask[150:250, 150:260] = mask[10:20, 270:290] = True
    photo = np.random.default_rng(1).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    (watched,) = refine_watched(refiner(), photo, [mask], Options(steps=3), silent, Meter())
    y0, x0, y1, x1 = watched.view
    assert y0 <= 150 and x0 <= 150 and y1 >= 250 and x1 >= 260 and watched.states


def test_an_empty_mask_has_a_way_too() -> None:
    empty = np.zeros_like(MASK)
    (watched,) = refine_watched(refiner(), PHOTO, [empty], Options(), silent, Meter())
    frames = way_frames(PHOTO, empty, watched.result.mask, watched.states, watched.seen, watched.view)
    assert len(frames) == 2
    assert dict(numbers(watched.result.report))["Note"] == watched.result.report.note


def test_numbers_are_the_reports() -> None:
    rows = dict(numbers(REPORT))
    assert rows["Pixels changed"] == "0.00 %" and rows["Made with"] == "stub, 1 step, seed 0"
    assert all(isinstance(value, str) for value in rows.values())


def test_downloads_for_annotation_tools_hold_the_masks(tmp_path: Path) -> None:
    holed = OTHER.copy()
    ys, xs = (round(float(axis.mean())) for axis in np.nonzero(OTHER))
    holed[ys - 2 : ys + 2, xs - 2 : xs + 2] = False
    masks = [MASK, holed, np.zeros_like(MASK)]
    contents = annotation_files("photo.jpg", ["cat", "dog", "cat"], masks, tmp_path)
    assert not list(tmp_path.iterdir())
    for name, content in contents.items():
        folder = tmp_path / name
        if name == "yolo":
            (folder / "labels").mkdir(parents=True)
            (folder / "labels" / "photo.txt").write_bytes(content)
            (folder / "data.yaml").write_text("path: .\ntrain: images\nnames: [cat, dog]\n")
            pytest.importorskip("yaml")
        else:
            folder.mkdir()
            (folder / "photo.json").write_bytes(content)
        (photo,) = read_annotations(folder if name == "yolo" else folder / "photo.json").contents.photos
        assert [one.label for one in photo.instances] == ["cat", "dog"]
        assert any(Path(one).stem == "photo" for one in photo.names)
        for instance, mask in zip(photo.instances, masks, strict=False):
            drawn = decode_mask(instance.mask, PHOTO.shape[:2])[0]
            # Outlines of YOLO are written with six digits of the photo's sides.
            assert (drawn != mask).sum() <= (2 if name == "yolo" else 0), name


def coco_file(folder: Path, names: list[str], **more: object) -> Path:
    ring = [20, 10, 60, 10, 60, 40, 20, 40]
    entries = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names)]
    rows = [{"id": 9, "image_id": n, "category_id": 1, "segmentation": [ring], **more} for n in range(len(names))]
    categories = [{"id": 1, "name": "cat"}]
    document = {"images": entries, "annotations": rows * 2, "categories": categories}
    return file(folder, "labels.json", json.dumps(document).encode())


def test_objects_of_annotation_files_are_found_by_the_photos_name(tmp_path: Path) -> None:
    size = PHOTO.shape[:2]
    one = coco_file(tmp_path, ["sub/holiday photo.jpg"])
    assert reading.annotated_objects(one, "another.png", PIXELS) == ["cat", "cat"]
    names, masks = reading.read_objects([one], size, PIXELS, photo_name="x.png", chosen=[1, 0, 1])
    assert names == ["cat", "cat"] and masks[0].sum() == 40 * 30
    several = coco_file(tmp_path, ["a.jpg", "holiday photo.jpg"])
    # As the page writes an upload's name.
    assert reading.annotated_objects(several, "holiday_photo.png", PIXELS) == ["cat", "cat"]
    for photo, said in (("b.jpg", "no mask of a photo called 'b.jpg'"),):
        with pytest.raises(InputError, match=said):
            reading.annotated_objects(several, photo, PIXELS)
    twice = coco_file(tmp_path, ["x/a.jpg", "y/a.png"])
    with pytest.raises(InputError, match="several photos"):
        reading.annotated_objects(twice, "a.jpg", PIXELS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "labels.json"),
        (b"{", "labels.json"),
        (b"[" * 100_000, "labels.json"),
        (b"{}", "none of the formats"),
        (b'{"images": [], "annotations": [], "categories": []}', "no mask"),
        (b'{"shapes": [{"points": 5}], "imagePath": "a.png", "imageData": null}', "no mask"),
    ],
)
def test_annotation_files_that_are_none_are_told_in_a_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    path = file(tmp_path, "labels.json", content)
    with pytest.raises(InputError, match=said) as caught:
        reading.annotated_objects(path, "a.png", PIXELS)
    assert str(tmp_path) not in str(caught.value) and str(caught.value).isprintable()


def test_choices_that_an_annotation_file_does_not_have_are_refused(tmp_path: Path) -> None:
    path, size = coco_file(tmp_path, ["a.jpg"]), PHOTO.shape[:2]
    for chosen in ([], [2], [0, 99]):
        with pytest.raises(InputError, match="choose"):
            reading.read_objects([path], size, PIXELS, photo_name="a.jpg", chosen=chosen)
    with pytest.raises(InputError, match="alone"):
        reading.read_objects([path, file(tmp_path, "m.png", encoded(MASK))], size, PIXELS)
    foreign = coco_file(tmp_path, ["a.jpg"], segmentation={"size": [5, 5], "counts": [25]})
    with pytest.raises(MaskError, match=r"labels.json, annotation 0"):
        reading.read_objects([foreign], size, PIXELS, photo_name="a.jpg", chosen=[0])


def test_what_was_held_back_is_shown_in_the_colour_of_its_reason() -> None:
    planes = {HeldBack.UNSURE: MASK & ~OTHER, HeldBack.TOO_FAR: OTHER & ~MASK}
    shown = held_picture(PHOTO, MASK | OTHER, planes)
    for why in planes:
        near = np.abs(shown.astype(int) - HELD_COLOURS[why]).max(axis=2) < 40
        assert near.any(), why
    assert max(held_picture(np.zeros((4000, 20, 3), np.uint8), np.ones((4000, 20), bool), {}).shape) <= SIDE
    single = np.zeros((800, 600), bool)
    single[400, 300] = True
    shown = held_picture(np.zeros((800, 600, 3), np.uint8), ~single, {HeldBack.UNSURE: single})
    on_a_phone = np.asarray(Image.fromarray(shown).resize((225, 300), Image.Resampling.BOX)).astype(int)
    assert (np.abs(on_a_phone - HELD_COLOURS[HeldBack.UNSURE]).max(axis=2) < 80).any(), "a single pixel shows"
    text = held_legend([(HeldBack.UNSURE.value, HELD_COLOURS[HeldBack.UNSURE], 1)])
    assert "not sure enough" in text and "(1 pixel)" in text and "#ffb000" in text
    assert "Nothing was held back" in held_legend([])
