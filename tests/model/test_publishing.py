"""Weights saved and pushed: the same numbers, the same size, and nothing but weights and their card."""

import base64
import http.server
import json
import os
import shutil
import threading
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from huggingface_hub import errors as hub_errors
from safetensors.torch import load_file

from helpers.stand_ins.hub import Hub
from helpers.tiny import TINY
from segrefiner import Refiner
from segrefiner.cli.model import push
from segrefiner.errors import CheckpointError, InputError, OutputError
from segrefiner.model import publishing, weights
from segrefiner.model.model_card import model_card
from segrefiner.model.unet import DenoisingUNet

RECIPE = {"samples": 32000, "text": "```\n# not a heading", "coarse": {"perfect": 0.1}}


def network(seed: int = 0) -> DenoisingUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DenoisingUNet(TINY)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Weights in float16 as a run leaves them, with a recipe, beside what is nobody else's business."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "model.safetensors"
    notes = {"recipe": json.dumps(RECIPE), "steps": "1", "trained_steps": "1000", "note": "a | <b>"}
    weights.save(network(), path, metadata=notes)
    for name in ("checkpoint.pt", "photos.pack", "log.jsonl"):
        (folder / name).write_bytes(b"secret")
    rows = [{"step": step, "pipeline": name, "photos": 9, "iou_before": 0.5, "iou_after": 0.5 + step / 1e4,
             "harmed": 0.125} for step in (500, 1000, 1500) for name in ("default", "published")]  # fmt: skip
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_what_was_loaded_is_saved_as_it_was(stored: Path, tmp_path: Path, dtype: str) -> None:
    target = Refiner.from_pretrained(stored, device="cpu", dtype=dtype).save_pretrained(tmp_path / "new" / "folder")
    assert target == tmp_path / "new" / "folder" / "model.safetensors"
    assert target.read_bytes() == stored.read_bytes()
    again = Refiner.from_pretrained(tmp_path / "new" / "folder", device="cpu", dtype=dtype)
    assert again.steps == 1 and again.save_pretrained(target.parent) == target
    assert weights.metadata(target)["note"] == "a | <b>"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_networks_of_ones_own_keep_every_number_and_no_byte_more(tmp_path: Path, dtype: torch.dtype) -> None:
    mine = network()
    for parameter in mine.parameters():
        parameter.data = parameter.data.to(dtype).float()
    if dtype == torch.bfloat16:  # Random numbers of its few digits would all fit into float16.
        next(mine.parameters()).data[0] = 2.0**-60
    path = Refiner(mine, steps=2).save_pretrained(tmp_path)
    loaded = weights.load(path)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), loaded.parameters(), strict=True))
    assert {tensor.dtype for tensor in load_file(path).values()} == {dtype}
    assert Refiner.from_pretrained(path, device="cpu").steps == 2


def test_a_network_that_computes_in_half_saves_what_it_computes_with(tmp_path: Path) -> None:
    refiner = Refiner(network(), dtype=torch.bfloat16)
    stored = load_file(refiner.save_pretrained(tmp_path))
    assert {tensor.dtype.itemsize for tensor in stored.values()} == {2}
    inside = refiner.backend.network.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(stored[name].float(), tensor.float()) for name, tensor in inside.items())


