"""Objects cut out: alpha, colours without the background's, and what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segrefiner import ImageError, InputError, MaskError, MissingExtraError, SizeMismatchError
from segrefiner.imaging.files import write_png
from segrefiner.imaging.reading import read_mask
from segrefiner.rendering.cutout import cutout

SIDE = 120


@pytest.fixture
def matting() -> None:
    pytest.importorskip("pymatting")


def disc(height: int = SIDE, width: int = SIDE, radius: float = 36, softness: float = 6) -> NDArray[np.float32]:
    """A soft disc in the middle."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    return np.clip((radius - distance) / softness + 0.5, 0, 1).astype(np.float32)


def gradient(first: tuple[int, int, int], last: tuple[int, int, int]) -> NDArray[np.float64]:
    """Colours that change from left to right."""
    share = np.linspace(0, 1, SIDE)[None, :, None]
    return np.broadcast_to((1 - share) * np.array(first) + share * np.array(last), (SIDE, SIDE, 3))


def blend(
    foreground: NDArray[np.float64], background: NDArray[np.float64], alpha: NDArray[np.float32]
) -> NDArray[np.float64]:
    return alpha[..., None] * foreground + (1 - alpha[..., None]) * background


def scene() -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """A photo, and of what it was blended: the object, the background and alpha."""
    foreground, background, alpha = (
        gradient((200, 40, 30), (240, 120, 20)),
        gradient((10, 60, 220), (40, 160, 90)),
        disc(),
    )
    return np.rint(blend(foreground, background, alpha)).astype(np.uint8), foreground, background, alpha


def test_the_fringe_gets_the_colours_of_the_object(matting: None) -> None:
    photo, foreground, _, alpha = scene()
    result = cutout(photo, alpha)
    assert result.shape == (SIDE, SIDE, 4) and result.dtype == np.uint8
    half = np.abs(alpha - 0.5) < 0.25
    before, after = (
        np.abs(colours[half] - foreground[half]).mean() for colours in (photo, result[..., :3].astype(float))
    )
    assert half.sum() > 100 and before > 40 and after < before / 4


def test_over_the_old_background_it_is_the_photo_again(matting: None) -> None:
    photo, _, background, alpha = scene()
    result = cutout(photo, alpha)
    again = blend(result[..., :3].astype(float), background, (result[..., 3] / 255).astype(np.float32))
    assert np.abs(again - photo).max() < 12 and np.abs(again - photo).mean() < 1


def test_alpha_is_the_probability_and_the_rest_is_black(matting: None) -> None:
    photo, _, _, alpha = scene()
    before = photo.copy(), alpha.copy()
    result = cutout(photo, alpha)
    np.testing.assert_array_equal(result[..., 3], np.rint(alpha * 255))
    np.testing.assert_array_equal(result[alpha == 1][:, :3], photo[alpha == 1])
    assert not result[alpha == 0].any()
    np.testing.assert_array_equal(photo, before[0])
    np.testing.assert_array_equal(alpha, before[1])


def test_what_is_far_from_the_object_does_not_count(matting: None) -> None:
    photo, _, _, alpha = scene()
    wide_photo, wide_alpha = np.zeros((900, 700, 3), np.uint8), np.zeros((900, 700), np.float32)
    wide_photo[300 : 300 + SIDE, 100 : 100 + SIDE] = photo
    wide_alpha[300 : 300 + SIDE, 100 : 100 + SIDE] = alpha
    result = cutout(wide_photo, wide_alpha)
    wide_photo[:200], wide_photo[:, 400:] = 255, 77
    np.testing.assert_array_equal(cutout(wide_photo, wide_alpha), result)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3)])
@pytest.mark.parametrize("value", [0, 0.001, 0.4, 1])
def test_small_empty_and_full(matting: None, shape: tuple[int, int], value: float) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = cutout(photo, np.full(shape, value, np.float32))
    assert (result[..., 3] == round(255 * value)).all()
    if value == 1:
        np.testing.assert_array_equal(result[..., :3], photo)
        np.testing.assert_array_equal(cutout(photo, np.ones(shape, bool)), result)
    if value < 0.002:
        assert not result.any()


def test_wrong_input_is_refused() -> None:
    photo, alpha = np.zeros((8, 9, 3), np.uint8), np.full((8, 9), 0.5, np.float32)
    for wrong in (photo[..., 0], photo[..., :2], photo.astype(np.float32)):
        with pytest.raises(ImageError, match=r"expected \(H, W, 3\) uint8"):
            cutout(wrong, alpha)
    for wrong in (alpha[None], alpha.astype(np.uint8)):
        with pytest.raises(MaskError, match=r"expected \(H, W\) float"):
            cutout(photo, wrong)
    with pytest.raises(SizeMismatchError, match="9x7"):
        cutout(photo, alpha[:7])
    for bad in (np.nan, np.inf, -0.1, 1.1):
        alpha[3, 3] = bad
        with pytest.raises(InputError, match=r"expected \[0, 1\]"):
            cutout(photo, alpha)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(MissingExtraError, match=r"segrefiner\[matting\]"):
        cutout(np.zeros((8, 9, 3), np.uint8), np.ones((8, 9), np.float32))


def test_a_cut_out_is_its_own_mask(matting: None, tmp_path: Path) -> None:
    photo, _, _, alpha = scene()
    for given in (alpha, alpha >= 0.5):
        write_png(tmp_path / "cutout.png", cutout(photo, given))
        np.testing.assert_array_equal(read_mask(tmp_path / "cutout.png"), np.rint(given * 255.0) >= 128)


def test_tensors_are_cut_out_too(matting: None) -> None:
    photo, _, _, alpha = scene()
    probability = torch.from_numpy(alpha).bfloat16().requires_grad_()
    expected = cutout(photo, probability.detach().float().numpy())
    np.testing.assert_array_equal(cutout(torch.from_numpy(photo), probability), expected)
