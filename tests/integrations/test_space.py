"""What the Space's files promise, as far as it can be told without building it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from segrefiner.cli.main import main

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "integrations" / "space"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="not in the source archive")
yaml = pytest.importorskip("yaml")
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def front_matter() -> dict[str, Any]:
    _, head, text = (FOLDER / "README.md").read_text().split("---\n", 2)
    assert text.strip()
    return dict(yaml.safe_load(head))


def instructions() -> list[tuple[str, str]]:
    """Name and arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [(name, arguments) for name, _, arguments in (line.partition(" ") for line in text.splitlines() if line)]


def command() -> list[str]:
    found: list[str] = json.loads(dict(instructions())["CMD"])
    return found


def test_the_front_matter_has_what_a_docker_space_needs() -> None:
    told = front_matter()
    assert told["sdk"] == "docker" and told["license"] == "apache-2.0" and told["title"] and told["emoji"]
    assert {told["colorFrom"], told["colorTo"]} <= COLOURS and len(told["short_description"]) <= 60
    assert isinstance(told["app_port"], int) and "app_file" not in told


def test_the_port_is_one_everywhere() -> None:
    port = str(front_matter()["app_port"])
    assert dict(instructions())["EXPOSE"] == port and command()[command().index("--port") + 1] == port


def test_the_command_is_one_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        pytest.importorskip(package)
    from segrefiner.serving import run as serving

    given: dict[str, Any] = {}
    monkeypatch.setattr(serving, "serve", lambda refiners, **more: given.update(more))
    assert command()[:2] == ["segrefiner", "serve"]
    result = CliRunner().invoke(main, [*command()[1:], "--no-page"])  # the page leaves an event loop open
    assert result.exit_code == 0, result.output
    assert given["host"] == "0.0.0.0" and given["insecure"] and given["limits"].pixels == 25_000_000


def test_it_runs_without_rights_and_pytorch_is_the_one_without_cuda() -> None:
    names = [name for name, _ in instructions()]
    user = dict(instructions())["USER"]
    assert user == "1000:1000" and names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    (wanted,) = re.findall(r'"(torch[^"]+)"', (ROOT / "pyproject.toml").read_text())
    text = (FOLDER / "Dockerfile").read_text()
    assert f'"{wanted}" --index-url https://download.pytorch.org/whl/cpu' in text
    assert text.index("whl/cpu") < text.index('pip install ".[app]"')


def test_what_is_copied_is_there() -> None:
    copied = [path for name, told in instructions() if name == "COPY" for path in told.split()[:-1]]
    assert copied and all((ROOT / path).exists() for path in copied)
