"""Jobs whose files cannot be written, are full disks, or are no files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.jobs.places import Place
from segrefiner import OutputError
from segrefiner.jobs.job import Item


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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
