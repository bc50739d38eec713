"""What computes the network, in which precision, and how many views at once."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.tiny import TINY, TINY_WITH_ATTENTION
from segrefiner.errors import InputError
from segrefiner.imaging.ops import resize
from segrefiner.imaging.reading import read_image, read_mask
from segrefiner.model import backends
from segrefiner.model.backends import TorchBackend, agree, choose_device
from segrefiner.model.unet import BASE, COMPACT, DenoisingUNet, normalize
from segrefiner.model.weights import load, resolve, save
from segrefiner.refinement.pipelines.batching import AdaptiveBatcher, batch_size, bytes_per_view, ran_out_of_memory

PHOTOS = Path(__file__).parents[1] / "data" / "parity"


def real_input(side: int = 256) -> Tensor:
    photo = torch.from_numpy(read_image(PHOTOS / "CCP_0016.jpg")).permute(2, 0, 1).float()
    mask = torch.from_numpy(read_mask(PHOTOS / "CCP_0016_coarse.png"))[None].float()
    crop = (slice(None), slice(200, 700), slice(20, 520))
    x = torch.cat([normalize(resize(photo[crop], side, side)[None])[0], resize(mask[crop], side, side) >= 0.5])
    return torch.stack([x, x.flip(-1)])


@pytest.fixture(scope="module")
def bundled() -> DenoisingUNet:
    return load(resolve(None))


def test_low_precision_gives_the_same_mask_but_for_few_pixels(bundled: DenoisingUNet) -> None:
    x, last = real_input(), torch.full((2,), 5)
    with torch.inference_mode():
        exact, low = (TorchBackend(bundled, d)(x, last) for d in (torch.float32, torch.bfloat16))
        torch.testing.assert_close(exact, bundled(x, last), atol=1e-3, rtol=1e-4)  # layouts differ by rounding
    assert low.dtype == torch.float32
    assert float(((exact >= 0) != (low >= 0)).float().mean()) < 0.002
    assert float((exact.sigmoid() - low.sigmoid()).abs().mean()) < 0.005


def test_a_backend_leaves_the_network_as_it_is(bundled: DenoisingUNet) -> None:
    before = copy.deepcopy(bundled.state_dict())
    TorchBackend(bundled, torch.bfloat16)
    assert all(torch.equal(before[name], value) for name, value in bundled.state_dict().items())


def is_precise(network: DenoisingUNet, dtype: torch.dtype) -> bool:
    return agree(TorchBackend(network, torch.float32), TorchBackend(network, dtype))


def test_a_precision_that_is_too_low_is_told(bundled: DenoisingUNet) -> None:
    state = torch.random.get_rng_state()
    assert is_precise(bundled, torch.bfloat16)
    assert torch.equal(torch.random.get_rng_state(), state)
    overflows = copy.deepcopy(bundled)
    with torch.no_grad():
        # The second undoes the first, but not before float16 has overflowed.
        overflows.refine[0].weight.mul_(1e9)
        overflows.refine[2].weight.mul_(1e-9)
    assert is_precise(overflows, torch.bfloat16) and not is_precise(overflows, torch.float16)


def test_memory_of_a_view_grows_with_network_and_side() -> None:
    small = bytes_per_view(COMPACT, 256, torch.bfloat16)
    assert bytes_per_view(COMPACT, 512, torch.bfloat16) == pytest.approx(4 * small)
    assert bytes_per_view(COMPACT, 256, torch.float32) == 2 * small
    assert bytes_per_view(BASE, 256, torch.float32) > 20 * small


def test_on_a_cpu_the_batch_depends_on_the_network_alone() -> None:
    cpu = torch.device("cpu")
    assert batch_size(COMPACT, 256, torch.float32, cpu) == batch_size(COMPACT, 256, torch.bfloat16, cpu) == 8
    assert [batch_size(BASE, 256, dtype, cpu) for dtype in (torch.float32, torch.bfloat16)] == [2, 4]
    assert batch_size(BASE, 2048, torch.float32, cpu) == 1


def test_on_a_gpu_the_batch_fits_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    view = bytes_per_view(COMPACT, 256, torch.float16)
    sizes = []
    for views in (0.1, 1, 3, 5, 1000):
        free = int(views * view / 0.4) + 1
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, free=free: (free, 0))
        sizes.append(batch_size(COMPACT, 256, torch.float16, torch.device("cuda")))
    assert sizes == [1, 1, 2, 4, 128]


def test_batches_cut_everything_once_and_stay_halved(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def evaluate(part: list[int]) -> int:
        tried.append(len(part))
        if len(part) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
        return sum(part)

    batches = AdaptiveBatcher(8)
    parts = list(batches.map(list(range(11)), evaluate))
    assert [list(part) for part, _ in parts] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert all(answer == sum(part) for part, answer in parts)
    assert tried[:3] == [8, 4, 2] and batches.size == 2
    assert [record.args for record in caplog.records] == [(8, 4), (4, 2)]
    assert list(batches.map([], evaluate)) == []
    # Of items a quarter as heavy four times as many are taken, and at least one.
    lighter = AdaptiveBatcher(1)
    assert [len(part) for part, _ in lighter.map(list(range(11)), len, weight=0.3)] == [3, 3, 3, 2]
    assert [len(part) for part, _ in lighter.map(list(range(2)), evaluate, weight=1.0)] == [1, 1]
    assert [len(part) for part, _ in lighter.map(list(range(11)), evaluate, weight=0.2)] == [2] * 5 + [1]
    assert lighter.size == pytest.approx(0.4) and [len(p) for p, _ in lighter.map([1, 2], len, weight=1.0)] == [1, 1]
    with pytest.raises(ValueError, match="0 views"):
        AdaptiveBatcher(0)


@pytest.mark.parametrize("config", [TINY, TINY_WITH_ATTENTION], ids=["plain", "attention"])
def test_what_a_view_gives_depends_on_its_batch_by_rounding_at_most(config: object) -> None:
    torch.manual_seed(0)
    backend = TorchBackend(DenoisingUNet(config), torch.float32)
    x, steps = torch.randn(5, 4, 32, 48), torch.tensor([5, 0, 3, 3, 1])
    with torch.inference_mode():
        alone = torch.cat([backend(x[i : i + 1], steps[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(backend(x, steps), alone, atol=1e-5, rtol=1e-5)


def test_only_lack_of_memory_counts_as_lack_of_memory() -> None:
    assert ran_out_of_memory(MemoryError()) and ran_out_of_memory(torch.OutOfMemoryError("no"))
    assert not ran_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    "name",
    ["mps", "meta", "xla", "hpu", "vulkan", "cuda:999", "cuda:-1", "gpu", "", "cpu:x", "CPU\n", "\x1b[31m", "a" * 99],
)
def test_devices_that_are_not_there_are_told_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="device is") as caught:
        choose_device(name)
    assert str(caught.value).isprintable()


def test_the_processor_is_a_device_by_any_number() -> None:
    assert {str(choose_device(name)) for name in ("cpu", "cpu:0")} == {"cpu"}


# Apple's GPU, which is not here: what computes in its place is the processor by its number.


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Weights on a machine where PyTorch finds an Apple GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(DenoisingUNet(TINY), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_auto_takes_an_apple_gpu_where_it_may_and_one_is_there(apple: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == choose_device("mps") == torch.device("mps")
    assert choose_device("auto", apple=False) == torch.device("cpu")
    with pytest.raises(InputError, match="not trained"):
        choose_device("mps", apple=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_an_apple_gpu_that_computes_as_a_processor_is_taken(apple: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[object] = []
    original = DenoisingUNet.to

    def to(network: DenoisingUNet, *arguments: object, **named: object) -> DenoisingUNet:
        if arguments and arguments[0] == torch.device("mps"):
            moved.append(arguments[0])
            return network
        return original(network, *arguments, **named)

    monkeypatch.setattr(DenoisingUNet, "to", to)
    opened = backends.open_model(apple, choose_device("auto"), dtype="auto", backend="auto", instead=True)
    assert moved == [torch.device("mps")] and opened.backend.dtype == torch.float16
    assert opened.backend.device == torch.device("cpu")
    # In the first precision in which it is exact enough.
    moved.clear()
    agree = backends.agree
    monkeypatch.setattr(backends, "agree", lambda exact, other: other.dtype == torch.float32 and agree(exact, other))
    opened = backends.open_model(apple, choose_device("mps"), dtype="auto", backend="auto")
    assert len(moved) == 2 and opened.backend.dtype == torch.float32


@pytest.mark.parametrize("fault", ["it cannot", "other results"])
def test_an_apple_gpu_that_does_not_is_left_alone_with_a_note(
    apple: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def to(network: DenoisingUNet, *arguments: object, **named: object) -> DenoisingUNet:
        if fault == "it cannot":
            raise NotImplementedError("The operator 'aten::x' is not implemented for MPS")
        return network

    monkeypatch.setattr(DenoisingUNet, "to", to)
    monkeypatch.setattr(backends, "agree", lambda exact, other: False)
    opened = backends.open_model(apple, torch.device("mps"), dtype="fp32", backend="auto", instead=True)
    assert isinstance(opened.backend, TorchBackend) and opened.backend.runs_on == torch.device("cpu")
    assert "the CPU does it" in caplog.text
    with pytest.raises(InputError, match="use cpu"):
        backends.open_model(apple, torch.device("mps"), dtype="fp32", backend="auto")


def test_exported_models_compute_on_the_processor_there(apple: Path) -> None:
    with pytest.raises(InputError, match="computes on cpu or cuda"):
        backends.open_model("model.onnx", torch.device("mps"), dtype="auto", backend="auto")
