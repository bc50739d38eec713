"""Weights: what is written comes back, and no broken or hostile file gets through."""

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors
from torch import Tensor

from helpers.stored import PUBLISHED, TINY, make_network, make_state, refusal, run
from segrefiner.errors import CheckpointError, OutputError
from segrefiner.model import conversion, weights, weights_checks
from segrefiner.model.unet import BASE, COMPACT, DenoisingUNet, UNetConfig


# Writing and reading back
@pytest.mark.parametrize("config", [TINY, PUBLISHED, replace(TINY, attention_strides=())])
def test_float32_comes_back_exactly(tmp_path: Path, config: UNetConfig) -> None:
    network = make_network(config)
    weights.save(network, tmp_path / "a.safetensors", dtype=torch.float32)
    loaded = weights.load(tmp_path / "a.safetensors")
    assert loaded.config == config
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    torch.testing.assert_close(run(loaded), run(network), rtol=1e-5, atol=1e-4)


def test_float16_comes_back_within_rounding(tmp_path: Path) -> None:
    network = make_network()
    weights.save(network, tmp_path / "a.safetensors")
    loaded = weights.load(tmp_path / "a.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    exact = run(network)
    torch.testing.assert_close(run(loaded), exact, rtol=0, atol=0.01 * float(exact.abs().max()))


def test_a_loaded_network_is_ready_to_run(tmp_path: Path) -> None:
    weights.save(make_network(), tmp_path / "a.safetensors")
    before = torch.random.get_rng_state()
    network = weights.load(str(tmp_path / "a.safetensors"), device=torch.device("cpu"), dtype=torch.float64)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not network.training
    for parameter in network.parameters():
        assert parameter.dtype == torch.float64
        assert not parameter.requires_grad
        assert parameter.ndim != 4 or parameter.is_contiguous(memory_format=torch.channels_last)


def test_a_loaded_network_does_not_depend_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(make_network(), path, dtype=torch.float32)
    network = weights.load(path)
    before = run(network)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(run(network), before)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    entries = {f"entry {i}": str(i) for i in range(8)}
    network = make_network()
    weights.save(network, tmp_path / "a.safetensors", metadata=entries)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    backwards = dict(reversed(entries.items()))
    weights.save(network, tmp_path / "b.safetensors", metadata=backwards)
    weights.save(weights.load(tmp_path / "a.safetensors"), tmp_path / "c.safetensors", metadata=entries)
    first = (tmp_path / "a.safetensors").read_bytes()
    assert (tmp_path / "b.safetensors").read_bytes() == first
    assert (tmp_path / "c.safetensors").read_bytes() == first
    assert int.from_bytes(first[:8], "little") % 8 == 0
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.safetensors" for name in "abc"}


def test_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(make_network(), path, metadata={"recipe": '{"lr": 1e-3}', "figures": "IoU 0.9 für alle"})
    found = weights.metadata(path)
    assert UNetConfig.from_dict(found.pop("config")) == TINY
    assert found == {"recipe": '{"lr": 1e-3}', "figures": "IoU 0.9 für alle"}


def test_files_of_before_there_were_image_encoders_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(make_network(), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    assert config.pop("image_stages") == 0
    header["__metadata__"]["config"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert weights.load(path).config == TINY


def test_checksum_is_that_of_the_standard_tools(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert weights.checksum(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert "does not exist" in refusal(lambda: weights.checksum(tmp_path / "b"))


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    network = make_network()
    network.get_parameter("out.2.bias").data.fill_(1e6)
    weights.save(network, path, dtype=torch.float32)
    before = path.read_bytes()
    assert "'out.2.bias'" in refusal(lambda: weights.save(network, path))
    assert "out.2.bias" in refusal(lambda: weights.load(path, dtype=torch.float16))
    assert "num_timesteps" in refusal(lambda: weights.save(make_network(replace(TINY, num_timesteps=5000)), path))
    with pytest.raises(ValueError, match="int32"):
        weights.save(make_network(), path, dtype=torch.int32)
    with pytest.raises(ValueError, match="'config'"):
        weights.save(make_network(), path, metadata={"config": "{}"})
    with pytest.raises(OutputError, match="safetensors"):
        weights.save(make_network(), tmp_path / "a.pth")
    assert path.read_bytes() == before


def test_every_field_of_the_config_has_limits_that_the_known_networks_keep() -> None:
    assert list(weights_checks.LIMITS) == [field.name for field in fields(UNetConfig)]
    for config in (BASE, COMPACT, TINY, PUBLISHED):
        weights_checks.check_config(config, Path("a"))


# Published checkpoints
FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "bare": dict,
    "bare, prefix": lambda state: {f"denoise_model.{k}": v for k, v in state.items()},
    "state_dict": lambda state: {"meta": {"iter": 120000}, "state_dict": state, "optimizer": {"lr": 1.0}},
    "state_dict, prefix": lambda state: {"state_dict": {f"denoise_model.{k}": v for k, v in state.items()}},
    "averages beside": lambda state: state | {"ema_time_embed_weight": torch.full((2,), torch.nan)},
    "others beside prefix": lambda state: (
        {f"denoise_model.{k}": v for k, v in state.items()} | {"ema_x": 1, "loss.weight": torch.zeros(2)}
    ),
    "parameters": lambda state: {k: torch.nn.Parameter(v) for k, v in state.items()},
    "channels last": lambda state: {
        k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state.items()
    },
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_checkpoint_converts(tmp_path: Path, form: str, legacy: bool) -> None:
    state, source, target = make_state(), tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save(FORMS[form](state), source, _use_new_zipfile_serialization=not legacy)
    assert conversion.convert(source, target, dtype=torch.float32) == PUBLISHED
    loaded = weights.load(target).state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert weights.metadata(target)["converted_from_sha256"] == weights.checksum(source)


def test_conversion_rounds_to_float16_by_default(tmp_path: Path) -> None:
    state, source, target = make_state(), tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save(state, source)
    conversion.convert(source, target)
    assert target.stat().st_size < 0.6 * source.stat().st_size
    loaded = weights.load(target).state_dict()
    assert all(torch.equal(loaded[name], tensor.half().float()) for name, tensor in state.items())


@pytest.mark.parametrize(
    "config",
    [
        replace(BASE, model_channels=4, norm_groups=4),
        replace(BASE, model_channels=32, channel_mult=(1,), attention_strides=(), num_timesteps=9),
        replace(PUBLISHED, channel_mult=(1, 3), attention_strides=()),
        replace(PUBLISHED, channel_mult=(2,), attention_strides=(1,), num_res_blocks=1, num_up_blocks=2),
    ],
)
def test_the_config_is_read_off_the_shapes(tmp_path: Path, config: UNetConfig) -> None:
    torch.save(make_state(config), tmp_path / "a.pth")
    found = conversion.load_published(tmp_path / "a.pth")[1]
    # Groups leave no trace: the most that divide every width are taken.
    assert replace(found, norm_groups=config.norm_groups) == config


def test_the_published_size_is_recognised() -> None:
    with torch.device("meta"):  # 118 million parameters, none of them in memory
        shapes = DenoisingUNet(BASE).state_dict()
    stored = {name: weights_checks.Stored(tuple(tensor.shape), "F32") for name, tensor in shapes.items()}
    assert conversion._infer_config(stored, Path("a.pth")) == BASE


# Broken and hostile files
class Shell:
    """Unpickled without protection, this would create the file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def raw(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def safetensors(
    changes: Mapping[str, Tensor | None] = MappingProxyType({}),
    *,
    config: object = None,
    text: str | None = None,
    version: str = "1",
) -> bytes:
    """Weights of TINY with some parameters changed, added or, by None, left out, and any metadata."""
    state = {name: value for name, value in (make_state(TINY) | dict(changes)).items() if value is not None}
    text = json.dumps(TINY.to_dict() if config is None else config) if text is None else text
    return to_safetensors(state, {"segrefiner": version, "config": text})


def with_config(**changes: object) -> bytes:
    return safetensors(config=TINY.to_dict() | changes)


def pickled(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def published(changes: Mapping[str, object] = MappingProxyType({})) -> bytes:
    """A checkpoint of PUBLISHED with some parameters changed, added or, by None, left out."""
    state = make_state() | dict(changes)
    return pickled({name: value for name, value in state.items() if value is not None})


def zipped(name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


BROKEN_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "is empty"),
    "text": (lambda: b"these are my weights, I promise", "is damaged"),
    "short": (lambda: b"abc", "is damaged"),
    "huge header": (lambda: (2**62).to_bytes(8, "little") + b"{}", "is damaged"),
    "header not JSON": (lambda: raw(b"{{{{{{{{"), "is damaged"),
    "header not text": (lambda: raw(b"\xff" * 64), "is damaged"),
    "metadata not text": (lambda: raw(b'{"__metadata__":{"config":3}}   '), "is damaged"),
    "beyond the end": (lambda: raw(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "is damaged"),
    "overflow": (
        lambda: raw(b'{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,4]}}', bytes(4)),
        "is damaged",
    ),
    "truncated": (lambda: safetensors()[:-100], "is damaged"),
    "truncated in the header": (lambda: safetensors()[:500], "is damaged"),
    "too long": (lambda: safetensors() + b"\0", "is damaged"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
    "LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
    "renamed pickle": (published, "segrefiner convert"),
    "no metadata": (lambda: to_safetensors(make_state(TINY)), "no segrefiner config"),
    "other layout": (lambda: safetensors(version="2"), "layout '2'"),
    "config not JSON": (lambda: safetensors(text="{'a': 1}"), "not JSON"),
    "config nested deeply": (lambda: safetensors(text="[" * 100_000), "not JSON"),
    "config of many digits": (lambda: safetensors(text='{"num_heads": ' + "9" * 5000 + "}"), "not JSON"),
    "config no object": (lambda: safetensors(config=[1, 2]), "JSON object"),
    "config of unknown fields": (lambda: with_config(**{"red\nblue": 1}), r"unknown: 'red\nblue'"),
    "config without fields": (lambda: safetensors(config={"num_heads": 4}), "missing: 'attention_strides'"),
    "config wide": (lambda: with_config(model_channels=10**9), "model_channels = 1000000000"),
    "config deep": (lambda: with_config(channel_mult=[1] * 10**5), "channel_mult = (1, 1"),
    "config of many blocks": (lambda: with_config(num_res_blocks=10**6), "num_res_blocks = 1000000"),
    "config of terabytes": (lambda: with_config(model_channels=1024, channel_mult=[64] * 8), "unfit"),
    "config negative": (lambda: with_config(num_heads=-1), "num_heads = -1"),
    "config zero": (lambda: with_config(norm_groups=0), "norm_groups = 0"),
    "config of booleans": (lambda: with_config(num_timesteps=True), "num_timesteps = True"),
    "config of floats": (lambda: with_config(model_channels=4.0), "model_channels = 4.0"),
    "config of nothing": (lambda: with_config(model_channels=None), "model_channels = None"),
    "config no list": (lambda: with_config(channel_mult=2), "channel_mult = 2"),
    "config a list": (lambda: with_config(num_heads=[4]), "num_heads = (4,)"),
    "config nested": (lambda: with_config(channel_mult=[[1]]), "channel_mult = ([1],)"),
    "config without levels": (lambda: with_config(channel_mult=[]), "channel_mult is empty"),
    "config of odd groups": (lambda: with_config(norm_groups=3), "norm_groups 3"),
    "config of odd heads": (lambda: with_config(num_heads=3), "num_heads 3"),
    "config of many skips": (lambda: with_config(num_up_blocks=3), "num_up_blocks 3"),
}
BROKEN_CHECKPOINTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "is empty"),
    "text": (lambda: b"these are my weights, I promise", "no PyTorch checkpoint"),
    "web page": (lambda: b"<html>Too many downloads</html>", "web page"),
    "safetensors": (safetensors, "needs no conversion"),
    "truncated": (lambda: published()[:-100], "cut short"),
    "truncated in the middle": (lambda: published()[:5000], "cut short"),
    "other archive": (lambda: zipped("readme.txt", b"hello"), "no PyTorch checkpoint"),
    "archive of many disks": (
        lambda: re.sub(rb"(PK\x06\x07.{12}).", b"\\1\x07", published(), flags=re.DOTALL),
        "no PyTorch checkpoint",
    ),
    "bomb": (lambda: zipped("a/data.pkl", bytes(10**7), zipfile.ZIP_DEFLATED), "would unpack to"),
    "plain pickle": (lambda: pickle.dumps({"a": 1}), "no PyTorch checkpoint"),
    "list": (lambda: pickled([torch.zeros(2)]), "holds a list"),
    "tensor": (lambda: pickled(torch.zeros(2)), "holds a Tensor"),
    "names that are numbers": (lambda: pickled({1: torch.zeros(2)}), "holds a dict"),
    "state_dict that is none": (lambda: pickled({"state_dict": 3}), "holds a int"),
    "nothing": (lambda: pickled({}), "no 'time_embed.weight'"),
    "other network": (lambda: pickled({"conv1.weight": torch.zeros(1)}), "1 entries ('conv1.weight')"),
    "too narrow": (lambda: published({"time_embed.weight": torch.zeros(6, 2)}), "cannot be inferred"),
    "odd widths": (lambda: published({"time_embed.weight": torch.zeros(6, 20)}), "cannot be inferred"),
    "odd heads": (
        lambda: pickled(make_state(replace(PUBLISHED, model_channels=3, norm_groups=3, num_heads=3))),
        "num_heads 4",
    ),
    "long": (lambda: published({"time_embed.weight": torch.zeros(9999, 16)}), "num_timesteps = 9999"),
    "odd levels": (lambda: published({"input_blocks.6.0.x": torch.zeros(1)}), "7 input blocks in 2 levels"),
    "no last block": (lambda: published({"input_blocks.5.0.out_layers.3.weight": None}), "input_blocks.5"),
    "a block missing": (
        lambda: published({name: None for name in make_state() if name.startswith("output_blocks.4.")}),
        "('output_blocks.4.0.emb_layers.1.bias', 'output_blocks.4.0.emb_layers.1.weight', ",
    ),
    "complex": (lambda: published({"out.0.bias": torch.zeros(4) * 1j}), "'out.0.bias' is torch.complex64"),
    "sparse": (lambda: published({"out.0.bias": torch.zeros(4).to_sparse()}), "'out.0.bias' is "),
    "no values": (lambda: published({"out.0.bias": torch.zeros(4, device="meta")}), "on meta"),
    "not a tensor": (lambda: published({"out.0.bias": [0.0] * 4}), "'out.0.bias' is list"),
    "repeated": (
        lambda: pickled({name: torch.zeros(1).expand(t.shape) for name, t in make_state().items()}),
        "claims more values",
    ),
}
BROKEN_PARAMETERS: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "one missing": ({"out.2.bias": None}, "1 missing ('out.2.bias')"),
    "two missing": ({"out.2.bias": None, "out.0.bias": None}, "2 missing ('out.0.bias', 'out.2.bias')"),
    "extra": ({"zebra": torch.zeros(2)}, "1 unknown ('zebra')"),
    "extra of line breaks": ({"a\nb" * 500: torch.zeros(2)}, r"1 unknown ('a\nba\nb"),
    "many extra": ({f"x{i}": torch.zeros(1) for i in range(999)}, "999 unknown ('x0', 'x1', 'x10', ...)"),
    "both": ({"out.0.bias": None, "zebra": torch.zeros(2)}, "1 missing ('out.0.bias'), 1 unknown ('zebra')"),
    "scalar": ({"out.0.bias": torch.tensor(1.0)}, "1 unfit ('out.0.bias' is F32 (), expected floats (4,))"),
    "shape": ({"out.0.bias": torch.zeros(5)}, "1 unfit ('out.0.bias' is F32 (5,), expected floats (4,))"),
    "integers": ({"out.0.bias": torch.zeros(4, dtype=torch.int64)}, "1 unfit ('out.0.bias' is "),
    "eight bits": ({"out.0.bias": torch.zeros(4).to(torch.float8_e5m2)}, "1 unfit ('out.0.bias' is "),
    "NaN": ({"out.0.bias": torch.full((4,), torch.nan)}, "NaN or infinity"),
    "infinity": ({"out.0.bias": torch.tensor([0, 0, 0, -torch.inf])}, "('out.0.bias')"),
    "beyond": ({"out.0.bias": torch.full((4,), 1e300, dtype=torch.float64)}, "('out.0.bias')"),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_weights_are_refused(tmp_path: Path, case: str) -> None:
    make, words = BROKEN_FILES[case]
    path = tmp_path / "a.safetensors"
    path.write_bytes(make())
    message = refusal(lambda: weights.load(path))
    assert message.startswith(f"weights file {str(path)!r} ")
    assert words in message


@pytest.mark.parametrize("case", BROKEN_CHECKPOINTS)
def test_broken_checkpoints_are_refused(tmp_path: Path, case: str) -> None:
    make, words = BROKEN_CHECKPOINTS[case]
    path = tmp_path / "a.pth"
    path.write_bytes(make())
    message = refusal(lambda: conversion.convert(path, tmp_path / "a.safetensors"))
    assert message.startswith(f"weights file {str(path)!r} ")
    assert words in message
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("case", BROKEN_PARAMETERS)
def test_other_parameters_than_the_network_has_are_refused(tmp_path: Path, case: str) -> None:
    changes, words = BROKEN_PARAMETERS[case]
    ours, theirs = tmp_path / "a.safetensors", tmp_path / "a.pth"
    ours.write_bytes(safetensors(changes))
    theirs.write_bytes(published(changes))
    assert words in refusal(lambda: weights.load(ours))
    assert words in refusal(lambda: conversion.convert(theirs, tmp_path / "b.safetensors"))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, legacy: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    torch.save(make_state() | {"meta": Shell(marker)}, path, _use_new_zipfile_serialization=not legacy)
    message = refusal(lambda: conversion.load_published(path))
    assert not marker.exists()
    assert re.search(r"wants to run \w+\.system", message)
    assert "weights_only" not in message  # torch's advice, which would run it
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("read", [weights.load, weights.metadata, conversion.load_published, weights.checksum])
def test_what_is_no_file_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    assert "is a folder" in refusal(lambda: read(tmp_path))
    assert "does not exist" in refusal(lambda: read(tmp_path / "a.safetensors"))
    assert "is a device" in refusal(lambda: read(Path(os.devnull)))
    assert "cannot be opened" in refusal(lambda: read(tmp_path / ("a" * 300)))
    assert "cannot be opened" in refusal(lambda: read(Path("a\0b")))


WHOLE = {weights.load: cache(safetensors), conversion.load_published: cache(published)}


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("read", [weights.load, conversion.load_published])
def test_damage_anywhere_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, read: Callable[[Path], object], data: Any
) -> None:
    content = bytearray(WHOLE[read]())
    # Nearly all bytes are parameters: the ends, where the structure is, deserve most of the damage.
    near = st.integers(0, 5000)
    place = data.draw(near | near.map(lambda n: len(content) - 1 - n) | st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[place:]
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        read(path)
        message = ""
    except CheckpointError as error:
        message = str(error)
    assert "\n" not in message
