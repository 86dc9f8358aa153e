"""Which tokens are seen and which are asked for: blocks on the grid of an image's patches."""

import torch
from torch import Tensor

from .checks import check_count, check_range
from .runtime import InputError

TRIES = 200  # layouts drawn before it is said that none leaves a context


def draw_block(side: int, scale: tuple[float, float], aspect: tuple[float, float], g: torch.Generator) -> Tensor:
    """A random rectangle on the grid: True inside, (side, side).

    It covers a share `scale` of the grid and has a height `aspect` times its width, both drawn uniformly from their
    range; height and width are then rounded to whole patches. I-JEPA (arXiv 2301.08243) section 3.
    """
    check_count(side, "side")
    check_range(scale, "scale", 1)
    check_range(aspect, "aspect")
    share, ratio, y, x = torch.rand(4, generator=g).tolist()
    area = side * side * (scale[0] + share * (scale[1] - scale[0]))
    ratio = aspect[0] + ratio * (aspect[1] - aspect[0])
    height = min(side, max(1, round((area * ratio) ** 0.5)))
    width = min(side, max(1, round((area / ratio) ** 0.5)))
    top, left = int(y * (side - height + 1)), int(x * (side - width + 1))
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    return inside


def sample_blocks(
    side: int, g: torch.Generator, blocks: int = 4, target: tuple[float, float] = (0.15, 0.2),
    context: tuple[float, float] = (0.85, 1.0), aspect: tuple[float, float] = (0.75, 1.5), least: int = 4,
) -> tuple[Tensor, list[Tensor]]:
    """A layout: what the context encoder sees, and the blocks it is asked for, as numbers of tokens.

    The context is one large square without the target blocks: (tokens,), at least `least` of them, row by row. Each
    of the `blocks` targets is (tokens,) too; they may overlap. The defaults are the paper's. Raises InputError where
    no such layout turns up.
    """
    check_count(blocks, "blocks")
    check_count(least, "least")
    for _ in range(TRIES):
        targets = torch.stack([draw_block(side, target, aspect, g) for _ in range(blocks)])  # (blocks, side, side)
        seen = draw_block(side, context, (1, 1), g) & ~targets.any(dim=0)
        if seen.sum() >= least:
            return seen.flatten().nonzero()[:, 0], [block.flatten().nonzero()[:, 0] for block in targets]
    raise InputError("target", target, f"blocks that leave {least} of {side * side} tokens to the context")


def distances(side: int, context: Tensor) -> Tensor:
    """From every token to the nearest one of the context (tokens,), in patches, centre to centre: (side * side,)."""
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()  # (side * side, 2): row, column
    return torch.cdist(places, places[context.cpu()]).amin(dim=1)
