"""Laws of clips: equal frames give equal masks, frames do not know each other, files say the same as folders."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segrefiner import Refiner
from segrefiner.errors import InputError, MissingExtraError
from segrefiner.unet import DenoisingUNet
from segrefiner.video import clip, flicker, frames_of, natural, refine_video, still
from tiny import TINY

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(DenoisingUNet(TINY), steps=3)


def frame(index: int, shift: int = 0) -> tuple[str, np.ndarray, np.ndarray]:
    random = np.random.default_rng(index)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:35, 12 + shift : 40 + shift] = True
    picture = np.where(mask[..., None], 180, 60) + random.integers(-3, 4, (HEIGHT, WIDTH, 3))
    return f"{index:06d}", picture.astype(np.uint8), mask


def as_folders(place: Path, count: int) -> tuple[Path, Path]:
    for index in range(count):
        _, picture, mask = frame(index, index)
        for folder, array in (("frames", picture), ("masks", mask)):
            (place / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(place / folder / f"frame{index + 1}.png")
    return place / "frames", place / "masks"


def test_equal_frames_have_equal_masks(refiner: Refiner) -> None:
    name, picture, mask = frame(0)
    results = [result.mask for _, result in refine_video(refiner, [(name, picture, mask)] * 3)]
    assert all((result == results[0]).all() for result in results)


def test_a_frame_s_result_does_not_depend_on_the_others(refiner: Refiner) -> None:
    frames = [frame(index, index) for index in range(4)]
    together = {name: result.probability for name, result in refine_video(refiner, frames)}
    ((name, alone),) = refine_video(refiner, frames[2:3])
    np.testing.assert_allclose(together[name], alone.probability, atol=1e-5)


def test_smoothing_mixes_where_nothing_changed_and_nowhere_else(refiner: Refiner) -> None:
    frames = [frame(0), frame(1), frame(2, shift=9)]
    plain = [result.probability for _, result in refine_video(refiner, frames)]
    mixed = [result.probability for _, result in refine_video(refiner, frames, smooth=0.5)]
    np.testing.assert_allclose(mixed[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(mixed[1], (plain[0] + plain[1]) / 2, atol=1e-5)
    changed = frames[1][2] != frames[2][2]
    np.testing.assert_allclose(mixed[2][changed], plain[2][changed], atol=1e-6)
    for amount in (-0.1, 1.0):
        with pytest.raises(InputError, match="smooth"):
            next(refine_video(refiner, frames, smooth=amount))


def test_flicker_counts_changes_where_the_photo_stays() -> None:
    _, picture, mask = frame(0)
    other = mask.copy()
    other[10] = False
    assert flicker([(picture, mask)] * 3) == 0
    contour = 2 * (24 + 28) - 4
    assert flicker([(picture, mask), (picture, other)]) == pytest.approx(28 / contour)
    assert flicker([(picture, mask), (255 - picture, other)]) == 0
    assert flicker([]) == 0


def test_noise_is_still_and_another_colour_is_not() -> None:
    _, first, _ = frame(0)
    _, second, _ = frame(1)
    assert still(first, second).all()
    assert not still(first, first + np.uint8(20)).any()


def test_numbers_in_names_count() -> None:
    names = [Path(name) for name in ("f10.png", "f9.png", "a/f2.png", "f1.png", "g.png")]
    assert [p.as_posix() for p in sorted(names, key=natural)] == ["a/f2.png", "f1.png", "f9.png", "f10.png", "g.png"]


def test_folders_are_paired_by_name_in_natural_order(tmp_path: Path) -> None:
    frames, masks = as_folders(tmp_path, 11)
    read = list(clip(frames, masks))
    assert [name for name, _, _ in read] == [f"frame{i + 1}" for i in range(11)]
    for index, (_, picture, mask) in enumerate(read):
        np.testing.assert_array_equal(picture, frame(index, index)[1])
        np.testing.assert_array_equal(mask, frame(index, index)[2])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    frames, masks = as_folders(tmp_path, 3)
    (masks / "frame2.png").unlink()
    with pytest.raises(InputError, match="frame2"):
        list(clip(frames, masks))
    Image.fromarray(np.zeros((5, 5), bool)).save(masks / "frame2.png")
    with pytest.raises(InputError, match=r"frame2.*5x5"):
        list(clip(frames, masks))
    with pytest.raises(InputError, match="no picture"):
        list(frames_of(_empty(tmp_path)))


def _empty(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def write_video(path: Path, pictures: list[np.ndarray], form: str) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = "bgr0" if form == "rgb24" else "gray"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format=form)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


@pytest.fixture
def videos(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    made = [frame(index, index) for index in range(4)]
    write_video(tmp_path / "frames.mkv", [picture for _, picture, _ in made], "rgb24")
    write_video(tmp_path / "masks.mkv", [mask.astype(np.uint8) * 255 for _, _, mask in made], "gray")
    yield tmp_path / "frames.mkv", tmp_path / "masks.mkv"


def test_video_files_hold_what_folders_hold(videos: tuple[Path, Path]) -> None:
    read = list(clip(*videos))
    assert [name for name, _, _ in read] == [f"{index:06d}" for index in range(4)]
    for index, (_, picture, mask) in enumerate(read):
        np.testing.assert_array_equal(picture, frame(index, index)[1])
        np.testing.assert_array_equal(mask, frame(index, index)[2])


def test_another_number_of_masks_is_told(videos: tuple[Path, Path], tmp_path: Path) -> None:
    few, many = as_folders(tmp_path, 3)[1], tmp_path / "many"
    many.mkdir()
    with pytest.raises(InputError, match=r"fewer.*000003"):
        list(clip(videos[0], few))
    for index in range(5):
        Image.fromarray(frame(index)[2]).save(many / f"{index}.png")
    with pytest.raises(InputError, match="more masks"):
        list(clip(videos[0], many))


def test_what_is_no_video_is_told(videos: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing of the kind")
    for name in ("bad.mp4", "absent.mp4"):
        with pytest.raises(InputError, match=name):
            list(frames_of(tmp_path / name))
    whole = videos[0].read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[:200])
    with pytest.raises(InputError, match="cut"):
        list(frames_of(tmp_path / "cut.mkv"))


def test_without_pyav_files_are_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"segrefiner\[video\]"):
        list(frames_of(tmp_path / "some.mp4"))
