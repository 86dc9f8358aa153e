"""AdamW, LARS or Muon. A rate may be a number or a tensor, so that a step can be captured (see `replay`)."""

import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from . import runtime
from .config import TrainConfig

# Coefficients (a, b, c) of a x + b x^3 + c x^5, one row an iteration: singular values from 0.02 to 1 end near 1.
# Cesista, Jiacheng, Jordan 2025, "Squeezing 1-2% efficiency gains out of Muon", leloykun.github.io.
NEWTON_SCHULZ = (
    (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
)


def build_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that `config` names; weight decay (and LARS's scaling) spare biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return {"lars": LARS, "muon": Muon}[config.optimizer](groups, config.lr)


def set_rate(optimizer: torch.optim.Optimizer, *rates: float | Tensor) -> None:
    """The learning rate of the next step: one for all groups of parameters, or one for each."""
    groups = optimizer.param_groups
    for group, rate in zip(groups, rates * len(groups) if len(rates) == 1 else rates, strict=True):
        group["lr"] = rate


class LARS(torch.optim.Optimizer):
    """Momentum, with a rate of its own for every decayed tensor, in proportion to its norm over its gradient's.

    The rate is `trust` times that proportion, and at most `lr`. You et al. 2017 (arXiv 1708.03888), section 4, clipped
    as in NVIDIA's LARC. What is not decayed gets plain momentum.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum: float = 0.9, trust: float = 0.02):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, params, grads in with_gradients(self):
            lr, decay = group["lr"], group["weight_decay"]
            if decay:
                w_norm, g_norm = (torch.stack(list(torch._foreach_norm(tensors))) for tensors in (params, grads))
                ratio = group["trust"] * w_norm / (g_norm + decay * w_norm + 1e-8)
                one = torch.ones_like(ratio)  # a Python number would be copied to the device, which no capture allows
                ratio = torch.where((w_norm > 0) & (g_norm > 0), ratio, one)
                grads = list(torch._foreach_add(grads, params, alpha=decay))
                torch._foreach_mul_(grads, list((ratio / lr).clamp(max=1).unbind()))
            buffers = [momentum_of(self, p) for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            torch._foreach_add_(params, torch._foreach_mul(buffers, -lr))


class Muon(torch.optim.Optimizer):
    """Momentum whose update of every matrix or kernel is made orthogonal, at the size per weight of AdamW's.

    Jordan et al. 2024, kellerjordan.github.io/posts/muon; the size, 0.2 sqrt(max(rows, columns)): Liu et al. 2025
    (arXiv 2502.16982), eq. 4. With that, `lr` is of AdamW's order. A kernel counts as a matrix, (out, in * height *
    width). What has one output or one input channel (biases, norms, positions, stems for gray images) gets AdamW,
    with Nesterov's momentum too.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum: float = 0.95,
                 betas: tuple[float, float] = (0.9, 0.95), eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum,
                                  "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, params, grads in with_gradients(self):
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            pairs: dict[bool, list[tuple[Tensor, Tensor]]] = {True: [], False: []}
            for p, grad in zip(params, grads, strict=True):
                pairs[p.ndim > 1 and min(p.shape[:2]) > 1].append((p, grad))
            self._matrices(pairs[True], group["lr"], group["momentum"])
            self._vectors(pairs[False], group["lr"], group["betas"], group["eps"])

    def _matrices(self, pairs: list[tuple[Tensor, Tensor]], lr, momentum: float) -> None:
        """Orthogonal steps."""
        alike = defaultdict(list)  # matrices of one shape, or its transpose, are made orthogonal together
        for p, grad in pairs:
            update = grad.lerp(momentum_of(self, p).lerp_(grad, 1 - momentum), momentum).flatten(1)
            wide = update if update.shape[0] <= update.shape[1] else update.mT
            alike[wide.shape].append((p, wide, wide is not update))
        for (_, columns), members in alike.items():
            made = orthogonal(torch.stack([wide for _, wide, _ in members])).float() * (-lr * 0.2 * math.sqrt(columns))
            for (p, _, turned), step in zip(members, made, strict=True):
                p.add_((step.mT if turned else step).reshape(p.shape))

    def _vectors(self, pairs: list[tuple[Tensor, Tensor]], lr, betas: tuple[float, float], eps: float) -> None:
        """AdamW's steps, after the decay. (torch keeps a state called "step" on the CPU, so it is called "count".)

        All tensors in one call of each kind: norms are many and small, and a GPU waits longer for calls than for work.
        """
        if not pairs:
            return
        params, grads = map(list, zip(*pairs, strict=True))
        counts, first, second = map(list, zip(*map(self._averages, params), strict=True))
        torch._foreach_add_(counts, 1)
        torch._foreach_lerp_(first, grads, 1 - betas[0])
        torch._foreach_mul_(second, betas[1])
        torch._foreach_addcmul_(second, grads, grads, 1 - betas[1])
        counted = torch.stack(counts)  # one number a tensor
        sizes = torch._foreach_div(second, list((1 - torch.pow(betas[1], counted)).unbind()))
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, eps)
        steps = torch._foreach_div(torch._foreach_lerp(first, grads, 1 - betas[0]), sizes)
        torch._foreach_mul_(steps, list((-lr / (1 - torch.pow(betas[0], counted))).unbind()))
        torch._foreach_add_(params, steps)

    def _averages(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is kept of a vector: the count of its steps, and the running means of its gradient and of the square."""
        state = self.state[p]
        if not state:
            state |= {"count": torch.zeros((), device=p.device), "first_moment": torch.zeros_like(p),
                      "second_moment": torch.zeros_like(p)}
        return state["count"], state["first_moment"], state["second_moment"]


def with_gradients(optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict, list[Tensor], list[Tensor]]]:
    """Each group that has any, with its parameters that have a gradient, and the gradients."""
    for group in optimizer.param_groups:
        if params := [p for p in group["params"] if p.grad is not None]:
            yield group, params, [p.grad for p in params]


def momentum_of(optimizer: torch.optim.Optimizer, p: Tensor) -> Tensor:
    """The running mean or sum that belongs to a parameter; zeros in the beginning."""
    state = optimizer.state[p]
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(p)
    return state["momentum_buffer"]


def orthogonal(x: Tensor) -> Tensor:
    """x (matrices, rows, columns), rows <= columns, with all singular values moved near 1, in the device's precision.

    Newton-Schulz: x becomes an odd polynomial of itself, which needs products alone.
    """
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-30)
    x = x.to(runtime.precision(x.device))  # only now: float16 would lose small gradients
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
