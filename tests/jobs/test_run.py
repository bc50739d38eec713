"""Jobs of many photos: what is done stays done, what failed is told, and no moment of being killed costs anything."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from PIL import Image

from segrefiner import InputError, OutputError
from segrefiner.cli.main import main
from segrefiner.imaging.files import atomic_write
from segrefiner.imaging.listing import inside
from segrefiner.jobs.job import Item, Job, SavedItem, written
from segrefiner.jobs.local import LocalEngine
from segrefiner.jobs.manifest import settings_hash
from segrefiner.jobs.run import pending, run
from segrefiner.ledger import RunSummary

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Shout:
    """Texts in capitals. An item's payload says what goes wrong; the "refiner" is a list, and told what it gets."""

    root: Path
    version: int = 1
    seconds: float = 0

    def settings(self) -> dict[str, Any]:
        return {"version": self.version}

    def load(self, item: Item, contents: Sequence[bytes]) -> tuple[Item, str]:
        if item.payload == "deadly":
            os._exit(1)
        if b"unreadable" in contents[0]:
            raise InputError(f"{item.inputs[0].name} is\nno text")
        return item, contents[0].decode()

    def refine(self, refiner: Any, loaded: tuple[Item, str]) -> str:
        item, text = loaded
        if item.payload == "unrefined":
            raise RuntimeError("out of memory")
        time.sleep(self.seconds)
        refiner.append(item.key)
        return f"{text.upper()} {self.version} {item.payload}"

    def save(self, item: Item, refined: str) -> SavedItem:
        if (self.root / "full").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.txt")
        target = self.root / item.key
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, lambda stream: [stream.write(refined.encode()) for _ in range(1000)])
        failures = {f"{item.key} part 2": "no text there"} if item.payload == "in part" else {}
        left_out = {item.key: "nothing there"} if item.payload == "left out" else {}
        notes = ("short",) if item.payload == "in part" else ()
        return SavedItem(written(self.root, [target]), refined, failures, notes, left_out)


@dataclass
class Place:
    """A job's inputs, outputs and state."""

    folder: Path

    def __post_init__(self) -> None:
        for folder in (self.inputs, self.root):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def root(self) -> Path:
        return self.folder / "out"

    @property
    def state(self) -> Path:
        return self.root / ".segrefiner"

    def items(self, names: str = "abcd", **payloads: str) -> list[Item]:
        """Items of one letter each, whose files are made where they are absent."""
        for name in names:
            if not (self.inputs / name).exists():
                (self.inputs / name).write_text(f"text {name}")
        return [Item(f"{name}.txt", (self.inputs / name,), payloads.get(name)) for name in names]

    def run(
        self, items: list[Item], *, workers: int = 0, version: int = 1, **options: Any
    ) -> tuple[RunSummary, list[str]]:
        """The summary of a run, and the items it has refined."""
        refined: list[str] = []
        finish = options.pop("finish", lambda results: None)
        job = Job(items, Shout(self.root, version), finish, options.pop("failures", {}))
        config = settings_hash(job.work.settings())
        engine = LocalEngine(refined, workers)  # type: ignore[arg-type]
        return run(job, engine, self.state, config=config, **options), [name[0] for name in refined]

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state / name).read_text().splitlines()]

    def outputs(self) -> dict[str, bytes]:
        return files_below(self.root)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def files_below(root: Path) -> dict[str, bytes]:
    """Every file, but those of the state; temporary ones too."""
    paths = (path for path in root.rglob("*") if path.is_file() and ".segrefiner" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_a_rerun_does_nothing(place: Place) -> None:
    summary, refined = place.run(place.items())
    assert refined == list("abcd") and (summary.done, summary.skipped, summary.failed) == (4, 0, 0)
    before = {path: path.stat().st_mtime_ns for path in place.root.glob("*.txt")}
    summary, refined = place.run(place.items())
    assert refined == [] and (summary.done, summary.skipped) == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in place.root.glob("*.txt")} == before


