"""Laws of composites: exact masks of what is seen, photos left alone elsewhere, the same bytes again."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from helpers import miniature
from segrefiner.cli.main import main
from segrefiner.data.composites.layers import (
    Layer,
    blend,
    cast_shadow,
    check_cutout,
    crop_background,
    edge_blur,
    match_light,
    match_sharpness,
    noise_level,
    paint_structure,
    place_cutout,
    soften,
    to_bytes,
    visible,
)
from segrefiner.data.composites.thin_structures import KINDS, draw_structure
from segrefiner.data.layouts import open_source
from segrefiner.data.sources import data_set_of
from segrefiner.errors import InputError

SIZE = (96, 128)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A photo `(H, W, 3)` uint8 of edges and some grain."""
    random = seeded(seed)
    blocks = random.uniform(0.1, 0.9, (6, 8, 3)).repeat(-(-size[0] // 6), 0).repeat(-(-size[1] // 8), 1)
    noisy = blocks[: size[0], : size[1]] + random.normal(0, 0.01, (*size, 1))
    return to_bytes(noisy)


def disc(seed: int = 0) -> np.ndarray:
    """A cut-out `(60, 60, 4)` uint8 with a soft contour."""
    far = np.hypot(*(np.mgrid[:60, :60] - 29.5))
    colour = seeded(seed).integers(0, 256, 3)
    alpha = np.clip(25.5 - far, 0, 1)
    return np.dstack([np.broadcast_to(colour, (60, 60, 3)), 255 * alpha]).astype(np.uint8)


def background(seed: int = 0) -> np.ndarray:
    return photo(seed).astype(np.float32) / 255


@pytest.mark.parametrize("linear", [True, False])
def test_a_photo_stays_as_it_is_where_alpha_is_0(linear: bool) -> None:
    layer = place_cutout(disc(), *SIZE, seeded(1))
    ground = background()
    untouched = layer.alpha == 0
    assert 0 < untouched.mean() < 1
    blended = blend(ground, [layer], linear=linear)
    assert np.array_equal(to_bytes(blended)[untouched], photo()[untouched])
    assert not np.array_equal(to_bytes(blended), photo())
    nothing = Layer(layer.colour, np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32))
    assert np.array_equal(to_bytes(blend(ground, [nothing], linear=linear)), photo())
    assert np.array_equal(cast_shadow(ground, nothing, seeded()), ground)


@pytest.mark.parametrize("linear", [True, False])
def test_a_photo_is_hidden_where_alpha_is_1(linear: bool) -> None:
    layer = place_cutout(disc(), *SIZE, seeded(2))
    opaque = layer.alpha == 1
    assert opaque.any()
    assert np.allclose(blend(background(), [layer], linear=linear)[opaque], layer.colour[opaque], atol=1e-3)


def test_a_mask_is_what_is_covered_and_not_hidden() -> None:
    for seed in range(8):
        below, above = (place_cutout(disc(), *SIZE, seeded(seed + n)) for n in (0, 50))
        layers = [below, above]
        alone, shown = visible([below], 0), visible(layers, 0)
        assert np.array_equal(alone, below.coverage >= 0.5)
        assert not (shown & ~alone).any()
        assert not (shown & (above.coverage > 0.5)).any()
        assert np.array_equal(shown, alone) or (above.coverage > 0)[alone].any()
        # What is on top is whole, and hidden parts change nothing else.
        assert np.array_equal(visible(layers, 1), above.coverage >= 0.5)
        assert np.array_equal(shown[above.coverage == 0], alone[above.coverage == 0])


def test_matching_leaves_the_truth_alone_and_comes_nearer() -> None:
    ground = background(3)
    dark = np.clip(ground * 0.25, 0, 1).astype(np.float32)
    bright = disc()
    bright[..., :3] = 230
    layer = place_cutout(bright, *SIZE, seeded(4))
    for seed in range(6):
        lit = match_light(layer, dark, seeded(seed))
        inside = layer.coverage > 0.5
        assert np.array_equal(lit.coverage, layer.coverage)
        assert lit.colour[inside].mean() <= layer.colour[inside].mean() + 1e-5
        assert lit.colour.min() >= 0 and lit.colour.max() <= 1
        blurred = soften(ground, 1.5)
        soft = match_sharpness(lit, blurred, seeded(seed))
        assert np.array_equal(soft.coverage, layer.coverage)
        assert soft.alpha.min() >= 0 and soft.alpha.max() <= 1
        assert edge_blur(soft.alpha) > edge_blur(layer.alpha) + 0.2


def test_blur_and_grain_are_measured() -> None:
    plain = np.kron(seeded(1).uniform(0, 1, (6, 8)), np.ones((24, 24)))[..., None] * np.ones(3)
    sharp = plain.astype(np.float32)
    for sigma in (1.0, 1.5, 2.0):
        assert edge_blur(soften(sharp, sigma)) == pytest.approx(sigma, rel=0.3)
    assert edge_blur(sharp) < 0.8
    for sigma in (0.01, 0.03):
        noisy = sharp + seeded(2).normal(0, sigma, (*sharp.shape[:2], 1)).astype(np.float32)
        assert noise_level(noisy) == pytest.approx(sigma, rel=0.25)
    assert noise_level(sharp) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("tone", ["any", "plant", "wood", "tint"])
def test_structures_can_be_told_from_what_is_around_them(tone: str) -> None:
    for seed in range(4):
        ground = np.full((*SIZE, 3), seeded(seed).uniform(0.05, 0.95), np.float32)
        coverage = draw_structure("branches", *SIZE, seeded(seed))
        layer = paint_structure(coverage, ground, seeded(seed), tone=tone)
        assert layer.colour.shape == (*SIZE, 3) and layer.colour.min() >= 0 and layer.colour.max() <= 1
        assert np.array_equal(layer.coverage, coverage)
        difference = np.abs((layer.colour - ground) @ LUMA)[coverage >= 0.5]
        assert np.quantile(difference, 0.1) > 0.08


def test_transparent_colours_do_not_bleed_into_the_contour() -> None:
    cutout = disc()
    cutout[..., :3] = np.where(cutout[..., 3:] > 0, 200, 0)
    layer = place_cutout(cutout, *SIZE, seeded(5))
    # Black from outside would make it darker; a little brighter is how resampling sharpens.
    assert layer.colour[layer.alpha > 0.1].min() > 200 / 255 - 0.06


def test_backgrounds_have_the_size_asked_for_whatever_the_photo_has() -> None:
    for size in ((40, 300), (300, 40), (8, 8), (1, 1), (400, 500)):
        part = crop_background(photo(0, size), *SIZE, seeded())
        assert part.shape == (*SIZE, 3) and part.dtype == np.float32
        assert part.min() >= 0 and part.max() <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cutout: cutout[..., :3], "has no alpha"),
        (lambda cutout: np.dstack([cutout[..., :3], np.full((60, 60), 255, np.uint8)]), "opaque all over"),
        (lambda cutout: np.zeros_like(cutout), "transparent all over"),
    ],
)
def test_what_is_no_cutout_is_refused(change, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_cutout(change(disc()))


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """A training folder, and a folder of cut-outs."""
    cutouts = tmp_path / "cutouts"
    cutouts.mkdir()
    for number in range(3):
        Image.fromarray(disc(number)).save(cutouts / f"disc{number}.png")
    return miniature.folder(tmp_path / "own"), cutouts


def compose(photos: Path, target: Path, *options: object) -> str:
    arguments = ["data", "composites", str(photos), "-o", str(target), "--size", "96", *map(str, options)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("thin", [False, True])
def test_composites_are_the_same_whatever_the_workers_and_go_on_after_a_stop(
    inputs: tuple[Path, Path], tmp_path: Path, thin: bool
) -> None:
    photos, cutouts = inputs
    options = () if thin else ("--cutouts", cutouts)
    assert "7 composites written, 0 were there" in compose(
        photos, tmp_path / "a", *options, "--count", 7, "--workers", 0
    )
    compose(photos, tmp_path / "b", *options, "--count", 4, "--workers", 1)
    assert "3 composites written, 4 were there" in compose(
        photos, tmp_path / "b", *options, "--count", 7, "--workers", 0
    )
    made = files(tmp_path / "a")
    assert made == files(tmp_path / "b") and len(made) == 15
    compose(photos, tmp_path / "c", *options, "--count", 7, "--workers", 0, "--seed", 1)
    assert all(files(tmp_path / "c")[name] != data for name, data in made.items() if name.endswith(".jpg"))


@pytest.mark.parametrize("thin", [False, True])
def test_composites_are_training_data_of_a_set_of_their_own(
    inputs: tuple[Path, Path], tmp_path: Path, thin: bool
) -> None:
    photos, cutouts = inputs
    compose(photos, tmp_path / "made", "--count", 14, "--workers", 0, *(() if thin else ("--cutouts", cutouts)))
    source = open_source(tmp_path / "made")
    assert len(source) == 14
    for index in range(14):
        sample = source.read(index)
        assert max(sample.image.shape) == 96
        assert data_set_of(sample.name) == ("thin" if thin else "cutout")
        assert not thin or sample.name.endswith(KINDS[index % len(KINDS)])
        # The photo has an edge where the mask ends, or nothing could be learnt from it.
        if not thin:
            slope = ndimage.gaussian_gradient_magnitude(sample.image.astype(float) @ LUMA, 1)
            contour = sample.mask ^ ndimage.binary_erosion(sample.mask)
            assert slope[contour].mean() > 1.2 * slope[~contour].mean()


def test_a_folder_holds_composites_of_one_kind_of_draws(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    photos, cutouts = inputs
    compose(photos, tmp_path / "made", "--count", 1, "--workers", 0)
    compose(photos, tmp_path / "made", "--count", 1, "--workers", 0, "--cutouts", cutouts)
    again = CliRunner().invoke(
        main, ["data", "composites", str(photos), "-o", str(tmp_path / "made"), "--count", "1", "--seed", "5"]
    )
    assert again.exit_code == 1 and "choose another folder" in again.output


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda photos, cutouts: [p.unlink() for p in cutouts.iterdir()], "holds no cut-out"),
        (lambda photos, cutouts: Image.new("RGB", (9, 9)).save(cutouts / "plain.png"), "plain.png' has no alpha"),
        (lambda photos, cutouts: Image.new("RGBA", (9, 9), "red").save(cutouts / "full.png"), "opaque all over"),
        (lambda photos, cutouts: (cutouts / "bad.webp").write_bytes(b"RIFF"), "bad.webp"),
        (lambda photos, cutouts: [p.unlink() for p in (photos / "images").iterdir()], "holds no photo"),
        (lambda photos, cutouts: cutouts.rename(cutouts.with_name("elsewhere")), "is no folder of cut-outs"),
    ],
)
def test_bad_inputs_are_told_in_one_line(inputs: tuple[Path, Path], tmp_path: Path, break_it, said: str) -> None:
    photos, cutouts = inputs
    break_it(photos, cutouts)
    arguments = ["data", "composites", str(photos), "-o", str(tmp_path / "made"), "--cutouts", str(cutouts)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1 and said in result.output
    assert not (tmp_path / "made").exists()


def test_photos_that_cannot_be_read_are_told(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    photos, _ = inputs
    for path in (photos / "images").iterdir():
        path.write_bytes(b"no photo")
    arguments = ["data", "composites", str(photos), "-o", str(tmp_path / "made"), "--count", "2", "--workers", "0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 3
    assert "0 composites written" in result.output and "photo 1:" in result.output
