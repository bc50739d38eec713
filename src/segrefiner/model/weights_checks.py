"""What a file of weights must be before anything in it is believed, whatever wrote it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError, reason
from .image_encoder import STAGES
from .unet import BASE, DenoisingUNet, UNetConfig

FLOATS = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}

# Far above any sensible network, and low enough to build one of these sizes without memory in a moment.
_MAX_ENTRIES = 8
LIMITS = {
    "model_channels": (1, 1024),
    "channel_mult": (1, 64),
    "num_res_blocks": (1, 16),
    "num_up_blocks": (1, 17),
    "attention_strides": (1, 4096),
    "num_heads": (1, 64),
    "norm_groups": (1, 1024),
    "num_timesteps": (1, 1000),
    "stem_stride": (1, 16),
    "refine_channels": (0, 1024),
    "image_stages": (0, STAGES),
    "detail_channels": (0, 256),
}


class Stored(NamedTuple):
    """What a file says of one parameter: its shape, and its dtype as safetensors abbreviates it."""

    shape: tuple[int, ...]
    dtype: str


def check_file(path: Path) -> bytes:
    """Check that a path is a file with something in it that may be weights; return its first bytes.

    Raises:
        CheckpointError: It is not.
    """
    if os.path.isdir(path):
        raise bad_file(path, "is a folder, expected a file; add the file's name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise bad_file(path, "is a device or pipe, expected a file; save it to a file first")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        raise bad_file(path, "does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise bad_file(path, f"cannot be opened ({reason(error)}); check the path and its rights") from error
    if not head:
        raise bad_file(path, "is empty (0 bytes); download or copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise bad_file(path, "is a Git LFS pointer, not the weights themselves; run: git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise bad_file(path, "is a web page, not weights; open the link in a browser and save what it offers")
    return head


def check_config(config: UNetConfig, path: Path) -> None:
    """Refuse values that no network has, before anything is built from them."""
    for name, (low, high) in LIMITS.items():
        value, many = getattr(config, name), isinstance(getattr(BASE, name), tuple)
        numbers = value if many else (value,)
        within = isinstance(numbers, tuple) and len(numbers) <= _MAX_ENTRIES
        # `type`, because JSON's true is an int to isinstance.
        if not within or not all(type(number) is int and low <= number <= high for number in numbers):
            expected = f"up to {_MAX_ENTRIES} integers" if many else "an integer"
            raise bad_file(path, f"has {name} = {short(value)}, expected {expected} from {low} to {high}")
    widths = config.widths
    attending = [w for w, stride in zip(widths, config.strides, strict=True) if stride in config.attention_strides]
    if not widths:
        problem = "channel_mult is empty"
    elif config.num_up_blocks > config.num_res_blocks + 1:
        problem = f"num_up_blocks {config.num_up_blocks} exceed num_res_blocks {config.num_res_blocks} + 1"
    elif any(width % config.norm_groups for width in widths):
        problem = f"norm_groups {config.norm_groups} do not divide the widths {widths}"
    elif any(width % config.num_heads for width in [*attending, widths[-1]]):
        problem = f"num_heads {config.num_heads} do not divide the widths {[*attending, widths[-1]]}"
    elif config.detail_channels and not config.refine_channels:
        problem = f"detail_channels {config.detail_channels} need refine_channels, which are 0"
    else:
        return
    raise bad_file(path, f"has a config of no possible network: {problem}; check where it came from")


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are: initialising those without memory imports PyTorch's compiler, a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def skeleton(config: UNetConfig, stored: Mapping[str, Stored], path: Path) -> DenoisingUNet:
    """Build a checked config's network without memory; refuse unless exactly its parameters are stored."""
    with torch.device("meta"), _WithoutInitialisation():
        network = DenoisingUNet(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing, extra = shapes.keys() - stored.keys(), stored.keys() - shapes.keys()
    unfit = [
        f"{short(name)} is {stored[name].dtype} {short(stored[name].shape)}, expected floats {shapes[name]}"
        for name in shapes.keys() & stored.keys()
        if stored[name].shape != shapes[name] or stored[name].dtype not in FLOATS.values()
    ]
    groups = {"missing": some(missing), "unknown": some(extra), "unfit": _first(sorted(unfit))}
    counts = (len(missing), len(extra), len(unfit))
    if any(counts):
        found = ", ".join(f"{n} {kind} ({groups[kind]})" for kind, n in zip(groups, counts, strict=True) if n)
        raise bad_file(path, f"does not fit its network of {len(shapes)} parameters: {found}; download it again")
    return network


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse NaN and infinity."""
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        kind = next(iter(tensors.values())).dtype
        problem = f"has NaN or infinity as {kind} in {len(broken)} of {len(tensors)} parameters ({some(broken)})"
        raise bad_file(path, f"{problem}; use other weights or a wider dtype")


def bad_file(path: Path, problem: str) -> CheckpointError:
    """Make the error that names the file."""
    return CheckpointError(f"weights file {str(path)!r} {problem}")


def short(value: object) -> str:
    """Show a stranger's value in at most 60 characters of one line."""
    # repr keeps line breaks in names from strangers out of the message.
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (", ..." if len(texts) > 3 else "")


def some(names: Iterable[str]) -> str:
    """Show the first few of many names."""
    return _first([short(name) for name in sorted(names)])
