"""A JEPA of the frames of a clip: encoder, temporal predictor, roll-outs, probes. For notebook 11.

Frames (T, N, 1, 32, 32) and embeddings `z` (T, N, D) come time first: time takes the place of the views.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import losses
from .checks import check_count, check_floats, check_positive
from .encoders import Normalize, in_batches
from .moving_digits import Clips, make_clips
from .optimizers import Muon, set_rate
from .probe import fit_logistic, second_moments, standardize
from .runtime import InputError, generator, keep_freed_memory, seeded
from .threads import choose_threads
from .train import lr_at

Regularizer = Callable[[Tensor, int], dict[str, Tensor]]  # of z (V, N, D) and the step: weighted terms by name


def frame_encoder(D: int = 32, width: int = 32) -> nn.Sequential:
    """A frame (N, 1, 32, 32) to its embedding z (N, D): two convolutions, and one linear layer that sees where."""
    check_count(D, "D")
    check_count(width, "width")
    return nn.Sequential(
        Normalize([0.1], [0.25]),
        nn.Conv2d(1, width, 8, 4, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),  # (N, width, 8, 8)
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),  # (N, 2 width, 4, 4)
        nn.Flatten(), nn.Linear(2 * width * 4 * 4, D))


class TemporalPredictor(nn.Module):
    """From two embeddings in a row (..., D) to a guess of the next; a latent (..., K), if any, picks among futures."""

    def __init__(self, D: int, hidden: int = 128, K: int = 0):
        super().__init__()
        self.change = nn.Sequential(
            nn.Linear(2 * D + K, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, D))

    def forward(self, before: Tensor, now: Tensor, *latent: Tensor) -> Tensor:
        return now + self.change(torch.cat([before, now, *latent], dim=-1))


def check_frames(frames: Tensor) -> Tensor:
    """`frames`, if they are (T, N, 1, 32, 32); InputError otherwise."""
    if frames.ndim != 5:
        raise InputError("frames", tuple(frames.shape), "shape (T, N, 1, 32, 32), time first")
    return frames


def encode(encoder: nn.Module, frames: Tensor) -> Tensor:
    """z (T, N, D) of frames (T, N, 1, 32, 32)."""
    return encoder(check_frames(frames).flatten(0, 1)).unflatten(0, frames.shape[:2])


def embed(encoder: nn.Module, frames: Tensor, clips: int = 128) -> Tensor:
    """z (T, N, D) in evaluation mode, some clips at a time; the encoder's mode stays."""
    def encoded(part: Tensor) -> Tensor:
        return encode(encoder, part.transpose(0, 1)).transpose(0, 1)

    return in_batches(encoder, encoded, check_frames(frames).transpose(0, 1), clips).transpose(0, 1).contiguous()


def guesses(predictor: Callable[[Tensor, Tensor], Tensor], z: Tensor) -> Tensor:
    """What the predictor expects after each two frames of z (T, N, D): guesses (T - 2, N, D) of z[2:]."""
    if len(check_floats(z, "z", "T, N, D")) < 3:
        raise InputError("z", tuple(z.shape), "(T, N, D) with T >= 3: two frames to predict from, and one to predict")
    return predictor(z[:-2], z[1:-1])


def loss_terms(predictor: Callable[[Tensor, Tensor], Tensor], z: Tensor, regularizer: Regularizer,
               step: int) -> dict[str, Tensor]:
    """The prediction term of z (T, N, D), and what the regularizer adds; the loss is their sum."""
    return {"prediction": F.mse_loss(guesses(predictor, z), z[2:])} | regularizer(z, step)


def rollout(predictor: Callable[[Tensor, Tensor], Tensor], before: Tensor, now: Tensor, steps: int) -> Tensor:
    """`steps` frames ahead of two embeddings (..., D), each guess fed back as if it had been seen: (steps, ..., D)."""
    check_count(steps, "steps")
    path = [before, now]
    for _ in range(steps):
        path.append(predictor(path[-2], path[-1]))
    return torch.stack(path[2:])


# ------------------------------------------------------------------------------------ the training


