"""Laws of clips: equal frames give equal masks, frames do not know each other, files say the same as folders."""

import json
import math
import struct
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks.quality.flicker import flicker
from helpers.tiny import TINY
from segrefiner import Refiner
from segrefiner.cli.main import main
from segrefiner.errors import InputError, MissingExtraError, OutputError
from segrefiner.imaging.clips import clip, frames_of, masks_of, natural, still
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save
from segrefiner.refinement.video import refine_video, write_masks

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


def test_frames_are_refined_together_and_come_in_order(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segrefiner.refinement.pipelines.tasks._GROUP", 3)
    read: list[str] = []

    def frames() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for index in range(8):
            read.append(f"{index:06d}")
            yield frame(index, index)

    seen = []
    for name, result in refine_video(refiner, frames()):
        seen.append(name)
        # Not more than the group at hand is read ahead, so that long clips fit into memory.
        assert len(read) - len(seen) < 3
        np.testing.assert_array_equal(result.mask, result.probability >= 0.5)
    assert seen == read and len(seen) == 8


def test_smoothing_converges_to_what_stays(refiner: Refiner) -> None:
    frames = [frame(0)] * 4
    plain = next(refine_video(refiner, frames))[1].probability
    for _, result in refine_video(refiner, frames, smooth=0.9):
        np.testing.assert_allclose(result.probability, plain, atol=1e-5)


def test_wrong_wishes_are_refused_before_a_frame_is_read(refiner: Refiner) -> None:
    def frames() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        raise AssertionError("read")
        yield

    for wish in ({"smooth": 1.0}, {"smooth": math.nan}, {"steps": 9}):
        with pytest.raises(InputError, match=next(iter(wish))):
            refine_video(refiner, frames(), **wish)


def test_masks_are_written_under_their_frames_names(refiner: Refiner, tmp_path: Path) -> None:
    named = [(f"scene/{name}", picture, mask) for name, picture, mask in (frame(0), frame(1))]
    results = list(refine_video(refiner, named))
    assert write_masks(results, tmp_path / "hard") == write_masks(results, str(tmp_path / "soft"), soft=True) == 2
    for name, result in results:
        hard, soft = (np.asarray(Image.open(tmp_path / kind / f"{name}.png")) for kind in ("hard", "soft"))
        np.testing.assert_array_equal(hard, result.mask * 255)
        np.testing.assert_array_equal(soft >= 128, result.mask)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        write_masks(results, tmp_path / "taken")


def disk(radius: float, side: int = 96) -> np.ndarray:
    rows, columns = np.indices((side, side)) - side / 2
    return np.hypot(rows, columns) < radius


def test_flicker_counts_changes_where_the_photo_stays() -> None:
    _, picture, mask = frame(0)
    other = mask.copy()
    other[10] = False
    assert flicker([mask] * 3, [picture] * 3) == 0
    contours = 2 * (25 + 28) - 4, 2 * (24 + 28) - 4
    assert flicker([mask, other], [picture] * 2) == pytest.approx(28 / np.mean(contours))
    assert flicker([mask, other], [picture, 255 - picture]) == 0
    assert flicker([], []) == 0


def test_flicker_is_how_far_contours_jump() -> None:
    photo = np.full((96, 96, 3), 90, np.uint8)
    for jump in (1, 2, 4):
        masks = [disk(30 + jump * (index % 2)) for index in range(5)]
        # A contour of pixels that touch at corners is shorter than the curve, by at most the diagonal.
        assert jump <= flicker(masks, [photo] * 5) <= 1.2 * jump


def test_flicker_is_the_same_backwards_and_of_the_background() -> None:
    photos = [np.full((96, 96, 3), value, np.uint8) for value in (90, 92, 91)]
    masks = [disk(30), disk(25), disk(33)]
    forward = flicker(masks, photos)
    assert flicker(masks[::-1], photos[::-1]) == pytest.approx(forward)
    assert flicker([~mask for mask in masks], photos) == pytest.approx(forward, rel=0.05)


def test_flicker_of_masks_that_come_and_go_is_no_small_number() -> None:
    photo, nothing = np.full((96, 96, 3), 90, np.uint8), np.zeros((96, 96), bool)
    assert flicker([disk(30), nothing], [photo] * 2) == flicker([nothing, disk(30)], [photo] * 2) > 10
    assert flicker([nothing, ~nothing], [photo] * 2) == math.inf


def test_flicker_needs_a_photo_for_each_mask_and_one_size() -> None:
    _, picture, mask = frame(0)
    with pytest.raises(InputError, match="frames end before number 1"):
        flicker([mask] * 2, [picture])
    with pytest.raises(InputError, match="masks end before number 0"):
        flicker([], [picture])
    with pytest.raises(InputError, match=r"mask 1.*20x20"):
        flicker([mask, disk(5, 20)], [picture] * 2)
    with pytest.raises(InputError, match=r"mask 1.*20x20"):
        flicker([mask, disk(5, 20)], [picture, picture[:20, :20]])


def test_noise_is_still_and_another_colour_is_not() -> None:
    _, first, _ = frame(0)
    _, second, _ = frame(1)
    assert still(first, second).all()
    assert not still(first, first + np.uint8(20)).any()


def test_numbers_in_names_count() -> None:
    names = [Path(name) for name in ("f10.png", "f9.png", "a/f2.png", "f1.png", "g.png")]
    assert [p.as_posix() for p in sorted(names, key=natural)] == ["a/f2.png", "f1.png", "f9.png", "f10.png", "g.png"]
    # A digit to Unicode, but no number.
    assert sorted([Path("f²"), Path("f1")], key=natural) == [Path("f1"), Path("f²")]


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
        list(frames_of(folder_of(tmp_path / "empty", [])))


def test_the_command_names_what_belongs_to_no_frame(tmp_path: Path) -> None:
    frames, masks = as_folders(tmp_path, 3)
    Image.new("1", (WIDTH, HEIGHT)).save(masks / "frame2.png")
    Image.new("1", (WIDTH, HEIGHT)).save(masks / "frame9.png")
    (masks / "frame1.png").rename(masks / "Frame1.PNG")
    (frames / "notes.txt").touch()
    (frames / "gone.png").symlink_to("nowhere")
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    given = list(map(str, ("video", frames, masks, "-o", masks / "out", "--model", tmp_path / "tiny.safetensors")))
    done = CliRunner().invoke(main, [*given, "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and (told["total"], told["done"], told["left_out"]) == (3, 2, 4)
    assert {row["name"]: row["reason"] for row in told["left_out_names"]} == {
        "frame2": "the mask is empty: returned as it is",
        str(masks / "frame9.png"): f"no frame in {frames} for it",
        str(frames / "notes.txt"): "no picture by its suffix",
        str(frames / "gone.png"): "a link to nowhere",
    }
    strict = CliRunner().invoke(main, [*given, "--strict"])
    assert strict.exit_code == 3 and "3 frames, 4 left out" in strict.stdout and "link to nowhere" in strict.stderr


def test_a_long_list_of_missing_masks_is_cut(tmp_path: Path) -> None:
    frames, masks = as_folders(tmp_path, 9)
    for index in range(2, 10):
        (masks / f"frame{index}.png").unlink()
    with pytest.raises(InputError, match=r"lacks 8 of 9 masks: frame2, frame3, frame4, frame5, frame6 …$"):
        list(clip(frames, masks))


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    frames, masks = as_folders(tmp_path, 2)
    for folder in (frames, masks):
        twin = folder / "frame2.jpg"
        Image.new("L", (WIDTH, HEIGHT)).save(twin)
        with pytest.raises(InputError, match=r"frame2\.jpg and frame2\.png"):
            list(clip(frames, masks))
        twin.unlink()


def folder_of(place: Path, names: list[str]) -> Path:
    place.mkdir()
    for name in names:
        Image.fromarray(frame(0)[2]).save(place / f"{name}.png")
    return place


def test_masks_that_carry_numbers_may_lack_none(tmp_path: Path) -> None:
    gaps = folder_of(tmp_path / "gaps", ["m1", "m2", "m4", "m7"])
    with pytest.raises(InputError, match=r"lacks masks .*: 3, 5, 6$"):
        list(masks_of(gaps, None))
    twice = folder_of(tmp_path / "twice", ["m1", "m2", "m02"])
    with pytest.raises(InputError, match="two masks of number 2"):
        list(masks_of(twice, None))
    for index, names in enumerate((["m10", "m8", "m9"], ["t40", "t80", "t120"], ["a1", "b2", "c4"], ["a", "b"])):
        assert len(list(masks_of(folder_of(tmp_path / str(index), names), None))) == len(names)


def write_video(path: Path, pictures: list[np.ndarray], form: str, codec: str = "ffv1") -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt = {"ffv1": "bgr0" if form == "rgb24" else "gray", "png": "rgb24"}[codec]
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
    for share in (0.02, 0.5, 0.8):
        for name in ("frames.mkv", "frames.avi"):
            if name.endswith("avi"):
                write_video(tmp_path / name, [frame(index)[1] for index in range(20)], "rgb24")
            whole = (tmp_path / name).read_bytes()
            cut = tmp_path / f"cut{name}"
            cut.write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(InputError, match=cut.name):
                list(frames_of(cut))


def test_frames_before_a_cut_are_given(videos: tuple[Path, Path], tmp_path: Path) -> None:
    whole = videos[0].read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: int(0.7 * len(whole))])
    given = []
    with pytest.raises(InputError, match=r"cut\.mkv.* of 0\.16 seconds"):
        for _, picture in frames_of(tmp_path / "cut.mkv"):
            given.append(picture)
    assert 0 < len(given) < 4
    np.testing.assert_array_equal(given[0], frame(0)[1])


def test_an_unknown_codec_is_told(tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mov", [frame(0)[1]], "rgb24", "png")
    content = (tmp_path / "odd.mov").read_bytes()
    assert content.count(b"png ") == 1
    (tmp_path / "odd.mov").write_bytes(content.replace(b"png ", b"zzzz"))
    with pytest.raises(InputError, match=r"odd\.mov"):
        list(frames_of(tmp_path / "odd.mov"))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound) + stream.encode())
    with pytest.raises(InputError, match="no pictures"):
        list(frames_of(tmp_path / "sound.wav"))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_videos_are_turned_as_their_metadata_says(tmp_path: Path, turns: int) -> None:
    picture = frame(0)[1]
    picture[:8, :8] = 255
    path = tmp_path / "phone.mov"
    write_video(path, [picture], "rgb24", "png")
    content = bytearray(path.read_bytes())
    # ISO/IEC 14496-12: the track header's matrix, by which a point (x, y) is shown at (ax + cy, bx + dy).
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[turns]
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", *(65536 * value for value in (a, b, 0, -b, a, 0, 0, 0)), 1 << 30)
    path.write_bytes(content)
    ((_, shown),) = frames_of(path)
    np.testing.assert_array_equal(shown, np.rot90(picture, -turns))
    corner = {1: shown[:8, -8:], 2: shown[-8:, -8:], 3: shown[-8:, :8]}[turns]
    assert (corner == 255).all()


def test_without_pyav_files_are_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "some.mp4").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"segrefiner\[video\]"):
        list(frames_of(tmp_path / "some.mp4"))
    with pytest.raises(InputError, match="does not exist"):
        list(frames_of(tmp_path / "absent.mp4"))


def test_the_benchmark_s_truth_does_not_flicker_and_it_runs_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not part of the package, and not in its source archive.
    bench = pytest.importorskip("benchmarks.quality.flicker")
    _, picture, mask = frame(0)
    for make in bench.CLIPS.values():
        made = make(picture, mask, mask, 3, np.random.default_rng(0))
        assert bench.scores(made, made.truth) == (0, 1)
        assert len({one.shape for one in (*made.coarse, *made.truth)}) == 1
    jumps, overlap = bench.scores(made, made.coarse)
    assert jumps > 0.2 and 0.6 < overlap < 1
    for folder, array in (("images", picture), ("masks", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "photo.png")
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    arguments = [str(tmp_path), "--frames", "2", "--model", str(tmp_path / "tiny.safetensors")]
    done = CliRunner().invoke(bench.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "1 photos" in done.stdout
    assert sum(line.startswith("| ") for line in done.stdout.splitlines()) == 2 + 3 * 3
