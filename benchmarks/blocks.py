"""What a block of an encoder costs: milliseconds forward and backward, at the size it has in a step of WhiteNet.

The first four blocks do equally many multiplications, in four shapes; then come the parts that WhiteNet was chosen
from, and one of ResNet5's. A step is 4 views of 64 images, channels_last, in this device's precision. What a part
brings in accuracy stands in docs/trials.md.
"""

import torch
from torch import nn

from jepa_utils.encoders import ResidualBlock, WhiteningConv
from jepa_utils.runtime import autocast, keep_freed_memory, pick_device, precision
from jepa_utils.threads import choose_threads
from jepa_utils.train import operations

from .limit import WARMUP, clocked
from .timing import row

IMAGES = 256
BLOCKS = {  # name: the block, and the channels and the side of its maps
    **{f"3x3 convolution, {C} channels, {side} x {side}": (lambda C=C: nn.Conv2d(C, C, 3, 1, 1, bias=False), C, side)
       for C, side in ((48, 32), (96, 16), (192, 8), (384, 4))},
    "stem, 3x3, every second pixel": (lambda: nn.Conv2d(3, 48, 3, 2, 1, bias=False), 3, 32),
    "stem, 4x4 patches, every second pixel": (lambda: WhiteningConv(3, 48), 3, 32),
    "block to 96 channels, 8 x 8": (lambda: ResidualBlock(48, 96, 2), 48, 16),
    "block to 192 channels, 8 x 8": (lambda: ResidualBlock(96, 192), 96, 8),
    "block to 384 channels, 4 x 4": (lambda: ResidualBlock(96, 384, 2), 96, 8),
    "1x1 to 1,024 channels, 8 x 8": (lambda: nn.Conv2d(192, 1024, 1), 192, 8),
    "the same, then BatchNorm": (lambda: nn.Sequential(nn.Conv2d(192, 1024, 1), nn.BatchNorm2d(1024)), 192, 8),
}


def both_passes(block: nn.Module, x: torch.Tensor) -> int:
    """Operations of forward and backward."""
    return operations(lambda: block(x).sum().backward())


def milliseconds(block: nn.Module, x: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Of each pass forward and each backward; gradients are taken, not added to what is there."""
    wanted, taken = [leaf for leaf in (x, *block.parameters()) if leaf.requires_grad], {"forward": [], "backward": []}
    for _ in range(WARMUP + repeats):
        with autocast(x.device):
            y, forward = clocked(lambda: block(x), x.device)
        given = torch.ones_like(y)
        _, backward = clocked(lambda y=y, given=given: torch.autograd.grad(y, wanted, given), x.device)
        taken["forward"].append(1000 * forward)
        taken["backward"].append(1000 * backward)
    return {part: values[WARMUP:] for part, values in taken.items()}


def measure(quick: bool = False) -> list[dict]:
    device, count = pick_device(), 4 if quick else IMAGES
    keep_freed_memory()
    choose_threads(device)
    rows = []
    for name, (build, C, side) in BLOCKS.items():
        with torch.device("meta"):
            flops = both_passes(build(), torch.rand(count, C, side, side, requires_grad=C > 3))
        block = build().to(device, memory_format=torch.channels_last)
        x = torch.randn(count, C, side, side, device=device, dtype=precision(device))
        x = x.to(memory_format=torch.channels_last).requires_grad_(C > 3)  # images want no gradient
        case = f"{name}, {flops / 1e9:.1f} GFLOP in both directions"
        taken = milliseconds(block, x, 1 if quick else 20)
        rows += [row("a block", case, part, "ms", values, "") for part, values in taken.items()]
    return rows