def vicreg_terms(var_loss_weight: float = 2.0, cov_loss_weight: float = 0.08) -> Regularizer:
    """VICReg's two springs, at weights for a prediction term that weighs 1."""
    return lambda z, step: {"variance": var_loss_weight * losses.variance(z),
                            "covariance": cov_loss_weight * 2 * losses.covariance(z)}


def sigreg_term(lmbd: float = 10.0, slices: int = 256, seed: int = 0) -> Regularizer:
    """SIGReg on new random slices at every step."""
    return lambda z, step: {"sigreg": lmbd * losses.sigreg(
        z, losses.slices_of(step, seed, z.shape[-1], slices, z.device))}


def no_regularizer(z: Tensor, step: int) -> dict[str, Tensor]:
    return {}


def train(encoder: nn.Module, predictor: nn.Module, regularizer: Regularizer, steps: int, g: torch.Generator,
          N: int = 48, T: int = 8, lr: float = 1e-2, **world: Any) -> list[dict[str, float]]:
    """Train both in place on clips made as they are needed; the terms of the loss, step by step."""
    check_count(steps, "steps")
    check_count(N, "N", 2)
    check_count(T, "T", 3)
    check_positive(lr, "lr")
    keep_freed_memory()
    parameters = [*encoder.parameters(), *predictor.parameters()]
    optimizer, log = Muon(parameters, lr), []
    encoder.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for step in range(steps):
        if step % 50 == 0:
            choose_threads(g.device)
        set_rate(optimizer, lr_at(step, steps, lr))
        z = encode(encoder, make_clips(N, T, g, **world).frames)
        terms = loss_terms(predictor, z, regularizer, step)
        optimizer.zero_grad()
        sum(terms.values(), z.new_zeros(())).backward()
        optimizer.step()
        log.append({name: term.detach() for name, term in terms.items()})
    encoder.eval()
    return [{name: term.item() for name, term in terms.items()} for terms in log]


# --------------------------------------------------------------------- what cannot be known in advance

Way = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # (predictor, before, now, coin) -> guesses (K, ..., D)


def options(predictor: nn.Module, before: Tensor, now: Tensor, K: int = 2) -> Tensor:
    """The predictor's guess at each of K values of its one-of-K latent: (K, ..., D)."""
    choices = torch.eye(K, device=now.device)
    return torch.stack([predictor(before, now, choice.expand(*now.shape[:-1], K)) for choice in choices])


