"""Photos read in windows: the same masks as of whole photos, and what is refused."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from helpers.tiny import TINY
from segrefiner import InputError, MaskError, MissingExtraError, OutputError, Refiner, Result, SizeMismatchError
from segrefiner.cli.main import main
from segrefiner.errors import ImageError
from segrefiner.imaging.boxes import Box
from segrefiner.imaging.reading import read_image, read_mask
from segrefiner.imaging.vips import LargePicture, MaskFile, libvips
from segrefiner.model.unet import DenoisingUNet
from segrefiner.refinement.large_photos import find_large_objects, joined, refine_large
from segrefiner.refinement.pipelines.config import DEFAULT
from segrefiner.refinement.pipelines.published import instance_pipeline
from segrefiner.refinement.pipelines.views import find_objects as find_in_memory
from segrefiner.refinement.pipelines.views import object_area

pyvips = pytest.importorskip("pyvips")

EXIF_ORIENTATION = 0x0112
HEIGHT, WIDTH = 420, 610


@pytest.fixture(scope="module")
def bundled() -> Refiner:
    refiner = Refiner.from_pretrained(device="cpu", dtype="fp32")
    refiner._batches.size = 1e-9  # One view at a time: batches of other sizes round otherwise.
    return refiner


def ellipse(y: float, x: float, down: float, across: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return ((rows - y) / down) ** 2 + ((columns - x) / across) ** 2 <= 1


def scene() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Objects whose views overlap, one cut by the photo's border, and a speck; coarse masks a bit off."""
    rng = np.random.default_rng(3)
    shapes = [(100, 60, 60, 12), (105, 175, 60, 12), (300, 100, 25, 75), (330, 595, 50, 60), (390, 330, 6, 7)]
    image = rng.normal(90, 12, (HEIGHT, WIDTH, 3))
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    for y, x, down, across in shapes:
        image[ellipse(y, x, down, across)] += rng.uniform(40, 110, 3)
        mask |= ellipse(y + 0.12 * down, x - 0.1 * across, 1.1 * down, 0.95 * across)
    return np.clip(image, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    image, mask = scene()
    Image.fromarray(image).save(folder / "photo.png")
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture(scope="module")
def whole(bundled: Refiner, files: Path) -> Result:
    """What the refiner makes of the photo in memory."""
    return bundled(files / "photo.png", files / "mask.png")


def written(path: Path) -> NDArray[np.bool_]:
    values = np.asarray(Image.open(path))
    assert set(np.unique(values)) <= {0, 255}
    return values > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"steps": 3, "seed": 7}, {"max_shift": 4.0}, {"max_shift": 0}, {"max_shift": 1e9}, {"strength": 0.5}],
    ids=str,
)
def test_windows_give_what_the_whole_photo_gives(
    bundled: Refiner, files: Path, whole: Result, tmp_path: Path, options
) -> None:
    whole = bundled(files / "photo.png", files / "mask.png", **options) if options else whole
    reports = refine_large(bundled, files / "photo.png", files / "mask.png", tmp_path / "out.png", **options)
    refined = written(tmp_path / "out.png")
    np.testing.assert_array_equal(refined, whole.mask)
    coarse = read_mask(files / "mask.png")
    assert len(reports) == len(find_in_memory(torch.from_numpy(coarse), DEFAULT)) > 2
    for name in ("changed", "unsure", "too_far"):
        assert sum(getattr(r, name) for r in reports) == pytest.approx(getattr(whole.report, name), abs=1e-9)
    assert sum(r.evaluations for r in reports) == whole.report.evaluations
    assert max(r.largest_shift for r in reports) >= whole.report.largest_shift
    assert not np.array_equal(refined, coarse) or options == {"max_shift": 0}


