"""Digits that move between walls, made on the fly, and everything that there is to know of them. For notebook 11.

Clips come time first: frames (T, N, 1, 32, 32), so that time takes the place of the views. Everything random comes
from a generator, and is made where that generator lives.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_count
from .pixels import SIZE
from .runtime import InputError, generator

SHEET = 12  # side of the sheet of paper that a digit is written on, in pixels
LOW, HIGH = 8.0, 24.0  # between these walls the digit's centre of mass moves, in x and in y
SPEEDS = (1.0, 3.0)  # of each axis, in pixels a frame
SPLITS, NOISES = ("train", "test"), ("", "still", "flicker")
GRAIN = 0.3  # the strength of noise


@dataclass(frozen=True)
class Clips:
    """N clips of T frames, and everything that there is to know of them."""

    ink: Tensor  # (N, 1, 12, 12): the writing, in [0, 1]
    frames: Tensor  # (T, N, 1, 32, 32) in [0, 1]
    digits: Tensor  # (N,)
    positions: Tensor  # (T, N, 2): x and y of the centre of mass, in pixels from the upper left corner
    velocities: Tensor  # (T, N, 2): pixels a frame, as the digit leaves each frame
    coins: Tensor  # (T, N): 1 or -1, what the coin of a wall said, or would have, on the way into each frame
    hits: Tensor  # (T, N): whether a wall was hit on that way


@lru_cache(maxsize=4)  # so that a training copies nothing to its device at every step
def handwriting(split: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Ink (P, 1, 12, 12) in [0, 1] and digits (P,) of one part of scikit-learn's digits; a fifth of them is "test"."""
    from sklearn.datasets import load_digits  # 0.5 s to import: only when digits are wanted

    if split not in SPLITS:
        raise InputError("split", split, ", ".join(SPLITS))
    bundle = load_digits()
    order = torch.randperm(len(bundle.target), generator=generator(0))
    fifth = len(order) // 5
    part = order[fifth:] if split == "train" else order[:fifth]
    ink = torch.from_numpy(bundle.images).float()[part, None] / 16  # (P, 1, 8, 8)
    ink = F.interpolate(ink, (SHEET, SHEET), mode="bilinear", align_corners=False)
    return ink.to(device), torch.from_numpy(bundle.target)[part].long().to(device)


def centre_of_mass(images: Tensor) -> Tensor:
    """x and y (..., 2) of images (..., 1, H, W), from -1 at the left and upper edge to 1 at the others."""
    H, W = images.shape[-2:]
    mass = images[..., 0, :, :] / images.sum(dim=(-3, -2, -1))[..., None, None]
    x, y = ((2 * torch.arange(size, device=images.device) + 1) / size - 1 for size in (W, H))
    return torch.stack([(mass.sum(dim=-2) * x).sum(dim=-1), (mass.sum(dim=-1) * y).sum(dim=-1)], dim=-1)


def render(ink: Tensor, positions: Tensor) -> Tensor:
    """Ink (N, 1, H, H) with its centre of mass at positions (T, N, 2), in pixels: frames (T, N, 1, 32, 32).

    Pixels keep their size, so that bilinear interpolation shifts the centre of mass exactly.
    """
    T, N, _ = positions.shape
    zoom = SIZE / ink.shape[-1]
    theta = torch.zeros(T * N, 2, 3, device=ink.device)  # from places in the frame to places on the sheet
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = (centre_of_mass(ink) - zoom * (2 * positions / SIZE - 1)).flatten(0, 1)
    grid = F.affine_grid(theta, [T * N, 1, SIZE, SIZE], align_corners=False)
    return F.grid_sample(ink.repeat(T, 1, 1, 1), grid, align_corners=False).unflatten(0, (T, N))


def advance(position: Tensor, velocity: Tensor, coin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One frame on: position and velocity (N, 2), and which digits hit a wall (N,).

    A wall reflects. Where a digit hits one, coin (N,) = -1 also turns its movement along that wall.
    """
    ahead = position + velocity
    hit = (ahead < LOW) | (ahead > HIGH)  # (N, 2), by axis
    velocity = torch.where(hit.flip(1), coin[:, None] * velocity, velocity)
    ahead = position + velocity
    reflected = torch.where(ahead < LOW, 2 * LOW - ahead, torch.where(ahead > HIGH, 2 * HIGH - ahead, ahead))
    return reflected, torch.where(reflected == ahead, velocity, -velocity), hit.any(dim=1)


def make_clips(N: int, T: int, g: torch.Generator, split: str = "train", coins: bool = False,
               noise: str = "") -> Clips:
    """N clips of T frames on the generator's device: digits at constant velocity between walls that reflect.

    With `coins`, a fair coin at every hit decides whether the movement along the wall goes on or turns back. The
    paper may have grain, `noise`: "still" is one pattern for all frames of a clip, "flicker" a new one every frame.
    """
    check_count(N, "N")
    check_count(T, "T")
    if noise not in NOISES:
        raise InputError("noise", noise, ", ".join(map(repr, NOISES)))
    ink, digits = handwriting(split, g.device)
    pick = torch.randint(len(ink), (N,), generator=g, device=g.device)
    position = LOW + (HIGH - LOW) * torch.rand(N, 2, generator=g, device=g.device)
    low, high = SPEEDS
    speed = low + (high - low) * torch.rand(N, 2, generator=g, device=g.device)
    velocity = speed * signs(N, 2, g)
    tossed = signs(T, N, g) if coins else torch.ones(T, N, device=g.device)
    track = [(position, velocity, torch.zeros(N, dtype=torch.bool, device=g.device))]
    for coin in tossed[1:]:
        track.append(advance(*track[-1][:2], coin))
    positions, velocities, hits = map(torch.stack, zip(*track, strict=True))
    frames = render(ink[pick], positions)
    if noise:
        grain = torch.rand(1 if noise == "still" else T, N, 1, SIZE, SIZE, generator=g, device=g.device)
        frames = (frames + GRAIN * grain).clamp(max=1)
    return Clips(ink[pick], frames, digits[pick], positions, velocities, tossed, hits)


def futures(clips: Clips) -> Tensor:
    """Frames from the third on, if the coin of that step says 1 and if it says -1: (2, T - 2, N, 1, 32, 32).

    Both follow the same past. Where no wall is hit they are one and the same.
    """
    N = len(clips.digits)
    before, moving = clips.positions[1:-1].flatten(0, 1), clips.velocities[1:-1].flatten(0, 1)
    coin = torch.ones(len(before), device=before.device)
    positions = torch.stack([advance(before, moving, side * coin)[0].unflatten(0, (-1, N)) for side in (1, -1)])
    return render(clips.ink, positions.flatten(0, 1)).unflatten(0, (2, -1))


def signs(rows: int, columns: int, g: torch.Generator) -> Tensor:
    """1 or -1, each with probability one half."""
    return 2.0 * torch.randint(2, (rows, columns), generator=g, device=g.device) - 1