def test_a_file_that_was_exchanged_after_loading_is_not_saved(stored: Path, tmp_path: Path) -> None:
    refiner = Refiner.from_pretrained(stored, device="cpu")
    weights.save(network(seed=1), stored)
    with pytest.raises(CheckpointError, match="not the one any more"):
        refiner.save_pretrained(tmp_path / "new")
    stored.unlink()
    with pytest.raises(CheckpointError, match="not the one any more"):
        refiner.save_pretrained(tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        refiner.save_pretrained(tmp_path / "file")


def test_a_network_that_is_broken_or_exported_is_not_saved(tmp_path: Path) -> None:
    broken = network()
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="NaN"):
        Refiner(broken).save_pretrained(tmp_path)
    other: Any = SimpleNamespace(config=TINY, device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(InputError, match="ONNX"):
        Refiner(other).save_pretrained(tmp_path)


# Cards


def test_a_card_says_what_the_file_says(stored: Path) -> None:
    rows = [{"step": 1000.0, "pipeline": "a|b", "photos": 9, "iou_before": 0.5, "iou_after": None, "harmed": 0.125}]
    text = model_card(stored, "me/my-model", license="apache-2.0", validation=rows)
    card = ModelCard(text)
    assert card.data.to_dict() == {"license": "apache-2.0", "library_name": "segrefiner",
        "pipeline_tag": "image-segmentation", "tags": ["segmentation", "mask-refinement", "diffusion"]}  # fmt: skip
    assert f"me/my-model#sha256={weights.checksum(stored)}" in text and "best with one diffusion step" in text
    assert r"a \| \<b>" in text and r"a\|b" in text and "0.1250" in text and "of step 1000" in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert all(row in cells for row in (["samples", "32000"], ["coarse.perfect", "0.1"], ["norm_groups", "4"]))
    assert "\n# not a heading" not in text
    assert "# my-model" in text and "Limits" in text and text.endswith("`apache-2.0`\n")
    assert text == model_card(stored, "me/my-model", license="apache-2.0", validation=rows)


def test_a_card_does_not_say_what_it_does_not_know(tmp_path: Path) -> None:
    weights.save(network(), tmp_path / "a.safetensors", metadata={"recipe": "[" * 9999})
    text = model_card(tmp_path / "a.safetensors", "me/x")
    assert "license" not in ModelCard(text).data.to_dict()
    assert "None was named" in text and "None came with the weights" in text and "6 diffusion steps" in text


@pytest.mark.parametrize(
    ("repository", "license"), [("me", None), ("me/a b", None), ("me/a\nb: c", None), ("me/x", "a\nb"), ("me/x", "")]
)
def test_cards_cannot_be_written_into(stored: Path, repository: str, license: str | None) -> None:
    with pytest.raises(InputError, match="expected"):
        model_card(stored, repository, license=license)


# Pushes


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    return fake


def test_a_refiner_is_pushed_with_its_card(stored: Path, hub: Hub) -> None:
    refiner = Refiner.from_pretrained(stored, device="cpu")
    address = refiner.push_to_hub(
        "me/x", private=True, token="hf_1", revision="v2", commit_message="New", license="mit"
    )
    assert address == "https://huggingface.co/me/x/commit/1234"
    assert hub.calls == [("api", "hf_1"), ("create", "me/x", True), ("branch", "v2"), ("upload", "me/x", "v2", "New")]
    assert hub.files.keys() == {"model.safetensors", "README.md"}
    assert hub.files["model.safetensors"] == stored.read_bytes()
    assert ModelCard(hub.files["README.md"].decode()).data.license == "mit"


def test_a_pull_request_is_no_branch_to_be_made(stored: Path, hub: Hub) -> None:
    publishing.push(stored, "me/x", revision="refs/pr/1")
    assert ("branch", "refs/pr/1") not in hub.calls and hub.calls[-1][2] == "refs/pr/1"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_run_is_pushed_from_the_command_line(stored: Path, hub: Hub, what: str) -> None:
    source = stored.parent if what == "folder" else stored
    done = CliRunner().invoke(push, [str(source), "me/x", "--private", "--license", "apache-2.0"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "https://huggingface.co/me/x/commit/1234\n" and done.stderr == ""
    # Neither checkpoint nor photos nor log.
    assert hub.files.keys() == {"model.safetensors", "README.md"}
    card = hub.files["README.md"].decode()
    # The figures of the step that the weights are of, and not of later ones.
    assert "1000 | default" in card and "1000 | published" in card and "1500" not in card and "500 |" not in card
    assert ("create", "me/x", True) in hub.calls


def test_a_card_of_ones_own_is_taken(stored: Path, hub: Hub) -> None:
    (stored.parent / "README.md").write_text("mine")
    done = CliRunner().invoke(push, [str(stored.parent), "me/x"])
    assert done.exit_code == 0 and hub.files["README.md"] == b"mine" and done.stderr == ""
    (stored.parent / "README.md").unlink()
    done = CliRunner().invoke(push, [str(stored.parent), "me/x"])
    assert done.exit_code == 0 and done.stderr.startswith("segrefiner: note: no licence was named")


def test_nothing_unverified_is_pushed(stored: Path, hub: Hub) -> None:
    shutil.copy(stored, stored.with_name("short.safetensors"))
    with stored.with_name("short.safetensors").open("rb+") as stream:
        stream.truncate(1000)
    for name in ("short.safetensors", "none.safetensors", "checkpoint.pt"):
        done = CliRunner().invoke(push, [str(stored.with_name(name)), "me/x"])
        assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert CliRunner().invoke(push, [str(stored), "no id at all"]).exit_code == 1
    assert hub.calls == []


RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=403)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_errors.HfHubHTTPError("403\nForbidden", response=RESPONSE), "may not be written by this token (HTTP 403)"),
        (hub_errors.RepositoryNotFoundError("404", response=RESPONSE), "is not yours"),
        (hub_errors.LocalTokenNotFoundError("no"), "hf auth login"),
        (hub_errors.HFValidationError("no"), "expected owner/name"),
        (hub_errors.OfflineModeIsEnabled("no"), "HF_HUB_OFFLINE"),
        (ConnectionError("Network is unreachable\n"), "could not be written (Network is unreachable)"),
    ],
)
def test_a_failed_push_says_why_in_one_line(stored: Path, hub: Hub, error: Exception, words: str) -> None:
    hub.error = error
    with pytest.raises(OutputError) as caught:
        publishing.push(stored, "me/x")
    message = str(caught.value)
    assert words in message and "'me/x'" in message and "\n" not in message