def test_more_items_are_the_only_ones_done(place: Place) -> None:
    place.run(place.items("ac"))
    summary, refined = place.run(place.items("abcd"))
    assert refined == ["b", "d"] and (summary.total, summary.skipped, summary.redone) == (4, 2, 0)


def change_content(place: Place) -> None:
    stat = (place.inputs / "b").stat()
    (place.inputs / "b").write_text("TEXT b")  # As long as before.
    os.utime(place.inputs / "b", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        (change_content, ["b"]),
        (lambda place: (place.inputs / "b").write_text("longer text"), ["b"]),
        (lambda place: (place.root / "c.txt").unlink(), ["c"]),
        (lambda place: (place.root / "c.txt").write_text("short"), ["c"]),
        (lambda place: os.utime(place.inputs / "b", ns=(1, 1)), []),
        (lambda place: os.utime(place.root / "b.txt", ns=(1, 1)), []),
    ],
    ids=["content", "size", "output gone", "output resized", "input touched", "output touched"],
)
def test_exactly_what_is_no_longer_true_is_done_again(
    place: Place, change: Callable[[Place], None], redone: list[str]
) -> None:
    place.run(place.items())
    change(place)
    summary, refined = place.run(place.items())
    assert refined == redone and summary.redone == len(redone)
    assert place.run(place.items())[1] == []


def test_other_settings_and_payloads_are_done_again(place: Place) -> None:
    place.run(place.items())
    summary, refined = place.run(place.items(d="other"))
    assert refined == ["d"] and summary.redone == 1
    assert place.run(place.items(d="other"), version=2)[1] == list("abcd")
    # The last run counts: it has overwritten the first one's files.
    assert place.run(place.items(d="other"), version=1)[1] == list("abcd")


def test_an_input_that_is_gone_fails_and_its_result_is_no_longer_counted(place: Place) -> None:
    place.run(place.items())
    items = place.items()
    (place.inputs / "b").unlink()
    finished: dict[str, Any] = {}
    summary, _ = place.run(items, finish=finished.update)
    assert (summary.skipped, summary.failed) == (3, 1)
    assert "No such file" in place.rows("failures.jsonl")[0]["error"]
    assert list(finished) == ["a.txt", "c.txt", "d.txt"]


def test_finish_gets_current_results_of_the_job_alone(place: Place) -> None:
    place.run(place.items("abcd"))
    finished: dict[str, Any] = {}
    (place.inputs / "c").write_text("unreadable")
    (place.inputs / "b").write_text("new text")
    place.run(place.items("bcd"), finish=finished.update)
    assert list(finished) == ["b.txt", "d.txt"]
    assert finished["b.txt"] == "NEW TEXT 1 None"
    finished.clear()
    place.run(place.items("bc", b="other"), finish=finished.update, should_stop=lambda: True)
    assert finished == {}


def test_failures_are_told_until_they_are_mended(place: Place) -> None:
    place.items()
    (place.inputs / "b").write_text("unreadable")
    summary, refined = place.run(place.items(c="unrefined"))
    assert refined == ["a", "d"] and summary.failed == 2 and not summary.stopped
    assert place.rows("failures.jsonl") == [
        {"item": "b.txt", "error": "b is no text"},
        {"item": "c.txt", "error": "RuntimeError: out of memory"},
    ]
    (place.inputs / "b").write_text("readable")
    summary, refined = place.run(place.items())
    assert refined == ["b", "c"] and (summary.failed, summary.redone) == (0, 0)
    assert place.rows("failures.jsonl") == []


