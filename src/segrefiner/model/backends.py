"""What computes the network: PyTorch in one of three precisions, ONNX Runtime or OpenVINO."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .. import environment
from ..errors import InputError, import_extra, reason
from . import weights
from .onnx_export import INPUTS, onnx_metadata
from .publishing import Original
from .unet import DenoisingUNet, UNetConfig, fused, normalize

_LARGEST_DIFFERENCE = 0.05

APPLE = torch.device("mps")
"""The GPU of Apple's processors, as PyTorch calls it."""

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """A denoising network as `diffusion.Network` describes it, whatever computes it."""

    config: UNetConfig
    device: torch.device
    dtype: torch.dtype

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Logits `(B, 1, H, W)` float32 of `x` `(B, 4, H, W)` float32 at `timesteps` `(B,)` int64."""
        ...


class TorchBackend:
    """PyTorch, with channels last and the weights in the precision of the computation.

    An Apple GPU computes the network alone: it lacks operations, and 64-bit numbers, that the rest of a refinement
    needs. Then `device`, where tensors are given and come back, is the CPU.

    Args:
        network: On its device; it is left as it is.
        dtype: `torch.float32`, `torch.bfloat16` or `torch.float16`.
    """

    def __init__(self, network: DenoisingUNet, dtype: torch.dtype) -> None:
        self.config, self.dtype = network.config, dtype
        self.runs_on = next(network.parameters()).device
        self.device = torch.device("cpu") if self.runs_on.type == APPLE.type else self.runs_on
        network = fused(network, copied=dtype != torch.float32)
        if dtype != torch.float32:
            network = network.to(dtype)
            if self.runs_on.type == "cpu":
                # The CPU's kernels take statistics and scales in float32 as they come.
                for module in network.modules():
                    if isinstance(module, nn.GroupNorm):
                        module.float()
        self.network = network.eval().requires_grad_(False)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:  # noqa: D102 - described by the protocol
        x = x.to(self.runs_on, self.dtype).contiguous(memory_format=torch.channels_last)
        return self.network(x, timesteps.to(self.runs_on)).float().to(self.device)


class OnnxBackend:
    """ONNX Runtime, on CUDA where it has that and the device is one.

    Args:
        path: A file that `onnx_export.export_onnx` wrote; its precision is that of the computation.
        device: Where the tensors are that it is given.

    Raises:
        CheckpointError: The file is not as described.
        MissingExtraError: The package `onnxruntime` is not installed.
    """

    def __init__(self, path: str | PathLike[str], device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        said = onnx_metadata(path)
        runtime = import_extra("onnxruntime", "the backend onnxruntime")
        self.config, self.device = UNetConfig.from_dict(said["config"]), device
        self.dtype = torch.float16 if said["dtype"] == "fp16" else torch.float32
        wanted = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
        available = runtime.get_available_providers()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = environment.threads() or 0
        providers = [p for p in wanted if p in available]
        self._session = runtime.InferenceSession(str(path), options, providers=providers)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:  # noqa: D102 - described by the protocol
        given = (x.float().contiguous().cpu().numpy(), timesteps.cpu().numpy())
        (logits,) = self._session.run(None, dict(zip(INPUTS, given, strict=True)))
        return torch.from_numpy(logits).to(self.device)


class OpenVinoBackend:
    """OpenVINO on the CPU.

    Args:
        path: A file that `onnx_export.export_onnx` wrote.
        dtype: `torch.float32` or `torch.bfloat16`, in which it computes.

    Raises:
        CheckpointError: The file is not as described.
        MissingExtraError: The package `openvino` is not installed.
    """

    def __init__(self, path: str | PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        openvino = import_extra("openvino", "the backend openvino", extra="openvino")
        self.config, self.device = UNetConfig.from_dict(onnx_metadata(path)["config"]), torch.device("cpu")
        self.dtype = dtype
        # Always said: by itself it takes bfloat16 wherever the processor has it.
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads := environment.threads():
            options["INFERENCE_NUM_THREADS"] = str(threads)
        self._compiled = openvino.Core().compile_model(str(path), "CPU", options)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:  # noqa: D102 - described by the protocol
        given = (x.float().contiguous().numpy(), timesteps.numpy())
        (logits,) = self._compiled(dict(zip(INPUTS, given, strict=True))).values()
        return torch.from_numpy(logits.copy())


def agree(exact: TorchBackend, other: TorchBackend) -> bool:
    """Whether two ways to compute one network give nearly the same, tried on one small made-up photo.

    "Nearly" is a mean difference of the probabilities of 0.05 at most. Trained networks in bfloat16 stay below a fifth
    of that; float16 that overflows, or weights that need more digits, do not.
    """
    device, config = exact.device, exact.config
    side = max(64, config.size_multiple)
    across = torch.linspace(0, 1, side, dtype=torch.float32, device=device)
    disc = (across[:, None] - 0.5) ** 2 + (across[None, :] - 0.5) ** 2 < 0.1
    tint = torch.tensor([1.0, 0.5, -0.5], dtype=torch.float32, device=device)[:, None, None]
    photo = 60 + 100 * disc.float() + 40 * across * tint
    x = torch.cat([normalize(photo[None]), disc.roll(3, 0)[None, None].float()], dim=1)
    last = torch.tensor([config.num_timesteps - 1], device=device)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        right, tried = exact(x, last).sigmoid(), other(x, last).sigmoid()
    return bool(torch.isfinite(tried).all()) and float((right - tried).abs().mean()) <= _LARGEST_DIFFERENCE


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to compute.

    Attributes:
        backend: What computes it.
        name: As reports call it.
        steps: Diffusion steps with which it refines best, 1 to 6, as its file says; all six where it says nothing.
        original: The file of weights that it came from; `None` for an `.onnx` file.
    """

    backend: Backend
    name: str
    steps: int
    original: Original | None


