"""Train an encoder and a linear head on labelled images, as few as one of each class.

Fine-tuning starts from a trained encoder and the probe's weights (Kumar et al. 2022, arXiv 2202.10054, "LP-FT");
training from scratch is the same loop from random weights.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import probe
from .augment import Augmentation, make_views
from .checks import check_count, number
from .encoders import Encoder
from .optimizers import Muon, set_rate
from .pixels import check_images
from .runtime import InputError, autocast, generator, grad_scaler, keep_freed_memory, to_device
from .threads import choose_threads
from .train import lr_at

ENOUGH = 50  # labels a class, on average, from which a fifth of them can choose the head's penalty
PENALTY = 1e-2  # of a head with fewer
RATES = (6e-3, 6e-3)  # of encoder and head, for either start: lower ones were no better from 10 labels per class on


def some_labels(y: Tensor, count: int, seed: int = 0) -> Tensor:
    """Indices of `count` random images of each class in y (N,); of all its images, where a class has fewer."""
    check_count(count, "count")
    g, y = generator(seed), probe.check_labels(y, "y")
    members = [torch.nonzero(y == label)[:, 0].cpu() for label in y.unique()]
    return torch.cat([each[torch.randperm(len(each), generator=g)[:count]] for each in members]).to(y.device)


def probe_head(h: Tensor, y: Tensor, classes: int, everyone: Tensor | None = None) -> nn.Linear:
    """The linear probe of features h (N, F) with labels y (N,), as a layer that reads features as they are.

    Solved on standardised features; their mean and spread are those of `everyone`, such as the features of
    unlabelled images too, or of h. With ENOUGH labels a class, on average, a fifth of them choose the penalty.
    """
    y = probe.check_labels(y, "y", len(h))
    if y.max() >= classes:
        raise InputError("y", int(y.max()), f"labels below {classes}, the number of classes")
    everyone, start = h if everyone is None else everyone, (h.new_zeros(h.shape[1], classes), h.new_zeros(classes))
    _, standard = probe.standardize(everyone, h)
    penalty = best_penalty(standard, y, start) if len(y) >= ENOUGH * classes else PENALTY
    weight, bias = probe.fit_logistic(standard, y, penalty, start)
    _, (zero, one) = probe.standardize(everyone, torch.stack([torch.zeros_like(h[0]), torch.ones_like(h[0])]))
    head = nn.Linear(*weight.shape).to(h.device).requires_grad_(False)
    head.weight.copy_(((one - zero)[:, None] * weight).mT)  # standardising is affine, so that it can be part of it
    head.bias.copy_(bias + zero @ weight)
    return head


def best_penalty(h: Tensor, y: Tensor, start: tuple[Tensor, Tensor]) -> float:
    """Of the probe's penalties the one with which a classifier fitted on four fifths is best on the last fifth."""
    fit_part, held_out = (part.to(y.device) for part in probe.validation_split(len(y), share=0.2))

    def score(penalty: float) -> float:
        weight, bias = probe.fit_logistic(h[fit_part], y[fit_part], penalty, start)
        return probe.accuracy(h[held_out] @ weight + bias, y[held_out])

    return max(sorted(probe.PENALTIES, reverse=True), key=score)  # of equals the smoothest


def train_on_labels(
    encoder: Encoder, head: nn.Linear, images: Tensor, y: Tensor, augmentation: Augmentation, steps: int,
    rates: tuple[float, float] = RATES, batch_size: int = 128, seed: int = 0,
) -> nn.Sequential:
    """Copies of encoder and head, trained together on views of labelled images (N, C, H, W), uint8; images -> scores.

    Cross-entropy, one view of each image, Muon, `rates` of encoder and head with warm-up and cosine. Batches are
    drawn with replacement, so that ten images fill one as well.
    """
    check_count(steps, "steps")
    check_count(batch_size, "batch_size", 2)
    y = probe.check_labels(y, "y", len(check_images(images)))
    if not (isinstance(rates, (tuple, list)) and len(rates) == 2 and all(number(rate) and rate >= 0 for rate in rates)):
        raise InputError("rates", rates, "two numbers of at least 0, of encoder and head")
    keep_freed_memory()
    choose_threads(images.device)
    network = nn.Sequential(deepcopy(encoder), deepcopy(head)).requires_grad_(True).train()
    network.to(images.device).to(memory_format=torch.channels_last)
    optimizer = Muon([{"params": list(part.parameters())} for part in network], lr=max(rates))
    g, scaler = generator(seed), grad_scaler(images.device)
    for step in range(steps):
        set_rate(optimizer, *(lr_at(step, steps, rate) for rate in rates))
        pick = to_device(torch.randint(len(images), (batch_size,), generator=g), images.device)
        with autocast(images.device):
            scores = network(make_views(images[pick], augmentation, 1, g)[0])
        loss = F.cross_entropy(scores.float(), y[pick])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return network.eval()
