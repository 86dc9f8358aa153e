"""How good are frozen features? Linear probe and k nearest neighbours.

Every choice (penalty, epoch) is made on a validation split of the training set; the test set is
looked at once. Features are finite floats (N, F) of any precision, computed with in float32; labels whole
numbers from 0 (N,). InputError for others, by name. Classes may be rare, or missing in any part.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_count, check_floats, check_number, check_positive, described, number
from .encoders import in_batches
from .pixels import check_images, to_float
from .runtime import InputError, autocast, generator, progress_bar

VALIDATION_SHARE = 0.1
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
CHUNK = 8192  # images per product: a CPU multiplies few classes by some images faster than by all at once
DEAD = 1e-6  # of a feature's mean: a standard deviation under this is rounding
RIDGE = 1e-6  # of the trace: keeps a matrix of float32 moments positive definite where features depend on each other


def features(encoder: nn.Module, images: Tensor, batch_size: int = 128) -> Tensor:
    """`h` (N, F) of images (N, C, H, W), with the encoder frozen in evaluation mode, in its device's precision."""
    with autocast(next(encoder.parameters()).device):
        return in_batches(encoder, encoder, check_images(images), batch_size)


def raw_pixels(images: Tensor) -> Tensor:
    """The baseline that learns nothing: pixel values as features, (N, C*H*W)."""
    return to_float(check_images(images)).flatten(1)


