"""The command `serve`: whom it lets in, what it calls its models, and that it ends as it should."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from helpers.serving import MASK, PHOTO
from helpers.tiny import TINY
from segrefiner.cli.main import main
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save
from segrefiner.serving.client import Client

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)

KEY = "0123456789abcdef"


def run(*arguments: object) -> Result:
    # Gradio leaves an event loop open where a page is made and the server does not start.
    return CliRunner().invoke(main, ["serve", "--no-page", *map(str, arguments)])


def key_file(folder: Path, content: bytes = KEY.encode() + b"\n") -> Path:
    path = folder / "key"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_other_addresses_need_a_key_or_to_be_asked_for(host: str) -> None:
    result = run("--host", host, "--port", 0)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert host in result.stderr and "--api-key-file" in result.stderr and "--insecure" in result.stderr


@pytest.mark.parametrize("allowed", ["key", "insecure"])
def test_with_a_key_or_when_asked_for_other_addresses_are_tried(allowed: str, tmp_path: Path) -> None:
    options = ["--insecure"] if allowed == "insecure" else ["--api-key-file", key_file(tmp_path)]
    result = run("--host", "192.0.2.1", "--port", 0, *options)  # an address that no machine has
    assert result.exit_code == 1 and "nothing can listen at 192.0.2.1" in result.stderr


@pytest.mark.parametrize("content", [b"", b"short", b"0123456789 abcdef", b"0123456789abcdef\nmore", b"\xff" * 20])
def test_keys_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    result = run("--api-key-file", key_file(tmp_path, content), "--port", 0)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "key file" in result.stderr
    assert content.decode("latin-1") not in result.stderr or not content


def test_an_absent_key_file_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in run("--api-key-file", tmp_path / "absent").stderr


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_a_missing_package_is_told(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run("--port", 0)
    assert result.exit_code == 1 and 'pip install "segrefiner[serve]"' in result.stderr


def test_models_have_names_of_their_own() -> None:
    for models in (("a=compact", "a=compact"), ("=compact",), ("compact", "compact")):
        options = [part for model in models for part in ("--model", model)]
        assert run(*options).exit_code == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_it_serves_until_interrupted_and_tells_no_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(DenoisingUNet(TINY), tmp_path / "mine.safetensors")
    arguments = ["serve", "--port", "0", "--model", str(tmp_path / "mine.safetensors"), "--model", "b=compact"]
    arguments += ["--api-key-file", str(key_file(tmp_path)), "--no-page"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from segrefiner.cli.main import main; main()", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    client = Client(line.split(": ")[0], KEY, timeout=30)
    assert client.models() == ["mine", "b"] and "mine, b" in line and KEY not in line
    assert client.refine(PHOTO, MASK).report["model"] == "mine"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "" and process.returncode == 0


TOKEN = "f00" * 13


@pytest.mark.parametrize("url", ["labels.example", "file:///etc", "http://me:secret@labels.example"])
def test_what_is_no_label_studio_server_is_told(url: str) -> None:
    result = run("--label-studio", url)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "http://localhost:8080" in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize("content", [None, b"a b", b"\xff" * 9, b""])
def test_a_token_that_is_none_is_told_and_not_shown(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    result = run("--label-studio", "http://labels.example", "--label-studio-token-file", tmp_path / "token")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "token" in result.stderr
    assert "a b" not in result.stderr


@pytest.mark.parametrize("way", ["variable", "file", "none"])
def test_the_token_comes_from_a_variable_or_a_file_and_is_never_said(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segrefiner.serving import run as serving

    given: dict[str, Any] = {}

    def serve(refiners: Any, on_ready: Any, **more: Any) -> None:
        given.update(more)
        on_ready("http://127.0.0.1:8000")

    monkeypatch.setattr(serving, "serve", serve)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    (tmp_path / "token").write_text(TOKEN + "\n")
    if way == "variable":
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    options = ["--label-studio-token-file", tmp_path / "token"] if way == "file" else []
    result = run("--label-studio", "http://labels.example:8080", "--max-upload-mb", 5, *options)
    host = given["labelstudio"]
    assert result.exit_code == 0 and (host.url, host.most_bytes) == ("http://labels.example:8080", 5_000_000)
    assert host.token == (None if way == "none" else TOKEN)
    assert TOKEN not in result.output and "http://labels.example:8080" in result.stderr
    assert ("without a token" in result.stderr) == (way == "none")
