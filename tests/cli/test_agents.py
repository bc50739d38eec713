"""The command `mcp`: a process that the library's client starts, and what it refuses to start with."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helpers.serving import MASK, PHOTO, encoded
from segrefiner.cli.main import main

anyio = pytest.importorskip("anyio")
mcp = pytest.importorskip("mcp")


@pytest.mark.slow
def test_a_client_starts_the_command_and_gets_a_mask(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(PHOTO))
    (tmp_path / "mask.png").write_bytes(encoded(MASK))
    command = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "segrefiner", "mcp", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )

    async def asked() -> Any:
        async with mcp.Client(command, read_timeout_seconds=120) as client:
            return await client.call_tool("refine_mask", {"image": "a.png", "mask": "mask.png", "output": "new.png"})

    answer = anyio.run(asked)
    assert not answer.is_error, answer.content
    assert (tmp_path / "new.png").exists() and answer.structured_content["report"]["model"] == "compact"


@pytest.mark.parametrize("folder", ["absent", "a.png"])
def test_what_is_no_folder_is_told(folder: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(PHOTO))
    result = CliRunner().invoke(main, ["mcp", str(tmp_path / folder)])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "is no folder" in result.stderr


def test_it_needs_a_folder() -> None:
    assert CliRunner().invoke(main, ["mcp"]).exit_code == 2
