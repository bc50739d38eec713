"""What pages refer to is there: files, headings, modules, functions, options, benchmarks.

Words in backticks are held against the sources, pages' links against files and headings. `docs/experiments.md` and the
changelog tell of what has gone since; of these only the links are followed.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/*.md", "integrations/**/*.md", "src/**/*.md")
    for path in ROOT.glob(pattern)
)
OF_NOW = [page for page in PAGES if page not in ("docs/experiments.md", "CHANGELOG.md")]
SOURCES = ("src", "tests", "benchmarks", "integrations", "examples")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"[\w./-]+\.(?:py|md|toml|ya?ml|ipynb)\b")
NAME = re.compile(r"[A-Za-z_][\w.]*(?:\(.*\))?")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")

OF_OTHERS = {
    *("data.yaml", "NO_COLOR", "ML_TIMEOUT_PREDICT", "LABEL_STUDIO_HOST", "reduce_labels", "sha256sum"),
    *("ADE_val_00000001_seg", "lvis_v1_val", "DATA2"),
}
"""Names of other programs' files, variables and options, and of the reader's own folders."""

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="not in the source archive")


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def sources() -> str:
    """All code, and the few files beside it that pages quote; not this file, which names what is missing."""
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    files += [ROOT / name for name in ("pyproject.toml", "Dockerfile", "compose.yaml", ".ci/run")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_]\w*", sources()))


@cache
def files() -> frozenset[str]:
    folders = (*SOURCES, "docs", ".github", ".ci")
    below = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return frozenset(f"/{path.relative_to(ROOT).as_posix()}" for path in (*ROOT.iterdir(), *below))


def prose(page: str) -> str:
    return FENCE.sub("", text(page))


def quoted(page: str) -> Iterator[str]:
    """What stands in backticks outside of blocks."""
    yield from re.findall(r"`([^`\n]+)`", prose(page))


def anchor(heading: str) -> str:
    """As GitHub and MyST make it of a heading."""
    plain = re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def unknown_names(span: str) -> list[str]:
    """The parts of a name in code that no source has."""
    if not NAME.fullmatch(span) or span in OF_OTHERS or span.partition(".")[0] in OF_OTHERS or FILE.fullmatch(span):
        return []
    return [word for word in re.findall(r"[A-Za-z_]\w*", span.partition("(")[0]) if word not in words()]


def missing_member(dotted: str) -> str | None:
    """The first part of `segrefiner.room.module.name` that is neither a module nor a name of the module before it."""
    parts = dotted.split(".")
    folder = ROOT / "src" if parts[0] == "segrefiner" else ROOT
    known = len(parts)
    while known and not any((folder / ("/".join(parts[:known]) + end)).exists() for end in (".py", "/__init__.py", "")):
        known -= 1
    if known == len(parts):
        return None
    module = folder.joinpath(*parts[:known])
    code = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__init__.py"
    named = code.exists() and re.search(rf"\b{parts[known]}\b", code.read_text(encoding="utf-8"))
    return None if named else parts[known]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if heading and target.suffix == ".md":
            there = FENCE.sub("", target.read_text(encoding="utf-8"))
            assert heading in map(anchor, re.findall(r"^#+ (.+)$", there, re.MULTILINE)), link


@pytest.mark.parametrize("page", OF_NOW)
def test_files_that_are_named_are_there(page: str) -> None:
    for span in quoted(page):
        for name in FILE.findall(span):
            if name not in OF_OTHERS and not re.search(r"[A-Z]{3,}/", name):
                assert any(one.endswith(f"/{name.removeprefix('./')}") for one in files()), span


@pytest.mark.parametrize("page", OF_NOW)
def test_names_in_code_are_names_of_the_code(page: str) -> None:
    for span in quoted(page):
        assert unknown_names(span) == [], span
        if span.startswith(("segrefiner.", "benchmarks.", "tests.")) and NAME.fullmatch(span):
            assert missing_member(span.partition("(")[0]) is None, span


@pytest.mark.parametrize("page", OF_NOW)
def test_options_in_prose_are_options_of_something(page: str) -> None:
    for span in quoted(page):
        for option in OPTION.findall(span):
            assert re.search(rf"{option}(?![\w-])", sources()), span


@pytest.mark.parametrize("page", OF_NOW)
def test_benchmarks_that_are_named_exist_and_have_their_options(page: str) -> None:
    shared = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks/common").glob("*.py"))
    joined = re.sub(r"\\\n\s*", " ", text(page))
    for module, rest in re.findall(r"python -m (benchmarks(?:\.\w+)+)([^\n`|)]*)", joined):
        path = ROOT / (module.replace(".", "/") + ".py")
        assert path.exists(), module
        for option in OPTION.findall(rest.partition(" #")[0]):
            assert f'"{option}"' in path.read_text(encoding="utf-8") + shared, f"{module} {option}"


@pytest.mark.parametrize("page", OF_NOW)
def test_what_blocks_import_of_the_package_is_there(page: str) -> None:
    for kind, block in FENCE.findall(text(page)):
        if kind != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "segrefiner":
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, one.name) for one in node.names), ast.unparse(node)


def test_every_benchmark_is_described() -> None:
    told = text("benchmarks/README.md")
    for path in sorted((ROOT / "benchmarks").glob("*/*.py")):
        if path.name != "__init__.py" and 'if __name__ == "__main__"' in path.read_text(encoding="utf-8"):
            assert f"{path.stem}.py" in told or f"{path.parent.name}.{path.stem}" in told, path


def test_what_is_not_there_would_be_found() -> None:
    assert unknown_names("Refiner.from_pretrained(None)") == [] and unknown_names("views.find_" + "nothing")
    assert missing_member("segrefiner.model.diffusion.confidence") is None
    assert missing_member("segrefiner.model.diffusion.no_such_name") == "no_such_name"
    assert missing_member("segrefiner.model.no_such_module.name") == "no_such_module"
    assert anchor("`trust.py`: never worse, *on anything*") == "trustpy-never-worse-on-anything"