def validation_split(N: int, share: float = VALIDATION_SHARE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of a random training part and of the validation part held out from it; neither is empty."""
    check_count(N, "N", 2)
    if not number(share) or not 0 < share < 1:
        raise InputError("share", share, "a share of the images, between 0 and 1")
    order = torch.randperm(N, generator=generator(seed))
    held_out = min(max(1, round(share * N)), N - 1)
    return order[held_out:], order[:held_out]


def linear_probe(train_h: Tensor, train_y: Tensor, test_h: Tensor, test_y: Tensor, penalties=PENALTIES) -> float:
    """Test accuracy, in percent, of a linear classifier on standardised features: full batch, to convergence.

    h (N, F), y (N,). The L2 penalty is chosen on a validation split, then the classifier is fitted
    on all training features.
    """
    if not penalties:
        raise InputError("penalties", tuple(penalties), "one number or several")
    for penalty in penalties:
        check_positive(penalty, "penalties")
    train_h, test_h = standardize(train_h, test_h)
    train_y, test_y, classes = class_numbers(train_y, test_y, len(train_h), len(test_h))
    moments = second_moments(train_h)
    fit_part, held_out = (part.to(train_y.device) for part in validation_split(len(train_y)))
    (fit_h, fit_y), (held_h, held_y) = ((train_h[part], train_y[part]) for part in (fit_part, held_out))
    best, weights = -1.0, (train_h.new_zeros(train_h.shape[1], classes), train_h.new_zeros(classes))
    for penalty in sorted(penalties, reverse=True):  # from smooth to sharp, each started where the last one ended
        weights = fit_logistic(fit_h, fit_y, penalty, weights, moments)
        score = accuracy(held_h @ weights[0] + weights[1], held_y)
        if score > best:
            best, chosen, start = score, penalty, weights
    weight, bias = fit_logistic(train_h, train_y, chosen, start, moments)
    return accuracy(test_h @ weight + bias, test_y)


def fit_logistic(
    h: Tensor, y: Tensor, penalty: float, start=None, moments: Tensor | None = None, tolerance: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression by L-BFGS: weight (F, classes) and bias (classes,).

    h (N, F) are best standardised, y (N,) are numbers of classes: as many as `start` has, else up to the largest.
    Minimises the mean cross-entropy plus penalty / 2 * |weight|^2, from weights `start` if given, until
    no derivative is larger than `tolerance`. The search runs in coordinates in which Böhning's bound of
    the Hessian (1992, "Multinomial logistic regression algorithm") is the identity: features are
    correlated, and without this the search zigzags along narrow valleys. `moments`, the features' second
    moments, may come from a larger sample that h is part of: they steer the search, not its end.
    """
    h = check_floats(h, "h", "N, F").float()
    (N, features), y = h.shape, check_labels(y, "y", len(h))
    classes = int(y.max()) + 1 if start is None else len(start[1])
    if y.max() >= classes:
        raise InputError("y", int(y.max()), f"labels below {classes}, for which there are weights to start from")
    check_positive(penalty, "penalty")
    parts = [(part.mT.contiguous(), rows[None]) for part, rows in zip(h.split(CHUNK), y.split(CHUNK), strict=True)]
    bound = (second_moments(h) if moments is None else moments) / 2
    bound.diagonal().add_(penalty + RIDGE * bound.trace())
    if not bound.isfinite().all():
        raise InputError("h", "NaN, infinite or huge values", "finite features of moderate size, see `standardize`")
    factor = torch.linalg.cholesky(bound).mT  # (F, F), upper
    weight, bias = start or (h.new_zeros(features, classes), h.new_zeros(classes))
    white, bias = (factor @ weight).requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([white, bias], max_iter=200, tolerance_grad=tolerance, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        weight = torch.linalg.solve_triangular(factor, white, upper=True)
        loss = penalty / 2 * weight.square().sum()
        for part, rows in parts:
            scores = weight.mT @ part + bias[:, None]  # (classes, CHUNK)
            loss = loss + (scores.logsumexp(0) - scores.gather(0, rows)).sum() / N
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.linalg.solve_triangular(factor, white.detach(), upper=True), bias.detach()


def second_moments(h: Tensor) -> Tensor:
    """(F, F), averaged over the rows of h (N, F)."""
    return h.mT @ h / len(h)


def linear_probe_sgd(
    train_h: Tensor, train_y: Tensor, test_h: Tensor, test_y: Tensor,
    epochs: int = 50, lr: float = 1e-3, batch_size: int = 256, seed: int = 0,
) -> float:
    """Test accuracy, in percent, of a linear layer trained with Adam: the figure that main.py reports.

    The rate falls by a cosine over the epochs. Keeps the weights of the epoch that is best on a validation split.
    """
    check_count(epochs, "epochs")
    check_count(batch_size, "batch_size")
    check_positive(lr, "lr")
    train_h, test_h = standardize(train_h, test_h)
    train_y, test_y, classes = class_numbers(train_y, test_y, len(train_h), len(test_h))
    fit_part, held_out = (part.to(train_y.device) for part in validation_split(len(train_y)))
    layer = nn.Linear(train_h.shape[1], classes).to(train_h.device)
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    order = generator(seed)
    best, kept = -1.0, dict(layer.state_dict())
    for _ in progress_bar(range(epochs), desc="linear probe"):
        for pick in fit_part[torch.randperm(len(fit_part), generator=order).to(fit_part.device)].split(batch_size):
            loss = F.cross_entropy(layer(train_h[pick]), train_y[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            score = accuracy(layer(train_h[held_out]), train_y[held_out])
        if score > best:
            best, kept = score, {name: value.clone() for name, value in layer.state_dict().items()}
    layer.load_state_dict(kept)
    with torch.no_grad():
        return accuracy(layer(test_h), test_y)


def knn_probe(
    train_h: Tensor, train_y: Tensor, test_h: Tensor, test_y: Tensor, k: int = 20, temperature: float = 0.07
) -> float:
    """Test accuracy, in percent, of k nearest neighbours by cosine, weighted by exp(cosine / temperature).

    The protocol of Wu et al. 2018 (arXiv 1805.01978). With fewer than k training features all are neighbours.
    """
    check_count(k, "k")
    check_positive(temperature, "temperature")
    train_h, test_h = map(unit_length, check_features(train_h, test_h))
    train_y, test_y, classes = class_numbers(train_y, test_y, len(train_h), len(test_h))
    one_hot = F.one_hot(train_y, classes).float()  # (N, classes)
    votes = []
    for part in test_h.split(1000):  # a bounded table of similarities
        cosine, nearest = (part @ train_h.mT).topk(min(k, len(train_h)), dim=1)  # (B, k)
        weights = torch.exp((cosine - cosine[:, :1]) / temperature)  # of the nearest 1: no temperature overflows
        votes.append((one_hot[nearest] * weights[..., None]).sum(dim=1))
    return accuracy(torch.cat(votes), test_y)


def unit_length(h: Tensor) -> Tensor:
    """The rows of h (N, F) divided by their lengths, however small or large; rows of zeros stay."""
    largest = h.abs().amax(dim=1, keepdim=True)
    return F.normalize(h / torch.where(largest > 0, largest, 1), dim=1)


def standardize(train_h: Tensor, test_h: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance per feature, by the training features' statistics; float32.

    Dead features become 0: those that vary by no more than float32 rounds them.
    """
    train_h, test_h = check_features(train_h, test_h, rows=2)
    mean, std = train_h.mean(dim=0), train_h.std(dim=0)
    alive = std > DEAD * mean.abs()
    scale = torch.where(alive, 1 / torch.where(alive, std, 1), 0.0)
    return (train_h - mean) * scale, (test_h - mean) * scale


def check_features(train_h: Tensor, test_h: Tensor, rows: int = 1) -> tuple[Tensor, Tensor]:
    """Both in float32, if they are finite floats (N, F) with one F, and `rows` of training or more; else InputError."""
    for h, name in ((train_h, "train_h"), (test_h, "test_h")):
        if not torch.stack(check_floats(h, name, "N, F").float().detach().aminmax()).isfinite().all():
            raise InputError(name, "NaN or infinite values", "features that are finite in float32")
    if len(train_h) < rows:
        raise InputError("train_h", tuple(train_h.shape), f"(N, F) with N >= {rows}")
    if train_h.shape[1] != test_h.shape[1]:
        raise InputError("test_h", tuple(test_h.shape), f"(N, {train_h.shape[1]}), as train_h has it")
    return train_h.float(), test_h.float()


def check_labels(y: Tensor, name: str, N: int | None = None) -> Tensor:
    """Labels as int64 (N,), if they are whole numbers from 0, one of each image; else InputError."""
    whole = isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.ndim != 1 or len(y) != (N or len(y)) or len(y) == 0:
        raise InputError(name, described(y), f"whole numbers of shape ({N or 'N'},), one of each image")
    if (y := y.long()).min() < 0:
        raise InputError(name, f"labels down to {y.min()}", "whole numbers from 0")
    return y


def class_numbers(train_y: Tensor, test_y: Tensor, train: int, test: int) -> tuple[Tensor, Tensor, int]:
    """Labels as numbers without gaps, and how many classes there are in both sets together."""
    both = torch.cat([check_labels(train_y, "train_y", train), check_labels(test_y, "test_y", test)])
    names, numbers = both.unique(return_inverse=True)
    return numbers[:train], numbers[train:], len(names)


def accuracy(scores: Tensor, y: Tensor) -> float:
    """Percentage of rows of scores (N, classes) whose largest entry is at y (N,)."""
    if check_floats(scores, "scores", "N, classes").isnan().any():
        raise InputError("scores", "NaN", "numbers; the classifier that gave these has diverged")
    if y.shape != scores.shape[:1]:
        raise InputError("y", tuple(y.shape), f"({len(scores)},), one label of each row of scores")
    return 100 * (scores.argmax(dim=1) == y).float().mean().item()


def standard_error(percent: float, N: int) -> float:
    """Of an accuracy on N test images, in percent: sqrt(p (1 - p) / N).

    How far another draw of N test images would move it, not how far another training would.
    """
    check_count(N, "N")
    check_number(percent, "percent", 100, "an accuracy from 0 to 100")
    return math.sqrt(percent * (100 - percent) / N)


class OnlineProbe(nn.Module):
    """A linear classifier trained beside the model on detached features; sends no gradient back."""

    def __init__(self, features: int, labels: Tensor | None, lr: float = 1e-3):
        super().__init__()
        self.features, self.labels = features, None if labels is None else check_labels(labels, "labels")
        classes = 1 if labels is None else int(labels.max()) + 1
        linear = nn.Linear(features, classes)
        nn.init.zeros_(linear.weight), nn.init.zeros_(linear.bias)
        self.layers = nn.Sequential(nn.BatchNorm1d(features, affine=False), linear)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr)

    def step(self, h: Tensor, pick: Tensor) -> dict[str, Tensor]:
        """One step on features h (B, F) of the picked images; its accuracy before the step, in percent."""
        if self.labels is None:
            return {}
        if check_floats(h, "h", "B, F").shape != (len(pick), self.features) or len(pick) < 2:
            raise InputError("h", tuple(h.shape), f"({len(pick)}, {self.features}), for 2 images or more")
        y = self.labels[pick]
        logits = self.layers(h.float())
        self.optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        self.optimizer.step()
        return {"online_probe": 100 * (logits.argmax(dim=1) == y).float().mean()}
