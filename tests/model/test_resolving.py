"""What the name of weights means: files, folders, the bundled model, and repositories of the Hub."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from helpers.stored import TINY, make_network, refusal
from segrefiner.errors import CheckpointError
from segrefiner.model import weights


def test_files_and_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    weights.save(make_network(), path)
    monkeypatch.chdir(tmp_path.parent)
    for given_name in (
        path,
        str(path),
        tmp_path,
        str(tmp_path),
        Path(tmp_path.name),
        f"{tmp_path.name}/{path.name}",
    ):
        assert weights.resolve(given_name).samefile(path)
    assert "no revision 'v1'" in refusal(lambda: weights.resolve(path, revision="v1"))


def test_the_bundled_weights_are_found_by_none_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / package)
    assert "missing from this installation" in refusal(lambda: weights.resolve(None))
    bundled = tmp_path / "segrefiner" / "model" / "bundled" / "compact.safetensors"
    bundled.parent.mkdir(parents=True)
    weights.save(make_network(), bundled)
    assert weights.resolve(None) == weights.resolve(weights.BUNDLED) == bundled
    assert "no weights named 'compact'" in refusal(lambda: weights.resolve(Path("compact")))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lr", "segrefiner convert"),
        ("hr", "'compact'"),
        ("", "is a folder without model.safetensors"),
        ("no/such/folder", "no weights named"),
        ("../a/b", "no weights named"),
        ("owner/na me", "no weights named"),
        ("owner/name@", "no weights named"),
        ("a\nb", r"'a\nb'"),
        ("a\0b", "no weights named"),
        ("x" * 5000, "no weights named"),
        (Path("owner/name"), "no weights named"),
        ("gone.safetensors", "does not exist"),
        ("segrefiner_hr.pth", "segrefiner convert"),
        ("owner/pytorch_model.bin", "segrefiner convert"),
        ("a.CKPT", "segrefiner convert"),
        ("here.txt", "does not end in .safetensors"),
        ("empty", "without model.safetensors"),
    ],
)
def test_names_that_mean_nothing_say_what_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.txt").touch()
    Path("empty").mkdir()
    with pytest.raises(CheckpointError) as caught:
        weights.resolve(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def download(repository: str, name: str, *, revision: str, cache_dir: Path, local_files_only: bool) -> str:
        calls.append((repository, name, revision, cache_dir, local_files_only))
        return str(tmp_path / "x")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert weights.resolve("owner/name") == tmp_path / "x"
    weights.resolve("owner/name@refs/pr/1", cache_dir=str(tmp_path), local_files_only=True)
    weights.resolve("owner/name@v1", revision="v1")
    usual = Path(huggingface_hub.constants.HF_HUB_CACHE)
    assert calls == [
        ("owner/name", "model.safetensors", None, usual, False),
        ("owner/name", "model.safetensors", "refs/pr/1", tmp_path, True),
        ("owner/name", "model.safetensors", "v1", usual, False),
    ]
    assert "differ" in refusal(lambda: weights.resolve("owner/name@v1", revision="v2"))


RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_errors.GatedRepoError("403\n\nno", response=RESPONSE), "are gated"),
        (hub_errors.RepositoryNotFoundError("404", response=RESPONSE), "do not exist or are private"),
        (hub_errors.RevisionNotFoundError("404", response=RESPONSE), "no revision 'v1'"),
        (hub_errors.EntryNotFoundError("404"), "no file model.safetensors"),
        (hub_errors.LocalEntryNotFoundError("no"), "not in the cache"),
        (hub_errors.OfflineModeIsEnabled("no"), "offline mode"),
        (hub_errors.HfHubHTTPError("500\nServer Error", response=RESPONSE), "500 Server Error"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_a_failed_download_says_why(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    message = refusal(lambda: weights.resolve("owner/name@v1"))
    assert message.startswith("weights 'owner/name' on the Hugging Face Hub ")
    assert words in message


def test_the_library_s_tries_are_told_by_this_package_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("no name\nRetrying in 1s")
        raise hub_errors.LocalEntryNotFoundError("no")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    library = logging.getLogger("huggingface_hub").handlers[:]
    with caplog.at_level("INFO", "segrefiner"):
        refusal(lambda: weights.resolve("owner/name"))
    assert capfd.readouterr().err == ""
    assert "no name Retrying in 1s" in [r.getMessage() for r in caplog.records if r.name.startswith("segrefiner")]
    assert logging.getLogger("huggingface_hub").handlers == library


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as one download needs; `content` is the only file of the only repository."""

    content = b""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()
        self.wfile.write(self.content if self.path.startswith("/owner/name/resolve/main/") else b"")

    def answer(self) -> None:
        if self.path.startswith("/owner/name/resolve/main/"):
            headers = {"ETag": '"1234"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(self.content))}
            self.send_response(200)
        else:
            code = "GatedRepo" if "gated" in self.path else "RepoNotFound"
            headers = {"X-Error-Code": code, "Content-Length": "0"}
            self.send_response(403 if "gated" in self.path else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    weights.save(make_network(), tmp_path / "model.safetensors")
    monkeypatch.setattr(Hub, "content", (tmp_path / "model.safetensors").read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


CLIENT = """
import sys
from segrefiner.model import weights
for name in sys.argv[2:]:
    try:
        print(weights.resolve(name, cache_dir=sys.argv[1]))
    except weights.CheckpointError as error:
        print(error)
"""


@pytest.mark.slow
def test_the_real_hub_library_is_understood(hub: str, tmp_path: Path) -> None:
    # Another process, because the library reads its address once, when it is imported.
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(weights.__file__).parents[2]),
    }
    command = [
        sys.executable,
        "-c",
        CLIENT,
        str(tmp_path / "cache"),
        "owner/name",
        "owner/gated",
        "owner/gone",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    found, gated, gone = done.stdout.splitlines()
    assert weights.load(found).config == TINY
    assert "are gated" in gated
    assert "do not exist" in gone
