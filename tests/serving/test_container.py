"""What Dockerfile and compose.yaml promise, as far as it can be told without a container engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from segrefiner.cli.main import main

ROOT = Path(__file__).parents[2]
DOCKERFILE, COMPOSE = ROOT / "Dockerfile", ROOT / "compose.yaml"

pytestmark = pytest.mark.skipif(not DOCKERFILE.exists(), reason="not in the source archive")


def instructions() -> list[tuple[str, str]]:
    """Of the last stage: name and arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    lines = [line.partition(" ") for line in text.splitlines() if line]
    last = max(i for i, (name, _, _) in enumerate(lines) if name == "FROM")
    return [(name, arguments) for name, _, arguments in lines[last:]]


def service() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    (one,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    return dict(one)


def test_the_image_runs_as_nobody_in_particular_and_is_checked() -> None:
    told = dict(instructions())
    user, group = told["USER"].split(":")
    assert int(user) > 0 and int(group) > 0
    assert "/readyz" in told["HEALTHCHECK"] and json.loads(told["HEALTHCHECK"].partition("CMD ")[2])
    assert "RUN" not in told and "ADD" not in told  # what is built stays behind


def test_pytorch_is_the_one_without_cuda() -> None:
    text = DOCKERFILE.read_text()
    assert "download.pytorch.org/whl/cpu" in text and text.index("whl/cpu") < text.index('pip install ".[app]"')
    (wanted,) = re.findall(r'"(torch[^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert f'"{wanted}"' in text


def test_the_command_is_one_that_there_is_and_wants_a_key() -> None:
    told = dict(instructions())
    command = json.loads(told["ENTRYPOINT"]) + json.loads(told["CMD"])
    assert command[0] == "segrefiner" and "--api-key-file" in command and "--insecure" not in command
    result = CliRunner().invoke(main, command[1:])  # there is no such file here
    assert result.exit_code == 1 and "the key file" in result.stderr


def test_nothing_is_copied_but_the_package() -> None:
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"


def test_the_service_has_no_rights_that_it_does_not_need() -> None:
    one = service()
    assert one["read_only"] is True and one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"] and not one["user"].startswith("0")
    assert all(port.startswith("127.0.0.1:") for port in one["ports"])
    assert "privileged" not in one and "volumes" not in one and "environment" not in one
    assert one["mem_limit"] and one["pids_limit"] and any(place.startswith("/tmp") for place in one["tmpfs"])
