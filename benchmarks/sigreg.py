"""Time and peak memory of SIGReg and its gradient, beside lightly's, as D, N and the slices grow."""

from functools import partial

import torch
from lightly.loss.lejepa_loss import SIGReg

from jepa_utils.losses import random_directions, sigreg
from jepa_utils.runtime import pick_device

from .timing import race, weigh

POINTS = 33  # on [-3, 3]: lightly's 17 on [0, 3], doubled by symmetry
CASES = [{"N": N, "D": D, "slices": K} for N, D, K in (
    (256, 128, 256), (256, 2048, 256), (1024, 128, 1024), (4096, 512, 1024))]


def ours(N, D, slices, small=False):
    z = torch.randn(1, 8 if small else N, D, device=pick_device(), requires_grad=True)
    sigreg(z, random_directions(D, slices, 0, z.device), POINTS).backward()


def lightlys(N, D, slices, small=False):
    z = torch.randn(8 if small else N, D, device=pick_device(), requires_grad=True)
    SIGReg(knots=17, t_max=3.0, num_vectors=slices).to(z.device)(z).backward()


def measure(quick: bool = False) -> list[dict]:
    rows = []
    for case in CASES[:1] if quick else CASES:
        name = ", ".join(f"{key} {value}" for key, value in case.items())
        contenders = {"ours": partial(ours, **case), "lightly": partial(lightlys, **case)}
        rows += race("SIGReg, time", name, contenders, "ms", repeats=2 if quick else 9)
        rows += weigh("SIGReg, memory", name, contenders)
    return rows