def test_parts_that_failed_are_told_again_although_the_item_is_done(place: Place) -> None:
    for skipped in (0, 2):
        summary, _ = place.run(place.items("ab", b="in part"), failures={"z": "absent"})
        assert (summary.skipped, summary.failed, summary.notes) == (skipped, 2, 1)
        assert place.rows("failures.jsonl") == [
            {"item": "z", "error": "absent"},
            {"item": "b.txt part 2", "error": "no text there"},
        ]
        assert place.rows("notes.jsonl") == [{"note": "short"}]


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_failures_stop_the_run(place: Place, workers: int) -> None:
    names = "abcdefgh"
    place.items(names)
    for name in "abc":
        (place.inputs / name).write_text("unreadable")
    summary, _ = place.run(place.items(names), workers=workers, max_failures=1)
    # What was being loaded then is ended.
    assert "more than 1 failed" in summary.stopped and 2 <= summary.failed <= 3 and summary.done == 0
    assert place.run(place.items(names), workers=workers, max_failures=3)[0].stopped == ""


@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_ends_what_is_begun_and_a_rerun_does_the_rest(place: Place, workers: int) -> None:
    names = "abcdefghijkl"
    refined: list[str] = []
    progress: list[int] = []
    summary, refined = place.run(
        place.items(names),
        workers=workers,
        should_stop=lambda: bool(progress) and progress[-1] >= 3,
        progress=lambda summary: progress.append(summary.done),
    )
    assert summary.stopped and 3 <= summary.done < len(names)
    assert summary.done == len(refined) == len(place.outputs())
    assert (place.state / "running").exists()
    summary, rest = place.run(place.items(names), workers=workers)
    assert not (place.state / "running").exists()
    assert sorted(refined + rest) == list(names) and not summary.stopped


def test_pending_tells_and_writes_nothing(place: Place) -> None:
    def keys(items: list[Item], version: int = 1) -> list[str]:
        job = Job(items, Shout(place.root, version))
        return [item.key[0] for item in pending(job, place.state, settings_hash(job.work.settings()))[0]]

    assert keys(place.items()) == list("abcd") and not place.state.exists()
    place.run(place.items("ab"))
    # A line that another run is about to write.
    with open(place.state / "manifest.jsonl", "ab") as manifest:
        manifest.write(b'{"key": "c')
    before = {path: path.read_bytes() for path in place.state.iterdir()}
    assert keys(place.items()) == ["c", "d"] and keys(place.items(), version=2) == list("abcd")
    assert {path: path.read_bytes() for path in place.state.iterdir()} == before


@pytest.mark.parametrize(("cut", "lost"), [(1, []), (2, ["d"]), (30, ["d"])])
def test_a_line_that_was_cut_off_is_dropped_unless_only_its_break_is_lost(
    place: Place, cut: int, lost: list[str]
) -> None:
    place.run(place.items())
    manifest = place.state / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    assert place.run(place.items())[1] == lost
    assert [row["key"][0] for row in place.rows("manifest.jsonl")] == list("abcd")


