"""Weights: find them, verify them, load them and save them.

A weights file is a safetensors file that carries its own config. Its header's metadata hold `segrefiner`, the
version of this layout, `config`, the JSON of `UNetConfig.to_dict()`, and any further entries of who made it.

Files come from strangers: nothing in one is believed before it is checked, nothing in one is ever run, and
no memory is taken that the file itself does not fill. Every fault becomes one `CheckpointError`.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from ..errors import CheckpointError, reason
from ..imaging.files import atomic_write, check_output
from ..imaging.json_files import json_text
from . import cache, downloads, hub
from .diffusion import NUM_TIMESTEPS
from .unet import DenoisingUNet, UNetConfig
from .weights_checks import FLOATS, Stored, bad_file, check_config, check_file, check_finite, short, skeleton, some

BUNDLED = "compact"
"""Name of the weights that are part of the package."""

FILE_NAME = "model.safetensors"
"""What the weights are called inside a folder or a Hugging Face Hub repository."""

STEPS_KEY = "steps"
"""Entry of the metadata that says with how many diffusion steps the weights refine best."""

_FORMAT_KEY, _FORMAT, _CONFIG_KEY = "segrefiner", "1", "config"
_PICKLES = (".pth", ".pt", ".ckpt", ".bin")
_PIN = "#sha256="
_WEB = ("https://", "http://")
_CONVERT = "convert a published checkpoint with: segrefiner convert FILE.pth OUT.safetensors"
_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)


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
            holds `model.safetensors`, the id `owner/name` or `owner/name@revision` of a Hugging Face Hub
            repository that holds `model.safetensors`, or the `https://` address of such a file. What exists on
            disk goes before the Hub; write `./compact` for a folder of that name. Text may end in `#sha256=` and
            the checksum that the file must have.
        revision: Branch, tag or commit of a Hub repository; None for the one in the id, else its main branch.
        cache_dir: Where downloads are kept; None for the Hub's usual cache, or `cache.cache_folder()`.
        local_files_only: Take downloads from the cache or not at all.

    Returns:
        The file, not yet verified but for a checksum that was given: `load` does that.

    Raises:
        CheckpointError: There is no such file, name or repository, it cannot be downloaded, or it has another
            checksum.

    >>> from segrefiner.model.weights import resolve
    >>> path = resolve("compact")
    >>> path.name
    'compact.safetensors'
    """
    name, sha256 = _split_checksum(name_or_path)
    if isinstance(name, str) and name.lower().startswith(_WEB):
        if revision is not None:
            raise CheckpointError(f"{name!r} has no revision {revision!r}, as only the Hub's do; leave it out")
        return _from_web(name, sha256, cache_dir, local_files_only)
    path = _find_local(name)
    match = _HUB_ID.fullmatch(name) if isinstance(name, str) and path is None else None
    if match is not None:
        repository, tag = match.groups()
        if revision is not None and tag not in (None, revision):
            raise CheckpointError(f"{name!r} and revision {revision!r} differ; give one of the two")
        revision = revision or tag
        path = hub.fetch(
            repository, FILE_NAME, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
    elif path is None:
        raise CheckpointError(
            f"no weights named {str(name)!r}, expected {BUNDLED!r}, a .safetensors file, a folder with {FILE_NAME}, "
            f"a Hugging Face Hub id owner/name[@revision], or an https:// address; {_CONVERT}"
        )
    elif revision is not None:
        raise bad_file(path, f"has no revision {revision!r}, as only the Hub's do; leave it out")
    if sha256 is not None and (found := checksum(path)) != sha256:
        raise bad_file(path, f"has the SHA-256 {found}, expected {sha256}; ask its author, do not use it")
    return path


def display_name(name_or_path: str | os.PathLike[str] | None) -> str:
    """What weights are called where others read it: web addresses lose their query, which may hold a secret."""
    if name_or_path is None:
        return BUNDLED
    name = str(name_or_path)
    if not name.lower().startswith(_WEB):
        return name
    rest, pin, sha256 = name.partition(_PIN)
    return downloads.public_name(rest) + pin + sha256


def load(
    path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DenoisingUNet:
    """Load a network from a weights file, verified strictly.

    Args:
        path: A `.safetensors` file that `save` or `conversion.convert` wrote.
        device: Where the parameters shall live.
        dtype: Floating dtype that the parameters shall have, whatever the file's is.

    Returns:
        The network in evaluation mode, without gradients, its convolutions in channels-last memory format.
        The random state is not touched.

    Raises:
        CheckpointError: The file is missing, damaged, hostile, or its parameters are not exactly those of the
            config that it carries, all finite.

    >>> from segrefiner.model.weights import load, resolve
    >>> network = load(resolve("compact"))
    >>> network.training, any(parameter.requires_grad for parameter in network.parameters())
    (False, False)
    """
    path = Path(path)
    with _opened(path) as file:
        config = _read_config(file.metadata() or {}, path)
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        stored = {name: Stored(tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
        network = skeleton(config, stored, path)
        tensors = {name: _owned(file.get_tensor(name), device, dtype, channels_last=True) for name in stored}
    check_finite(tensors, path)
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(False).eval()


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a weights file says of itself, without its parameters.

    Args:
        path: A `.safetensors` file that `save` or `conversion.convert` wrote.

    Returns:
        `config`, a dict that `UNetConfig.from_dict` takes, and the entries given to `save`, as strings.

    Raises:
        CheckpointError: The file is missing or damaged, or its config is.

    >>> from segrefiner.model.unet import UNetConfig
    >>> from segrefiner.model.weights import load, metadata, resolve
    >>> entries = metadata(resolve("compact"))
    >>> UNetConfig.from_dict(entries["config"]) == load(resolve("compact")).config
    True
    """
    path = Path(path)
    with _opened(path) as file:
        entries: dict[str, str] = file.metadata() or {}
    config = _read_config(entries, path).to_dict()
    return {_CONFIG_KEY: config} | {k: v for k, v in entries.items() if k not in (_CONFIG_KEY, _FORMAT_KEY)}


def parameter_count(path: str | os.PathLike[str]) -> int:
    """Count the parameters of a weights file by its header. Raises `CheckpointError` where it is damaged."""
    with _opened(Path(path)) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dict


def hub_repository(name: str | os.PathLike[str] | None) -> tuple[str, str | None] | None:
    """The repository and revision that a name means on the Hugging Face Hub; `None` where it means something else."""
    name, _ = _split_checksum(name)
    if not isinstance(name, str) or name.lower().startswith(_WEB) or _find_local(name) is not None:
        return None
    match = _HUB_ID.fullmatch(name)
    return None if match is None else (match[1], match[2])


def best_steps(path: str | os.PathLike[str]) -> int:
    """Read with how many diffusion steps the weights refine best; all of them where the file does not say.

    Raises:
        CheckpointError: The file is missing or damaged, or what it says is no number of steps.
    """
    return steps_in(metadata(path), Path(path))


def steps_in(entries: Mapping[str, Any], path: Path) -> int:
    """The number of steps that a file's entries name, all of them where they do not. Raises `CheckpointError`."""
    said = entries.get(STEPS_KEY, str(NUM_TIMESTEPS))
    if said not in map(str, range(1, NUM_TIMESTEPS + 1)):
        raise bad_file(path, f"has {STEPS_KEY} = {short(said)}, expected 1 to {NUM_TIMESTEPS}; make it anew")
    return int(said)


def checksum(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        CheckpointError: The file is missing, empty or cannot be read.
    """
    path = Path(path)
    check_file(path)
    return cache.checksum(path)


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

    >>> import torch
    >>> from segrefiner.model.weights import load, resolve, save
    >>> network = load(resolve("compact"))
    >>> save(network, "mine.safetensors", dtype=torch.float32, metadata={"trained_on": "my photos"})
    """
    path = Path(path)
    check_output(path, suffix=".safetensors")
    if dtype not in FLOATS:
        raise ValueError(f"dtype is {dtype}, expected one of {', '.join(map(str, FLOATS))}")
    entries = {_FORMAT_KEY: _FORMAT, _CONFIG_KEY: json_text(network.config.to_dict())}
    if reserved := entries.keys() & (metadata or {}).keys():
        raise ValueError(f"metadata names {some(reserved)}, which the file needs for itself; rename them")
    check_config(network.config, path)
    tensors = {name: _owned(t, "cpu", dtype, channels_last=False) for name, t in network.state_dict().items()}
    check_finite(tensors, path)
    content = to_safetensors(tensors)
    length = int.from_bytes(content[:8], "little")
    # The library would put the metadata in another order on every call, so the header is written here.
    notes = entries | dict(sorted((metadata or {}).items()))
    header = {"__metadata__": notes} | json.loads(content[8 : 8 + length])
    text = json_text(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The parameters stay aligned for mapping.
    pieces = (len(text).to_bytes(8, "little"), text, memoryview(content)[8 + length :])
    atomic_write(path, lambda stream: stream.writelines(pieces))


def _split_checksum(name: str | os.PathLike[str] | None) -> tuple[str | os.PathLike[str] | None, str | None]:
    """A name without the checksum at its end, and the checksum."""
    if not isinstance(name, str) or _PIN not in name:
        return name, None
    rest, _, sha256 = name.rpartition(_PIN)
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise CheckpointError(f"{short(sha256)} is no SHA-256; expected 64 hexadecimal digits after {_PIN}")
    return rest, sha256.lower()


def _from_web(url: str, sha256: str | None, cache_dir: str | os.PathLike[str] | None, local_files_only: bool) -> Path:
    named = url.partition("?")[0]
    if named.lower().endswith(_PICKLES):
        raise CheckpointError(f"{short(named)} does not end in .safetensors; download it, then {_CONVERT}")
    if "#" in url:
        # A checksum with a slip in its name must not pass for none.
        raise CheckpointError(
            f"{short(named)} ends in {short('#' + url.partition('#')[2])}, expected {_PIN}…, or nothing"
        )
    return downloads.fetch(url, sha256, cache_dir=cache_dir, local_files_only=local_files_only, check=metadata)


def bundled_file(name: str) -> Path:
    """Where a file lies that goes with the bundled weights."""
    return Path(str(importlib.resources.files("segrefiner") / "model" / "bundled" / name))


def _find_local(name_or_path: str | os.PathLike[str] | None) -> Path | None:
    """Return the file on disk that is meant, or None if nothing on disk can be meant."""
    if name_or_path is None or name_or_path == BUNDLED:
        path = bundled_file(f"{BUNDLED}.safetensors")
        if not path.is_file():
            raise bad_file(path, "is missing from this installation; reinstall segrefiner, or name other weights")
        return path
    # os.path, because pathlib's questions raise OSError for names that no disk takes.
    path = Path(name_or_path)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        if not os.path.isfile(path / FILE_NAME):
            raise bad_file(path, f"is a folder without {FILE_NAME}; give the .safetensors file itself")
        return path / FILE_NAME
    if suffix in _PICKLES:
        raise bad_file(path, f"does not end in .safetensors; {_CONVERT}")
    if suffix == ".safetensors":
        if not os.path.exists(path):
            raise bad_file(path, "does not exist; check the path")
        return path
    if os.path.exists(path):
        raise bad_file(path, "does not end in .safetensors; rename it if it is a weights file")
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield the parsed safetensors file; inside, what the library finds wrong becomes a `CheckpointError`."""
    head = check_file(path)
    try:
        # Version 0.4.3 makes tensors on PyTorch's default device, whatever it was told.
        with torch.device("cpu"), safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        if head.startswith((b"PK\x03\x04", b"\x80\x02")):
            raise bad_file(path, f"is a PyTorch pickle, not safetensors; {_CONVERT}") from error
        raise bad_file(path, f"is damaged or not safetensors ({reason(error)}); download it again") from error


def _read_config(entries: Mapping[str, str], path: Path) -> UNetConfig:
    version, text = entries.get(_FORMAT_KEY), entries.get(_CONFIG_KEY)
    if version is None or text is None:
        raise bad_file(path, f"has no segrefiner config in its metadata, so it is no weights file; {_CONVERT}")
    if version != _FORMAT:
        raise bad_file(path, f"has the layout {short(version)}, expected {_FORMAT!r}; upgrade segrefiner")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_file(path, f"has a config that is not JSON ({reason(error)}); download it again") from error
    if not isinstance(values, dict):
        raise bad_file(path, f"has the config {short(values)}, expected a JSON object; download it again")
    names = {field.name for field in fields(UNetConfig)}
    # Files of before there were image encoders.
    values = {"image_stages": 0, "detail_channels": 0} | values
    if values.keys() != names:
        difference = f"missing: {some(names - values.keys())}; unknown: {some(values.keys() - names)}"
        raise bad_file(path, f"has the config of another version of segrefiner ({difference}); upgrade segrefiner")
    config = UNetConfig.from_dict(values)
    check_config(config, path)
    return config


def _owned(tensor: Tensor, device: str | torch.device, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """Copy a tensor, always: safetensors maps the file, and shared or strided memory cannot be saved."""
    spread = channels_last and tensor.ndim == 4
    layout = torch.channels_last if spread else torch.contiguous_format
    return tensor.detach().to(device, dtype, copy=True, memory_format=layout)
