"""How good are frozen features? Linear probe and k nearest neighbours.

Every choice (penalty, epoch) is made on a validation split of the training set; the test set is
looked at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pixels import to_float
from .runtime import autocast, generator, progress_bar

VALIDATION_SHARE = 0.1
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
CHUNK = 8192  # images per product: a CPU multiplies few classes by some images faster than by all at once
RIDGE = 1e-6  # of the trace: keeps a matrix of float32 moments positive definite where features depend on each other


@torch.no_grad()
def features(encoder: nn.Module, images: Tensor, batch_size: int = 128) -> Tensor:
    """`h` (N, F) in float32 for images (N, C, H, W), with the encoder frozen in evaluation mode."""
    device = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    try:
        with autocast(device):
            return torch.cat([encoder(batch.to(device)).float() for batch in images.split(batch_size)])
    finally:
        encoder.train(training)


def raw_pixels(images: Tensor) -> Tensor:
    """The baseline that learns nothing: pixel values as features, (N, C*H*W)."""
    return to_float(images).flatten(1)


def validation_split(N: int, share: float = VALIDATION_SHARE, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of a random training part and of the validation part held out from it."""
    order = torch.randperm(N, generator=generator(seed))
    held_out = max(1, round(share * N))
    return order[held_out:], order[:held_out]


def linear_probe(train_h: Tensor, train_y: Tensor, test_h: Tensor, test_y: Tensor, penalties=PENALTIES) -> float:
    """Test accuracy, in percent, of a linear classifier on standardised features: full batch, to convergence.

    h (N, F), y (N,). The L2 penalty is chosen on a validation split, then the classifier is fitted
    on all training features.
    """
    train_h, test_h = standardize(train_h, test_h)
    moments = second_moments(train_h)
    fit_part, held_out = (part.to(train_y.device) for part in validation_split(len(train_y)))
    (fit_h, fit_y), (held_h, held_y) = ((train_h[part], train_y[part]) for part in (fit_part, held_out))
    best, weights = -1.0, None
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

    Minimises the mean cross-entropy plus penalty / 2 * |weight|^2, from weights `start` if given, until
    no derivative is larger than `tolerance`. The search runs in coordinates in which Böhning's bound of
    the Hessian (1992, "Multinomial logistic regression algorithm") is the identity: features are
    correlated, and without this the search zigzags along narrow valleys. `moments`, the features' second
    moments, may come from a larger sample that h is part of: they steer the search, not its end.
    """
    (N, features), classes = h.shape, int(y.max()) + 1
    parts = [(part.mT.contiguous(), rows[None]) for part, rows in zip(h.split(CHUNK), y.split(CHUNK), strict=True)]
    bound = (second_moments(h) if moments is None else moments) / 2
    bound.diagonal().add_(penalty + RIDGE * bound.trace())
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
    """Test accuracy, in percent, of the description's probe: a linear layer trained with Adam.

    Keeps the weights of the epoch that is best on a validation split.
    """
    train_h, test_h = standardize(train_h, test_h)
    fit_part, held_out = (part.to(train_y.device) for part in validation_split(len(train_y)))
    layer = nn.Linear(train_h.shape[1], int(train_y.max()) + 1).to(train_h.device)
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    order = generator(seed)
    best, kept = -1.0, None
    for _ in progress_bar(range(epochs), desc="linear probe"):
        for pick in fit_part[torch.randperm(len(fit_part), generator=order).to(fit_part.device)].split(batch_size):
            loss = F.cross_entropy(layer(train_h[pick]), train_y[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            score = accuracy(layer(train_h[held_out]), train_y[held_out])
        if score > best:
            best, kept = score, {name: value.clone() for name, value in layer.state_dict().items()}
    if kept:
        layer.load_state_dict(kept)
    with torch.no_grad():
        return accuracy(layer(test_h), test_y)


def knn_probe(train_h: Tensor, train_y: Tensor, test_h: Tensor, test_y: Tensor, k: int = 20, temperature: float = 0.07) -> float:
    """Test accuracy, in percent, of k nearest neighbours by cosine, weighted by exp(cosine / temperature).

    The protocol of Wu et al. 2018 (arXiv 1805.01978).
    """
    train_h, test_h = F.normalize(train_h, dim=1), F.normalize(test_h, dim=1)
    one_hot = F.one_hot(train_y).float()  # (N, classes)
    votes = []
    for part in test_h.split(1000):  # a bounded table of similarities
        cosine, nearest = (part @ train_h.mT).topk(min(k, len(train_h)), dim=1)  # (B, k)
        votes.append((one_hot[nearest] * torch.exp(cosine / temperature)[..., None]).sum(dim=1))
    return accuracy(torch.cat(votes), test_y)


def standardize(train_h: Tensor, test_h: Tensor) -> tuple[Tensor, Tensor]:
    """Zero mean and unit variance per feature, by the training features' statistics; dead features stay 0."""
    mean, std = train_h.mean(dim=0), train_h.std(dim=0)
    alive = std > 1e-6 * std.max()
    scale = torch.where(alive, 1 / std.clamp(min=1e-30), 0.0)
    return (train_h - mean) * scale, (test_h - mean) * scale


def accuracy(scores: Tensor, y: Tensor) -> float:
    """Percentage of rows of scores (N, classes) whose largest entry is at y (N,)."""
    return 100 * (scores.argmax(dim=1) == y).float().mean().item()


class OnlineProbe(nn.Module):
    """A linear classifier trained beside the model on detached features; sends no gradient back."""

    def __init__(self, features: int, labels: Tensor | None, lr: float = 1e-3):
        super().__init__()
        self.labels = labels
        classes = 1 if labels is None else int(labels.max()) + 1
        self.layers = nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, classes))
        nn.init.zeros_(self.layers[1].weight), nn.init.zeros_(self.layers[1].bias)  # no random number is drawn here
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr)

    def step(self, h: Tensor, pick: Tensor) -> dict[str, Tensor]:
        """One step on features h (B, F) of the picked images; its accuracy before the step, in percent."""
        if self.labels is None:
            return {}
        y = self.labels[pick]
        logits = self.layers(h.float())
        self.optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        self.optimizer.step()
        return {"online_probe": 100 * (logits.argmax(dim=1) == y).float().mean()}
