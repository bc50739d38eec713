"""Weights: find them, verify them, load them, save them, and convert published checkpoints.

A weights file is a safetensors file that carries its own config. Its header's metadata hold `segrefiner`, the
version of this layout, `config`, the JSON of `UNetConfig.to_dict()`, and any further entries of who made it.

Files come from strangers: nothing in one is believed before it is checked, nothing in one is ever run, and
no memory is taken that the file itself does not fill. Every fault becomes one `CheckpointError`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from .errors import CheckpointError, reason
from .output import atomic_write, check_output
from .unet import BASE, DenoisingUNet, UNetConfig

BUNDLED = "compact"
"""Name of the weights that are part of the package."""

FILE_NAME = "model.safetensors"
"""What the weights are called inside a folder or a Hugging Face Hub repository."""

_FORMAT_KEY, _FORMAT, _CONFIG_KEY = "segrefiner", "1", "config"
_PUBLISHED_PREFIX, _AVERAGE_PREFIX = "denoise_model.", "ema_"
_PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_CONVERT = "convert a published checkpoint with: segrefiner convert FILE.pth OUT.safetensors"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_FLOATS = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}

# Far above any sensible network, and low enough to build one of these sizes without memory in a moment.
_MAX_ENTRIES = 8
_LIMITS = {
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
}


class _Stored(NamedTuple):
    """What a file says of one parameter: its shape, and its dtype as safetensors abbreviates it."""

    shape: tuple[int, ...]
    dtype: str


def resolve(
    name_or_path: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find a weights file.

    Args:
        name_or_path: None or `BUNDLED` for the weights in the package, a `.safetensors` file, a folder that
            holds `model.safetensors`, or the id `owner/name` or `owner/name@revision` of a Hugging Face Hub
            repository that holds `model.safetensors`. What exists on disk goes before the Hub; write
            `./compact` for a folder of that name.
        revision: Branch, tag or commit of a Hub repository; None for the one in the id, else its main branch.
        cache_dir: Where downloads are kept; None for the Hub's usual cache.
        local_files_only: Take a Hub repository from the cache or not at all.

    Returns:
        The file, not yet verified: `load` does that.

    Raises:
        CheckpointError: There is no such file, name or repository, or it cannot be downloaded.
    """
    local = _find_local(name_or_path)
    match = _HUB_ID.fullmatch(name_or_path) if isinstance(name_or_path, str) and local is None else None
    if match is not None:
        repository, tag = match.groups()
        if revision is not None and tag not in (None, revision):
            raise CheckpointError(f"{name_or_path!r} and revision {revision!r} differ; give one of the two")
        return _download(repository, revision or tag, cache_dir, local_files_only)
    if local is None:
        raise CheckpointError(
            f"no weights named {str(name_or_path)!r}, expected {BUNDLED!r}, a .safetensors file, a folder "
            f"with {FILE_NAME}, or a Hugging Face Hub id owner/name[@revision]; {_CONVERT}"
        )
    if revision is not None:
        raise _bad(local, f"has no revision {revision!r}, as only the Hub's do; leave it out")
    return local


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DenoisingUNet:
    """Load a network from a weights file, verified strictly.

    Args:
        path: A `.safetensors` file that `save` or `convert` wrote.
        device: Where the parameters shall live.
        dtype: Floating dtype that the parameters shall have, whatever the file's is.

    Returns:
        The network in evaluation mode, without gradients, its convolutions in channels-last memory format.
        The random state is not touched.

    Raises:
        CheckpointError: The file is missing, damaged, hostile, or its parameters are not exactly those of the
            config that it carries, all finite.
    """
    path = Path(path)
    with _opened(path) as file:
        config = _read_config(file.metadata() or {}, path)
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        stored = {name: _Stored(tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
        network = _skeleton(config, stored, path)
        tensors = {name: _owned(file.get_tensor(name), device, dtype, channels_last=True) for name in stored}
    _check_finite(tensors, path)
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False).eval()


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a weights file says of itself, without its parameters.

    Args:
        path: A `.safetensors` file that `save` or `convert` wrote.

    Returns:
        `config`, a dict that `UNetConfig.from_dict` takes, and the entries given to `save`, as strings.

    Raises:
        CheckpointError: The file is missing or damaged, or its config is.
    """
    path = Path(path)
    with _opened(path) as file:
        entries: dict[str, str] = file.metadata() or {}
    config = _read_config(entries, path).to_dict()
    return {_CONFIG_KEY: config} | {k: v for k, v in entries.items() if k not in (_CONFIG_KEY, _FORMAT_KEY)}


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        CheckpointError: The file is missing, empty or cannot be read.
    """
    path = Path(path)
    _check_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def save(
    network: DenoisingUNet,
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a weights file that `load` accepts. The same weights and metadata always give the same bytes.

    Args:
        network: The network, of any floating dtype, on any device.
        path: Where to; must end in `.safetensors`. Replaced only when the new file is complete.
        dtype: How to store the parameters: float16, bfloat16, float32 or float64.
        metadata: Further entries for `metadata` to return, such as the recipe and the figures reached.

    Raises:
        CheckpointError: A parameter is NaN or infinite, or becomes so in `dtype`; or the config is one that
            `load` would refuse.
        OutputError: The file cannot be written.
        ValueError: Another dtype, a reserved name in `metadata`, or text in it that is not Unicode.
    """
    path = Path(path)
    check_output(path, suffix=".safetensors")
    if dtype not in _FLOATS:
        raise ValueError(f"dtype is {dtype}, expected one of {', '.join(map(str, _FLOATS))}")
    entries = {_FORMAT_KEY: _FORMAT, _CONFIG_KEY: json.dumps(network.config.to_dict())}
    if reserved := entries.keys() & (metadata or {}).keys():
        raise ValueError(f"metadata names {_some(reserved)}, which the file needs for itself; rename them")
    _check_config(network.config, path)
    tensors = {name: _owned(t, "cpu", dtype, channels_last=False) for name, t in network.state_dict().items()}
    _check_finite(tensors, path)
    content = to_safetensors(tensors)
    length = int.from_bytes(content[:8], "little")
    # The library would put the metadata in another order on every call, so the header is written here.
    notes = entries | dict(sorted((metadata or {}).items()))
    header = {"__metadata__": notes} | json.loads(content[8 : 8 + length])
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The parameters stay aligned for mapping.
    pieces = (len(text).to_bytes(8, "little"), text, memoryview(content)[8 + length :])
    atomic_write(path, lambda stream: stream.writelines(pieces))


def _find_local(name_or_path: str | os.PathLike[str] | None) -> Path | None:
    """Return the file on disk that is meant, or None if nothing on disk can be meant."""
    if name_or_path is None or name_or_path == BUNDLED:
        path = Path(str(importlib.resources.files("segrefiner") / "models" / f"{BUNDLED}.safetensors"))
        if not path.is_file():
            raise _bad(path, "is missing from this installation; reinstall segrefiner, or name other weights")
        return path
    # os.path, because pathlib's questions raise OSError for names that no disk takes.
    path = Path(name_or_path)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        if not os.path.isfile(path / FILE_NAME):
            raise _bad(path, f"is a folder without {FILE_NAME}; give the .safetensors file itself")
        return path / FILE_NAME
    if suffix in _PICKLES:
        raise _bad(path, f"does not end in .safetensors; {_CONVERT}")
    if suffix == ".safetensors":
        if not os.path.exists(path):
            raise _bad(path, "does not exist; check the path")
        return path
    if os.path.exists(path):
        raise _bad(path, "does not end in .safetensors; rename it if it is a weights file")
    return None


def _download(
    repository: str, revision: str | None, cache_dir: str | os.PathLike[str] | None, local_files_only: bool
) -> Path:
    # Here, because who has a file should not wait for the import.
    import huggingface_hub
    from huggingface_hub import errors

    problems = {
        errors.GatedRepoError: "are gated; accept the terms on their Hub page, then run: hf auth login",
        errors.RepositoryNotFoundError: "do not exist or are private; check the id, or run: hf auth login",
        errors.RevisionNotFoundError: f"have no revision {revision!r}; check its name",
        errors.LocalEntryNotFoundError: "are not in the cache and the Hub was not reached; go online once",
        errors.OfflineModeIsEnabled: "are not in the cache and offline mode is on; go online once",
        errors.EntryNotFoundError: f"have no file {FILE_NAME}; choose a repository made for segrefiner",
    }
    place = None if cache_dir is None else Path(cache_dir)
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository, FILE_NAME, revision=revision, cache_dir=place, local_files_only=local_files_only
            )
        )
    except Exception as error:  # The HTTP library below has its own tree of errors, which changed before.
        other = f"cannot be downloaded ({reason(error)}); try again, or give a file"
        # In this order: a gated repository is also a missing one to the library.
        problem = next((text for kind, text in problems.items() if isinstance(error, kind)), other)
        raise CheckpointError(f"weights {repository!r} on the Hugging Face Hub {problem}") from error


def _check_file(path: Path) -> bytes:
    """Check that a path is a file with something in it that may be weights; return its first bytes."""
    if os.path.isdir(path):
        raise _bad(path, "is a folder, expected a file; add the file's name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise _bad(path, "is a device or pipe, expected a file; save it to a file first")
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except FileNotFoundError:
        raise _bad(path, "does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise _bad(path, f"cannot be opened ({reason(error)}); check the path and its rights") from error
    if not head:
        raise _bad(path, "is empty (0 bytes); download or copy it again")
    if head.startswith(b"version https://git-lfs"):
        raise _bad(path, "is a Git LFS pointer, not the weights themselves; run: git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise _bad(path, "is a web page, not weights; open the link in a browser and save what it offers")
    return head


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield the parsed safetensors file; inside, what the library finds wrong becomes a `CheckpointError`."""
    head = _check_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        if head.startswith((b"PK\x03\x04", b"\x80\x02")):
            raise _bad(path, f"is a PyTorch pickle, not safetensors; {_CONVERT}") from error
        raise _bad(path, f"is damaged or not safetensors ({reason(error)}); download it again") from error


def _read_config(entries: Mapping[str, str], path: Path) -> UNetConfig:
    version, text = entries.get(_FORMAT_KEY), entries.get(_CONFIG_KEY)
    if version is None or text is None:
        raise _bad(path, f"has no segrefiner config in its metadata, so it is no weights file; {_CONVERT}")
    if version != _FORMAT:
        raise _bad(path, f"has the layout {_short(version)}, expected {_FORMAT!r}; upgrade segrefiner")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"has a config that is not JSON ({reason(error)}); download it again") from error
    if not isinstance(values, dict):
        raise _bad(path, f"has the config {_short(values)}, expected a JSON object; download it again")
    names = {field.name for field in fields(UNetConfig)}
    if values.keys() != names:
        difference = f"missing: {_some(names - values.keys())}; unknown: {_some(values.keys() - names)}"
        raise _bad(path, f"has the config of another version of segrefiner ({difference}); upgrade segrefiner")
    config = UNetConfig.from_dict(values)
    _check_config(config, path)
    return config


def _check_config(config: UNetConfig, path: Path) -> None:
    """Refuse values that no network has, before anything is built from them."""
    for name, (low, high) in _LIMITS.items():
        value, many = getattr(config, name), isinstance(getattr(BASE, name), tuple)
        numbers = value if many else (value,)
        within = isinstance(numbers, tuple) and len(numbers) <= _MAX_ENTRIES
        # `type`, because JSON's true is an int to isinstance.
        if not within or not all(type(number) is int and low <= number <= high for number in numbers):
            expected = f"up to {_MAX_ENTRIES} integers" if many else "an integer"
            raise _bad(path, f"has {name} = {_short(value)}, expected {expected} from {low} to {high}")
    widths = [config.model_channels * factor for factor in config.channel_mult]
    strides = [config.stem_stride * 2**level for level in range(len(widths))]
    attending = [w for w, stride in zip(widths, strides, strict=True) if stride in config.attention_strides]
    if not widths:
        problem = "channel_mult is empty"
    elif config.num_up_blocks > config.num_res_blocks + 1:
        problem = f"num_up_blocks {config.num_up_blocks} exceed num_res_blocks {config.num_res_blocks} + 1"
    elif any(width % config.norm_groups for width in widths):
        problem = f"norm_groups {config.norm_groups} do not divide the widths {widths}"
    elif any(width % config.num_heads for width in [*attending, widths[-1]]):
        problem = f"num_heads {config.num_heads} do not divide the widths {[*attending, widths[-1]]}"
    else:
        return
    raise _bad(path, f"has a config of no possible network: {problem}; check where it came from")


def _skeleton(config: UNetConfig, stored: Mapping[str, _Stored], path: Path) -> DenoisingUNet:
    """Build a checked config's network without memory; refuse unless exactly its parameters are stored."""
    with torch.device("meta"):
        network = DenoisingUNet(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing, extra = shapes.keys() - stored.keys(), stored.keys() - shapes.keys()
    unfit = [
        f"{_short(name)} is {stored[name].dtype} {_short(stored[name].shape)}, expected floats {shapes[name]}"
        for name in shapes.keys() & stored.keys()
        if stored[name].shape != shapes[name] or stored[name].dtype not in _FLOATS.values()
    ]
    groups = {"missing": _some(missing), "unknown": _some(extra), "unfit": _first(sorted(unfit))}
    counts = (len(missing), len(extra), len(unfit))
    if any(counts):
        found = ", ".join(f"{n} {kind} ({groups[kind]})" for kind, n in zip(groups, counts, strict=True) if n)
        raise _bad(path, f"does not fit its network of {len(shapes)} parameters: {found}; download it again")
    return network


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        kind = next(iter(tensors.values())).dtype
        problem = f"has NaN or infinity as {kind} in {len(broken)} of {len(tensors)} parameters ({_some(broken)})"
        raise _bad(path, f"{problem}; use other weights or a wider dtype")


def _owned(tensor: Tensor, device: str | torch.device, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """Copy a tensor, always: safetensors maps the file, and shared or strided memory cannot be saved."""
    spread = channels_last and tensor.ndim == 4
    layout = torch.channels_last if spread else torch.contiguous_format
    return tensor.detach().to(device, dtype, copy=True, memory_format=layout)


def _bad(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"weights file {str(path)!r} {problem}")


def _short(value: object) -> str:
    # repr keeps line breaks in names from strangers out of the message.
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _first(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (", ..." if len(texts) > 3 else "")


def _some(names: Iterable[str]) -> str:
    return _first([_short(name) for name in sorted(names)])


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
    state = _read_pickle(path)
    prefix = _PUBLISHED_PREFIX
    prefixed = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    values = prefixed or {key: value for key, value in state.items() if not key.startswith(_AVERAGE_PREFIX)}
    stored = {name: _describe(value) for name, value in values.items()}
    config = _infer_config(stored, path)
    _skeleton(config, stored, path)
    # A pickled tensor can repeat one number a billion times by a stride of 0; an honest one has its bytes.
    if sum(tensor.nbytes for tensor in values.values()) > path.stat().st_size:
        raise _bad(path, "claims more values than its size can hold; it is damaged or hostile, do not use it")
    tensors = {name: tensor.detach() for name, tensor in values.items()}
    _check_finite(tensors, path)
    return tensors, config


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, dtype: torch.dtype = torch.float16
) -> UNetConfig:
    """Turn a checkpoint of the published implementation into a weights file.

    Args:
        source: What `load_published` reads.
        target: What `save` writes. Its metadata name the SHA-256 of the source.
        dtype: How to store the parameters; float32 keeps published ones exactly.

    Returns:
        The network's config.

    Raises:
        CheckpointError: As for `load_published` and `save`.
        OutputError: The target cannot be written.
        ValueError: The dtype is none that `save` takes.
    """
    tensors, config = load_published(source)
    with torch.device("meta"):
        network = DenoisingUNet(config)
    network.load_state_dict(tensors, assign=True)
    save(network, target, dtype=dtype, metadata={"converted_from_sha256": checksum(source)})
    return config


def _read_pickle(path: Path) -> dict[str, Any]:
    """Read the state dict of a checkpoint; its values are whatever the file holds."""
    head = _check_file(path)
    if head[8:9] == b"{":
        raise _bad(path, "is a safetensors file, expected a published .pth; it needs no conversion, load it")
    try:
        is_zip = zipfile.is_zipfile(path)
        if head.startswith(b"PK\x03\x04") and not is_zip:
            raise _bad(path, "is cut short (a zip archive without its end); download it again")
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            # torch.save does not compress, so only a bomb unpacks to more than there is.
            if unpacked > path.stat().st_size:
                raise _bad(path, f"would unpack to {unpacked} bytes; it is damaged or hostile, do not use it")
        # Files of before PyTorch 1.6 are no archives and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except Exception as error:  # Broken and hostile pickles raise anything at all.
        # torch's own text advises to load the file without the protection; that is not passed on.
        found = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        problem = f"is damaged or no PyTorch checkpoint ({type(error).__name__}); download it again"
        if found:
            problem = f"wants to run {found[1]}, but only plain tensors are read; save its state dict alone"
        raise _bad(path, problem) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise _bad(path, f"holds a {type(state).__name__}, expected a state dict; give the .pth as published")
    return state


def _describe(value: object) -> _Stored:
    if not isinstance(value, Tensor):
        return _Stored((), type(value).__name__)
    if value.is_nested or value.layout != torch.strided or value.device.type != "cpu":
        return _Stored((), f"{value.layout} on {value.device.type}")
    return _Stored(tuple(value.shape), _FLOATS.get(value.dtype, str(value.dtype)))


def _infer_config(stored: Mapping[str, _Stored], path: Path) -> UNetConfig:
    """Read the published family's config off names and shapes; whether all of them fit is not asked here."""
    found = [re.fullmatch(r"input_blocks\.(\d{1,3})\.0\.(op\.)?.+", name) for name in stored]
    blocks = 1 + max((int(match[1]) for match in found if match), default=0)
    levels = 1 + len({match[1] for match in found if match and match[2]})
    per_level, rest = divmod(blocks, levels)

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        values = stored[name].shape if name in stored else ()
        if len(values) != dimensions:
            problem = f"no {name!r} of {dimensions} dimensions among {len(stored)} entries ({_some(stored)})"
            raise _bad(path, f"is no published checkpoint: {problem}; give the .pth file as published")
        return values

    timesteps, embedding = shape("time_embed.weight", 2)
    channels = embedding // 4
    if rest or per_level < 2:
        raise _bad(path, f"has {blocks} input blocks in {levels} levels, which cannot be; download it again")
    # A level is one entry, the stem or a downsampler, and its residual blocks.
    last = [per_level * (level + 1) - 1 for level in range(levels)]
    widths = [shape(f"input_blocks.{index}.0.out_layers.3.weight", 4)[0] for index in last]
    if not channels or any(width % channels or not width for width in widths):
        problem = f"has the widths {widths}, expected multiples of {channels}"
        raise _bad(path, f"{problem}, so its config cannot be inferred; give the .pth file as published")
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
    _check_config(config, path)
    return config
