"""JSON that every reader accepts."""

import ast
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

import segrefiner
from segrefiner.errors import InputError
from segrefiner.imaging.json_files import count_nan, json_text, read_json, write_json

SOURCE = Path(segrefiner.__file__).parent
# Hashes, cells of tables, what is read back within the program, and what the server checks itself.
INTERNAL = {
    "jobs/manifest",
    "evaluation/results",
    "formats/coco",
    "jobs/job",
    "imaging/json_files",
    "training/trainer",
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