def test_the_scene_has_objects_that_share_pixels_and_some_that_do_not() -> None:
    boxes = find_in_memory(torch.from_numpy(scene()[1]), DEFAULT)
    areas = [object_area(box, HEIGHT, WIDTH, DEFAULT) for box in boxes]
    overlaps = [one.overlaps(other) for one, other in combinations(areas, 2)]
    assert len(boxes) == 5 and any(overlaps) and not all(overlaps)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("photo.tif", {"compression": "tiff_deflate"}),
        ("photo.jpg", {"quality": 95}),
        ("photo.webp", {"lossless": True}),
        ("photo[1].png", {}),
    ],
)
def test_photos_read_in_parts_are_those_in_memory(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    Image.fromarray(scene()[0]).save(tmp_path / name, **options)
    expected = read_image(tmp_path / name)
    part = LargePicture.photo(tmp_path / name).parts(tmp_path)
    for box in (Box(200, 100, 610, 420), Box(0, 0, 610, 420), Box(5, 7, 6, 8), Box(0, 300, 90, 310)):
        np.testing.assert_array_equal(part(box), expected[box.y0 : box.y1, box.x0 : box.x1])


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P", "I;16"])
def test_photos_of_any_mode_are_those_in_memory(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(scene()[0])
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")) * np.uint16(255))
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "photo.png")
    np.testing.assert_array_equal(
        LargePicture.photo(tmp_path / "photo.png").parts(tmp_path)(Box(0, 0, WIDTH, HEIGHT)),
        read_image(tmp_path / "photo.png"),
    )


@pytest.mark.parametrize("name", ["out.png", "out.tif", "out.TIFF"])
def test_results_in_several_formats(bundled: Refiner, files: Path, whole: Result, tmp_path: Path, name: str) -> None:
    refine_large(bundled, files / "photo.png", files / "mask.png", tmp_path / name)
    np.testing.assert_array_equal(written(tmp_path / name), whole.mask)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_photos_are_turned_as_in_memory(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(scene()[0]).resize((61, 40)).save(tmp_path / f"p{suffix}", exif=exif)
    expected = read_image(tmp_path / f"p{suffix}")
    picture = LargePicture.photo(tmp_path / f"p{suffix}")
    assert picture.size == expected.shape[:2]
    np.testing.assert_array_equal(picture.parts(tmp_path)(Box(3, 5, 30, 36)), expected[5:36, 3:30])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.floats(0.001, 0.2), st.integers(1, 7))
def test_parts_joined_row_by_row_are_those_of_the_whole(
    seed: int, height: int, width: int, share: float, gap: int
) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    boxes = joined(((y, row) for y, row in enumerate(mask) if row.any()), width, gap)
    points = np.argwhere(mask)
    # By definition: pixels no farther apart than the gap, and those that are joined to both.
    left, expected = set(map(tuple, points.tolist())), []
    while left:
        part = [left.pop()]
        for y, x in part:
            near = {p for p in left if max(abs(p[0] - y), abs(p[1] - x)) <= gap}
            left -= near
            part.extend(near)
        ys, xs = zip(*part, strict=True)
        expected.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    assert sorted((b.x0, b.y0, b.x1, b.y1) for b in boxes) == sorted(expected)


@pytest.mark.parametrize("seed", range(12))
def test_objects_are_those_of_the_whole_mask(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((200, 300), np.bool_)
    for _ in range(rng.integers(1, 12)):
        y, x, h, w = rng.integers(0, (200, 300, 40, 40))
        mask[y : y + h + 1, x : x + w + 1] = rng.random((mask[y : y + h + 1, x : x + w + 1]).shape) < 0.4
    Image.fromarray(mask).save(tmp_path / "mask.png")
    store = MaskFile(LargePicture.mask(tmp_path / "mask.png"), None, tmp_path / "store")
    assert find_large_objects(store) == find_in_memory(torch.from_numpy(mask), DEFAULT)


def test_bands_make_no_difference(
    bundled: Refiner, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refine_large(bundled, files / "photo.png", files / "mask.png", tmp_path / "one.png")
    monkeypatch.setattr(
        "segrefiner.imaging.vips.row_bands", lambda h, w: [slice(y, min(y + 37, h)) for y in range(0, h, 37)]
    )
    refine_large(bundled, files / "photo.png", files / "mask.png", tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def as_kinds(mask: NDArray[np.bool_]) -> dict[str, tuple[Image.Image, float | None]]:
    grey = Image.fromarray(mask * np.uint8(255))
    soft = np.where(mask, 200, 30).astype(np.uint8)
    soft[0, 0] = 77
    palette = Image.fromarray(mask.astype(np.uint8))
    palette.putpalette([0, 0, 0, 128, 0, 0], "RGB")
    object_first = Image.fromarray((~mask).astype(np.uint8))
    object_first.putpalette([128, 0, 0, 0, 0, 0], "RGB")
    cut_out = Image.fromarray(np.arange(mask.size * 3).reshape(*mask.shape, 3).astype(np.uint8))
    cut_out.putalpha(grey)
    alpha = Image.new("RGB", grey.size, (10, 200, 30))
    alpha.putalpha(grey)
    white_on_alpha = Image.merge("LA", (grey, Image.new("L", grey.size, 255)))
    return {
        "1": (Image.fromarray(mask), None),
        "grey": (grey, None),
        "ones": (Image.fromarray(mask.astype(np.uint8)), None),
        "threshold": (Image.fromarray(soft), 100),
        "sixteen": (Image.fromarray(mask * np.uint16(65535)), None),
        "sixteen, threshold": (Image.fromarray(soft.astype(np.uint16) * 257), 30000),
        "palette": (palette, None),
        "palette, object first": (object_first, None),
        "cut out": (cut_out, None),
        "red": (Image.merge("RGB", (grey, *[Image.new("L", grey.size, 0)] * 2)), None),
        "white": (Image.merge("RGB", (grey, grey, grey)), None),
        "alpha": (alpha, None),
        "grey and alpha": (white_on_alpha, None),
    }


@pytest.mark.parametrize("kind", as_kinds(np.zeros((2, 2), np.bool_)))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_mean_what_they_mean_in_memory(tmp_path: Path, kind: str, suffix: str) -> None:
    mask = scene()[1]
    picture, threshold = as_kinds(mask)[kind]
    path = tmp_path / f"mask{suffix}"
    picture.save(path)
    expected = read_mask(path, threshold=threshold)
    np.testing.assert_array_equal(expected, mask)
    store = MaskFile(LargePicture.mask(path), threshold, tmp_path / "store")
    box = store.box
    assert box is not None and store.pixels == mask.sum()
    np.testing.assert_array_equal(store.part(box), mask[box.y0 : box.y1, box.x0 : box.x1])
    store.save(tmp_path / "out.png")
    np.testing.assert_array_equal(written(tmp_path / "out.png"), mask)


@pytest.mark.parametrize("kind", ["many values", "colours", "label map", "threshold", "float"])
def test_masks_that_say_too_little_are_refused(tmp_path: Path, kind: str) -> None:
    values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    path, threshold = tmp_path / "mask.tif", None
    if kind == "many values":
        Image.fromarray((values % 251).astype(np.uint8)).save(path)
    elif kind == "colours":
        Image.fromarray(np.stack([values % 251, values % 3, values % 7], -1).astype(np.uint8)).save(path)
    elif kind == "label map":
        path = tmp_path / "mask.png"
        labels = Image.fromarray((values % 3).astype(np.uint8))
        labels.putpalette([200, 0, 0, 0, 0, 0, 0, 9, 0], "RGB")
        labels.save(path)
    elif kind == "threshold":
        threshold = 0.5
        Image.fromarray((values % 251).astype(np.uint8)).save(path)
    else:
        Image.fromarray((values / values.max()).astype(np.float32)).save(path)
    with pytest.raises(MaskError, match="mask") as caught:
        MaskFile(LargePicture.mask(path), threshold, tmp_path / "store")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("fill", "name"), [(False, "empty"), (True, "full")])
def test_nothing_to_do(files: Path, tmp_path: Path, fill: bool, name: str) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), fill)).save(tmp_path / "mask.png")
    refiner = Refiner(DenoisingUNet(TINY))
    assert refine_large(refiner, files / "photo.png", tmp_path / "mask.png", tmp_path / "out.png") == []
    assert (written(tmp_path / "out.png") == fill).all()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda p: (p / "photo.png").unlink(), ImageError),
        (lambda p: (p / "mask.png").write_bytes(b""), MaskError),
        (lambda p: (p / "photo.png").write_bytes(b"<svg></svg>"), ImageError),
        (lambda p: cut(p / "photo.png"), ImageError),
        (lambda p: cut(p / "mask.png"), MaskError),
        (lambda p: Image.new("L", (WIDTH, HEIGHT + 1)).save(p / "mask.png"), SizeMismatchError),
        (lambda p: Image.new("CMYK", (WIDTH, HEIGHT)).save(p / "photo.png", format="TIFF"), ImageError),
        (lambda p: Image.new("RGB", (WIDTH, HEIGHT)).save(p / "photo.png", format="BMP"), ImageError),
    ],
    ids=["missing", "empty", "svg", "cut photo", "cut mask", "size", "cmyk", "no loader"],
)
def test_bad_inputs_leave_the_target_alone(files: Path, tmp_path: Path, spoil, error: type[Exception]) -> None:
    for name in ("photo.png", "mask.png"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    spoil(tmp_path)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "out.png"
    target.write_bytes(b"before")
    with pytest.raises(error) as caught:
        refine_large(Refiner(DenoisingUNet(TINY)), tmp_path / "photo.png", tmp_path / "mask.png", target)
    assert "\n" not in str(caught.value)
    assert target.read_bytes() == b"before" and len(list(target.parent.iterdir())) == 1


def test_bad_options_are_told_at_once(files: Path, tmp_path: Path) -> None:
    refiner = Refiner(DenoisingUNet(TINY))

    def refine(target: str = "out.png", refiner: Refiner = refiner, **options: object) -> None:
        refine_large(refiner, files / "photo.png", files / "mask.png", tmp_path / target, **options)  # type: ignore[arg-type]

    for options in ({"steps": 9}, {"seed": -1}, {"strength": math.nan}, {"max_shift": -1}, {"threshold": math.nan}):
        with pytest.raises(InputError):
            refine(**options)
    for target in ("out.jpg", "missing/out.png", "."):
        with pytest.raises(OutputError):
            refine(target)
    with pytest.raises(InputError, match="default pipeline"):
        refine(refiner=Refiner(DenoisingUNet(TINY), pipeline=instance_pipeline))
    assert not list(tmp_path.iterdir())


def test_a_turned_photo_and_an_unturned_mask_are_told_apart(files: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.open(files / "photo.png").save(tmp_path / "photo.jpg", exif=exif)
    with pytest.raises(SizeMismatchError, match="EXIF"):
        refine_large(Refiner(DenoisingUNet(TINY)), tmp_path / "photo.jpg", files / "mask.png", tmp_path / "out.png")


def test_without_pyvips_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with pytest.raises(MissingExtraError, match=r"segrefiner\[large\]"):
        libvips()


def test_command(files: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    given = ["refine", files / "photo.png", files / "mask.png", "--dtype", "fp32"]

    def run(*arguments: object):
        return CliRunner().invoke(main, [str(a) for a in (*given, *arguments)])

    assert run("-o", tmp_path / "whole.png").exit_code == 0
    result = run("-o", tmp_path / "windowed.tif", "--windowed")
    assert result.exit_code == 0 and result.stdout.count("\n") == 1, result.output
    np.testing.assert_array_equal(written(tmp_path / "windowed.tif"), written(tmp_path / "whole.png"))
    for other in (["--soft"], ["--overlay", tmp_path / "a.png"], ["--cutout", tmp_path / "a.png"],
                  ["--pipeline", "instance"]):  # fmt: skip
        refused = run("-o", tmp_path / "refused.png", "--windowed", *other)
        assert refused.exit_code == 1 and refused.stderr.count("\n") == 1 and "--windowed" in refused.stderr
    assert not (tmp_path / "refused.png").exists()