def mistyped(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps(json.loads(line) | changes).encode()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    **{text[:20]: lambda line, text=text: text.encode() for text in (
        "nonsense", "[]", "7", "null", "{}", '{"key": "b.txt"}', '{"key": []}', "\x00\x00\x00", "[" * 100_000,
        "9" * 5000, '"\\ud800"', "NaN",
    )},
    "half": lambda line: line[: len(line) // 2],
    "another encoding": lambda line: line.decode().encode("utf-16"),
    "bytes": lambda line: b"\xff\xfe" + line,
    "key": mistyped(key=["b.txt"]),
    "config": mistyped(config=5),
    "payload": mistyped(payload=None),
    "inputs": mistyped(inputs={}),
    "inputs nested": mistyped(inputs=[[{"size": 1}]]),
    "state": mistyped(inputs=[{"size": "1", "modified_ns": 1, "sha256": ""}]),
    "state with more": mistyped(inputs=[{"size": 1, "modified_ns": 1, "sha256": "", "more": 1}]),
    "state without": mistyped(inputs=[{"size": 1}]),
    "outputs": mistyped(outputs=["b.txt"]),
    "output size": mistyped(outputs={"b.txt": "7"}),
    "output name": mistyped(outputs={"b\0.txt": 7}),
    "output surrogate": mistyped(outputs={"\ud800": 7}),
    "failures": mistyped(failures=[1]),
    "failure": mistyped(failures={"b": 1}),
    "left out": mistyped(left_out={"b": []}),
    "left out list": mistyped(left_out=["b"]),
    "notes": mistyped(notes="abc"),
    "note": mistyped(notes=[{}]),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_line_costs_its_own_item_alone(place: Place, damage: Callable[[bytes], bytes]) -> None:
    place.run(place.items())
    manifest = place.state / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines()
    lines[1] = damage(lines[1])
    manifest.write_bytes(b"\n".join(lines) + b"\n")
    ledger, refined = place.run(place.items())
    assert refined == ["b"] and (ledger.done, ledger.skipped, ledger.failed) == (1, 3, 0)
    assert place.run(place.items())[1] == []


def test_damaged_lines_are_counted_and_kept(place: Place) -> None:
    place.run(place.items())
    manifest = place.state / "manifest.jsonl"
    content = b"nonsense\n" + manifest.read_bytes() + b"{}\n"
    manifest.write_bytes(content)
    ledger, refined = place.run(place.items())
    assert refined == [] and ledger.remarks == (
        "the manifest has 2 damaged lines: what only they tell of is done again",
    )
    assert manifest.read_bytes() == content


def test_zeros_before_a_line_and_lines_of_older_versions_are_no_damage(place: Place) -> None:
    place.run(place.items())
    manifest = place.state / "manifest.jsonl"
    rows = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    old = [json.dumps({name: value for name, value in row.items() if name != "left_out"}).encode() for row in rows]
    manifest.write_bytes(b"".join(b"\0\0" + line + b"\r\n" for line in old))
    ledger, refined = place.run(place.items())
    assert refined == [] and ledger.notes == 0


@pytest.mark.parametrize("name", ["manifest.jsonl", "failures.jsonl", "left_out.jsonl", "notes.jsonl"])
def test_a_pipe_in_the_place_of_a_file_of_the_state_is_not_opened(place: Place, name: str) -> None:
    place.state.mkdir()
    os.mkfifo(place.state / name)
    with pytest.raises(OutputError, match=name):
        place.run(place.items())


def test_an_input_that_is_a_pipe_fails_alone_and_is_not_opened(place: Place) -> None:
    place.run(place.items())
    for name in "bc":
        (place.inputs / name).unlink()
    os.mkfifo(place.inputs / "b")
    (place.inputs / "c").symlink_to("/dev/zero")
    items = [Item(f"{name}.txt", (place.inputs / name,)) for name in "abcd"]
    ledger, refined = place.run(items)
    assert refined == [] and [entry.name for entry in ledger.failures] == ["b.txt", "c.txt"]
    assert all("a pipe, socket or device" in entry.reason for entry in ledger.failures)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_item_is_counted_once(place: Place, workers: int) -> None:
    names = "abcdefgh"
    place.items(names)
    (place.inputs / "b").write_text("unreadable")
    payloads = {"c": "unrefined", "d": "in part", "e": "left out", "f": "deadly" if workers else "unrefined"}
    for skipped in (0, 4):
        ledger, _ = place.run(place.items(names, **payloads), workers=workers)
        items = {item.key for item in place.items(names)}
        failed = {entry.name for entry in ledger.failures} & items
        left_out = {entry.name for entry in ledger.omissions} & items
        assert (failed, left_out) == ({"b.txt", "c.txt", "f.txt"}, {"e.txt"})
        assert ledger.done + ledger.skipped == 4 and ledger.skipped == skipped
        assert ledger.not_tried == 0 and ledger.done + ledger.skipped + len(failed) + len(left_out) == ledger.total
        assert place.rows("left_out.jsonl") == [{"item": "e.txt", "reason": "nothing there"}]
        assert json.loads(json.dumps(ledger.document()))["left_out_reasons"] == {"nothing there": 1}


def test_two_runs_do_not_share_an_output(place: Place) -> None:
    told: list[str] = []

    def second(summary: RunSummary) -> None:
        with pytest.raises(OutputError, match="in use by another run"):
            place.run(place.items())
        told.append("")

    assert place.run(place.items("ab"), progress=second)[1] == ["a", "b"]
    assert told


@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_that_kills_its_process_fails_alone(place: Place, workers: int) -> None:
    names = "abcdef"
    summary, refined = place.run(place.items(names, b="deadly", e="deadly"), workers=workers)
    assert refined == list("acdf") and (summary.done, summary.failed) == (4, 2)
    failures = {row["item"]: row["error"] for row in place.rows("failures.jsonl")}
    assert list(failures) == ["b.txt", "e.txt"] and all("process died" in why for why in failures.values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_stops_the_run_and_a_rerun_goes_on(place: Place, workers: int) -> None:
    place.run(place.items("a"))
    (place.root / "full").touch()
    with pytest.raises(OutputError, match=r"No space left on device.*run the same command to go on"):
        place.run(place.items(), workers=workers)
    (place.root / "full").unlink()
    assert place.run(place.items(), workers=workers)[1] == list("bcd")


@contextmanager
def protected(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("permissions do not bind this user")
        yield
    finally:
        folder.chmod(0o700)


def test_an_output_that_lost_its_permission_stops_the_run_and_a_rerun_goes_on(place: Place) -> None:
    place.run(place.items("a"))
    with protected(place.root), pytest.raises(OutputError, match=r"write-protected.*run the same command to go on"):
        place.run(place.items())
    assert place.run(place.items())[1] == list("bcd")


def test_so_it_does_where_permissions_do_not_bind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(OutputError, match="run the same command to go on"):
        patched.setattr(os, "access", lambda path, mode: Path(path) != place.root)
        place.run(place.items())
    assert place.run(place.items())[1] == list("abcd")


def test_a_state_that_cannot_be_written_is_told(place: Place) -> None:
    items = place.items()
    with protected(place.root), pytest.raises(OutputError, match="choose another output"):
        place.run(items)


def test_one_folder_that_cannot_be_written_fails_alone(place: Place) -> None:
    items = [Item("deep/a.txt", place.items("a")[0].inputs), *place.items("b")]
    (place.root / "deep").mkdir()
    with protected(place.root / "deep"):
        summary, _ = place.run(items)
    assert (summary.done, summary.failed) == (1, 1)


def test_a_file_in_the_place_of_a_folder_is_this_items_failure(place: Place) -> None:
    (place.root / "taken").touch()
    items = [Item("taken/a.txt", place.items("a")[0].inputs), *place.items("b")]
    summary, _ = place.run(items)
    assert (summary.done, summary.failed) == (1, 1)


def test_results_depend_on_nothing_else_in_the_job(tmp_path: Path) -> None:
    def outputs(name: str, letters: str, workers: int) -> dict[str, bytes]:
        place = Place(tmp_path / name)
        place.run(place.items(letters), workers=workers)
        return place.outputs()

    expected = outputs("0", "abcdef", 0)
    assert outputs("1", "abcdef", 1) == outputs("2", "fedcba", 2) == expected
    assert outputs("few", "db", 1) == {key: expected[key] for key in ("b.txt", "d.txt")}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\0b", ".."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(OutputError, match="leads out"):
        inside(tmp_path / "in", name)


@pytest.mark.parametrize("name", ["x", "a/b/c.png", "./x", "a/../x", "..x", "a b", "ä"])
def test_names_inside_are_not(tmp_path: Path, name: str) -> None:
    path = inside(tmp_path, name)
    assert path == Path(os.path.normpath(tmp_path / name)) and path.is_relative_to(tmp_path)


# Processes that are killed.


def shout_slowly(folder: str, workers: str) -> None:
    """What `test_killed_at_any_moment` kills."""
    place = Place(Path(folder))
    work = Shout(place.root, seconds=0.02)
    run(Job(place.items(MANY), work), LocalEngine([], int(workers)), place.state, config="1")  # type: ignore[arg-type]


MANY = "abcdefghijklmnopqrstuvwxyz"


def started(place: Place, workers: int) -> "subprocess.Popen[bytes]":
    code = "import sys; from jobs.test_run import shout_slowly; shout_slowly(*sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", code, str(place.folder), str(workers)], cwd=TESTS)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_moment(tmp_path: Path, workers: int) -> None:
    whole, killed = Place(tmp_path / "whole"), Place(tmp_path / "killed")
    for place in (whole, killed):
        for item in place.items(MANY):
            os.utime(item.inputs[0], ns=(1, 1))
    assert started(whole, workers).wait(60) == 0
    manifest = killed.state / "manifest.jsonl"
    for more, delay in ((1, 0.0), (3, 0.004), (5, 0.011), (1, 0.017)):
        wanted = more + (manifest.read_bytes().count(b"\n") if manifest.exists() else 0)
        with started(killed, workers) as process:
            until(lambda wanted=wanted: manifest.exists() and manifest.read_bytes().count(b"\n") >= wanted)
            time.sleep(delay)
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
    assert started(killed, workers).wait(60) == 0
    assert killed.outputs() == whole.outputs() and len(whole.outputs()) == len(MANY)
    assert sorted(killed.rows("manifest.jsonl"), key=str) == sorted(whole.rows("manifest.jsonl"), key=str)
    assert not list(killed.root.rglob("*.tmp")) and not (killed.state / "running").exists()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def test_what_a_killed_run_left_is_removed_and_what_others_left_is_not(place: Place) -> None:
    place.run(place.items("ab"))
    left, others = place.root / "deep" / ".segrefiner-0123456789abcdef.tmp", place.root / "mine.tmp"
    left.parent.mkdir()
    left.touch()
    others.touch()
    (place.state / "running").touch()
    place.run(place.items("ab"))
    assert not left.exists() and others.exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_do_not_outlive_a_run_that_was_killed(place: Place) -> None:
    process = started(place, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: bool(place.outputs()))
    workers = children.read_text().split()
    process.kill()
    process.wait(60)
    assert workers
    until(lambda: not any(alive(pid) for pid in workers), 20)


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# The command line, with the bundled model.

PHOTOS = 12


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(PHOTOS):
        for kind in ("images", "masks"):
            (tmp_path / kind / "deep").mkdir(parents=True, exist_ok=True)
        name = f"deep/{index}.png" if index % 2 else f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (40, 50 + index, 3), np.uint8)).save(tmp_path / "images" / name)
        mask = np.zeros((40, 50 + index), np.uint8)
        mask[10:30, 15 : 30 + index] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    return tmp_path