class LoopbackHub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as one push needs; small files travel inside the commit."""

    commit: bytes = b""
    created: dict[str, Any] = MappingProxyType({})  # type: ignore[assignment]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers["Authorization"] != "Bearer hf_test":
            return self.answer(401, {})
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            type(self).created = json.loads(body)
            answer = {"url": f"http://{self.headers['Host']}/me/x", "id": "me/x"}
        elif self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            answer = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in files]}
        elif self.path.endswith("/commit/main"):
            type(self).commit = body
            answer = {"commitUrl": f"http://{self.headers['Host']}/me/x/commit/1234", "commitOid": "1234"}
        self.answer(200, answer)

    def do_GET(self) -> None:
        # Older versions of the library look at the repository first.
        self.answer(200 if self.headers["Authorization"] == "Bearer hf_test" else 401, {"id": "me/x"})

    def answer(self, status: int, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def test_the_real_hub_library_takes_a_push(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), LoopbackHub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub, "HfApi", partial(huggingface_hub.HfApi, endpoint=endpoint))
        # Up to 1.5 the library reads the commit's address as one of the endpoint that it was imported with.
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        try:
            address = publishing.push(stored, "me/x", private=True, token="hf_test")
            with pytest.raises(OutputError, match="hf auth login"):
                publishing.push(stored, "me/x", token="hf_other")
        finally:
            server.shutdown()
            thread.join()
    assert address == f"{endpoint}/me/x/commit/1234"
    assert "private" in LoopbackHub.created or "private" in LoopbackHub.created.values()
    entries = [json.loads(line) for line in LoopbackHub.commit.splitlines()]
    files = {e["value"]["path"]: base64.b64decode(e["value"]["content"]) for e in entries if e["key"] == "file"}
    assert files.keys() == {"model.safetensors", "README.md"}
    assert files["model.safetensors"] == stored.read_bytes()