def open_model(
    model: str | PathLike[str] | None, device: torch.device, *, dtype: str, backend: str, instead: bool = False
) -> OpenedModel:
    """Opens weights in PyTorch, or an exported file in another runtime.

    Args:
        model: As for `Refiner.from_pretrained`.
        device: Where it computes.
        dtype: "auto", "fp32", "bf16" or "fp16". Weights that the fast precision changes too much are opened in float32
            by "auto", see `agree`.
        backend: "auto", "torch", "onnxruntime" or "openvino".
        instead: Whether the CPU may compute in place of an Apple GPU that does not compute this model as the CPU does.

    Raises:
        CheckpointError: The weights cannot be found or are not as expected.
        InputError: There is no such dtype or backend, or not for this model, or the Apple GPU does not compute it.
        MissingExtraError: The backend is not installed.
    """
    exported = is_exported(model)
    backend = choose_backend(backend, exported)
    is_apple = device.type == APPLE.type
    chosen = choose_dtype(dtype, device)
    if exported:
        assert model is not None
        if is_apple and not instead:
            raise InputError(f"the backend {backend} computes on cpu or cuda: choose one of them, not {device.type}")
        device = torch.device("cpu") if is_apple else device
        opened = open_exported(model, backend, chosen if dtype != "auto" else None, device)
        return OpenedModel(opened, str(model), weights.steps_in(onnx_metadata(model), Path(model)), None)
    path = weights.resolve(model)
    original = Original.of(path)
    network = weights.load(path, device=torch.device("cpu") if is_apple else device)
    steps = weights.best_steps(path)
    if is_apple:
        on_apple = _on_apple(network, [chosen] if dtype != "auto" else [torch.float16, torch.float32])
        if on_apple is not None:
            return OpenedModel(on_apple, weights.display_name(model), steps, original)
        if not instead:
            raise InputError("device is 'mps', but this Apple GPU computes the model differently than a CPU: use cpu")
        _log.warning("note: this Apple GPU computes the model differently than a CPU: the CPU does it")
        chosen = choose_dtype(dtype, torch.device("cpu"))
    computing = TorchBackend(network, chosen)
    if dtype == "auto" and chosen != torch.float32:
        exact = TorchBackend(network, torch.float32)
        computing = computing if agree(exact, computing) else exact
    return OpenedModel(computing, weights.display_name(model), steps, original)


def _on_apple(network: DenoisingUNet, dtypes: Sequence[torch.dtype]) -> TorchBackend | None:
    """The network on the Apple GPU, in the first of some precisions in which it computes as the CPU does.

    Args:
        network: On the CPU.
        dtypes: That may be tried, the best first.

    Returns:
        `None` where it does in none of them.
    """
    exact = TorchBackend(network, torch.float32)
    for dtype in dtypes:
        try:
            tried = TorchBackend(copy.deepcopy(network).to(APPLE), dtype)
            if agree(exact, tried):
                return tried
            why = "other results"
        except (RuntimeError, TypeError) as error:  # What it cannot do, PyTorch says in many ways.
            why = reason(error)
        _log.info("the Apple GPU does not compute the model in %s: %s", dtype, why)
    return None