def arguments(photos: Path, *options: object, output: str = "out") -> list[str]:
    given = ["folder", photos / "images", photos / "masks", "-o", photos / output, *options]
    return list(map(str, given))


def ended(photos: Path, *options: object, output: str = "out") -> Result:
    return CliRunner().invoke(main, arguments(photos, "--workers", 0, *options, output=output))


def test_the_command_tells_what_it_did(photos: Path) -> None:
    (photos / "masks" / "0.png").write_bytes(b"nonsense")
    (photos / "masks" / "2.png").unlink()
    dry = ended(photos, "--dry-run")
    assert dry.exit_code == 0 and "would do 11" in dry.stdout and "cannot: 2.png: no mask" in dry.stdout
    assert not (photos / "out").exists()
    first = ended(photos)
    assert first.exit_code == 3, first.output
    assert first.stdout.count("\n") == 1 and "10 done, 2 failed" in first.stdout and "failures.jsonl" in first.stdout
    assert "2.png: no mask" in first.stderr and "0.png" in first.stderr
    assert len(files_below(photos / "out")) == 10 and (photos / "out" / "deep" / "3.png").is_file()
    assert "would do 1:\n  0.png" in ended(photos, "--dry-run").stdout
    assert "would do 11" in ended(photos, "--dry-run", "--seed", 1).stdout
    stopped = ended(photos, "--max-failures", 0)
    assert stopped.exit_code == 3 and "more than 0 failed: run the same command" in stopped.stdout


