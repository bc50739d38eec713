"""Laws of training batches: a sample's number decides everything about it."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.discs import Discs
from helpers.tiny import TINY
from segrefiner.data.coarse.masks import CoarseConfig
from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.packed_photos import CropBatch, PackedPhotos, shuffled
from segrefiner.data.published_crops import PublishedViews
from segrefiner.data.sources import Sample, Source
from segrefiner.errors import InputError, TrainingError
from segrefiner.training.batches import _Order, packed_batches, streamed_batches, times_drawn
from segrefiner.training.recipe import Recipe
from segrefiner.training.recipes import LR

CPU = torch.device("cpu")
DISCS = Discs()
STREAMED = replace(LR, model=TINY, large_size=32, large_batch=4, samples=400)
PACKED = Recipe(model=TINY, samples=400, large_share=0.5, small_size=16, large_size=24, small_batch=8, group=2)


def same(a: CropBatch, b: CropBatch) -> bool:
    planes = ("image", "fine", "coarse", "distance")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in planes)


def streamed(recipe: Recipe, steps: range, source: Source = DISCS, workers: int = 0) -> list[CropBatch]:
    return list(streamed_batches(source, recipe, CPU, workers=workers)([recipe.portion(step) for step in steps]))


def test_a_step_s_batch_does_not_depend_on_the_steps_before(discs_pack: PackedPhotos) -> None:
    for recipe, feed in (
        (PACKED, packed_batches(discs_pack, PACKED)),
        (STREAMED, streamed_batches(Discs(), STREAMED, CPU, workers=0)),
    ):
        whole = list(feed([recipe.portion(step) for step in range(8)]))
        for step in (1, 6):
            assert same(next(iter(feed([recipe.portion(step)]))), whole[step])
        assert not same(whole[0], whole[1])


def test_processes_together_see_what_one_sees(discs_pack: PackedPhotos) -> None:
    for recipe, feed in (
        (PACKED, packed_batches(discs_pack, PACKED)),
        (STREAMED, streamed_batches(Discs(), STREAMED, CPU, workers=0)),
    ):
        (whole,) = feed([recipe.portion(3)])
        parts = [next(iter(feed([recipe.portion(3, rank, 4)]))) for rank in range(4)]
        assert torch.equal(torch.cat([p.image for p in parts]), whole.image)
        assert torch.equal(torch.cat([p.coarse for p in parts]), whole.coarse)


@pytest.mark.slow
def test_worker_processes_change_nothing() -> None:
    for one, two in zip(streamed(STREAMED, range(3)), streamed(STREAMED, range(3), workers=2), strict=True):
        assert same(one, two)


def test_the_feed_may_be_endless(discs_pack: PackedPhotos) -> None:
    for recipe, feed in (
        (PACKED, packed_batches(discs_pack, PACKED)),
        (STREAMED, streamed_batches(Discs(), STREAMED, CPU, workers=0)),
    ):
        batches = feed(recipe.portion(step) for step in count())
        assert len([next(batches) for _ in range(3)]) == 3


def test_streamed_batches_are_as_described() -> None:
    for batch in streamed(replace(STREAMED, contour_weight=1.0), range(10)):
        assert batch.image.shape == (4, 3, 32, 32) and batch.image.dtype == torch.float32
        assert batch.image.min() >= 0 and batch.image.max() <= 255
        for mask in (batch.fine, batch.coarse):
            assert mask.shape == (4, 1, 32, 32) and set(mask.unique().tolist()) <= {0.0, 1.0}
        assert ((batch.distance > 0) == (batch.fine > 0)).all()
        # The bright object is where the mask says.
        assert (batch.image[batch.fine.expand_as(batch.image) > 0] > 100).float().mean() > 0.9


def test_each_photo_gives_an_object_view_and_a_patch_of_it() -> None:
    recipe = replace(STREAMED, views=PublishedViews(patches=True, flip=0.0), samples=100, large_size=16)
    seen = []
    for batch in streamed(recipe, range(5)):  # 20 crops of 10 photos, two epochs of five
        seen += batch.fine.mean(dim=(1, 2, 3)).tolist()
    assert len(seen) == 20 and all(share > 0 for share in seen)
    # Of one photo: the patch shows more of the disc, for it is a part of the view.
    assert np.mean(seen[1::2]) != pytest.approx(np.mean(seen[::2]), abs=1e-3)


class Inverted(Discs):
    """Discs whose coarse masks are just what they are not."""

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        return replace(sample, coarse=~sample.mask)


def test_real_coarse_masks_are_used_but_for_patches() -> None:
    recipe = replace(STREAMED, views=PublishedViews(patches=True), large_batch=10, samples=10)
    (batch,) = streamed(recipe, range(1), Inverted())
    assert torch.equal(batch.coarse[::2], 1 - batch.fine[::2])
    assert not any(torch.equal(c, 1 - f) for c, f in zip(batch.coarse[1::2], batch.fine[1::2], strict=True))


@pytest.mark.parametrize("published", [0.0, 1.0])
def test_coarse_masks_are_made_as_the_recipe_asks(published: float) -> None:
    coarse = CoarseConfig(perfect=0.0, published=published, min_iou=0.6)
    recipe = replace(STREAMED, coarse=coarse, large_batch=8, samples=64)
    batches = streamed(recipe, range(4), Discs(1))
    iou = torch.cat(
        [(b.fine * b.coarse).sum((1, 2, 3)) / torch.maximum(b.fine, b.coarse).sum((1, 2, 3)) for b in batches]
    )
    assert iou.mean() < 0.97 and (iou.max() < 0.8 if published else iou.min() > 0.3)
    perfect = replace(recipe, large_perfect=1.0)
    assert all(torch.equal(b.fine, b.coarse) for b in streamed(perfect, range(2), Discs(1)))


def test_unreadable_photos_are_replaced_and_reported() -> None:
    source = Discs(5, broken=frozenset({1, 3}))
    batches = streamed(STREAMED, range(5), source)  # 20 crops, four of each photo
    reported = [failure for batch in batches for failure in batch.failures]
    assert {name for name, _ in reported} == {"discs[1]", "discs[3]"} and len(reported) == 8
    assert all("is broken" in reason for _, reason in reported)
    with pytest.raises(TrainingError, match="5 photos in a row"):
        streamed(STREAMED, range(1), Discs(5, broken=frozenset(range(5))))


def test_sources_and_packs_are_for_their_own_recipes(discs_pack: PackedPhotos) -> None:
    with pytest.raises(InputError, match="pack"):
        streamed_batches(Discs(), PACKED, CPU)
    with pytest.raises(InputError, match="pack"):
        packed_batches(discs_pack, STREAMED)
    with pytest.raises(InputError, match="group"):
        packed_batches(discs_pack, replace(PACKED, group=1, views=ViewConfig(pasted=0.5)))
    with pytest.raises(InputError, match="no photos"):
        streamed_batches(Discs(0), STREAMED, CPU)


@pytest.fixture(scope="module")
def discs_pack(tmp_path_factory: pytest.TempPathFactory) -> PackedPhotos:
    """The discs in memory."""
    from PIL import Image

    from segrefiner.data.packs import pack_folder

    folder: Path = tmp_path_factory.mktemp("discs")
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for index in range(5):
        sample = Discs().read(index)
        Image.fromarray(sample.image).save(folder / "images" / f"{index}.png")
        Image.fromarray(sample.mask).save(folder / "masks" / f"{index}.png")
    pack_folder(folder, folder / "pack")
    return PackedPhotos(folder / "pack", CPU)


def test_data_sets_are_drawn_as_often_as_asked(discs_pack: PackedPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = len(discs_pack)
    monkeypatch.setattr(discs_pack, "names", ["rare_0", *(f"common_{i}" for i in range(1, photos))])
    recipe = replace(PACKED, draws=("rare:3", "common:0.5"), samples=10_000, large_share=1.0, group=1)
    shown: list[int] = []

    def batch(indices: torch.Tensor, *rest: object) -> CropBatch:
        shown.extend(indices.tolist())
        plane = torch.zeros(len(indices), 1, 1, 1)
        return CropBatch(plane, plane, plane, plane)

    monkeypatch.setattr(discs_pack, "batch", batch)
    epochs, size = 24, recipe.batches[1]
    list(packed_batches(discs_pack, recipe)(recipe.portion(step) for step in range(epochs * photos // size)))
    expected = times_drawn(discs_pack.names, recipe.draws_of)
    assert expected[0] == pytest.approx(6 * expected[-1]) and expected.mean() == pytest.approx(1)
    drawn = np.array([np.bincount(epoch, minlength=photos) for epoch in np.array(shown).reshape(epochs, photos)])
    # In each epoch as often as that, rounded up or down, and over many just as often.
    assert (np.abs(drawn - expected) < 1).all() and np.abs(drawn.mean(axis=0) - expected).max() < 0.2


def test_all_photos_are_drawn_once_per_epoch_where_nothing_is_said(discs_pack: PackedPhotos) -> None:
    once = times_drawn(discs_pack.names, {})
    assert (once == 1).all()
    for order in (_Order(50, 3), _Order(50, 3, np.ones(50))):
        assert [order[50 + i] for i in range(50)] == shuffled(50, 1, 3).tolist()


def test_a_data_set_that_is_drawn_no_time_is_never_drawn() -> None:
    for seed in range(30):
        order = _Order(7, seed, times_drawn(["a_1"] * 4 + ["b_1"] * 3, {"b": 0.0}))
        assert {order[sample] for sample in range(70)} == {0, 1, 2, 3}


def test_draws_that_cannot_be_are_refused(discs_pack: PackedPhotos) -> None:
    with pytest.raises(InputError, match="draws names nowhere"):
        packed_batches(discs_pack, replace(PACKED, draws=("nowhere:2",)))
    with pytest.raises(InputError, match="no photo"):
        times_drawn(["a_1"], {"a": 0.0})
    for wrong in ("rare", "rare:much", "rare:-1", "rare:nan", "rare:1,rare:2"):
        with pytest.raises(InputError, match="draws is"):
            replace(PACKED, draws=tuple(wrong.split(",")))
    with pytest.raises(InputError, match="needs a pack"):
        streamed_batches(DISCS, replace(STREAMED, draws=("rare:2",)), CPU, workers=0)
