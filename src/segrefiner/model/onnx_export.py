"""Networks as ONNX files, which carry their own config as weights files do."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, MissingExtraError, import_extra, reason
from ..imaging.files import atomic_write, check_output
from ..imaging.json_files import json_text
from .unet import DenoisingUNet, UNetConfig, fused
from .weights_checks import bad_file, check_config, check_file, short

INPUTS, OUTPUT = ("x", "timesteps"), "logits"
_FORMAT_KEY, _FORMAT, _CONFIG_KEY, _DTYPE_KEY = "segrefiner", "1", "config", "dtype"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_LARGEST = 2**31 - 1
"""Bytes that one protocol buffer can hold."""


class _Whole(nn.Module):
    """The network with float32 outside, whatever it computes in."""

    def __init__(self, network: DenoisingUNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.network(x.to(self.dtype), timesteps).float()


def export_onnx(
    network: DenoisingUNet,
    path: str | PathLike[str],
    *,
    dtype: str = "fp32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a network as one ONNX file.

    Its inputs are `x` `(B, 4, H, W)` float32 and `timesteps` `(B,)` int64, its output is `logits` `(B, 1, H, W)`
    float32; B is free, and so are H and W, in multiples of `config.size_multiple`.

    Args:
        network: On the CPU, in float32.
        path: Where to; must end in `.onnx`. Replaced only when the new file is complete and checked.
        dtype: "fp32", or "fp16" for weights and computation in half the size.
        metadata: Further entries for `onnx_metadata` to return.

    Raises:
        CheckpointError: The network is too large for one file.
        MissingExtraError: The packages `onnx` and `onnxscript` are not installed, or too old.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    check_output(path, suffix=".onnx")
    kind = _DTYPES[dtype]
    size = sum(p.numel() for p in network.parameters()) * kind.itemsize
    if size > _LARGEST:
        raise CheckpointError(f"the network has {size / 1e9:.1f} GB of weights, an ONNX file holds 2: choose fp16")
    onnx = import_extra("onnx", "exporting to ONNX")
    import_extra("onnxscript", "exporting to ONNX")
    whole = _Whole(_copy(network, kind), kind).eval()
    multiple = network.config.size_multiple
    example = (
        torch.zeros(2, 4, 4 * multiple, 6 * multiple, dtype=torch.float32, device="cpu"),
        torch.zeros(2, dtype=torch.int64, device="cpu"),
    )
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    shapes = ({0: batch, 2: multiple * height, 3: multiple * width}, {0: batch})
    with _quiet():
        program = torch.onnx.export(
            whole,
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _check_operators(model.graph)
    entries = {_FORMAT_KEY: _FORMAT, _CONFIG_KEY: json_text(network.config.to_dict()), _DTYPE_KEY: dtype}
    onnx.helper.set_model_props(model, entries | dict(sorted((metadata or {}).items())))
    _strip(model.graph)
    onnx.checker.check_model(model)
    content = model.SerializeToString(deterministic=True)
    atomic_write(path, lambda stream: stream.write(content))


def _check_operators(graph: Any) -> None:
    """Refuses what older versions of onnxscript make of `pixel_unshuffle`: its channels have another order."""
    if any(node.op_type == "SpaceToDepth" for node in graph.node):
        raise MissingExtraError(
            "this onnxscript exports another network than PyTorch computes: pip install --upgrade 'onnxscript>=0.7.2'"
        )


def onnx_metadata(path: str | PathLike[str]) -> dict[str, Any]:
    """Reads what an exported file says of itself: `config`, `dtype` and the entries given to `export_onnx`.

    Raises:
        CheckpointError: The file is missing, damaged, or no export of a network.
        MissingExtraError: The package `onnx` is not installed.
    """
    path = Path(path)
    check_file(path)
    onnx = import_extra("onnx", "reading ONNX files")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # The library's errors for damaged files are those of protocol buffers and of its own.
        raise bad_file(path, f"is damaged or not ONNX ({reason(error)}); export it again") from error
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if entries.get(_FORMAT_KEY) != _FORMAT or _DTYPE_KEY not in entries:
        raise bad_file(path, "is no network that segrefiner exported; make one with: segrefiner export onnx OUT.onnx")
    try:
        config = UNetConfig.from_dict(json.loads(entries[_CONFIG_KEY]))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        given = short(entries.get(_CONFIG_KEY, ""))
        raise bad_file(path, f"has the config {given}, which is none of this version; export it again") from error
    check_config(config, path)
    own = (_FORMAT_KEY, _CONFIG_KEY)
    return {_CONFIG_KEY: config.to_dict()} | {key: value for key, value in entries.items() if key not in own}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks on its streams, logs and warns, all of its own parts."""
    nowhere, logger = io.StringIO(), logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _copy(network: DenoisingUNet, dtype: torch.dtype) -> DenoisingUNet:
    copied = DenoisingUNet(network.config)
    copied.load_state_dict(network.state_dict())
    return fused(copied).to(dtype).requires_grad_(False)


def _strip(graph: Any) -> None:
    """Removes what the exporter notes of its own source files, which differ from machine to machine."""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
