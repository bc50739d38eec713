"""Laws of packs and crops: what comes out of a crop is what lay there in the photo, for image and masks alike."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from safetensors.numpy import save_file
from torch import Generator

from segrefiner.data.coarse.masks import CoarseConfig
from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.layouts import every_coarse, find_photos, open_folder
from segrefiner.data.packed_photos import CropBatch, PackedPhotos, shuffled
from segrefiner.data.packs import (
    DISTANCE_RANGE,
    decode_distance,
    distance_reach,
    encode_distance,
    pack_folder,
    pack_source,
    read_pack,
)
from segrefiner.errors import InputError
from segrefiner.imaging.shapes.distances import signed_distance
from segrefiner.model.unet import IMAGE_MEAN

QUICK = settings(max_examples=40)
CPU = torch.device("cpu")
PACK_SIZE = 120
# (height, width); the last but one is shrunk when it is packed.
SIZES = {"a": (60, 80), "b": (48, 48), "c": (33, 97), "d": (120, 110), "e": (240, 180), "f": (100, 64)}
WITH_COARSE = ("b", "d", "e")
VIEWS = ViewConfig()
# The truth itself, or the real coarse mask itself where there is one.
UNMOVED = CoarseConfig(perfect=0.0, real=1.0, slight=1.0, slight_shift=0.0, blobs=0.0, min_iou=0.0)
MEAN = torch.tensor(IMAGE_MEAN).view(3, 1, 1)


def blobs(height: int, width: int, seed: int) -> np.ndarray:
    """A mask of a few discs, nowhere symmetric."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(4):
        y, x = random.uniform(0.2, 0.8, 2) * (height, width)
        mask |= np.hypot(rows - y, columns - x) < random.uniform(0.08, 0.25) * min(height, width)
    return mask


def coordinates(height: int, width: int) -> np.ndarray:
    """A photo whose red says how far right and whose green how far down each pixel lies."""
    rows, columns = np.mgrid[:height, :width]
    red, green = (columns + 0.5) / width * 255, (rows + 0.5) / height * 255
    return np.stack([red, green, np.full_like(red, 128)], axis=-1).astype(np.uint8)


def write(folder: Path, name: str, photo: np.ndarray, mask: np.ndarray, coarse: np.ndarray | None = None) -> None:
    parts = {"images": photo, "masks": mask} | ({} if coarse is None else {"coarse_net": coarse})
    for part, array in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / part / f"{name}.png")


