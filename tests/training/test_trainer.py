"""Laws of the training step and of the state that a checkpoint holds."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from helpers.runs import CPU, RECIPE, packed_discs, same, state, trainer
from helpers.tiny import TINY_WITH_ATTENTION as TINY
from segrefiner.data.coarse.masks import CoarseConfig
from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.packed_photos import CropBatch, PackedPhotos
from segrefiner.errors import TrainingError
from segrefiner.model.diffusion import NUM_TIMESTEPS, keep_fine_schedule, spaced_timesteps
from segrefiner.model.unet import DenoisingUNet
from segrefiner.training.batches import Example, packed_batches
from segrefiner.training.loop import train
from segrefiner.training.run_folder import CHECKPOINT_NAME
from segrefiner.training.trainer import SCHEDULES, Trainer, draw_timesteps, jittered, trust_timesteps


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PackedPhotos:
    return packed_discs(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize("before", [1, 5, 8])
def test_a_resumed_run_equals_one_that_was_never_stopped(photos: PackedPhotos, tmp_path: Path, before: int) -> None:
    after = 3  # from the small patches into the large ones, for 5
    whole = trainer(photos, steps=before + after)
    trainer(photos, steps=before).save(tmp_path / "checkpoint")
    resumed = trainer(photos)
    torch.rand(7)  # what else draws from the global generator does not matter
    resumed.load(tmp_path / "checkpoint")
    assert resumed.step == before
    for _ in range(after):
        resumed.train_step()
    assert math.isfinite(resumed.tally.means()["loss"])
    assert same(state(resumed), state(whole))


def test_the_seed_decides_everything(photos: PackedPhotos) -> None:
    first, again, other = (trainer(photos, replace(RECIPE, seed=seed), steps=2) for seed in (1, 1, 2))
    assert same(state(first), state(again))
    assert not same(first.net.state_dict(), other.net.state_dict())


def test_it_learns(photos: PackedPhotos) -> None:
    config = replace(
        RECIPE, samples=4000, large_share=0.0, small_batch=8, lr=5e-3, warmup_steps=5, views=ViewConfig(colour=0.0)
    )
    run = trainer(photos, config)
    losses = []
    for _ in range(60):
        run.train_step()
        losses.append(run.tally.means()["loss"])
        run.tally.clear()
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_the_average_follows_the_weights(photos: PackedPhotos) -> None:
    run = trainer(photos, replace(RECIPE, ema_decay=0.0))
    assert same(run.ema.state_dict(), run.net.state_dict())
    start = {k: v.clone() for k, v in run.net.state_dict().items()}
    run.train_step()
    # With no memory the average is the weights themselves.
    assert not same(run.net.state_dict(), start)
    for name, value in run.ema.state_dict().items():
        torch.testing.assert_close(value, run.net.state_dict()[name], rtol=0, atol=1e-7)
    slow = trainer(photos, steps=4)
    between = [float((slow.ema.state_dict()[k] - slow.net.state_dict()[k]).abs().sum()) for k in slow.net.state_dict()]
    assert sum(between) > 0


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_image_encoder_learns_at_its_share_of_the_rate(photos: PackedPhotos, share: float) -> None:
    config = replace(RECIPE, model=replace(TINY, image_stages=2), image_lr=share)
    run = trainer(photos, config)
    before = {name: p.detach().clone() for name, p in run.net.named_parameters()}
    run.train_step()
    run.train_step()  # until the features are heard, the encoder has no gradient
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in run.net.named_parameters()}
    encoder = [value for name, value in moved.items() if name.startswith("image_encoder.")]
    others = [value for name, value in moved.items() if not name.startswith("image_encoder.")]
    assert min(others) > 0
    if share:
        # AdamW's first steps are as long as the rate.
        assert 0 < max(encoder) < 2 * share * max(others)
    else:
        assert max(encoder) == 0


@pytest.mark.parametrize(("share", "replaced"), [(0.0, 0), (0.4, 1), (1.0, 3)])
def test_large_batches_refine_what_the_network_made_of_some_masks(
    photos: PackedPhotos, share: float, replaced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(photos, replace(RECIPE, large_self_coarse=share, large_self_mixed=0.0, large_share=1.0))
    with torch.no_grad():
        for parameter in made.net.parameters():
            parameter.zero_()  # the network's answer is 0 everywhere: all object
    given: list[CropBatch] = []
    learn = Trainer.learn

    def spy(self: Trainer, example: Example) -> None:
        given.append(example.batch)
        learn(self, example)

    monkeypatch.setattr(Trainer, "learn", spy)
    made.train_step()
    whole = (given[0].coarse == 1).flatten(1).all(dim=1)
    assert whole.tolist() == [i < replaced for i in range(3)]


def test_timesteps_are_uniform_but_for_the_coarse_share() -> None:
    count, share = 20_000, 0.35
    timesteps = draw_timesteps(count, share, Generator().manual_seed(0))
    assert timesteps.dtype == torch.int64 and timesteps.min() >= 0 and timesteps.max() == 5
    expected = np.full(6, (1 - share) / 6)
    expected[5] += share
    np.testing.assert_allclose(np.bincount(timesteps) / count, expected, atol=4 * 0.5 / math.sqrt(count))
    assert (draw_timesteps(50, 1.0, Generator().manual_seed(0)) == 5).all()


CHANGES: dict[str, tuple[dict[str, object], list[str]]] = {
    "rate": ({"lr": 0.5}, ["lr", "0.001", "0.5"]),
    "seed and batch": ({"seed": 6, "small_batch": 2}, ["seed", "5", "6", "small_batch", "4", "2"]),
    "coarse masks": ({"coarse": CoarseConfig(perfect=0.77)}, ["coarse", "0.77"]),
    "views": ({"views": ViewConfig(zoom=(0.5, 7.25))}, ["views", "7.25"]),
    "model": ({"model": replace(TINY, num_heads=1)}, ["model", "num_heads"]),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES.keys())
def test_another_recipe_is_refused(
    photos: PackedPhotos, tmp_path: Path, change: dict[str, object], said: list[str]
) -> None:
    trainer(photos, steps=1).save(tmp_path / "checkpoint")
    other = trainer(photos, replace(RECIPE, **change))
    before = {k: v.clone() for k, v in other.net.state_dict().items()}
    with pytest.raises(TrainingError) as caught:
        other.load(tmp_path / "checkpoint")
    for words in [*said, str(tmp_path / "checkpoint")]:
        assert words in str(caught.value)
    assert "warmup_steps" not in str(caught.value)
    assert other.step == 0 and same(other.net.state_dict(), before)


def test_a_checkpoint_from_before_a_value_was_there_is_continued_as_if_it_were_the_default(
    photos: PackedPhotos, tmp_path: Path
) -> None:
    for missing, allowed in (("draws", True), ("align", True), ("seed", False)):
        trainer(photos, steps=1).save(tmp_path / "checkpoint")
        saved = torch.load(tmp_path / "checkpoint", weights_only=True)
        known = json.loads(saved["config"])
        del known[missing]
        torch.save(saved | {"config": json.dumps(known)}, tmp_path / "checkpoint")
        other = trainer(photos)
        if allowed:
            other.load(tmp_path / "checkpoint")
            assert other.step == 1
        else:
            with pytest.raises(TrainingError, match=missing):
                other.load(tmp_path / "checkpoint")


def test_a_run_can_be_made_longer_where_its_past_stays_the_same(photos: PackedPhotos, tmp_path: Path) -> None:
    trainer(photos, steps=4).save(tmp_path / "checkpoint")  # still small patches, at the full rate
    longer = trainer(photos, replace(RECIPE, samples=96))
    longer.load(tmp_path / "checkpoint")
    assert longer.step == 4
    longer.train_step()
    assert same(state(longer), state(trainer(photos, replace(RECIPE, samples=96), steps=5)))


def test_a_length_that_would_have_changed_the_past_is_refused(photos: PackedPhotos, tmp_path: Path) -> None:
    trainer(photos, steps=10).save(tmp_path / "checkpoint")  # four of them at the large size
    longer = trainer(photos, replace(RECIPE, samples=96))  # here they would have been small ones
    with pytest.raises(TrainingError, match="samples"):
        longer.load(tmp_path / "checkpoint")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text" * 99])
def test_a_broken_checkpoint_is_refused(photos: PackedPhotos, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / CHECKPOINT_NAME
    trainer(photos, steps=1).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError, match=CHECKPOINT_NAME):
        train(trainer(photos), tmp_path)


@pytest.mark.parametrize("content", [{"weight": torch.zeros(3)}, [1, 2]], ids=["bare weights", "a list"])
def test_another_file_of_torch_s_is_no_checkpoint(photos: PackedPhotos, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(TrainingError, match=CHECKPOINT_NAME):
        trainer(photos).load(tmp_path / CHECKPOINT_NAME)


def test_a_second_run_starts_from_the_weights_of_the_first(photos: PackedPhotos) -> None:
    first = trainer(photos, steps=2)
    second = trainer(photos)
    second.start_from(first.ema)
    assert same(second.net.state_dict(), first.ema.state_dict())
    assert same(second.ema.state_dict(), first.ema.state_dict())
    other = DenoisingUNet(replace(TINY, refine_channels=8))
    with pytest.raises(TrainingError, match="refine_channels=8"):
        second.start_from(other)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_finished_run_gives_the_share_of_its_start_that_the_recipe_asks_for(
    photos: PackedPhotos, share: float
) -> None:
    before = trainer(photos, steps=2).ema
    made = trainer(photos, replace(RECIPE, samples=9, large_share=1.0, start_share=share))
    made.start_from(before)
    for _ in range(made.recipe.steps):
        assert made.result() is made.ema
        made.train_step()
    for start, trained, given in zip(
        before.parameters(), made.ema.parameters(), made.result().parameters(), strict=True
    ):
        torch.testing.assert_close(given, trained + share * (start - trained))
    assert not same(before.state_dict(), made.ema.state_dict())
    alone = trainer(photos, replace(RECIPE, samples=9, large_share=1.0, start_share=share), steps=3)
    assert alone.result() is alone.ema


def test_making_a_trainer_leaves_the_global_generator_alone(photos: PackedPhotos) -> None:
    before = torch.random.get_rng_state()
    trainer(photos)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_small_parts_of_a_batch_give_the_same_result(photos: PackedPhotos) -> None:
    recipe = replace(RECIPE, precision="fp32")
    whole = trainer(photos, recipe, steps=8)
    parts = Trainer(packed_batches(photos, recipe), recipe, CPU, micro_batch=1)
    for _ in range(8):
        parts.train_step()
    for name, value in whole.net.state_dict().items():
        torch.testing.assert_close(parts.net.state_dict()[name], value, rtol=0, atol=2e-5)
    assert parts.tally.means() == pytest.approx(whole.tally.means(), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_every_precision_trains_and_resumes(photos: PackedPhotos, tmp_path: Path, precision: str) -> None:
    recipe = replace(RECIPE, precision=precision)
    whole = trainer(photos, recipe, steps=5)
    assert whole.tally.means()["loss"] > 0
    trainer(photos, recipe, steps=3).save(tmp_path / "checkpoint")
    resumed = trainer(photos, recipe)
    resumed.load(tmp_path / "checkpoint")
    for _ in range(2):
        resumed.train_step()
    assert same(state(resumed), state(whole))


def test_means_by_timestep_are_those_of_the_samples(photos: PackedPhotos) -> None:
    run = trainer(photos, replace(RECIPE, coarse_timestep_share=0.5), steps=RECIPE.steps)
    means = run.tally.means()
    by_time = [means[f"loss_t{t}"] for t in range(6)]
    assert min(by_time) <= means["loss"] <= max(by_time) and 0 <= means["degenerate"] <= 1


def test_trust_says_how_good_a_mask_is() -> None:
    fine = torch.zeros(3, 1, 20, 20)
    fine[:, :, :10] = 1
    coarse = fine.clone()
    coarse[1, :, 9, :6] = 0  # 194 of 200 pixels
    coarse[2] = 1 - fine[2]
    assert trust_timesteps(coarse, fine).tolist() == [0, 2, NUM_TIMESTEPS - 1]


def test_trusted_samples_show_the_coarse_mask_at_its_timestep(photos: PackedPhotos) -> None:
    config = replace(RECIPE, trusted=1.0, coarse_timestep_share=0.0, coarse=CoarseConfig(perfect=0.5))
    example = trainer(photos, config).example()
    assert torch.equal(example.mixed, example.batch.coarse)
    assert ((example.timesteps - trust_timesteps(example.batch.coarse, example.batch.fine)).abs() <= 1).all()


def test_half_of_the_timesteps_are_one_beside_what_is_known() -> None:
    draws = torch.tensor([0.0, 0.25, 0.74, 0.75])
    assert jittered(torch.full((4,), 2), draws).tolist() == [1, 2, 2, 3]
    assert jittered(torch.tensor([0, NUM_TIMESTEPS - 1]), draws[[0, 3]]).tolist() == [0, NUM_TIMESTEPS - 1]


def test_rolled_out_samples_are_the_sampler_s_states(photos: PackedPhotos) -> None:
    """With a network that is sure of an empty mask, every step empties its share of the coarse mask."""
    config = replace(RECIPE, rolled_out=1.0, coarse_timestep_share=1.0, large_self_mixed=0.0)
    made = trainer(photos, config)
    with torch.no_grad():
        for parameter in made.ema.parameters():
            parameter.zero_()
        made.ema.refine[-1].bias.fill_(-50.0)
    seen = set()
    for step in range(3):
        made.step = step
        example, schedule = made.example(), spaced_timesteps(SCHEDULES[step])
        assert (example.mixed <= example.batch.coarse).all()
        for row, t in enumerate(example.timesteps.tolist()):
            assert t in schedule[1:4]
            inside = example.batch.coarse[row] > 0
            if int(inside.sum()) > 60:
                left = float(example.mixed[row][inside].mean())
                assert left == pytest.approx(1 - float(keep_fine_schedule()[t]), abs=0.12)
            seen.add(t)
    assert len(seen) > 2
    # The truth plays no part.
    again = trainer(photos, config)
    again.ema.load_state_dict(made.ema.state_dict())
    assert torch.equal(again.example().mixed, made_at(made, 0).mixed)


def made_at(run: Trainer, step: int) -> Example:
    run.step = step
    return run.example()


def test_early_stages_of_the_encoder_can_stay(photos: PackedPhotos) -> None:
    config = replace(RECIPE, model=replace(TINY, image_stages=3), image_lr=1.0, image_frozen=2)
    learning = {n for n, p in trainer(photos, config).net.named_parameters() if p.requires_grad and "image_enc" in n}
    assert learning and all(name.startswith("image_encoder.stages.2.") for name in learning)


def test_a_run_with_roll_outs_resumes_to_the_bit(photos: PackedPhotos, tmp_path: Path) -> None:
    config = replace(RECIPE, rolled_out=0.5, trusted=0.5, interleaved=True, small_self_coarse=0.5)
    whole = trainer(photos, config, steps=5)
    part = trainer(photos, config, steps=2)
    part.save(tmp_path / "checkpoint.pt")
    resumed = trainer(photos, config)
    resumed.load(tmp_path / "checkpoint.pt")
    for _ in range(3):
        resumed.train_step()
    assert same(whole.net.state_dict(), resumed.net.state_dict())
