"""Masks that lie beside the edges of their photos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from helpers.tiny import TINY
from segrefiner.cli.main import main
from segrefiner.data.alignment import (
    Aligned,
    Edges,
    Offset,
    aligned,
    edge_profile,
    measure_offsets,
    offset_of,
    snap_truth,
)
from segrefiner.data.packed_photos import PackedPhotos
from segrefiner.data.sources import Sample, data_set_of
from segrefiner.imaging.shapes.distances import signed_distance
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save

SIDE = 120


def photo_and_mask(seed: int, right: float = 0.0, down: float = 0.0, outward: float = 0.0) -> Sample:
    """A blob drawn eight times as fine, in a photo that is its average; the mask is drawn with the offset."""
    rng = np.random.default_rng(seed)
    fine = 8 * SIDE
    rows, columns = (np.indices((fine, fine)) + 0.5) / 8
    y, x = rng.uniform(50, 70, 2)
    phase = rng.uniform(0, 6)

    def distance(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        angle = np.arctan2(rows - y, columns - x)
        return 30 + 5 * np.sin(3 * angle + phase) - np.hypot(rows - y, columns - x)

    share = (distance(rows, columns) > 0).reshape(SIDE, 8, SIDE, 8).mean(axis=(1, 3))
    grey = 60 + 120 * share + rng.normal(0, 4, share.shape)
    image = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    rows, columns = np.indices((SIDE, SIDE)) + 0.5
    return Sample(f"blob_{seed}", image, distance(rows - down, columns - right) + outward > 0, None)


@dataclass(frozen=True)
class Blobs:
    """Photos whose masks are off by as much."""

    offset: Offset
    count: int = 12
    name: str = "blobs"
    objects: bool = False

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        return photo_and_mask(index, self.offset.right, self.offset.down, self.offset.outward)


@pytest.mark.parametrize(
    "offset",
    [
        Offset(),
        Offset(right=0.5),
        Offset(right=-1.0, down=0.5),
        Offset(down=-0.75),
        Offset(outward=1.0),
        Offset(outward=-0.75),
    ],
    ids=str,
)
def test_what_masks_are_off_by_is_found_and_taken_away(offset: Offset) -> None:
    """To a quarter of a pixel."""
    blobs = Blobs(offset)
    found = measure_offsets(blobs)["blob"]
    for got, true in zip(
        (found.right, found.down, found.outward), (offset.right, offset.down, offset.outward), strict=True
    ):
        assert abs(got - true) <= 0.25
    assert bool(found) == bool(offset)
    left = measure_offsets(Aligned(blobs, {"blob": found}))["blob"]
    assert not left


def test_data_sets_that_were_merged_are_told_apart_by_their_names() -> None:
    edges = Edges()
    for i in range(10):
        exact, moved = photo_and_mask(i), photo_and_mask(i, right=1.0)
        edges.add(Sample(f"ECSSD_{i:04d}", exact.image, exact.mask, None))
        edges.add(Sample(f"CCP{i}", moved.image, moved.mask, None))
    assert edges.offsets() == {"ECSSD": Offset(), "CCP": Offset(right=1.0)}
    assert data_set_of("0001") == data_set_of("_x") == ""
    assert data_set_of("0_CCP_0001") == "CCP"


def test_a_few_photos_tell_nothing() -> None:
    sample = photo_and_mask(0, right=1.0)
    profile = edge_profile(sample.image, sample.mask)
    assert profile is not None
    assert not offset_of([profile] * 7)
    assert offset_of([profile] * 8) == Offset(right=1.0)


def test_photos_without_edges_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    edges = Edges()
    for i in range(12):
        sample = photo_and_mask(i, outward=1.0)
        noise = rng.normal(120, 3, (SIDE, SIDE, 1)).repeat(3, axis=2).astype(np.uint8)
        edges.add(Sample(f"noise{i}", noise, sample.mask, None))
        edges.add(Sample(f"flat{i}", np.full_like(noise, 120), sample.mask, None))
    assert edges.offsets() == {"noise": Offset(), "flat": Offset()}


@pytest.mark.parametrize(
    "mask",
    [np.zeros((64, 64), bool), np.ones((64, 64), bool), np.eye(9, dtype=bool), np.indices((64, 64))[0] == 0],
    ids=["empty", "full", "tiny", "at the border"],
)
def test_masks_with_no_contour_to_look_at(mask: np.ndarray) -> None:
    assert edge_profile(np.zeros((*mask.shape, 3), np.uint8), mask) is None


def test_only_the_photo_is_moved() -> None:
    sample = photo_and_mask(3)
    coarse = ndimage.binary_erosion(sample.mask)
    whole = aligned(Sample("a", sample.image, sample.mask, coarse), Offset(right=2.0, down=-3.0))
    assert whole.mask is sample.mask
    assert whole.coarse is coarse
    assert np.array_equal(whole.image[:-3, 2:], sample.image[3:, :-2])
    # Beyond the photo its border is repeated.
    assert np.array_equal(whole.image[-3:, 2:], np.repeat(sample.image[-1:, :-2], 3, axis=0))
    assert np.array_equal(whole.image[:-3, :2], np.repeat(sample.image[3:, :1], 2, axis=1))


def test_only_the_mask_is_shrunk_or_grown() -> None:
    sample = photo_and_mask(3)
    distance = signed_distance(sample.mask)
    for outward in (1.0, -1.5):
        changed = aligned(sample, Offset(outward=outward))
        assert changed.image is sample.image
        assert not (changed.mask ^ (distance > outward))[abs(distance - outward) > 0.5].any()
    thin = Sample("thin", sample.image, np.eye(SIDE, dtype=bool), None)
    assert aligned(thin, Offset(outward=1.0)).mask is thin.mask


def test_nothing_to_do_is_nothing_done() -> None:
    sample = photo_and_mask(3)
    assert aligned(sample, Offset()) is sample


def test_packing_puts_it_right_and_checking_tells(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    for i in range(10):
        sample = photo_and_mask(i, outward=1.0)
        Image.fromarray(sample.image).save(data / "images" / f"blob{i}.png")
        Image.fromarray(sample.mask).save(data / "masks" / f"blob{i}.png")

    def said(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    line = "masks of blob are off the photos' edges: 1 px outward"
    assert line in said("data", "check", data)
    plain, exact = tmp_path / "plain.pack", tmp_path / "aligned.pack"
    assert line not in said("data", "pack", data, plain)
    assert line in said("data", "pack", data, exact, "--align")
    before, after = (PackedPhotos(path, torch.device("cpu")) for path in (plain, exact))
    for i in range(10):
        whole, put_right = (Sample("", image, mask, None) for image, mask, _ in (before.photo(i), after.photo(i)))
        assert np.array_equal(put_right.mask, aligned(whole, Offset(outward=1.0)).mask)
    # So does a run whose recipe asks for it.
    save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    small = ("samples=2", "large_share=1", "large_batch=2", "large_size=64", "pack_size=384")
    options = [x for value in (*small, "align=true") for x in ("--set", value)]
    said("train", data, "-o", tmp_path / "run", "--from", tmp_path / "tiny.safetensors", *options)
    own = PackedPhotos(tmp_path / "run" / "photos.pack", torch.device("cpu"))
    for i in range(10):
        assert all(np.array_equal(one, other) for one, other in zip(own.photo(i)[:2], after.photo(i)[:2], strict=True))


def test_a_contour_is_moved_onto_an_edge_that_another_mask_shows() -> None:
    rows, columns = np.mgrid[:100, :100]
    disc = np.hypot(rows - 50, columns - 50) < 25
    photo = np.where(disc[..., None], 200, 60).astype(np.uint8).repeat(3, axis=2)
    truth = np.roll(disc, 2, axis=1)
    truth[:10, :10] = True  # what the network does not show stays
    snapped = snap_truth(photo, truth, disc)
    assert (snapped[:10, :10]).all()
    wrong = snapped != disc
    wrong[:10, :10] = False
    assert wrong.sum() < 0.2 * (truth != disc).sum()
    # A truth on the edge stays, whatever another mask shows.
    assert snap_truth(photo, disc, np.roll(disc, 2, axis=0)) is disc
    # A contour that is elsewhere is another one.
    assert snap_truth(photo, np.roll(disc, 8, axis=1), disc)[50, 80]


def test_snapping_writes_every_mask_and_goes_on(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:100, :100]
    disc = np.hypot(rows - 50, columns - 50) < 25
    photo = np.where(disc[..., None], 200, 60).astype(np.uint8).repeat(3, axis=2)
    for name, truth in (("beside", np.roll(disc, 2, axis=1)), ("on", disc), ("alone", np.roll(disc, 2, axis=0))):
        for part, array in (("images", photo), ("masks", truth), ("network", disc)):
            if (name, part) != ("alone", "network"):
                (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / "data" / part / f"{name}.png")
    network, out = str(tmp_path / "data" / "network"), tmp_path / "snapped"
    command = ["data", "snap", str(tmp_path / "data"), "--by", network, "-o", str(out)]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0 and "3 masks written, 1 of them moved, 0 were there" in said.output
    written = {path.stem: np.asarray(Image.open(path)).astype(bool) for path in out.iterdir()}
    assert (written["on"] == disc).all() and (written["alone"] == np.roll(disc, 2, axis=0)).all()
    assert (written["beside"] != np.roll(disc, 2, axis=1)).any()
    assert "0 masks written, 0 of them moved, 3 were there" in CliRunner().invoke(main, command).output
