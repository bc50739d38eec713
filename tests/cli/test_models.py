"""The models on this machine, through the real download from a server on this machine."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from helpers.tiny import TINY
from model.test_downloads import Server, published, server
from segrefiner.cli.main import main
from segrefiner.errors import CheckpointError
from segrefiner.model import inventory
from segrefiner.model.unet import DenoisingUNet
from segrefiner.model.weights import save

__all__ = ["published", "server"]
URL = "https://example.com/a.safetensors?token=secret"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, arguments)])


def test_a_model_is_fetched_listed_found_and_verified(server: Server, published: str) -> None:
    assert "not in the cache" in run("path", URL).stderr
    fetched = run("fetch", f"{URL}#sha256={published}")
    assert fetched.exit_code == 0 and "names no licence" in fetched.stderr
    path = Path(fetched.stdout.strip())
    assert path.is_file() and len(server.asked) == 1
    assert run("path", f"{URL}#sha256={published}").stdout.strip() == str(path)
    document = json.loads(run("list", "--json").stdout)
    bundled, other = document["models"]
    assert bundled["name"] == "compact" and bundled["license"] == "apache-2.0"
    assert other["path"] == str(path) and other["sha256"] == published and other["license"] is None
    assert other["size"] == path.stat().st_size and "secret" not in json.dumps(document)
    assert "no licence named" in run("list").stdout
    assert run("verify").exit_code == 0


def test_what_was_exchanged_after_its_download_is_told(server: Server, published: str) -> None:
    path = Path(run("fetch", URL).stdout.strip())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        save(DenoisingUNet(TINY), path)
    result = run("verify", "--json")
    assert result.exit_code == 3
    good, bad = json.loads(result.stdout)["models"]
    assert good["ok"] and not bad["ok"] and "expected" in bad["reason"]
    path.write_bytes(b"nonsense")
    listed = run("list")
    assert listed.exit_code == 0 and "left out" in listed.stderr
    assert run("verify", path).exit_code == 3 and run("verify", "compact").exit_code == 0


def test_a_wrong_checksum_or_address_is_one_line(server: Server, published: str) -> None:
    for name in (f"{URL}#sha256={'1' * 64}", "nobody", "http://example.com/a.safetensors"):
        result = run("fetch", name)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1 and not result.stdout


def test_a_file_without_a_checksum_to_compare_is_not_called_whole(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save(DenoisingUNet(TINY), path)
    told = run("verify", path)
    assert told.exit_code == 0 and "no checksum to be compared with" in told.stdout and "whole" not in told.stdout
    sha = json.loads(run("verify", path, "--json").stdout)["models"][0]["sha256"]
    assert "whole" in run("verify", f"{path}#sha256={sha}").stdout and "whole" in run("verify", "compact").stdout


@pytest.mark.parametrize("name", ["compact.safetensors", "acceptance.safetensors", "label_acceptance.safetensors"])
def test_a_bundled_file_that_was_exchanged_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = inventory.resolve(None).parent
    folder = tmp_path / "bundled"
    shutil.copytree(bundled, folder)
    monkeypatch.setattr(inventory, "resolve", lambda _: folder / "compact.safetensors")
    assert inventory.verify_model(folder / "compact.safetensors", "compact").sha256
    shutil.copy(bundled / ("label_" * (name == "acceptance.safetensors") + "acceptance.safetensors"), folder / name)
    with pytest.raises(CheckpointError):
        inventory.verify_model(folder / "compact.safetensors", "compact")


def test_a_licence_stands_in_the_file_or_on_its_card(tmp_path: Path) -> None:
    from segrefiner.model.inventory import inspect_model

    network = DenoisingUNet(TINY)
    save(network, tmp_path / "own.safetensors", metadata={"license": "mit"})
    save(network, tmp_path / "model.safetensors")
    assert inspect_model(tmp_path / "own.safetensors", "own").license == "mit"
    assert inspect_model(tmp_path / "model.safetensors", "model").license is None
    (tmp_path / "README.md").write_text("---\ntags: [a]\nlicense: cc-by-4.0\n---\n# A model\n")
    assert inspect_model(tmp_path / "model.safetensors", "model").license == "cc-by-4.0"


def test_a_card_is_printed_and_its_lack_told(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    save(DenoisingUNet(TINY), folder / "model.safetensors")
    missing = run("card", folder)
    assert missing.exit_code == 1 and "has no card" in missing.stderr and missing.stderr.count("\n") == 1
    (folder / "README.md").write_text("# Mine\n\nOf my photos.\n\x1b[31m", encoding="utf-8")
    printed = run("card", folder)
    assert printed.exit_code == 0 and printed.stdout.startswith("# Mine\n\nOf my photos.\n")
    assert "\x1b" not in printed.stdout


def test_the_hub_s_cache_is_listed_without_models_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGREFINER_CACHE", str(tmp_path))
    for owner, content in (("ours", None), ("theirs", b"no weights of this kind")):
        folder = tmp_path / "hub" / f"models--{owner}--name" / "snapshots" / "abc"
        folder.mkdir(parents=True)
        if content is None:
            save(DenoisingUNet(TINY), folder / "model.safetensors")
        else:
            (folder / "model.safetensors").write_bytes(content)
    names = [model["name"] for model in json.loads(run("list", "--json").stdout)["models"]]
    assert names == ["compact", "ours/name@abc"]
