"""The processes of a run: one alone, or several that `torchrun` started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import TrainingError


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a run.

    Attributes:
        rank: Its number; 0 writes files and speaks.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network, with gradients that are means over all processes; all begin with the weights of the first."""
        return net if self.world == 1 else DistributedDataParallel(net, gradient_as_bucket_view=True)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every process's values, in a new tensor."""
        total = values.clone()
        if self.world > 1:
            distributed.all_reduce(total)
        return total

    def any(self, value: bool, device: torch.device) -> bool:
        """Whether any process says so; all of them must ask."""
        return value if self.world == 1 else bool(self.sum(torch.tensor(float(value), device=device)))

    def barrier(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            distributed.barrier()


SINGLE = ProcessGroup()


@contextmanager
def launched(device: torch.device) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """The processes that `torchrun` started, or this one alone, and the device that is this one's.

    Args:
        device: Its type decides how they talk: gloo on CPUs, nccl on GPUs.

    Raises:
        TrainingError: There are fewer GPUs than processes on this machine, or the processes do not find each other.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield SINGLE, device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"process {local} has no GPU, this machine has {torch.cuda.device_count()}: "
                "start torchrun with --nproc-per-node of that many"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except Exception as error:
        raise TrainingError(f"the processes of this run do not find each other ({error})") from error
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
