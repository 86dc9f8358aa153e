"""Several processes as one: each computes its share of a batch, the loss sees the whole batch.

Under `torchrun` a run is the same run as in one process, up to rounding: every process draws the
random numbers of the whole batch and uses its own share, batch statistics (BatchNorm, variance,
covariance, SIGReg) are taken over all of them, and the slices come from the same seed. Alone, every
function here gives back what it got.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .runtime import InputError


def start(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, if it did; the device of this one."""
    if not dist.is_torchelastic_launched():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=3))  # the first may have to download, see `in_turn`
    return device


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def processes() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(N: int) -> slice:
    """This process's part of N rows: equal parts, in the order of the ranks."""
    W = processes()
    if N % W:
        raise InputError("batch_size", N, f"a multiple of the {W} processes: it is shared out among them")
    return slice(rank() * N // W, (rank() + 1) * N // W)


def gather(z: Tensor, dim: int = 1) -> Tensor:
    """The rows of all processes along `dim`, in the order of the ranks; gradients reach this process's own rows.

    That is enough: the process that owns a row computes the same loss, and sends that row's gradient.
    """
    if processes() == 1:
        return z
    parts = [torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(processes())]
    dist.all_gather(parts, z.detach().contiguous())
    parts[rank()] = z
    return torch.cat(parts, dim=dim)


def whole_batch(loss: Callable) -> Callable:
    """`loss` (of z, predicted and step) on the embeddings (V, N, D) of all processes, with gradients that add up to
    those of one process.

    DistributedDataParallel averages gradients over processes where their sum is wanted, so the
    gradient of each term (not its value) is multiplied by their number.
    """
    W = processes()
    if W == 1:
        return loss

    def shared(z: Tensor, predicted: Tensor, step: int) -> dict[str, Tensor]:
        terms = loss(gather(z), gather(predicted), step)
        return {name: W * term - (W - 1) * term.detach() for name, term in terms.items()}

    return shared


def parallel(model: nn.Module) -> nn.Module:
    """`model`, gradients averaged over processes, BatchNorm over the whole batch; `model` itself stays in use."""
    if processes() == 1:
        return model
    device = next(model.parameters()).device
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[device])
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            # torch's SyncBatchNorm has no CPU kernel.
            layer.forward = partial(whole_batchnorm, layer)  # type: ignore[method-assign]
    return DistributedDataParallel(model)


def whole_batchnorm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """What `layer` gives for x (N, C, ...) when mean and variance are those of all processes' rows."""
    if not layer.training:
        return type(layer).forward(layer, x)
    rows = [d for d in range(x.ndim) if d != 1]
    shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
    count = processes() * x.numel() / x.shape[1]
    mean = Sum.apply(x.float().sum(rows)) / count  # (C,)
    centred = x.float() - mean.view(shape)
    var = Sum.apply(centred.square().sum(rows)) / count
    with torch.no_grad():
        buffers, momentum = dict(layer.named_buffers()), layer.momentum or 0.0
        buffers["num_batches_tracked"] += 1
        buffers["running_mean"].lerp_(mean, momentum)
        buffers["running_var"].lerp_(var * count / (count - 1), momentum)
    gain = layer.weight * torch.rsqrt(var + layer.eps)
    return (centred * gain.view(shape) + layer.bias.view(shape)).to(x.dtype)


class Sum(torch.autograd.Function):
    """The sum of a tensor over processes. Each of them depends on it, so gradients are summed too."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return Sum.forward(ctx, grad)


def spread(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """function(images), row by row, each process computing its share of the rows."""
    N, W = len(images), processes()
    if W == 1:
        return function(images)
    each = -(-N // W)
    mine = torch.arange(rank() * each, (rank() + 1) * each, device=images.device) % N  # the last share is filled up
    return gather(function(images[mine]), dim=0)[:N]


def in_turn(function: Callable):
    """function() in the first process, which may download or write, then in the others."""
    result = function() if rank() == 0 else None
    if processes() > 1:
        dist.barrier()
    return result if rank() == 0 else function()


def agreed(value):
    """The first process's `value`, in all of them."""
    if processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
