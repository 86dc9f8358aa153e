"""Searching among pictures by their features: the nearest, near duplicates, and odd ones out.

Features `h` (N, F) become directions `d` (N, F), rows of length 1 whose products are cosines. None of it needs a label.
"""

import torch
from torch import Tensor

from .checks import check_count, check_floats
from .probe import standardize, unit_length
from .runtime import InputError

CHUNK = 1000  # pictures compared with all others at a time: bounds the table of cosines
ALIKE = 0.95  # cosine from which two pictures count as near duplicates


def directions(h: Tensor, everyone: Tensor | None = None) -> Tensor:
    """Features h (N, F), each standardised by its mean and spread over `everyone` (or h), as rows of length 1."""
    return unit_length(standardize(h if everyone is None else everyone, h)[1])


def check_directions(d: Tensor, name: str = "d", rows: int = 1) -> Tensor:
    """`d`, if it is floats (N, F) of `rows` or more; InputError otherwise. Looks at no value."""
    if len(check_floats(d, name, "N, F")) < rows:
        raise InputError(name, tuple(d.shape), f"(N, F) with N >= {rows}")
    return d


def nearest(query: Tensor, d: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Cosines and row numbers, (M, k) each, of the k rows of d (N, F) nearest to each query (M, F), nearest first.

    With fewer than k rows, all of them. A query that is a row of d finds itself.
    """
    check_count(k, "k")
    parts = check_directions(query, "query").split(CHUNK)
    best = [(part @ check_directions(d).mT).topk(min(k, len(d)), dim=1) for part in parts]
    return torch.cat([each.values for each in best]), torch.cat([each.indices for each in best])


def found_again(views: Tensor, d: Tensor) -> Tensor:
    """Whether row i of `views` (N, F) is nearer to row i of d (N, F) than to any other: (N,), true or false."""
    if views.shape != d.shape:
        raise InputError("views", tuple(views.shape), f"{tuple(d.shape)}, a view of each picture")
    return nearest(views, d, 1)[1][:, 0] == torch.arange(len(d), device=d.device)


def oddness(d: Tensor, k: int = 5) -> Tensor:
    """1 - cosine to the k-th nearest other row, for each row of d (N, F): (N,). 0 has k twins, 1 has no company.

    With k rows or fewer, the farthest counts.
    """
    check_count(k, "k")
    cosine, _ = nearest(check_directions(d, rows=2), d, k + 1)  # itself is the nearest
    return 1 - cosine[:, -1]


def near_duplicates(d: Tensor, least: float = ALIKE) -> tuple[Tensor, Tensor]:
    """Pairs of rows of d (N, F) whose cosine is `least` or more: cosines (P,) and pairs (P, 2), the most alike first.

    Each pair comes once, the smaller row number first.
    """
    pairs, cosines = [], []
    for start in range(0, len(check_directions(d)), CHUNK):
        cosine = d[start : start + CHUNK] @ d.mT  # (CHUNK, N)
        one, two = torch.nonzero(cosine >= least, as_tuple=True)
        later = two > one + start
        pairs.append(torch.stack([one + start, two], dim=1)[later])
        cosines.append(cosine[one, two][later])
    cosine, order = torch.cat(cosines).sort(descending=True, stable=True)
    return cosine, torch.cat(pairs)[order]
