"""One process or many: what torchrun's environment says, DDP or FSDP2, and the few sums that cross ranks."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

Parallel = Literal["ddp", "fsdp2"]


@dataclass(frozen=True)
class Ranks:
    """This process among `world`, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def ranks() -> Iterator[Ranks]:
    """Join the process group torchrun describes (gloo on CPU, nccl on CUDA), or stand alone."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    own = world > 1 and not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world, device)
    finally:
        if own:
            dist.destroy_process_group()


def parallelize(module: nn.Module, ranks: Ranks, parallel: Parallel) -> nn.Module:
    """The module itself, in DDP, or sharded by FSDP2 layer by layer.

    Gradients of DDP and FSDP2 are averages over ranks; the loop multiplies the loss by the world size to undo it.
    """
    if ranks.world == 1:
        return module
    if parallel == "ddp":
        ids = [ranks.device.index] if ranks.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for layer in decoder_layers(module):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def decoder_layers(module: nn.Module) -> list[nn.Module]:
    """The model's repeated blocks: the members of its longest ModuleList."""
    lists: list[list[nn.Module]] = [list(m) for m in module.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len, default=[])


@contextlib.contextmanager
def gradients_stay_local(module: nn.Module, local: bool) -> Iterator[None]:
    """Within it backward does not exchange gradients: all but the last micro-batch of a step."""
    if isinstance(module, nn.parallel.DistributedDataParallel) and local:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not local)
    yield


def whole_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Full, unsharded state of module and optimizer on CPU (a collective under FSDP2: every rank must call it)."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, moments = get_state_dict(module, optimizer, options=options)
    return weights, dict(moments)


def load_whole_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, weights: dict[str, Any], moments: dict[str, Any]
) -> None:
    """Put full states back, sharding them again where the module is sharded."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    options = StateDictOptions(full_state_dict=True)
    set_state_dict(module, optimizer, model_state_dict=weights, optim_state_dict=moments, options=options)


def total_norm(parameters: list[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Clip to `max_norm` (0 = off) and return the gradient norm before it, over all shards."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
