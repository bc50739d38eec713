"""Each recipe on its published data set in miniature: killed and continued, alone and on two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from helpers import miniature
from helpers.tiny import TINY
from segrefiner.cli.main import main
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import load, metadata, save
from segrefiner.training.run_folder import CHECKPOINT_NAME, LOG_NAME

STEPS = 20
SHAPE = ("model.model_channels=8", "model.channel_mult=1,1", "model.attention_strides=", "model.num_heads=2",
         "model.norm_groups=4", "model.stem_stride=4", "model.refine_channels=4", "model.num_res_blocks=1",
         "model.num_up_blocks=1")  # fmt: skip
SMALL = ("large_share=1", "large_size=32", "large_batch=8", "pack_size=96", "warmup_steps=2", "validate_every=10")
RECIPES: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "lr": (miniature.lvis, False),
    "hr": (lambda root: miniature.dis(root), True),
    "compact": (miniature.coco, False),
    "finetune": (miniature.folder, True),
}


def arguments(recipe: str, data: Path, output: Path, start: Path | None, *extra: object) -> list[str]:
    """The command that runs a recipe for some steps with a tiny network."""
    values = [*SMALL, *(() if start else SHAPE)]
    options = [*(["--from", start] if start else []), "--recipe", recipe, "--samples", 8 * STEPS, "--workers", 0]
    options += ["--device", "cpu", "--log-every", 5, "--checkpoint-minutes", 0, *extra]
    return [str(a) for a in ("train", data, "-o", output, *options, *(x for v in values for x in ("--set", v)))]


def environment() -> dict[str, str]:
    """As many threads as here, so that sums are added in the same order."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


def killed(command: list[str], output: Path) -> int:
    """Starts a run, kills it at its first checkpoint that is not the last, and gives that checkpoint's step."""
    code = "import sys, time, segrefiner.training.trainer as t; s = t.Trainer.train_step\n"
    code += "def slow(self):\n    s(self); time.sleep(0.15)\nt.Trainer.train_step = slow\n"
    code += "from segrefiner.cli.main import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    while not (output / CHECKPOINT_NAME).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[1].decode()
    assert (output / CHECKPOINT_NAME).exists(), said
    step = torch.load(output / CHECKPOINT_NAME, weights_only=True)["step"]
    assert 0 < step < STEPS
    return int(step)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "build", "starts"), [(n, *v) for n, v in RECIPES.items()], ids=RECIPES)
def test_a_recipe_that_is_killed_and_continued_ends_as_if_it_had_not_been(
    tmp_path: Path, recipe: str, build: Callable[[Path], Path], starts: bool
) -> None:
    data = build(tmp_path / "data")
    start = None
    if starts:
        start = tmp_path / "start.safetensors"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save(DenoisingUNet(TINY), start)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = CliRunner().invoke(main, arguments(recipe, data, whole, start))
    assert done.exit_code == 0, done.output
    killed(arguments(recipe, data, broken, start), broken)
    again = CliRunner().invoke(main, arguments(recipe, data, broken, start))
    assert again.exit_code == 0, again.output
    a, b = (torch.load(folder / CHECKPOINT_NAME, weights_only=True) for folder in (whole, broken))
    assert a["step"] == b["step"] == STEPS
    for part in ("net", "ema"):
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items())
    for key, value in a["optimizer"]["state"].items():
        assert all(torch.equal(v, b["optimizer"]["state"][key][n]) for n, v in value.items())
    rows = [[json.loads(line) for line in (f / LOG_NAME).read_text().splitlines()] for f in (whole, broken)]
    assert [[row["step"] for row in log] for log in rows] == [[5, 10, 15, 20]] * 2
    weights = [(folder / "model.safetensors").read_bytes() for folder in (whole, broken)]
    assert weights[0] == weights[1]
    said = metadata(whole / "model.safetensors")
    assert json.loads(said["recipe"])["name"] == recipe and ("started_from_sha256" in said) == starts
    assert (whole / "report.html").stat().st_size > 1000
    assert load(whole / "model.safetensors").config.model_channels == 8


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    data = miniature.lvis(tmp_path / "data")
    values = ("precision=fp32", "lr=1e-3", "decay=linear", "decay.share=0")
    extra = (*(x for v in values for x in ("--set", v)), "--val", data, "--val-photos", 2)
    one, two = tmp_path / "one", tmp_path / "two"
    done = CliRunner().invoke(main, arguments("lr", data, one, None, *extra))
    assert done.exit_code == 0, done.output
    # One program may estimate a run and run it: its processes find each other once.
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; from segrefiner.cli.main import main\n"
        "for more in (['--dry-run'], []): main([*sys.argv[1:], *more], standalone_mode=False)\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*launch, str(program), *arguments("lr", data, two, None, *extra)],
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("2 processes") == 2 and process.stdout.count("finished at step") == 1
    a, b = (torch.load(folder / CHECKPOINT_NAME, weights_only=True) for folder in (one, two))
    assert a["step"] == b["step"] == STEPS
    for name, value in a["net"].items():
        torch.testing.assert_close(b["net"][name], value, rtol=0, atol=2e-4)
    rows = [[json.loads(line) for line in (f / LOG_NAME).read_text().splitlines()] for f in (one, two)]
    for first, second in zip(*rows, strict=True):
        for name in ("loss", "bce", "texture", "gradient_norm", "lr", "samples"):
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-5)
    # A checkpoint of two processes is continued by one.
    longer = [v if v != str(8 * STEPS) else str(8 * (STEPS + 2)) for v in arguments("lr", data, two, None, *extra)]
    more = CliRunner().invoke(main, [*longer, "--set", "coarse.perfect=0.5"])
    assert more.exit_code == 1 and "coarse.perfect: 0.0 there, 0.5 asked for" in more.stderr
    more = CliRunner().invoke(main, longer)
    assert more.exit_code == 0 and f"step {STEPS + 2} of {STEPS + 2}" in more.stdout, more.output


def test_a_dry_run_says_what_a_run_would_take_and_writes_nothing(tmp_path: Path) -> None:
    data = miniature.lvis(tmp_path / "data")
    done = CliRunner().invoke(main, arguments("lr", data, tmp_path / "run", None, "--dry-run"))
    assert done.exit_code == 0, done.output
    for words in ("4 photos, 160 crops", "20 steps of 8 crops at 32x32", "GiB", "hours in all"):
        assert words in done.stdout
    assert not (tmp_path / "run").exists()
    own = miniature.folder(tmp_path / "own")
    done = CliRunner().invoke(main, arguments("compact", own, tmp_path / "run", None, "--dry-run"))
    assert done.exit_code == 0 and "4 photos" in done.stdout and not (tmp_path / "run").exists()
    # A data set that is drawn more often need not be among the photos that are tried.
    drawn = arguments("compact", own, tmp_path / "run", None, "--dry-run", "--set", "draws=elsewhere:2")
    assert CliRunner().invoke(main, drawn).exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--recipe", "hr"), "--from"),
        (("--recipe", "lr", "--set", "lr"), "NAME=VALUE"),
        (("--recipe", "lr", "--set", "rate=3"), "no value 'rate'"),
        (("--recipe", "lr", "--val", "nowhere"), "nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_said_before_anything_is_done(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    data = miniature.lvis(tmp_path / "data")
    done = CliRunner().invoke(main, ["train", str(data), "-o", str(tmp_path / "run"), *options])
    assert done.exit_code == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
