"""Laws of training: stopping and resuming changes nothing, the recipe is kept, and it learns."""

import errno
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from helpers.discs import Discs
from helpers.tiny import TINY_WITH_ATTENTION as TINY
from segrefiner.data.coarse.masks import CoarseConfig
from segrefiner.data.crop_geometry import ViewConfig
from segrefiner.data.packed_photos import CropBatch, PackedPhotos
from segrefiner.data.packs import pack_folder
from segrefiner.errors import OutputError, TrainingError
from segrefiner.model.diffusion import NUM_TIMESTEPS, keep_fine_schedule, spaced_timesteps
from segrefiner.model.unet import DenoisingUNet, UNetConfig
from segrefiner.training.batches import Example, _Order, packed_batches, streamed_batches
from segrefiner.training.loop import FIRST_PATIENCE, CollapseGuard, Watch, train
from segrefiner.training.recipe import LinearDecay, Recipe
from segrefiner.training.recipes import LR
from segrefiner.training.run_folder import CHECKPOINT_NAME, LOG_NAME
from segrefiner.training.trainer import SCHEDULES, Trainer, draw_timesteps, trust_timesteps

CPU = torch.device("cpu")
RECIPE = Recipe(
    model=TINY,
    samples=48,
    large_share=0.5,
    small_size=16,
    small_batch=4,
    large_size=32,
    large_batch=3,
    warmup_steps=3,
    seed=5,
)  # 6 small steps and 8 large ones


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PackedPhotos:
    """Bright discs on dark ground: as easy as a photo can be."""
    folder = tmp_path_factory.mktemp("photos")
    for part in ("images", "masks"):
        (folder / part).mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        height, width = random.integers(40, 70, 2)
        rows, columns = np.mgrid[:height, :width]
        mask = np.hypot(rows - height / 2 - i, columns - width / 2) < 10 + 2 * i
        photo = np.where(mask[..., None], 220, 40) + random.integers(-10, 10, (height, width, 3))
        Image.fromarray(photo.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    pack_folder(folder, folder / "pack")
    return PackedPhotos(folder / "pack", CPU)


def trainer(photos: PackedPhotos, config: Recipe = RECIPE, steps: int = 0) -> Trainer:
    with torch.random.fork_rng():
        made = Trainer(packed_batches(photos, config), config, CPU)
    for _ in range(steps):
        made.train_step()
    return made


def same(a: object, b: object) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def state(t: Trainer) -> dict[str, object]:
    return {
        "step": t.step,
        "net": t.net.state_dict(),
        "ema": t.ema.state_dict(),
        "optimizer": t.optimizer.state_dict(),
    }


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


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    config = Recipe(samples=16_000, large_share=0.0, small_batch=16, lr=2.0, warmup_steps=100, decay=LinearDecay(0.4))
    rates = [config.lr_at(step) for step in range(config.steps + 1)]
    assert config.steps == 1000
    np.testing.assert_allclose(rates[:100], 2 * np.arange(1, 101) / 100)
    np.testing.assert_allclose(rates[99:601], 2)
    np.testing.assert_allclose(rates[600:], 2 * np.arange(400, -1, -1) / 400, atol=1e-12)
    assert rates[0] > 0 and rates[-1] == 0


@pytest.mark.parametrize(
    "config",
    [RECIPE, Recipe(), Recipe(samples=1000, large_share=0.0), Recipe(samples=1000, large_share=1.0)],
)
def test_small_patches_come_first_and_every_sample_is_counted(config: Recipe) -> None:
    plan = [config.size_and_batch(step) for step in range(config.steps)]
    sizes = [size for size, _ in plan]
    assert sizes == sorted(sizes)
    assert sizes.count(config.small_size) == config.small_steps
    counts = np.cumsum([0] + [count for _, count in plan])
    assert [config.samples_before(step) for step in range(config.steps + 1)] == counts.tolist()
    assert abs(int(counts[-1]) - config.samples) <= config.small_batch + config.large_batch
    large = config.samples * config.large_share
    assert abs(sum(c for s, c in plan if s == config.large_size) - large) <= config.large_batch


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


def test_every_photo_is_seen_once_per_epoch(photos: PackedPhotos) -> None:
    run = trainer(photos, replace(RECIPE, samples=200, small_batch=7))  # a batch holds more than an epoch
    order = _Order(5, RECIPE.seed)
    seen: list[int] = []
    for step in range(run.recipe.steps):
        seen += [order[n] for group in run.portion(step).groups for n in group]
    epochs = [seen[i : i + 5] for i in range(0, len(seen) - 4, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2


def test_timesteps_are_uniform_but_for_the_coarse_share() -> None:
    count, share = 20_000, 0.35
    timesteps = draw_timesteps(count, share, Generator().manual_seed(0))
    assert timesteps.dtype == torch.int64 and timesteps.min() >= 0 and timesteps.max() == 5
    expected = np.full(6, (1 - share) / 6)
    expected[5] += share
    np.testing.assert_allclose(np.bincount(timesteps) / count, expected, atol=4 * 0.5 / math.sqrt(count))
    assert (draw_timesteps(50, 1.0, Generator().manual_seed(0)) == 5).all()


def test_a_recipe_is_plain_json() -> None:
    values = RECIPE.to_dict()
    assert UNetConfig.from_dict(json.loads(json.dumps(values))["model"]) == TINY
    assert json.loads(json.dumps(values))["views"]["zoom"] == [0.5, 1.4]


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


def test_no_time_leaves_a_checkpoint_that_goes_on(photos: PackedPhotos, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    stops = 0
    while not train(trainer(photos), folder, max_minutes=0.0, log_every=1):
        assert (folder / CHECKPOINT_NAME).is_file()
        stops += 1
        assert stops < RECIPE.steps  # every call gets on by a step
    end = trainer(photos)
    end.load(folder / CHECKPOINT_NAME)
    assert same(state(end), state(trainer(photos, steps=RECIPE.steps)))
    rows = [json.loads(line) for line in (folder / LOG_NAME).read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, RECIPE.steps + 1))
    # A run that is over stays as it is.
    assert train(trainer(photos), folder)
    assert len((folder / LOG_NAME).read_text().splitlines()) == RECIPE.steps


def test_the_log_is_json_and_says_what_happened(photos: PackedPhotos, tmp_path: Path) -> None:
    heard: list[dict[str, float]] = []
    assert train(trainer(photos), tmp_path, log_every=4, watch=Watch(log=heard.append))
    rows = [json.loads(line) for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert [row["step"] for row in rows] == [row["step"] for row in heard] == [4, 8, 12, 14]
    for row, said in zip(rows, heard, strict=True):
        assert {k: pytest.approx(v, abs=1e-5) for k, v in said.items()} == row
        assert row["loss"] == pytest.approx(row["bce"] + 5 * row["texture"], abs=1e-4)
        assert row["samples"] == RECIPE.samples_before(int(row["step"]))
        assert row["lr"] == pytest.approx(RECIPE.lr_at(int(row["step"]) - 1), abs=1e-5)
        assert row["gradient_norm"] > 0 and row["samples_per_second"] > 0 and row["minutes"] >= 0


def test_the_log_of_a_killed_run_has_each_step_once(photos: PackedPhotos, tmp_path: Path) -> None:
    train(trainer(photos), tmp_path, log_every=2, max_minutes=0)  # a checkpoint after one step
    rows = [{"step": float(step), "loss": 0.5} for step in (1, 2, 4)]  # and rows of steps that no checkpoint holds
    (tmp_path / LOG_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 6.0, "lo')
    train(trainer(photos), tmp_path, log_every=2)
    steps = [json.loads(line)["step"] for line in (tmp_path / LOG_NAME).read_text().splitlines()]
    assert steps == [1, *range(2, RECIPE.steps + 1, 2)]


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


def diverging(photos: PackedPhotos) -> Trainer:
    """A run whose weights are beyond all numbers after a step or two."""
    return trainer(photos, replace(RECIPE, lr=1e30, warmup_steps=0))


def test_a_loss_that_is_no_number_stops_the_run(photos: PackedPhotos, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss became (nan|inf).*lower lr"):
        train(diverging(photos), tmp_path, log_every=1)


def test_what_is_on_disk_after_that_is_still_good(photos: PackedPhotos, tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        train(diverging(photos), tmp_path, log_every=6, checkpoint_minutes=0.0)
    if (tmp_path / CHECKPOINT_NAME).exists():
        saved = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
        assert all(bool(v.isfinite().all()) for part in ("net", "ema") for v in saved[part].values())


def test_a_network_that_answers_nothing_stops_the_run_and_spares_the_checkpoint(
    photos: PackedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segrefiner.training.loop.PATIENCE", 4)
    run = trainer(photos, replace(RECIPE, samples=480, lr=5e-3, large_share=0.0))
    assert not train(run, tmp_path, log_every=2, max_minutes=0)
    good = (tmp_path / CHECKPOINT_NAME).read_bytes()
    healthy = trainer(photos, replace(RECIPE, samples=480, lr=5e-3, large_share=0.0))
    learn = Trainer.learn

    def collapse(self: Trainer, example: Example) -> None:
        if self.step >= 20:
            with torch.no_grad():
                for parameter in self.net.parameters():
                    parameter.zero_()
        learn(self, example)

    monkeypatch.setattr(Trainer, "learn", collapse)
    with pytest.raises(TrainingError, match=r"collapsed: since step 2\d.*checkpoint\.pt.*lower lr"):
        train(healthy, tmp_path, log_every=2, checkpoint_minutes=0.0)
    saved = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() != good
    assert 0 < saved["step"] <= 22 and all(v.abs().sum() > 0 for n, v in saved["ema"].items() if "weight" in n)


def test_only_a_network_that_stays_degenerate_has_collapsed() -> None:
    guard = CollapseGuard()
    assert not any(guard.look(step, 1.0) for step in range(0, FIRST_PATIENCE, 50))  # an untrained one has time
    assert guard.look(FIRST_PATIENCE, 1.0)
    guard = CollapseGuard()
    assert not guard.look(50, 0.3) and guard.healthy
    assert not guard.look(100, 1.0) and not guard.healthy
    assert not guard.look(150, 0.5) and guard.healthy
    assert [guard.look(step, 0.99) for step in (200, 300, 400)] == [False, False, True]


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


def test_memory_that_runs_out_names_a_batch_that_fits(photos: PackedPhotos, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = Trainer.learn

    def short_of_memory(self: Trainer, example: Example) -> None:
        if min(self.micro_batch or 99, len(example)) > 1:
            raise torch.OutOfMemoryError("out of memory")
        learn(self, example)

    monkeypatch.setattr(Trainer, "learn", short_of_memory)
    with pytest.raises(TrainingError, match="--micro-batch 1 fits"):
        trainer(photos, steps=1)


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    photos: PackedPhotos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(trainer(photos), tmp_path, max_minutes=0)
    good = (tmp_path / CHECKPOINT_NAME).read_bytes()

    def full(state: object, file: object) -> None:
        file.write(b"some of it")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        train(trainer(photos), tmp_path)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == good
    assert not [path for path in tmp_path.iterdir() if path.stat().st_size < 20 and path.suffix != ".jsonl"]


def test_validations_come_at_the_start_as_asked_for_and_at_the_end(photos: PackedPhotos, tmp_path: Path) -> None:
    scores = iter([0.5, 0.9, 0.7, 0.8])

    def validate(net: DenoisingUNet) -> list[dict[str, object]]:
        score = next(scores)
        return [{"pipeline": "default", "iou_after": score, "mba_after": score}, {"pipeline": "published"}]

    best: list[int] = []
    seen: list[int] = []
    pictures: list[int] = []
    recipe = replace(RECIPE, validate_every=5)
    done = train(
        trainer(photos, recipe),
        tmp_path,
        validate=validate,
        keep_best=lambda net, step: best.append(step),
        watch=Watch(
            validation=lambda row: seen.append(row["step"]), picture=lambda step, picture: pictures.append(step)
        ),
    )
    assert done and seen == [0, 0, 5, 5, 10, 10, 14, 14] and best == [0, 5] and pictures == [0, 5, 10, 14]
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [(row["step"], row["pipeline"]) for row in rows][:3] == [(0, "default"), (0, "published"), (5, "default")]
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["0.png", "10.png", "14.png", "5.png"]
    # A finished run is not validated again.
    assert train(trainer(photos, recipe), tmp_path, validate=validate)


def test_too_many_unreadable_photos_stop_the_run_and_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segrefiner.training.loop.FEWEST_FAILURES", 5)
    recipe = replace(LR, model=TINY, large_size=16, large_batch=4, samples=200)
    source = Discs(5, broken=frozenset({2}))
    few = Trainer(
        streamed_batches(source, replace(recipe, samples=20), CPU, workers=0), replace(recipe, samples=20), CPU
    )
    assert train(few, tmp_path / "few", log_every=1)  # four of twenty
    many = Trainer(streamed_batches(source, recipe, CPU, workers=0), recipe, CPU)
    with pytest.raises(TrainingError, match=r"\d photos could not be read.*disc 2 is broken.*failures\.jsonl"):
        train(many, tmp_path / "many", log_every=1)
    rows = [json.loads(line) for line in (tmp_path / "many" / "failures.jsonl").read_text().splitlines()]
    assert 6 <= len(rows) <= 8 and {row["name"] for row in rows} == {"discs[2]"}


def test_a_request_to_stop_ends_the_step_and_keeps_it(photos: PackedPhotos, tmp_path: Path) -> None:
    stopped, handler = trainer(photos), signal.getsignal(signal.SIGTERM)

    def ask(row: dict[str, float]) -> None:
        if row["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not train(stopped, tmp_path, log_every=1, watch=Watch(log=ask))
    assert signal.getsignal(signal.SIGTERM) == handler
    again = trainer(photos)
    again.load(tmp_path / CHECKPOINT_NAME)
    assert again.step == 4 and train(trainer(photos), tmp_path)


INTERLEAVED = replace(RECIPE, samples=400, large_share=0.3, interleaved=True)


def test_both_sizes_may_alternate_and_the_length_change() -> None:
    plan = [INTERLEAVED.size_and_batch(step) for step in range(INTERLEAVED.steps)]
    counts = np.cumsum([0] + [count for _, count in plan])
    assert [INTERLEAVED.samples_before(step) for step in range(INTERLEAVED.steps + 1)] == counts.tolist()
    first, last = ([size for size, _ in half] for half in (plan[: len(plan) // 2], plan[len(plan) // 2 :]))
    assert abs(first.count(16) - last.count(16)) <= 1
    assert sum(count for size, count in plan if size == 32) / counts[-1] == pytest.approx(0.3, abs=0.02)
    half = len(plan) // 2
    assert replace(INTERLEAVED, samples=800).size_and_batch(half) == INTERLEAVED.size_and_batch(half)
    assert replace(INTERLEAVED, samples=800).same_until(half, INTERLEAVED)
    assert not INTERLEAVED.same_until(half, replace(INTERLEAVED, interleaved=False))


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
    assert torch.equal(example.timesteps, trust_timesteps(example.batch.coarse, example.batch.fine))


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