def test_a_lock_is_told_in_one_line_and_a_bad_manifest_in_a_note(photos: Path) -> None:
    state = photos / "out" / ".segrefiner"
    state.mkdir(parents=True)
    with FileLock(state / "lock"):
        locked = ended(photos)
    assert locked.exit_code == 1 and locked.stderr.count("\n") == 1 and "in use by another run" in locked.stderr
    (state / "manifest.jsonl").write_text("nonsense\n")
    result = ended(photos)
    assert result.exit_code == 0 and "1 notes" in result.stdout and "a damaged line" in result.stderr


def test_what_is_left_out_is_told_in_words_as_json_and_in_the_exit_code(photos: Path) -> None:
    (photos / "masks" / "0.png").rename(photos / "masks" / "other.png")
    (photos / "images" / "0.png").unlink()
    os.mkfifo(photos / "images" / "pipe.png")
    (photos / "images" / "gone.png").symlink_to("nowhere")
    for name in ("2.png", "4.png"):
        Image.new("L", (50 + int(name[0]), 40)).save(photos / "masks" / name)
    unpaired = {str(photos / "masks" / "other.png"): f"no photo in {photos / 'images'} for it"}
    listed = {str(photos / "images" / "pipe.png"): "a pipe, socket or device",
              str(photos / "images" / "gone.png"): "a link to nowhere"}  # fmt: skip
    dry = ended(photos, "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert dry.exit_code == 0 and "would do 11" in dry.stderr and len(told["would_do"]) == told["not_tried"] == 11
    assert {row["name"]: row["reason"] for row in told["left_out_names"]} == unpaired | listed
    assert ended(photos, "--dry-run", "--strict").exit_code == 3 and not (photos / "out").exists()
    for done, skipped in ((9, 0), (0, 9)):
        result = ended(photos, "--json")
        told = json.loads(result.stdout)
        assert result.exit_code == 0 and "left out" in result.stderr
        assert (told["done"], told["skipped"], told["failed"], told["left_out"]) == (done, skipped, 0, 5)
        empty = "the mask is empty: returned as it is"
        assert {row["name"]: row["reason"] for row in told["left_out_names"]} == unpaired | listed | {
            "2.png": empty, "4.png": empty
        }  # fmt: skip
        assert told["left_out_reasons"][empty] == 2 and sum(told["left_out_reasons"].values()) == 5
    strict = ended(photos, "--strict")
    assert strict.exit_code == 3 and "5 left out" in strict.stdout and "such as 2.png" in strict.stderr


def test_a_job_that_does_nothing_says_so(photos: Path) -> None:
    for path in (photos / "masks").rglob("*.png"):
        Image.new("L", (50 + int(path.stem), 40)).save(path)
    result = ended(photos)
    assert result.exit_code == 0 and "0 done, 12 left out" in result.stdout
    assert "nothing was refined" in result.stdout and "the mask is empty" in result.stderr


def test_the_command_ends_when_it_is_told_to_and_goes_on(photos: Path) -> None:
    code = [sys.executable, "-c", "from segrefiner.cli.main import main; main()"]
    process = subprocess.Popen(code + arguments(photos), stdout=subprocess.PIPE, text=True)
    manifest = photos / "out" / ".segrefiner" / "manifest.jsonl"
    until(lambda: manifest.exists() and manifest.stat().st_size > 0)
    process.terminate()
    stdout = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM and "stopped: run the same command to go on" in stdout
    before = len(manifest.read_text().splitlines())
    assert 1 <= before < PHOTOS
    rest = ended(photos)
    assert rest.exit_code == 0 and f"{PHOTOS - before} done, {before} done before of {PHOTOS}" in rest.stdout
    assert ended(photos, output="whole").exit_code == 0
    assert files_below(photos / "out") == files_below(photos / "whole")
