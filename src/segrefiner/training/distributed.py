"""The processes of a run: one alone, or several that `torchrun` started."""

import atexit
import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import TrainingError


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a run.

    Attributes:
        rank: Number of this process; process 0 writes files and speaks.
        world: Number of processes.
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
        """Whether `value` is true in any process; all of them must call this."""
        return value if self.world == 1 else bool(self.sum(torch.tensor(float(value), device=device)))

    def barrier(self) -> None:
        """Waits until all processes have called this."""
        if self.world > 1:
            distributed.barrier()


SINGLE = ProcessGroup()


def launched(device: torch.device) -> tuple[ProcessGroup, torch.device]:
    """The processes that `torchrun` started, or this one alone, and the device of this one.

    The processes stay connected to the program's end, so that it may call this again.

    Args:
        device: Its type decides how the processes talk: gloo on CPUs, nccl on GPUs.

    Returns:
        This process among the others, and its device.

    Raises:
        TrainingError: There are fewer GPUs than processes on this machine, or the processes do not find each other.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        return SINGLE, device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"process {local} has no GPU, this machine has {torch.cuda.device_count()}: "
                "start torchrun with --nproc-per-node of that many"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        try:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except Exception as error:
            raise TrainingError(f"the processes of this run do not find each other ({error})") from error
        # Processes find each other once: a second meeting under the same torchrun waits for ever.
        atexit.register(_disconnect)
    return ProcessGroup(distributed.get_rank(), distributed.get_world_size()), device


def _disconnect() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
