"""The package's door, and who may import whom: over every module, read from its text."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import segrefiner

ROOT = Path(segrefiner.__file__).parent
LEVELS = (
    ("errors", "_version", "openmp"),
    ("ledger", "environment"),
    ("imaging",),
    ("rendering", "formats"),
    ("model",),
    ("refinement", "data"),
    ("jobs", "evaluation"),
    ("training", "serving"),
    ("cli",),
)
"""Folders and modules of the package, lowest first. Those of one level do not know each other."""
TORCH_FREE = {
    "": ["_version", "environment", "errors", "ledger", "openmp"],
    "cli": [
        "agents",
        "annotations",
        "data",
        "evaluate",
        "jobs",
        "main",
        "model",
        "models",
        "refine",
        "serve",
        "train",
        "watch",
    ],
    "cli.shared": ["common", "evaluations", "job_runs", "ledger", "messages", "streams"],
    "data": ["coco", "holdout", "label_masks", "layouts", "settings_record", "shards", "sources", "worker_pool"],
    "data.coarse": ["grabcut", "polygons", "published"],
    "data.composites": ["files", "layers", "thin_structures"],
    "evaluation": [
        "annotations",
        "coco",
        "coco_categories",
        "davis",
        "dis_metrics",
        "layouts",
        "mask_checks",
        "metrics",
        "protocol",
        "report",
        "results",
    ],
    "formats": [
        "brush",
        "coco",
        "cvat",
        "documents",
        "folders",
        "json_edits",
        "labelme",
        "labelstudio",
        "masks",
        "photos",
        "recognition",
        "sa1b",
        "yolo",
    ],
    "imaging": [
        "clips",
        "coco_masks",
        "colours",
        "files",
        "json_files",
        "label_conventions",
        "label_files",
        "listing",
        "orientation",
        "reading",
    ],
    "imaging.codecs": [
        "arrays",
        "bit_depth",
        "decoder_process",
        "exif",
        "file_checks",
        "interpretation",
        "option_checks",
        "pictures",
        "png_chunks",
        "rasters",
    ],
    "imaging.shapes": ["contours", "outlines"],
    "jobs": [
        "annotations",
        "coco",
        "folders",
        "instances",
        "job",
        "local",
        "manifest",
        "pair_patterns",
        "pairing",
        "panoptic",
        "run",
        "watching",
    ],
    "model": ["cache", "downloads", "hub"],
    "refinement": ["options", "video", "video_objects"],
    "refinement.pipelines": ["config"],
    "rendering": ["html", "markdown", "overlay", "svg"],
    "serving": ["client", "decoding", "metrics", "signals"],
    "serving.agents": ["folders"],
    "serving.labelstudio": ["images", "tasks"],
    "serving.page": ["files", "inputs", "reading"],
    "training": ["run_folder"],
    "training.monitoring": ["report", "tensorboard"],
}
"""Modules by folder that import no PyTorch, also not by what they import: that takes seconds."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
DOOR = {"segrefiner", "segrefiner.__main__"}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What is executed when a module is imported: not functions, and not what type checkers alone read."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)
        else:
            yield node


def targets(name: str, nodes: Iterator[ast.AST]) -> set[str]:
    """What import statements of a module name, modules and names in them alike."""
    found = set()
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def modules(found: set[str]) -> set[str]:
    """Those of the package; folders, whose files import nothing, are left out where a module in them is meant."""
    ours = found & set(FILES)
    return {one for one in ours if not any(other.startswith(f"{one}.") for other in ours)}


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
IMPORTS = {name: modules(targets(name, ast.walk(tree))) - {name} for name, tree in TREES.items()}
AT_ONCE = {name: targets(name, statements(tree.body)) for name, tree in TREES.items()}


def level(name: str) -> int | None:
    room = next((i for i, rooms in enumerate(LEVELS) if name.split(".")[1] in rooms), None)
    assert room is not None, f"{name} is on no level"
    return room


def test_every_module_lies_in_a_folder() -> None:
    outside = {name for name in FILES if name.count(".") == 1 and FILES[name].name != "__init__.py"}
    assert outside <= {
        "segrefiner.__main__",
        "segrefiner.errors",
        "segrefiner._version",
        "segrefiner.openmp",
        "segrefiner.ledger",
        "segrefiner.environment",
    }


@pytest.mark.parametrize("name", [name for name in FILES if name not in DOOR])
def test_imports_point_downward_and_not_to_a_neighbour(name: str) -> None:
    for other in IMPORTS[name]:
        assert other not in DOOR, f"{name} imports the package's door"
        own, theirs = level(name), level(other)
        if own is None or theirs is None:
            continue
        same = name.split(".")[1] == other.split(".")[1]
        assert theirs < own or same, f"{name} imports {other}"


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_a_folder_s_own_file_is_one_docstring() -> None:
    for name, path in FILES.items():
        if path.name == "__init__.py" and name != "segrefiner":
            assert len(TREES[name].body) == 1 and ast.get_docstring(TREES[name]), name


@pytest.mark.parametrize("name", FILES)
def test_functions_fit_on_a_page(name: str) -> None:
    functions = [n for n in ast.walk(TREES[name]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno >= 59] == []


def test_folders_can_be_taken_in_at_a_glance() -> None:
    files = Counter(path.parent for path in FILES.values())
    assert {str(folder.relative_to(ROOT)) for folder, count in files.items() if count > 16} == set()


def imports_torch(name: str, seen: set[str]) -> bool:
    seen.add(name)
    found = AT_ONCE[name]
    if any(one == "torch" or one.startswith("torch.") for one in found):
        return True
    return any(imports_torch(one, seen) for one in found & set(FILES) - seen)


@pytest.mark.parametrize("folder", TORCH_FREE)
def test_what_needs_no_torch_imports_none(folder: str) -> None:
    for name in TORCH_FREE[folder]:
        module = ".".join(filter(None, ("segrefiner", folder, name)))
        assert not imports_torch(module, set()), module


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import segrefiner, sys; print([m for m in ('torch', 'scipy', 'PIL', 'numpy') if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_help_and_version_do_not_import_torch() -> None:
    for argument in ("--help", "--version"):
        code = (
            "import sys\nfrom segrefiner.cli.main import main\n"
            f"try:\n    main([{argument!r}])\nexcept SystemExit: pass\n"
            "print('torch' in sys.modules, 'numpy' in sys.modules)"
        )
        assert run(code).strip().endswith("False False")


def test_public_names_are_exactly_those_of_all() -> None:
    for name in segrefiner.__all__:
        assert getattr(segrefiner, name) is not None
    assert dir(segrefiner) == sorted(segrefiner.__all__)
    assert len(set(segrefiner.__all__)) == len(segrefiner.__all__)


def test_readme_and_examples_come_in_by_the_door() -> None:
    root = Path(__file__).parent.parent
    for path in (root / "README.md", *sorted((root / "examples").glob("*.py"))):
        assert not re.findall(r"(?:from|import) segrefiner\.[\w.]+", path.read_text()), path.name
