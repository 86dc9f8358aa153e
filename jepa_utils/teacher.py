"""The averaged teacher: a copy of a network that follows it slowly and gets no gradient."""

from copy import deepcopy

import torch
from torch import nn

from .checks import check_number


def averaged(student: nn.Module) -> nn.Module:
    """A copy of the student as it stands, whose parameters take no gradient: the teacher at the start."""
    return deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every parameter of the teacher: momentum * its own + (1 - momentum) * the student's.

    Buffers, BatchNorm's running statistics among them, stay the teacher's own: it sees its own batches.
    BYOL (arXiv 2006.07733) eq. 1; I-JEPA (arXiv 2301.08243) section 3. Raises InputError for a momentum outside
    0 to 1.
    """
    check_number(momentum, "momentum", 1, "a share from 0 (the teacher is the student) to 1 (it never moves)")
    own: list[torch.Tensor] = [*teacher.parameters()]
    others: list[torch.Tensor] = [*student.parameters()]
    torch._foreach_lerp_(own, others, 1 - momentum)