def best_of(guess: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of K guesses (K, N, D) of a target (N, D), where only each sample's best guess counts."""
    errors = (guess - target).square().mean(dim=-1)  # (K, N)
    return errors.min(dim=0).values.mean()


WAYS: dict[str, tuple[int, Way]] = {  # size of the latent, and the guesses that are made with it
    "no variable": (0, lambda predictor, before, now, coin: predictor(before, now)[None]),
    "told the coin": (1, lambda predictor, before, now, coin: predictor(before, now, coin[..., None])[None]),
    "best of two": (2, lambda predictor, before, now, coin: options(predictor, before, now)),
}


def fit_predictor(way: str, z: Tensor, coins: Tensor, steps: int, seed: int = 0, batch_size: int = 512,
                  lr: float = 1e-2) -> TemporalPredictor:
    """A new predictor, trained on frozen z (T, N, D) to guess in one of WAYS; only "told the coin" looks at coins
    (T, N).
    """
    check_count(steps, "steps")
    if way not in WAYS:
        raise InputError("way", way, ", ".join(WAYS))
    if len(check_floats(z, "z", "T, N, D")) < 3 or coins.shape != z.shape[:2]:
        raise InputError("z", tuple(z.shape), f"(T, N, D) with T >= 3, and coins {tuple(coins.shape)} of shape (T, N)")
    with seeded(seed):
        predictor = TemporalPredictor(z.shape[-1], K=WAYS[way][0]).to(z.device)
    before, now, after, coin = (part.flatten(0, 1) for part in (z[:-2], z[1:-1], z[2:], coins[2:]))
    optimizer, g = Muon(predictor.parameters(), lr), generator(seed, z.device)
    for step in range(steps):
        set_rate(optimizer, lr_at(step, steps, lr))
        pick = torch.randint(len(now), (batch_size,), generator=g, device=z.device)
        loss = best_of(WAYS[way][1](predictor, before[pick], now[pick], coin[pick]), after[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return predictor.eval()


@torch.no_grad()
def guesses_in(way: str, predictor: nn.Module, z: Tensor, coins: Tensor) -> Tensor:
    """What a predictor of `fit_predictor` expects after each two frames: (K, T - 2, N, D), one guess or several."""
    return WAYS[way][1](predictor, z[:-2], z[1:-1], coins[2:])


# --------------------------------------------------------------------------------------- the probes

Interval = tuple[float, float, float]  # a figure, and the two ends of its 95 % interval


def linear_readout(train_h: Tensor, train_y: Tensor, test_h: Tensor, penalty: float = 1e-3) -> Tensor:
    """What a linear regression from h (M, F) to y (M, K), with a small L2 penalty, makes of test_h: (M', K)."""
    mean_h, mean_y = train_h.mean(dim=0), train_y.mean(dim=0)
    h = train_h - mean_h
    gram = second_moments(h)
    gram.diagonal().add_(penalty * gram.diagonal().mean().clamp(min=1e-30))  # a share of the variance, if there is any
    return mean_y + (test_h - mean_h) @ torch.linalg.solve(gram, h.mT @ (train_y - mean_y) / len(h))


def over_clips(errors: Tensor, total: Tensor, repeats: int = 1000) -> Interval:
    """sum of errors (N,) / sum of total (N,) over clips, with 95 % bounds: clips drawn with replacement (bootstrap).

    Clips are drawn, not frames: the frames of a clip are no independent draws.
    """
    errors, total = errors.double().cpu(), total.double().cpu()
    pick = torch.randint(len(errors), (repeats, len(errors)), generator=generator(0))
    drawn = errors[pick].sum(dim=1) / total[pick].sum(dim=1)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return (errors.sum() / total.sum()).item(), low, high


def explained(y: Tensor, guess: Tensor) -> Interval:
    """R^2 of a guess of y (T, N, K) over all clips: 1 if it is right, 0 if it is no better than the mean."""
    left = (y - guess).square().sum(dim=(0, 2))
    value, low, high = over_clips(left, (y - y.mean(dim=(0, 1))).square().sum(dim=(0, 2)))
    return 1 - value, 1 - high, 1 - low


def pairs(z: Tensor) -> Tensor:
    """Each embedding with the one before: (T, N, D) -> (T - 1, N, 2 D)."""
    return torch.cat([z[:-1], z[1:]], dim=-1)


def probes(z: Tensor, clips: Clips, test_z: Tensor, test: Clips) -> dict[str, Interval]:
    """What linear probes, fitted on z (T, N, D) of some clips, read from test_z of others, frame by frame.

    The digit as a share of frames; position and velocity as R^2, velocity from one frame and from two.
    """
    T, N, _ = test_z[1:].shape
    h, test_h = (each[1:].flatten(0, 1) for each in (z, test_z))
    two, test_two = (pairs(each).flatten(0, 1) for each in (z, test_z))
    digits = clips.digits.repeat(len(z) - 1)
    fit_h, read_h = standardize(h, test_h)
    weight, bias = fit_logistic(fit_h, digits, 1e-3)
    right = (read_h @ weight + bias).argmax(dim=1).unflatten(0, (T, N)) == test.digits

    def read(features: Tensor, others: Tensor, y: Tensor, truth: Tensor) -> Interval:
        return explained(truth[1:], linear_readout(features, y[1:].flatten(0, 1), others).unflatten(0, (T, N)))

    return {
        "digit": over_clips(right.sum(dim=0), torch.full((N,), T)),
        "position": read(h, test_h, clips.positions, test.positions),
        "velocity, one frame": read(h, test_h, clips.velocities, test.velocities),
        "velocity, two frames": read(two, test_two, clips.velocities, test.velocities),
    }
