"""Laws of training: stopping and resuming changes nothing, the recipe is kept, and it learns."""

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.discs import Discs
from helpers.runs import CPU, RECIPE, packed_discs, same, state, trainer
from helpers.tiny import TINY_WITH_ATTENTION as TINY
from segrefiner.data.packed_photos import PackedPhotos
from segrefiner.errors import OutputError, TrainingError
from segrefiner.model.unet import DenoisingUNet, UNetConfig
from segrefiner.training.batches import Example, _Order, streamed_batches
from segrefiner.training.loop import FIRST_PATIENCE, CollapseGuard, Watch, train
from segrefiner.training.recipe import LinearDecay, Recipe
from segrefiner.training.recipes import LR
from segrefiner.training.run_folder import CHECKPOINT_NAME, LOG_NAME
from segrefiner.training.trainer import Trainer


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PackedPhotos:
    return packed_discs(tmp_path_factory.mktemp("photos"))


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


def test_every_photo_is_seen_once_per_epoch(photos: PackedPhotos) -> None:
    run = trainer(photos, replace(RECIPE, samples=200, small_batch=7))  # a batch holds more than an epoch
    order = _Order(5, RECIPE.seed)
    seen: list[int] = []
    for step in range(run.recipe.steps):
        seen += [order[n] for group in run.portion(step).groups for n in group]
    epochs = [seen[i : i + 5] for i in range(0, len(seen) - 4, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2


def test_a_recipe_is_plain_json() -> None:
    values = RECIPE.to_dict()
    assert UNetConfig.from_dict(json.loads(json.dumps(values))["model"]) == TINY
    assert json.loads(json.dumps(values))["views"]["zoom"] == [0.5, 1.4]


@pytest.mark.slow
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