def model_file(model: str | PathLike[str] | None) -> Path:
    """The file that a model's name stands for; fetched if it is elsewhere. Raises `CheckpointError`."""
    return Path(str(model)) if is_exported(model) else weights.resolve(model)


def is_exported(model: str | PathLike[str] | None) -> bool:
    """Tells whether a model is an `.onnx` file."""
    return model is not None and str(model).lower().endswith(".onnx")


def choose_backend(name: str, exported: bool) -> str:
    """Name the backend that runs a file.

    Args:
        name: "auto", "torch", "onnxruntime" or "openvino".
        exported: Whether the file is an `.onnx` file, and not weights.

    Raises:
        InputError: There is no such backend, or it does not run such files.
    """
    if name == "auto":
        return "onnxruntime" if exported else "torch"
    if name not in ("torch", "onnxruntime", "openvino"):
        raise InputError(f"backend is {name!r}: expected auto, torch, onnxruntime or openvino")
    if exported and name == "torch":
        raise InputError("the backend torch cannot run an .onnx file: give the weights that it was exported from")
    if not exported and name != "torch":
        raise InputError(
            f"the backend {name} runs .onnx files: make one with segrefiner export onnx OUT.onnx, "
            "then give it as the model"
        )
    return name


def open_exported(
    path: str | PathLike[str], backend: str, dtype: torch.dtype | None, device: torch.device
) -> OnnxBackend | OpenVinoBackend:
    """Open an `.onnx` file in a backend.

    Args:
        path: The file.
        backend: "onnxruntime" or "openvino".
        dtype: Precision to compute in; None for the file's own, or the device's usual one.
        device: Where to compute.

    Raises:
        InputError: The backend does not compute on this device or in this precision.
    """
    if backend == "openvino":
        if device.type != "cpu":
            raise InputError("the backend openvino computes on the CPU: use device cpu")
        chosen = dtype or choose_dtype("auto", device)
        if chosen not in (torch.float32, torch.bfloat16):
            raise InputError("the backend openvino computes in fp32 or bf16: choose one of them")
        return OpenVinoBackend(path, chosen)
    runtime = OnnxBackend(path, device)
    if dtype not in (None, runtime.dtype):
        raise InputError(f"{path} computes in {runtime.dtype}, which was chosen at its export: leave dtype out")
    return runtime


def choose_device(name: str, *, apple: bool = True) -> torch.device:
    """Choose the device of a name.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", or "auto": the one that `SEGREFINER_DEVICE` names, or else CUDA, an Apple
            GPU or the CPU, the first that is here.
        apple: Whether what shall be computed can be on an Apple GPU.

    Raises:
        InputError: There is no such device, or not here.
    """
    said, known = f"device is {name!r}", "expected auto, cpu" + (", cuda or mps" if apple else " or cuda")
    if name == "auto" and (chosen := environment.device()) != "auto":
        name, said = chosen, f"{environment.DEVICE} is {chosen!r}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return APPLE if apple and torch.backends.mps.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{said}: {known}") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "mps":
        if not apple:
            raise InputError(f"{said}, on which models are refined with, but not trained: use cpu or cuda")
        if device.index or not torch.backends.mps.is_available():
            raise InputError(f"{said} but PyTorch finds no such Apple GPU here: use cpu")
        return APPLE
    if device.type != "cuda":
        # Others are known to PyTorch, but nothing here was ever run on them.
        raise InputError(f"{said}, which is not supported: {known}")
    if not torch.cuda.is_available():
        raise InputError(f"{said} but PyTorch finds no CUDA device here: use cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InputError(f"{said} but there are {count} CUDA devices here: expected cuda:0 to cuda:{count - 1}")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of this name; "auto" is the fast one that the device computes natively. Raises `InputError`."""
    if name == "auto":
        if device.type in ("cuda", APPLE.type):
            return torch.float16
        # Emulated bfloat16 is slower than float32. PyTorch 2.10 does not say what the processor has.
        capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
        native = any(capabilities.get(kind) for kind in ("avx512_bf16", "amx_bf16", "bf16"))
        return torch.bfloat16 if native else torch.float32
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in dtypes:
        raise InputError(f"dtype is {name!r}: expected auto, fp32, bf16 or fp16")
    return dtypes[name]
