"""The relatives of VICReg and SIGReg: contrastive, stop-gradient, averaged teacher; and one step that trains them all.

Embeddings `z` are (V, N, D): V views of N images in D dimensions, V >= 2. The losses here read cosines: of an
embedding its direction alone, never its length.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_positive
from .losses import sizes
from .models import JEPA
from .optimizers import set_rate
from .runtime import InputError, autocast
from .teacher import follow

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Method:
    """What makes one member of the family: everything else (encoder, views, optimizer) they share."""

    loss: Callable[[Tensor, Tensor, Tensor, int], Terms]  # of z, predicted, target and the number of the step
    predictor: bool = False  # whether there is one
    momentum: float | None = None  # of the averaged teacher; None: no teacher, the targets are z
    sphere: bool = False  # whether the loss reads directions alone


def nt_xent(z: Tensor, temperature: float = 0.5) -> Terms:
    """The contrastive loss NT-Xent in two terms, `pull` (views of one image) and `push` (all that is in the batch).

    Of every view: minus its cosine with another view of its image, plus the log of the sum of exp over all views
    but itself, cosines divided by `temperature`; averaged over views, and over the pairs that they form. Their sum is
    never below 0. SimCLR (arXiv 2002.05709) eq. 1, at two views; at more, every other view of an image is a partner.
    """
    V, N, D = sizes(z)
    check_positive(temperature, "temperature")
    if V < 2:
        raise InputError("views", V, "at least 2 views: there is nothing to pull together with one")
    unit = F.normalize(z.float(), dim=2).flatten(0, 1)  # (V*N, D)
    with torch.autocast(z.device.type, enabled=False):
        scores = unit @ unit.T / temperature  # (V*N, V*N)
    image, itself = torch.arange(N, device=z.device).repeat(V), torch.eye(V * N, dtype=torch.bool, device=z.device)
    partner = (image[:, None] == image) & ~itself
    return {
        "pull": -(scores * partner).sum() / (V * N * (V - 1)),
        "push": scores.masked_fill(itself, -torch.inf).logsumexp(dim=1).mean(),
    }


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Minus the cosine between each guess and the target of every other view: from 1 down to -1, averaged.

    predicted (V, N, D): predicted[i] is compared with every target[j], j != i. What should get no gradient, the
    caller detaches. SimSiam (arXiv 2011.10566) eq. 2; BYOL's loss (arXiv 2006.07733, eq. 2) is 2 plus twice this,
    summed over both directions there.
    """
    V, N, D = sizes(target)
    if V < 2:
        raise InputError("views", V, "at least 2 views: there is nothing to predict from one")
    if predicted.shape != target.shape:
        raise InputError("predicted", tuple(predicted.shape), f"the shape of the targets, {tuple(target.shape)}")
    guess, unit = F.normalize(predicted.float(), dim=2), F.normalize(target.float(), dim=2)
    return -sum(((guess * unit.roll(-s, 0)).sum(dim=2).mean() for s in range(1, V)), unit.new_zeros(())) / (V - 1)


def on_sphere(z: Tensor) -> Tensor:
    """z (..., D) as a loss of cosines reads it: directions, stretched to length sqrt(D).

    At that length a cloud that fills the sphere evenly has a standard deviation of 1 in every dimension, which is
    the scale that the regularizers ask for: so both can be judged by one rule. (SimSiam, section 4.1, keeps the
    length at 1 and compares with 1 / sqrt(D).)
    """
    return F.normalize(z.float(), dim=-1) * z.shape[-1] ** 0.5


def lanes(model: JEPA, views: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings z and guesses, both (V, N, D), of views (V, N, C, H, W): each view takes the place of the context."""
    V, N = views.shape[:2]
    with autocast(views.device):
        z = model.projector(model.encoder(views.flatten(0, 1)))  # (V*N, D)
        predicted = model.predictor(z)
    return z.unflatten(0, (V, N)), predicted.unflatten(0, (V, N))


def family_step(student: JEPA, teacher: JEPA | None, method: Method, optimizer: torch.optim.Optimizer,
                scaler: torch.amp.GradScaler, views: Tensor, step: int, lr: float) -> Terms:
    """One update of the student on views (V, N, C, H, W), then one of its teacher, if it has one; the loss's terms."""
    set_rate(optimizer, lr)
    z, predicted = lanes(student, views)  # (V, N, D) each
    target = z
    if teacher is not None:
        with torch.no_grad():
            target, _ = lanes(teacher, views)
    terms = method.loss(z, predicted, target, step)
    optimizer.zero_grad()
    scaler.scale(sum(terms.values(), z.new_zeros(()))).backward()
    scaler.step(optimizer)
    scaler.update()
    if teacher is not None and method.momentum is not None:
        follow(teacher, student, method.momentum)
    return {name: term.detach() for name, term in terms.items()}
