"""Every example runs."""

import ast
import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
    return found


@pytest.mark.slow
def test_the_notebook_runs_and_every_cell_shows_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pymatting")
    for name in ("person.jpg", "car.jpg", "person_coarse.png", "car_coarse.png"):
        shutil.copy(NOTEBOOK.parent / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells():
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
            assert isinstance(last, ast.Expr | ast.For), f"{cell['id']} shows nothing"
            if isinstance(last, ast.For):
                exec(compile(ast.Module([last], []), cell["id"], "exec"), names)
                value = None
            else:
                value = eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
            # A notebook shows a cell's last value, pictures as pictures.
            assert hasattr(value, "_repr_png_") or value is True or capsys.readouterr().out, cell["id"]
    assert (tmp_path / "person_refined.png").exists() and names["result"].report.changed > 0


def test_the_notebook_comes_in_by_the_door_and_has_no_outputs() -> None:
    book = json.loads(NOTEBOOK.read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5) and len({cell["id"] for cell in cells()}) == len(
        cells()
    )
    for cell in cells():
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert not cell.get("outputs") and cell.get("execution_count") is None and not cell["metadata"]
        assert not re.findall(r"(?:from|import) segrefiner\.[\w.]+", "".join(cell["source"]))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
