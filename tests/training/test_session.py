"""Laws of training from Python: it is the command's training, and what a run had begun goes on."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from click.testing import CliRunner

from helpers import miniature
from helpers.tiny import TINY
from segrefiner.cli.main import main
from segrefiner.errors import InputError
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import load, save
from segrefiner.training import session as module
from segrefiner.training.photos import PackingHooks
from segrefiner.training.recipe import Recipe
from segrefiner.training.recipes import LR, RECIPES
from segrefiner.training.run_folder import CHECKPOINT_NAME, LOG_NAME
from segrefiner.training.session import RunHooks, TrainingSession, Validation, prepare_run

DOCS = Path(__file__).parents[2] / "docs" / "training.md"
STOPPED = Path(__file__).parent / "stopped_run"
SMALL = replace(
    Recipe(), model=TINY, samples=40, large_share=1, large_size=32, pack_size=96, warmup_steps=2, validate_every=50
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe `compact` of five steps."""
    monkeypatch.setitem(RECIPES, "compact", SMALL)


def example() -> str:
    found = re.search(r"```python\n(.*?)```", module.__doc__ or "", re.DOTALL)
    assert found
    return dedent(found[1])


def test_the_example_runs_on_a_folder_of_one_s_own(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    miniature.folder(Path("my_photos"))
    miniature.folder(Path("my_held_out_photos"), 2)
    code = example().replace("photos=8", "photos=1").replace("hooks=hooks", "hooks=hooks, log_every=2")
    exec(compile(code, "example", "exec"), {})
    said = capsys.readouterr().out
    assert "about 0.0 hours" in said and "step 2: loss" in said and "run/model.safetensors finished" in said
    assert (Path("run") / "report.html").exists() and (Path("run") / "best.safetensors").exists()


def test_the_documentation_shows_the_same_example() -> None:
    assert example() in DOCS.read_text(encoding="utf-8")


def test_python_and_the_command_write_one_and_the_same_file(small: None, tmp_path: Path) -> None:
    data = miniature.folder(tmp_path / "data")
    result = prepare_run([data], tmp_path / "python", values={"lr": "5e-4"}, device="cpu").run()
    assert result.finished and (result.step, result.rank) == (5, 0)
    options = ["--recipe", "compact", "--lr", "5e-4", "--device", "cpu"]
    done = CliRunner().invoke(main, ["train", str(data), "-o", str(tmp_path / "command"), *options])
    assert done.exit_code == 0, done.output
    assert result.weights.read_bytes() == (tmp_path / "command" / "model.safetensors").read_bytes()


def test_a_recipe_may_be_a_value_of_one_s_own(tmp_path: Path) -> None:
    session = prepare_run(miniature.folder(tmp_path / "data"), tmp_path / "run", recipe=replace(SMALL, samples=16))
    assert (session.name, session.recipe.steps) == ("custom", 2)
    known = prepare_run(tmp_path / "data", tmp_path / "run", recipe=replace(LR))
    assert known.name == "lr"


def test_an_estimate_writes_nothing_and_leaves_the_run_as_it_was(small: None, tmp_path: Path) -> None:
    def session(name: str) -> TrainingSession:
        return prepare_run(tmp_path / "data", tmp_path / name, device="cpu")

    miniature.folder(tmp_path / "data")
    one, other = session("one"), session("other")
    found = one.estimate()
    assert (found.photos, found.processes, [m.size for m in found.measured]) == (4, 1, [32])
    assert found.hours > 0 and not (tmp_path / "one").exists()
    assert one.run().weights.read_bytes() == other.run().weights.read_bytes()


def test_a_run_is_told_of_as_it_goes_on(small: None, tmp_path: Path) -> None:
    data = miniature.folder(tmp_path / "data", 24)
    (data / "images" / "own3.jpg").write_bytes(b"no picture")
    told: list[object] = []
    hooks = RunHooks(
        begin=lambda step: told.append(("begin", step)),
        log=lambda row: told.append(("log", row["step"])),
        picture=lambda step, picture: told.append(("picture", step)),
        ready=lambda recipe: told.append(("ready", recipe.steps)),
        packing=PackingHooks(unreadable=lambda count, path: told.append((count, path.name))),
    )
    prepare_run(data, tmp_path / "run", device="cpu").run(log_every=5, hooks=hooks)
    assert told == [(1, "failures.jsonl"), ("ready", 5), ("begin", 0), ("picture", 0), ("log", 5), ("picture", 5)]


def test_a_run_goes_on_from_a_checkpoint_of_an_earlier_version(tmp_path: Path) -> None:
    """`stopped_run` was begun by the command before there was a session, and would have gone on with these losses."""
    run = tmp_path / "run"
    shutil.copytree(STOPPED, run)
    model = {"model_channels": 4, "channel_mult": "1", "attention_strides": "", "num_heads": 1, "norm_groups": 2,
             "stem_stride": 2, "refine_channels": 2, "num_res_blocks": 1, "num_up_blocks": 1}  # fmt: skip
    values = {"samples": 32, "large_size": 32, "warmup_steps": 2, "ema_decay": 0.5}
    values |= {f"model.{name}": value for name, value in model.items()}  # type: ignore[misc]
    texts = {name: str(value) for name, value in values.items()}
    data = miniature.lvis(tmp_path / "data")
    begun: list[int] = []
    result = prepare_run(data, run, recipe="lr", values=texts, device="cpu", workers=0).run(
        log_every=1, hooks=RunHooks(begin=begun.append)
    )
    assert begun == [2] and result.finished and result.step == 4
    rows = [json.loads(line) for line in (run / LOG_NAME).read_text().splitlines()]
    assert rows[:2] == [json.loads(line) for line in (STOPPED / LOG_NAME).read_text().splitlines()]
    assert [row["loss"] for row in rows[2:]] == pytest.approx([1.667957, 1.657911], rel=2e-3)
    before, after = (torch.load(f / CHECKPOINT_NAME, weights_only=True) for f in (STOPPED, run))
    assert before.keys() == after.keys() and before["config"] == after["config"]
    for part in ("net", "ema"):
        assert before[part].keys() == after[part].keys() == load(result.weights).state_dict().keys()


def test_weights_to_start_from_give_the_network_its_shape(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save(DenoisingUNet(TINY), start)
    session = prepare_run(miniature.folder(tmp_path / "data"), tmp_path / "run", start=start)
    assert session.name == "finetune" and session.recipe.model == TINY


def test_what_cannot_be_run_is_said_when_it_is_prepared(tmp_path: Path) -> None:
    data, run = miniature.folder(tmp_path / "data"), tmp_path / "run"
    with pytest.raises(InputError, match="no recipe 'comapct': expected one of compact"):
        prepare_run(data, run, recipe="comapct")
    with pytest.raises(InputError, match="hr starts from trained weights"):
        prepare_run(data, run, recipe="hr")
    with pytest.raises(InputError, match="nowhere"):
        prepare_run("nowhere", run)
    with pytest.raises(InputError, match="no data was named"):
        prepare_run([], run)
    with pytest.raises(InputError, match="expected auto, cpu or cuda"):
        prepare_run(data, run, device="tpu")
    with pytest.raises(InputError, match="nowhere"):
        prepare_run(data, run, recipe=SMALL, validation=Validation("nowhere")).run()
    assert not (run / CHECKPOINT_NAME).exists()


def test_a_pack_that_is_gone_is_said(small: None, tmp_path: Path) -> None:
    data, run = miniature.folder(tmp_path / "data"), tmp_path / "run"
    prepare_run(data, run, device="cpu").run()
    session = prepare_run(data, run, device="cpu")
    (run / "photos.pack").unlink()
    with pytest.raises(InputError, match=r"photos\.pack is gone"):
        session.run()


def test_packs_are_not_mixed(small: None, tmp_path: Path) -> None:
    data = miniature.folder(tmp_path / "data")
    prepare_run(data, tmp_path / "run", device="cpu").run()
    pack = tmp_path / "run" / "photos.pack"
    with pytest.raises(InputError, match="cannot be mixed"):
        prepare_run([data, pack], tmp_path / "other")
    with pytest.raises(InputError, match="from files"):
        prepare_run(pack, tmp_path / "other", recipe="lr")
