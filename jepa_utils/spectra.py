"""What embeddings look like as a cloud: spectrum, ranks, scale, and a verdict in words.

Clouds are floats of any precision, finite, of at least 2 images; InputError for others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import check_floats, check_positive
from .runtime import InputError


def exact(z: Tensor, name: str = "z", axes: str = "N, D") -> Tensor:
    """In float64, on the CPU: spectra span more orders of magnitude than float32 resolves, and not every device has it.

    Raises InputError, naming `name`, unless these are finite floats of that shape.
    """
    z = check_floats(z, name, axes).cpu().double()
    if not z.isfinite().all():
        raise InputError(name, "NaN or infinite values", "finite embeddings; the run that made these has diverged")
    return z


def exact_cloud(z: Tensor, axes: str = "N, D") -> Tensor:
    """`exact`, and of at least 2 images."""
    if (z := exact(z, axes=axes)).shape[-2] < 2:
        raise InputError("z", tuple(z.shape), f"({axes}) with N >= 2: a spread needs two images")
    return z


def eigenvalues(z: Tensor) -> Tensor:
    """Eigenvalues of the covariance of z (N, D), descending: the variance along each principal axis."""
    z = exact_cloud(z)
    z = z - z.mean(dim=0)
    return torch.linalg.eigvalsh(z.mT @ z / (len(z) - 1)).flip(0).clamp(min=0)


def entropy_rank(values: Tensor) -> float:
    """exp of the entropy of values (D,) normalised to sum 1: D if all are equal, 1 if one holds all (or all are 0)."""
    if (values := exact(values, "values", "D")).min() < -1e-6 * values.max():
        raise InputError("values", f"values down to {values.min():.3g}", "values of at least 0")
    values = values.clamp(min=0)  # negative by rounding
    share = values / values.sum().clamp(min=1e-300)
    return torch.exp(-torch.xlogy(share, share).sum()).item()


def effective_rank(z: Tensor) -> float:
    """How many dimensions z (N, D) uses: entropy rank of the singular values of the *centred* cloud.

    Roy & Vetterli 2007. Says nothing of the cloud's size: z and 0.001 z have the same rank.
    """
    return entropy_rank(eigenvalues(z).sqrt())


def rankme(z: Tensor) -> float:
    """RankMe (arXiv 2210.02885, eq. 1): the entropy rank of the singular values of z (N, D), *not* centred."""
    z = exact_cloud(z)
    return entropy_rank(torch.linalg.eigvalsh(z.mT @ z).clamp(min=0).sqrt())


def within_image_share(z: Tensor) -> float:
    """Share of the variance of z (V, N, D) that lies between views of one image: 0 to 1.

    0: all views of an image agree and images differ. 1: two views of one image are as far apart as
    two images are, so the embedding says nothing about the image.
    """
    z = exact_cloud(z, "V, N, D")
    if len(z) < 2:
        raise InputError("z", tuple(z.shape), "(V, N, D) with V >= 2: views of one image are compared")
    within = z.var(dim=0).sum(dim=1).mean()  # spread of views around their image
    total = z.flatten(0, 1).var(dim=0).sum()
    return (within / total.clamp(min=1e-300)).clamp(max=1).item()


@dataclass(frozen=True)
class CollapseReport:
    """The state of a cloud of embeddings, and the figures that decide it."""

    state: str  # healthy, or dimensional, scale or complete collapse
    std: float  # mean over dimensions of the standard deviation over images
    relative_std: float  # spread over images / root mean square length: scale-free
    effective_rank: float  # see `effective_rank`
    dimensions: int  # D, the most that the rank can be

    def __str__(self) -> str:
        return (f"{self.state}: std {self.std:.2g} ({self.relative_std:.0%} of length), "
                f"effective rank {self.effective_rank:.1f} of {self.dimensions}")


COMPLETE_RELATIVE_STD = 0.05
SCALE_STD = 0.1  # of the scale that the embeddings should have
DIMENSIONAL_RANK = 0.15  # share of the dimensions


def collapse_report(z: Tensor, scale: float | None = 1.0) -> CollapseReport:
    """Name the state of z (N, D), the first of these that applies.

    Complete collapse: all images get nearly the same vector, their spread is under
    COMPLETE_RELATIVE_STD of its length. Scale collapse: they differ, but the mean std is under
    SCALE_STD * scale, so the cloud shrank towards 0. Dimensional collapse: the effective rank is
    under DIMENSIONAL_RANK * min(N, D). Healthy: none of them.

    `scale` is the std that the loss asks for: 1 for `z` under a regularizer. None where nothing asks
    for any: features `h`, and embeddings of a network that no loss has touched.
    """
    if scale is not None:
        check_positive(scale, "scale", ", or None where nothing fixes the scale")
    z = exact_cloud(z)
    N, D = z.shape
    std = z.std(dim=0)
    length = z.square().sum(dim=1).mean().sqrt()
    relative = (std.square().sum().sqrt() / length.clamp(min=1e-300)).item()
    rank = effective_rank(z)
    if relative < COMPLETE_RELATIVE_STD:
        state = "complete collapse"
    elif scale is not None and std.mean() < SCALE_STD * scale:
        state = "scale collapse"
    elif rank < DIMENSIONAL_RANK * min(N, D):
        state = "dimensional collapse"
    else:
        state = "healthy"
    return CollapseReport(state, std.mean().item(), relative, rank, D)