def truth_of(name: str) -> np.ndarray:
    return blobs(*SIZES[name], seed=ord(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for name, size in SIZES.items():
        coarse = blobs(*size, seed=ord(name) + 100) if name in WITH_COARSE else None
        write(place, name, coordinates(*size), truth_of(name), coarse)
    return place


@pytest.fixture(scope="module")
def photos(folder: Path) -> PackedPhotos:
    pack = folder.parent / "photos.pack"
    assert pack_folder(folder, pack, size=PACK_SIZE) == len(SIZES)
    return PackedPhotos(pack, CPU)


def crops(
    photos: PackedPhotos,
    size: int = 32,
    seed: int = 0,
    views: ViewConfig = VIEWS,
    coarse: CoarseConfig = UNMOVED,
    times: int = 4,
) -> CropBatch:
    indices = torch.arange(len(photos)).repeat(times)
    return photos.batch(indices, size, Generator().manual_seed(seed), views, coarse)


def test_a_pack_knows_its_photos(photos: PackedPhotos) -> None:
    assert len(photos) == len(SIZES) and photos.names == sorted(SIZES)
    assert photos.has_real.tolist() == [name in WITH_COARSE for name in sorted(SIZES)]


@pytest.mark.parametrize("size", [16, 31, 64])
def test_batches_have_the_promised_form(photos: PackedPhotos, size: int) -> None:
    batch = crops(photos, size, coarse=CoarseConfig())
    count = 4 * len(SIZES)
    assert batch.image.shape == (count, 3, size, size)
    assert batch.image.min() >= 0 and batch.image.max() <= 255
    for mask in (batch.fine, batch.coarse, batch.distance):
        assert mask.shape == (count, 1, size, size) and mask.dtype == torch.float32
    assert set(batch.fine.unique().tolist()) == set(batch.coarse.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batch.fine, (batch.distance > 0).float())


@pytest.mark.parametrize("size", [12, 24, 48, 90])
def test_every_crop_shows_photo_and_truth_of_the_same_place(photos: PackedPhotos, size: int) -> None:
    """The photo's colours say where a pixel comes from: the truth there must be the crop's, however it was turned."""
    views = ViewConfig(rotation=0.8, colour=0.0, zoom=(0.3, 3.0))
    checked = 0
    for seed in range(3):
        batch = crops(photos, size, seed, views)
        for i, (image, fine) in enumerate(zip(batch.image, batch.fine[:, 0].numpy(), strict=True)):
            inside = (image != MEAN).any(dim=0).numpy()
            if not (image[0] - image[2]).abs().numpy()[inside].max() > 1:
                continue  # a tenth of the crops turn grey
            name = sorted(SIZES)[i % len(SIZES)]
            mask = truth_of(name)
            height, width = mask.shape
            x = (image[0] / 255 * width).long().clamp(0, width - 1).numpy()
            y = (image[1] / 255 * height).long().clamp(0, height - 1).numpy()
            # Colours come back to about two levels, and coarser levels of the photo blur by their pixel.
            blur = max(height, width) / min(size, PACK_SIZE) + 0.03 * max(height, width)
            clear = inside & (np.abs(signed_distance(mask)[y, x]) > blur)
            np.testing.assert_array_equal(fine[clear], mask[y, x][clear], err_msg=f"{name}, seed {seed}")
            assert not fine[~inside].any()
            checked += int(clear.sum())
    assert checked > 10 * size**2


def test_crops_are_flipped_turned_and_zoomed(photos: PackedPhotos) -> None:
    batch = crops(photos, 32, views=ViewConfig(colour=0.0), times=40)
    middle = batch.image[:, :, 12:20, 12:20]
    right = middle[:, 0].diff(dim=2).mean(dim=(1, 2))  # how much farther right each column lies
    tilt = middle[:, 0].diff(dim=1).mean(dim=(1, 2))
    assert 0.35 < float((right > 0).float().mean()) < 0.65
    assert 0.1 < float((tilt.abs() > 0.15 * right.abs()).float().mean()) < 0.5
    assert float(right.abs().quantile(0.9) / right.abs().quantile(0.1)) > 1.5


def test_what_lies_beyond_the_photo_is_background_of_the_mean_colour(photos: PackedPhotos) -> None:
    batch = crops(photos, 48, coarse=CoarseConfig(), views=ViewConfig(context=(3.0, 4.0), object_share=1.0))
    outside = (batch.image == MEAN).all(dim=1, keepdim=True)
    assert 0.02 < float(outside.float().mean()) < 0.6
    for mask in (batch.fine, batch.coarse):
        assert not mask[outside].any()
    assert (batch.distance[outside] < 0).all()


def test_nearly_every_crop_shows_some_contour(photos: PackedPhotos) -> None:
    share = crops(photos, 32, times=20).fine.mean(dim=(1, 2, 3))
    assert float(((share > 0) & (share < 1)).float().mean()) > 0.95


def test_distances_are_those_to_the_crop_s_own_contour(photos: PackedPhotos) -> None:
    batch = crops(photos, 48, views=ViewConfig(rotation=0.0))
    errors = []
    for fine, distance in zip(batch.fine[:, 0].numpy(), batch.distance[:, 0].numpy(), strict=True):
        inner = fine[8:-8, 8:-8]
        if not 0 < inner.mean() < 1:
            continue
        own = signed_distance(fine > 0)
        near = np.abs(own) < 6
        near[:8], near[-8:], near[:, :8], near[:, -8:] = False, False, False, False
        errors.append(np.abs(own - distance)[near])
    # Crops are stretched by up to 16 % in one direction, and distances are stored with a loss.
    assert len(errors) > 12
    assert np.mean(np.concatenate(errors)) < 0.7 and np.quantile(np.concatenate(errors), 0.95) < 2


def rows_only(size: int, thickness: int, seed: int) -> np.ndarray:
    """A mask of horizontal stripes: flipping and stretching sideways leave it as it is."""
    values = np.random.default_rng(seed).random(size // thickness) < 0.5
    values[:2] = False, True
    return np.repeat(np.repeat(values, thickness)[:, None], size, axis=1)


def test_at_scale_one_masks_come_back_exactly_and_photos_nearly(tmp_path: Path) -> None:
    size = 48
    truths, reals = ([rows_only(size, t, seed) for t in (1, 2, 8)] for seed in (0, 1))
    grey = (127 + 100 * np.sin(np.arange(size) / 7)).astype(np.uint8)
    photo = np.repeat(np.repeat(grey[:, None, None], size, axis=1), 3, axis=2)
    for i, (truth, real) in enumerate(zip(truths, reals, strict=True)):
        write(tmp_path, str(i), photo, truth, real)
    pack_folder(tmp_path, tmp_path / "pack")
    whole = ViewConfig(object_share=1.0, context=(9.0, 9.0), rotation=0.0, colour=0.0)
    batch = crops(PackedPhotos(tmp_path / "pack", CPU), size, views=whole, coarse=UNMOVED, times=5)
    middle = size // 2  # sideways stretching never takes the middle out of the photo
    for i in range(15):
        truth, real = truths[i % 3], reals[i % 3]
        np.testing.assert_array_equal(batch.fine[i, 0, :, middle], truth[:, 0])
        np.testing.assert_array_equal(batch.coarse[i, 0, :, middle], real[:, 0])
        assert float((batch.image[i, :, :, middle] - torch.from_numpy(grey)).abs().mean()) < 4
        if i % 3 == 2:
            expected = signed_distance(truth)[:, 0]
            np.testing.assert_allclose(batch.distance[i, 0, :, middle], expected, atol=1.5, rtol=0.2)


def test_real_masks_are_used_where_there_are_some(photos: PackedPhotos) -> None:
    batch = crops(photos)
    same = (batch.coarse == batch.fine).all(dim=(1, 2, 3)).view(4, -1)
    assert torch.equal(same.all(dim=0), ~photos.has_real)
    perfect = crops(photos, coarse=CoarseConfig(perfect=1.0))
    assert torch.equal(perfect.coarse, perfect.fine)


def test_batches_come_from_the_generator_alone(photos: PackedPhotos) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (crops(photos, seed=seed, coarse=CoarseConfig()) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("image", "fine", "coarse", "distance"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


TILES = ViewConfig(object_share=0.0, tile_share=1.0, colour=0.0)


def tile_crops(photos: PackedPhotos, scale: float, size: int = 32) -> CropBatch:
    index = photos.names.index("d")
    views = replace(TILES, tile_scales=(scale,))
    return photos.batch(torch.full((24,), index), size, Generator().manual_seed(0), views, UNMOVED)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_tiles_have_their_scale_and_are_never_turned(photos: PackedPhotos, scale: float) -> None:
    """Red grows to the right and green downwards, by as much per pixel as the scale says, and not otherwise."""
    height, width = SIZES["d"]
    size = round(32 / min(1.0, scale))  # of the photo's pixels, not fewer: packed photos are lossy
    rows, columns = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    coloured = [image for image in tile_crops(photos, scale, size).image if (image[0] - image[2]).abs().max() > 1]
    assert len(coloured) > 12
    for image in coloured:
        inside = (image - MEAN).abs().amax(dim=0) > 1
        plane = torch.stack([columns[inside], rows[inside], torch.ones(int(inside.sum()))], dim=1)
        across = torch.linalg.lstsq(plane, image[0][inside] * width / 255).solution
        down = torch.linalg.lstsq(plane, image[1][inside] * height / 255).solution
        assert abs(float(across[0])) == pytest.approx(scale, rel=0.1) and abs(float(across[1])) < 0.15 * scale
        assert float(down[1]) == pytest.approx(scale, rel=0.1) and abs(float(down[0])) < 0.15 * scale


def test_tiles_at_scale_one_lie_on_the_photo_s_pixels(photos: PackedPhotos) -> None:
    truth = torch.from_numpy(np.pad(truth_of("d"), 32))
    places = truth.unfold(0, 32, 1).unfold(1, 32, 1)
    for fine in tile_crops(photos, 1.0).fine[:, 0] > 0:
        assert any((places == seen).all(dim=(2, 3)).any() for seen in (fine, fine.flip(1)))


def test_without_their_shares_crops_are_what_they_were(photos: PackedPhotos) -> None:
    plain = crops(photos)
    same = crops(photos, views=ViewConfig(tile_share=0.0, degraded=0.0, pasted=0.0, thin=0.0))
    assert torch.equal(plain.image, same.image) and torch.equal(plain.coarse, same.coarse)
    for change in ({"tile_share": 1.0}, {"degraded": 1.0}, {"pasted": 1.0}, {"thin": 1.0}):
        assert not torch.equal(plain.image, crops(photos, views=ViewConfig(**change)).image)


def test_pasting_and_degrading_leave_the_masks_alone(photos: PackedPhotos) -> None:
    plain, changed = crops(photos), crops(photos, views=ViewConfig(degraded=1.0, pasted=1.0))
    assert torch.equal(plain.fine, changed.fine) and torch.equal(plain.distance, changed.distance)


def test_thin_structures_are_the_truth_and_no_real_mask_is_theirs(photos: PackedPhotos) -> None:
    batch = crops(photos, views=ViewConfig(thin=1.0))
    assert torch.equal(batch.fine, (batch.distance > 0).float())
    assert float(batch.distance.max()) < 5
    # Unmoved: a real mask would be the photo's own, which has nothing to do with them.
    assert torch.equal(batch.coarse, batch.fine)


def test_colours_change_but_masks_do_not(photos: PackedPhotos) -> None:
    plain, changed = (crops(photos, views=ViewConfig(colour=strength)) for strength in (0.0, 0.3))
    assert torch.equal(plain.fine, changed.fine) and torch.equal(plain.coarse, changed.coarse)
    assert 3 < float((plain.image - changed.image).abs().mean()) < 60
    grey = (plain.image[:, 0] - plain.image[:, 1]).abs().amax(dim=(1, 2)) < 1
    assert 0 < int(grey.sum()) < 0.4 * len(grey)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (40, 40)], ids=str)
def test_odd_photos_can_be_trained_on(tmp_path: Path, shape: tuple[int, int]) -> None:
    write(tmp_path, "odd", coordinates(*shape), np.full(shape, True))
    pack_folder(tmp_path, tmp_path / "pack")
    batch = crops(PackedPhotos(tmp_path / "pack", CPU), 16, coarse=CoarseConfig())
    assert batch.image.isfinite().all() and batch.distance.isfinite().all()
    inside = (batch.image != MEAN).any(dim=1, keepdim=True)
    assert (batch.fine[inside] == 1).all() and not batch.fine[~inside].any()


@QUICK
@given(mask=arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_signed_distance_is_that_to_the_nearest_pixel_of_the_other_state(mask: np.ndarray) -> None:
    distance = signed_distance(mask)
    np.testing.assert_array_equal(distance > 0, mask)
    if mask.all() or not mask.any():
        assert np.isinf(distance).all()
        return
    points = np.argwhere(np.ones_like(mask))
    for y, x in points:
        others = points[mask[tuple(points.T)] != mask[y, x]]
        nearest = np.hypot(*(others - (y, x)).T).min() - 0.5
        assert abs(distance[y, x]) == pytest.approx(nearest, abs=1e-4)


@QUICK
@given(st.lists(st.floats(-200, 200, width=32).filter(lambda d: abs(d) >= 0.5), min_size=1, max_size=50))
def test_encoded_distances_come_back_within_half_a_level(values: list[float]) -> None:
    distance = np.array(values, np.float32)
    back = decode_distance(torch.from_numpy(encode_distance(distance)).float()).numpy()
    held = np.clip(distance, -DISTANCE_RANGE, DISTANCE_RANGE)
    half = 0.5 / 127
    bound = DISTANCE_RANGE * (2 * np.sqrt(np.abs(held) / DISTANCE_RANGE) * half + half**2) + 1e-4
    assert (np.abs(back - held) <= bound).all()
    np.testing.assert_array_equal(np.sign(back), np.sign(distance))
    order = np.argsort(distance)
    assert (np.diff(back[order]) >= 0).all()


@QUICK
@given(size=st.integers(1, 5000), share=st.floats(0.01, 1))
def test_packs_of_larger_photos_reach_as_far_across_them(size: int, share: float) -> None:
    reach = distance_reach(size)
    assert reach >= max(DISTANCE_RANGE, size / 6 - 1e-9)
    distance = np.array([share * reach, -share * reach, 2 * reach, -np.inf], np.float32)
    back = decode_distance(torch.from_numpy(encode_distance(distance, reach)).float(), reach).numpy()
    np.testing.assert_allclose(back, [share * reach, -share * reach, reach, -reach], atol=reach / 120)


def test_every_code_but_the_middle_has_a_distance_of_its_own() -> None:
    codes = np.arange(1, 256, dtype=np.uint8)
    back = decode_distance(torch.from_numpy(codes).float()).numpy()
    np.testing.assert_array_equal(encode_distance(back), codes)
    assert back[0] == -DISTANCE_RANGE and back[-1] == DISTANCE_RANGE


@pytest.mark.parametrize("count", [1, 2, 17])
def test_an_epoch_is_a_permutation_of_its_seed(count: int) -> None:
    assert sorted(shuffled(count, 3, 5).tolist()) == list(range(count))
    assert torch.equal(shuffled(count, 3, 5), shuffled(count, 3, 5))
    if count > 10:
        assert not torch.equal(shuffled(count, 3, 5), shuffled(count, 4, 5))
        assert not torch.equal(shuffled(count, 3, 5), shuffled(count, 3, 6))


def test_photos_are_found_with_their_masks(tmp_path: Path, folder: Path) -> None:
    found = find_photos(folder)
    assert [p.name for p in found] == sorted(SIZES)
    assert [p.name for p in found if p.coarse is not None] == list(WITH_COARSE)
    write(tmp_path, "a", coordinates(9, 9), blobs(9, 9, 0))
    Image.fromarray(coordinates(9, 9)).save(tmp_path / "images" / "b.JPG")
    Image.fromarray(blobs(9, 9, 0)).save(tmp_path / "masks" / "b.png")
    (tmp_path / "images" / "notes.txt").write_text("no photo")
    for part in ("coarse_1", "coarse_2"):
        (tmp_path / part).mkdir()
    Image.fromarray(blobs(9, 9, 1)).save(tmp_path / "coarse_2" / "b.png")
    a, b = find_photos(tmp_path)
    assert (a.name, a.coarse) == ("a", None)
    assert (b.name, b.coarse) == ("b", tmp_path / "coarse_2" / "b.png")


def test_packing_goes_through_the_progress_and_twice_the_same(tmp_path: Path, folder: Path) -> None:
    seen: list[int] = []

    def follow(numbers):
        for number in numbers:
            seen.append(number)
            yield number

    for name in ("one", "two"):
        pack_source(open_folder(folder), tmp_path / name, size=40, progress=follow)
    assert seen == list(range(len(SIZES))) * 2
    one, two = (crops(PackedPhotos(tmp_path / name, CPU), 16) for name in ("one", "two"))
    assert torch.equal(one.image, two.image) and torch.equal(one.fine, two.fine)


def without_images(folder: Path) -> None:
    (folder / "masks").mkdir()


def without_photos(folder: Path) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir()


def without_masks(folder: Path) -> None:
    for name in ("good", "bad1", "bad2"):
        write(folder, name, coordinates(9, 9), blobs(9, 9, 0))
    for name in ("bad1", "bad2"):
        (folder / "masks" / f"{name}.png").unlink()


def mask_of_another_size(folder: Path) -> None:
    write(folder, "odd", coordinates(9, 11), blobs(9, 12, 0))


def coarse_of_another_size(folder: Path) -> None:
    write(folder, "odd", coordinates(9, 11), blobs(9, 11, 0), blobs(8, 11, 0))


def broken_mask(folder: Path) -> None:
    write(folder, "odd", coordinates(9, 11), blobs(9, 11, 0))
    (folder / "masks" / "odd.png").write_bytes(b"no picture")


def empty_mask(folder: Path) -> None:
    write(folder, "odd", coordinates(9, 11), np.zeros((9, 11), bool))


BAD_FOLDERS = {
    "empty mask": (empty_mask, ["odd.png is empty"]),
    "no folder images": (without_images, ["images/"]),
    "no photo": (without_photos, ["holds no photo"]),
    "no masks": (without_masks, ["2 names", "bad1", "bad2"]),
    "another size": (mask_of_another_size, ["odd.png is 12x9", "photo is 11x9"]),
    "coarse of another size": (coarse_of_another_size, ["coarse_net", "odd.png is 11x8", "photo is 11x9"]),
    "broken mask": (broken_mask, ["odd.png"]),
}


@pytest.mark.parametrize(("spoil", "said"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_bad_folders_are_refused_and_no_pack_is_left(tmp_path: Path, spoil, said: list[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(InputError) as caught:
        pack_folder(folder, tmp_path / "pack")
    for words in said:
        assert words in str(caught.value)
    assert "good" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "pack").exists()


def not_there(path: Path) -> None:
    pass


def a_text(path: Path) -> None:
    path.write_text("not a pack of photos, but some text")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def other_safetensors(path: Path) -> None:
    save_file({"weights": np.zeros(3)}, path)


def cut_short(path: Path) -> None:
    folder = path.parent / "data"
    write(folder, "a", coordinates(20, 20), blobs(20, 20, 0))
    pack_folder(folder, path)
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize("spoil", [not_there, a_text, nothing, other_safetensors, cut_short])
def test_what_is_no_pack_is_refused(tmp_path: Path, spoil) -> None:
    path = tmp_path / "photos.pack"
    spoil(path)
    with pytest.raises(InputError, match=r"photos\.pack"):
        PackedPhotos(path, CPU)


def test_a_photo_with_several_coarse_masks_is_held_once(tmp_path: Path) -> None:
    size = SIZES["a"]
    masks = [blobs(*size, seed=seed) for seed in range(3)]
    write(tmp_path, "a", coordinates(*size), masks[0], masks[1])
    (tmp_path / "coarse_other").mkdir()
    Image.fromarray(masks[2]).save(tmp_path / "coarse_other" / "a.png")
    write(tmp_path, "b", coordinates(*SIZES["b"]), truth_of("b"))
    source = every_coarse(open_folder(tmp_path))
    assert pack_source(source, tmp_path / "pack", size=PACK_SIZE) == (3, [])
    pack = read_pack(tmp_path / "pack")
    assert pack.names == ["a", "a~coarse_other", "b"] and pack.coarse_kinds == ["coarse_net", "coarse_other", ""]
    assert [len(pack.blobs[part]) for part in ("photo", "truth", "real")] == [2, 2, 2]
    photos = PackedPhotos(tmp_path / "pack", CPU)
    assert photos.has_real.tolist() == [True, True, False]
    (first, truth, net), (second, again, other), (_, _, none) = (photos.photo(i) for i in range(3))
    assert (first == second).all() and (truth == masks[0]).all() and (again == masks[0]).all()
    assert none is None and net is not None and other is not None
    assert (net == masks[1]).all() and (other == masks[2]).all()


def test_packs_of_before_can_be_read(folder: Path, photos: PackedPhotos, tmp_path: Path) -> None:
    pack_folder(folder, tmp_path / "new", size=PACK_SIZE)
    pack = read_pack(tmp_path / "new")
    arrays = {}
    for part, index in pack.index.items():
        blobs = [pack.blobs[part][i] if i >= 0 else np.empty(0, np.uint8) for i in index]
        arrays[part] = np.concatenate(blobs)
        arrays[f"{part}_ends"] = np.cumsum([len(blob) for blob in blobs])
    metadata = {"format": "segrefiner-pack-1", "size": str(pack.size), "names": json.dumps(pack.names)}
    save_file(arrays, tmp_path / "old", metadata)
    old = PackedPhotos(tmp_path / "old", CPU)
    assert old.names == photos.names and torch.equal(old.has_real, photos.has_real)
    for index in range(len(old)):
        assert all(
            (a is None and b is None) or (a == b).all()
            for a, b in zip(old.photo(index), photos.photo(index), strict=True)
        )
