"""Which views the network sees at once, and how many: fewer when memory runs out.

Kernels differ with the shape of a batch, and threads share it out by its size, so that a view's result is another one
in another batch: by rounding, which in bfloat16 can turn a pixel over. To the bit, results repeat where shapes and
order do. This is why, unless batches are shared, each holds views of one object alone and their sizes do not depend
on free memory.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from ...model.unet import UNetConfig

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_CPU_LIMIT, _CUDA_LIMIT = 8, 128
_CPU_BYTES = 1 << 30
_SHARE = 0.4
"""Share of a GPU's free memory that a batch may take."""

_log = logging.getLogger(__name__)


class AdaptiveBatcher:
    """Cuts work into batches; a batch for which memory runs out is halved, and so are all after it.

    Args:
        size: Items of weight 1 of a batch, at most.
        shared: Whether a batch may hold views of several objects.

    Attributes:
        size: As given, or less after memory ran out; less than 1 where not even one item of weight 1 fitted.
        shared: As given.
    """

    def __init__(self, size: int, *, shared: bool = False) -> None:
        if size < 1:
            raise ValueError(f"a batch of {size} views: expected 1 or more")
        self.size: float = size
        self.shared = shared

    def map(
        self, items: Sequence[Item], evaluate: Callable[[Sequence[Item]], Answer], *, weight: float = 1.0
    ) -> Iterator[tuple[Sequence[Item], Answer]]:
        """Yields each batch with what `evaluate` makes of it.

        Args:
            items: What is to be evaluated.
            evaluate: What evaluates some of them at once.
            weight: Of one item, in (0, 1]: two items of a half need as much memory as a whole one.

        Raises:
            Whatever `evaluate` does, except for too little memory while there is more than one item.
        """
        start = 0
        while start < len(items):
            part = items[start : start + max(1, int(self.size / weight))]
            try:
                answer = evaluate(part)
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not ran_out_of_memory(error):
                    raise
                self.size = len(part) // 2 * weight
                _log.warning(
                    "memory ran out for %d views at once: from now on %d, and results may differ by rounding",
                    len(part),
                    len(part) // 2,
                )
            else:
                yield part, answer
                start += len(part)
                continue
            # Outside of the handler, whose error still holds on to the tensors.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is how PyTorch or Python say that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text


def bytes_per_view(config: UNetConfig, side: int, dtype: torch.dtype) -> int:
    """About how much memory one view of `side` pixels takes inside a network.

    Counted are the skips, which live until the way up, and eight maps of the largest level, which come and go.
    """
    area = side * side
    levels = [
        config.model_channels * m * area // (config.stem_stride * 2**i) ** 2 for i, m in enumerate(config.channel_mult)
    ]
    skips = sum(levels) * (config.num_res_blocks + 1)
    return (skips + 8 * max(levels) + 4 * area * max(1, config.refine_channels)) * dtype.itemsize


def batch_size(config: UNetConfig, side: int, dtype: torch.dtype, device: torch.device) -> int:
    """Views of `side` pixels that the network sees at once, a power of two.

    On a CPU at most 8, since larger batches do not compute faster there, and at most a gibibyte of them, whatever is
    free: results must not depend on what else the machine does. On a GPU as many as fill a good part of what is free.
    """
    if device.type == "cuda":
        room, limit = _SHARE * torch.cuda.mem_get_info(device)[0], _CUDA_LIMIT
    else:
        room, limit = _CPU_BYTES, _CPU_LIMIT
    fitting = int(room / bytes_per_view(config, side, dtype))
    return min(limit, 1 << max(0, fitting.bit_length() - 1))
