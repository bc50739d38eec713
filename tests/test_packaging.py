"""What whoever installs the package gets: its metadata, its README on an index, its types, its size."""

import email.message
import email.parser
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.policy import default
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import segrefiner

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SYSTEMS = {"POSIX :: Linux", "MacOS", "Microsoft :: Windows"}

pytestmark = pytest.mark.skipif(not (ROOT / "constraints.txt").exists(), reason="not in the source archive")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def wanted() -> Iterator[Requirement]:
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        yield from map(Requirement, group)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this folder without a network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> email.message.EmailMessage:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        parsed = email.parser.BytesParser(policy=default).parsebytes(archive.read(name))
    assert isinstance(parsed, email.message.EmailMessage)
    return parsed


def test_the_core_takes_any_newer_pytorch_and_pillow() -> None:
    core = {one.name: one for one in map(Requirement, PROJECT["dependencies"])}
    for name in ("torch", "pillow", "numpy", "scipy"):
        assert {part.operator for part in core[name].specifier} == {">="}, f"{name} would be downgraded"


def test_every_requirement_has_a_lower_bound_and_its_pin_lies_within() -> None:
    pinned = pins()
    for one in wanted():
        if one.name == "segrefiner":
            continue
        assert any(part.operator in (">=", "==") for part in one.specifier), one
        assert Version(pinned[one.name.lower().replace("_", "-")]) in one.specifier, one


def test_extras_agree_on_what_they_share() -> None:
    bounds: dict[str, set[str]] = {}
    for one in wanted():
        bounds.setdefault(one.name, set()).add(str(one.specifier))
    assert {name: kinds for name, kinds in bounds.items() if name != "segrefiner" and len(kinds) > 1} == {}


def test_readme_and_ci_run_the_same_test_command() -> None:
    command = 'pip install -c constraints.txt -e ".[dev]" && pytest'
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert command in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_version_is_in_one_place(metadata: email.message.EmailMessage) -> None:
    assert "version" not in PROJECT
    assert metadata["Version"] == segrefiner.__version__


def test_the_metadata_says_who_where_and_for_what(metadata: email.message.EmailMessage) -> None:
    assert metadata["Author"] == "The segrefiner authors"
    assert metadata["License-Expression"] == "Apache-2.0"
    addresses = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Repository", "Issues", "Changelog"} <= set(addresses)
    assert all(address.startswith("https://") for address in addresses.values())
    classifiers = metadata.get_all("Classifier", [])
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert {f"Operating System :: {system}" for system in SYSTEMS} <= set(classifiers)


def test_the_repository_s_address_is_written_where_a_release_checks_it() -> None:
    """It is claimed with the first release; wherever else it stood it would be forgotten then."""
    repository = PROJECT["urls"]["Repository"].removeprefix("https://")
    site = PROJECT["urls"]["Documentation"].removeprefix("https://")
    told = {"pyproject.toml", "CITATION.cff", "CONTRIBUTING.md"}
    ends = {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".ipynb", ".html", ".js", ".css", ""}
    folders = ("src", "tests", "docs", "benchmarks", "examples", "integrations", ".github", ".ci")
    files = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    for path in files:
        if path.is_file() and path.suffix in ends and path.name not in told:
            content = path.read_text(encoding="utf-8", errors="replace")
            assert repository not in content and site not in content, path
    release = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert "$GITHUB_REPOSITORY" in release and "pyproject.toml" in release


def test_no_link_of_the_readme_breaks_on_an_index(metadata: email.message.EmailMessage) -> None:
    text = metadata.get_content()
    repository = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))["Repository"]
    raw = repository.replace("github.com", "raw.githubusercontent.com") + "/main/"
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)
    assert links
    for picture, address in links:
        assert address.startswith(("https://", "http://127.0.0.1", "#")), address
        if picture:
            assert address.startswith(raw), address
        for start in (raw, f"{repository}/blob/main/"):
            if address.startswith(start):
                assert (ROOT / address.removeprefix(start).partition("#")[0]).exists(), address
    assert not re.search(r"<img|href=", text), "HTML is not rewritten"


def test_the_pictures_of_the_readme_are_small() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures and all((ROOT / one).stat().st_size <= 300_000 for one in pictures)


def test_the_wheel_is_small_and_holds_what_it_needs(wheel: Path) -> None:
    assert wheel.stat().st_size <= 20e6
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"segrefiner/py.typed", "segrefiner/model/bundled/compact.safetensors"} <= names
    assert not [name for name in names if not name.startswith(("segrefiner/", "segrefiner-"))]


CONSUMER = """
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from segrefiner import Client, InputError, Options, Refiner, Report, Result, refine_labels

refiner = Refiner.from_pretrained()
result = refiner(Path("photo.jpg"), np.zeros((2, 2), dtype=bool), seed=0, max_shift=10)
assert_type(result, Result)
assert_type(result.report, Report)
mask: NDArray[np.bool_] = result.mask
results: list[Result] = list(refiner.instances("photo.jpg", [mask, mask], separate=True))
labels = refine_labels(refiner, "photo.jpg", np.zeros((2, 2), dtype=np.uint8), ignore=[255]).labels
options = Options(strength=0.5)
client = Client("http://127.0.0.1:8000")


def safely(photo: str) -> NDArray[np.float32] | None:
    try:
        return refiner(photo, mask).probability
    except InputError:
        return None
"""


@pytest.mark.slow
def test_a_consumer_s_code_passes_mypy_strict(wheel: Path, tmp_path: Path) -> None:
    """The types of the built wheel, not those of this folder, are what a consumer gets."""
    pytest.importorskip("mypy")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(
        subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[-1])"], text=True).strip()
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (tmp_path / "consumer.py").write_text(CONSUMER, encoding="utf-8")
    (tmp_path / "mistaken.py").write_text(
        'from segrefiner import Refiner\nRefiner.from_pretrained()("photo.jpg", "mask.png", seed="no")\n',
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        python,
        "--cache-dir",
        tmp_path / "cache",
    ]
    checked = subprocess.run([*command, "consumer.py"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    mistaken = subprocess.run([*command, "mistaken.py"], cwd=tmp_path, capture_output=True, text=True)
    assert mistaken.returncode == 1 and '"seed"' in mistaken.stdout, mistaken.stdout
