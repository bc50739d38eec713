"""What a public forge reads: workflows, how to cite, how to report. Read as far as that can be done without it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from helpers.command_lines import commands, parse
from segrefiner.cli.main import main

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".github/workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOP = {"name", "on", "permissions", "concurrency", "env", "defaults", "jobs"}
JOB = {
    "name",
    "runs-on",
    "needs",
    "if",
    "timeout-minutes",
    "strategy",
    "steps",
    "permissions",
    "environment",
    "env",
    "defaults",
}
STEP = {"name", "id", "if", "uses", "with", "run", "env", "shell", "working-directory", "timeout-minutes"}
STRATEGY = {"matrix", "fail-fast", "max-parallel"}
SYSTEMS = {"ubuntu-latest", "macos-latest", "windows-latest"}
PROGRAMS = {
    "bash",
    "curl",
    "docker",
    "echo",
    "grep",
    "pip",
    "pytest",
    "python",
    "segrefiner",
    "sphinx-build",
    "test",
    "twine",
    "uv",
}

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="not in the source archive")


def read(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["on"] = document.pop(True)  # YAML 1.1 reads `on` as a truth value
    return dict(document)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return dict(read(path)["jobs"])


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def scripts(path: Path) -> list[str]:
    return [line.strip() for step in steps(path) for line in step.get("run", "").splitlines() if line.strip()]


def test_there_are_workflows_for_tests_documentation_and_releases() -> None:
    assert {path.stem for path in WORKFLOWS} == {"ci", "docs", "release"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_key_is_one_that_the_forge_knows(path: Path) -> None:
    document = read(path)
    assert set(document) <= TOP
    for name, job in document["jobs"].items():
        assert set(job) <= JOB and {"runs-on", "steps", "timeout-minutes"} <= set(job), name
        assert set(job.get("strategy", {})) <= STRATEGY, name
        assert set([job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])) <= set(
            document["jobs"]
        )
        for step in job["steps"]:
            assert set(step) <= STEP and ("uses" in step) != ("run" in step), (name, step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_value_of_the_matrix_is_one_that_there_is(path: Path) -> None:
    for name, job in jobs(path).items():
        matrix = job.get("strategy", {}).get("matrix", {})
        used = set(re.findall(r"matrix\.([\w-]+)", yaml.safe_dump(job)))
        assert used == set(matrix), name
        runs_on = matrix["system"] if "matrix.system" in job["runs-on"] else [job["runs-on"]]
        assert set(runs_on) <= SYSTEMS, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_say_their_version(path: Path) -> None:
    lines = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_version_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, rest in re.findall(r"uses: ([\w/-]+)@(.*)", path.read_text(encoding="utf-8")):
            pins.setdefault(action, set()).add(rest)
    assert {action: found for action, found in pins.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nothing_may_write_but_what_must(path: Path) -> None:
    document = read(path)
    assert document["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text(encoding="utf-8")
    assert "pull_request_target" not in document["on"]
    for name, job in document["jobs"].items():
        assert set(job.get("permissions", {})) <= ({"id-token", "pages"} if name == "publish" else set()), name
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            # What strangers name, such as branches, must not become a part of a script.
            assert not re.search(r"\$\{\{(?!\s*matrix\.)", step.get("run", "")), step


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_one_that_there_is(path: Path) -> None:
    for line in scripts(path):
        assert line.split()[0] in PROGRAMS, line
        for extras in re.findall(r"\.\[([\w,-]+)\]", line):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), line
        for name in re.findall(r"(?<![\w./])(constraints\.txt|examples/\S+|\.ci/\S+)", line):
            assert (ROOT / name).exists(), line
        for words in commands(line):
            try:
                parse(words)
            except click.BadParameter as error:  # a file that the workflow makes
                assert "does not exist" in str(error), line


def test_all_systems_and_versions_of_python_are_tested() -> None:
    matrix = jobs(FOLDER / "ci.yml")["tests"]["strategy"]["matrix"]
    told = {one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+", one)}
    assert set(matrix["system"]) == SYSTEMS and set(matrix["python"]) == told
    assert PROJECT["requires-python"] == f">={min(told, key=lambda one: int(one.partition('.')[2]))}"


def test_oldest_and_newest_dependencies_are_tested() -> None:
    job = jobs(FOLDER / "ci.yml")["dependencies"]
    assert set(job["strategy"]["matrix"]["resolution"]) == {"lowest-direct", "highest"}
    assert not any("constraints" in step.get("run", "") for step in job["steps"])
    # Extras raise what the core resolves to, so its own bounds need a run without them.
    core = [step.get("run", "") for step in jobs(FOLDER / "ci.yml")["core"]["steps"]]
    assert "uv pip install --system --resolution lowest-direct -e ." in core
    folders = next(line for line in core if line.startswith("pytest")).split()[1:]
    assert len(folders) >= 5 and all((ROOT / folder).is_dir() for folder in folders)


def test_the_forge_builds_the_documentation_as_ci_does() -> None:
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    (line,) = [line for line in scripts(FOLDER / "docs.yml") if line.startswith("sphinx-build")]
    assert "-W" in line.split() and re.search(r"^sphinx-build -W ", ci, re.MULTILINE)
    assert "bash .ci/run" in scripts(FOLDER / "ci.yml")


def test_a_release_is_published_after_its_wheel_has_worked() -> None:
    release = jobs(FOLDER / "release.yml")
    assert release["publish"]["needs"] == "smoke" and release["smoke"]["needs"] == "build"
    assert read(FOLDER / "release.yml")["on"] == {"push": {"tags": ["v*"]}}
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert not any(step.get("with", {}).get("password") for step in release["publish"]["steps"])
    assert any("pip install dist/" in step.get("run", "") for step in release["smoke"]["steps"])


def test_the_citation_names_paper_and_software() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["authors"] == PROJECT["authors"]
    assert cited["license"] == PROJECT["license"] and cited["repository-code"] == PROJECT["urls"]["Repository"]
    assert "version" not in cited  # it would be a second place
    paper = cited["preferred-citation"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2312.12425"}]
    names = [f"{one['given-names']} {one['family-names']}" for one in paper["authors"]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    assert paper["title"] in readme and all(name in readme for name in names)


def test_people_are_told_how_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "Report a vulnerability" in text and "not in an issue" in text
    for address in re.findall(r"\]\((?!https:)([^)#]+)", text):
        assert (ROOT / address).exists(), address


def test_the_changelog_keeps_to_its_format() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert headings[0] == "Unreleased" and len(set(headings)) == len(headings)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", one) for one in headings[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_every_data_set_that_the_weights_saw_has_its_licence() -> None:
    card = (ROOT / "src/segrefiner/model/bundled/README.md").read_text(encoding="utf-8")
    told = re.search(r"photos with masks: (.+?)\.\s", card, re.DOTALL)
    assert told is not None
    rows = re.findall(r"^\| ([\w-]+)", card.partition("<!-- licences -->")[2], re.MULTILINE)
    names = set(re.findall(r"[A-Z][\w-]+|car208", told[1])) - {"Apache-2", "Apache"}
    assert len(names) >= 5 and names <= set(rows)
    makers = {"DeepLabV3-MobileNet", "GrabCut", "EfficientNet-Lite0"}  # of inputs, and of weights
    makers |= {"CamVid", "Weizmann", "IS-Net"}  # of what the networks saw that judge changes
    assert makers <= set(rows)
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## May I use it commercially?")[2]
    assert all(name in readme.partition("\n## ")[0] for name in names | makers)
    printed = CliRunner().invoke(main, ["models", "card"])
    assert printed.exit_code == 0 and all(f"| {name}" in printed.output for name in names | makers)
