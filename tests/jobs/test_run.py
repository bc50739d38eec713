"""Jobs of many photos: what is done stays done, and what failed is told."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.jobs.places import Place, Shout
from segrefiner import OutputError
from segrefiner.imaging.listing import inside
from segrefiner.jobs.job import Item, Job
from segrefiner.jobs.manifest import settings_hash
from segrefiner.jobs.run import pending
from segrefiner.ledger import RunSummary


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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
