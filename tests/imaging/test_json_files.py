"""JSON that every reader accepts."""

import ast
import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segrefiner
from segrefiner.errors import InputError
from segrefiner.imaging.json_files import count_nan, json_text, read_json, read_odd, without_nan, write_json

SOURCE = Path(segrefiner.__file__).parent
# Hashes, cells of tables, what is read back within the program, and what the server checks itself.
INTERNAL = {
    "jobs/manifest",
    "evaluation/results",
    "formats/coco",
    "jobs/job",
    "imaging/json_files",
    "training/trainer",
    "serving/agents/tools",
    "serving/agents/folder_jobs",
    "serving/labelstudio/backend",
    "serving/labelstudio/tasks",
    "rendering/markdown",
    "imaging/codecs/decoder_process",
    "serving/client",
    "training/batches",
    "jobs/cluster",
    "data/coco",
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(value: float, tmp_path: Path) -> None:
    document: Any = {"a": [value, 1.5, {"b": (value, "NaN", None, True)}], "c": value}
    write_json(tmp_path / "deep" / "x.json", document)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads((tmp_path / "deep" / "x.json").read_text(), parse_constant=refuse)
    assert read == {"a": [None, 1.5, {"b": [None, "NaN", None, True]}], "c": None}
    assert count_nan(document) == 3 and count_nan(read) == 0


def test_other_values_are_written_as_ever() -> None:
    document = {"\u00fc": [1, 2.5, None, "NaN"], "b": {}}
    assert json_text(document) == json.dumps(document) and json_text(document, indent=1) == json.dumps(
        document, indent=1
    )


def test_nothing_is_written_but_by_this_module_or_strictly() -> None:
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).with_suffix("").as_posix() in INTERNAL:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
                assert any(keyword.arg == "allow_nan" for keyword in node.keywords), (path.name, node.lineno)


@pytest.mark.parametrize("content", ["", "{", "[1,", "[" * 100_000, "9" * 5000, "\0"])
def test_what_is_no_json_is_told_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json") as told:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(told.value)


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(InputError, match="a pipe, socket or device"):
        read_json(tmp_path / "x.json")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150)
@given(document=VALUES)
def test_a_file_in_parts_is_the_text_of_the_whole(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    write_json(path, document)
    assert path.read_text("ascii") == json.dumps(without_nan(document))


@pytest.mark.parametrize(("text", "odd"), [("[1e400]", True), ("[NaN]", True), ("[1e-5, 12]", False)])
def test_numbers_that_json_does_not_have_are_noticed(tmp_path: Path, text: str, odd: bool) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_odd(tmp_path / "a.json")[1] is odd


@pytest.mark.parametrize("kind", ["results", "annotations"])
def test_a_file_is_read_and_written_without_copies_of_its_text(tmp_path: Path, kind: str) -> None:
    rows = [{"id": index, "segmentation": {"size": [9, 9], "counts": f"{index}" * 200}} for index in range(4000)]
    write_json(tmp_path / "a.json", rows if kind == "results" else {"info": {}, "annotations": rows})
    size = (tmp_path / "a.json").stat().st_size
    del rows
    tracemalloc.start()
    document = read_json(tmp_path / "a.json")
    kept, peak = tracemalloc.get_traced_memory()
    assert peak < kept + 1.1 * size
    tracemalloc.reset_peak()
    write_json(tmp_path / "b.json", document)
    assert tracemalloc.get_traced_memory()[1] < kept + 0.1 * size
    tracemalloc.stop()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
