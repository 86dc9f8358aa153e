"""Losses as pure functions of embeddings `z` (V, N, D): V views of N images in D dimensions, V >= 2.

All of them compute in float32, whatever precision `z` arrives in. `vicreg`, `vc`, `bcs` and `visreg` return
their weighted terms by name; the loss is the sum of the terms. What is not finite in `z` is not finite
in any term. Shapes and types are checked (InputError), values are not: a GPU would be waited for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_count, check_floats, check_number, check_positive
from .runtime import InputError


def prediction(predicted: Tensor, z: Tensor) -> Tensor:
    """Mean squared difference between each guess and the views it guesses.

    predicted (P, N, D), P <= V: predicted[i] is compared with every z[j], j != i.
    """
    V, N, D = sizes(z)
    if V < 2:
        raise InputError("views", V, "at least 2 views: there is nothing to predict from one")
    P = len(check_floats(predicted, "predicted", "P, N, D"))
    if P > V or predicted.shape[1:] != z.shape[1:]:
        raise InputError("predicted", tuple(predicted.shape), f"(P, {N}, {D}) with P <= {V}, for z {tuple(z.shape)}")
    predicted, z = predicted.float(), z.float()
    return sum((F.mse_loss(predicted, z.roll(-s, 0)[:P]) for s in range(1, V)), z.new_zeros(())) / (V - 1)


def invariance(z: Tensor) -> Tensor:
    """Mean squared difference between views: the prediction term with the identity as predictor.

    VICReg (arXiv 2105.04906) eq. 5, averaged over dimensions too, as its authors' code does.
    """
    return prediction(z, z)


def variance(z: Tensor, margin: float = 1.0, eps: float = 1e-4) -> Tensor:
    """How far the standard deviations fall short of `margin`: mean over dimensions and views of
    max(0, margin - sqrt(var + eps)).

    0 when every dimension varies by at least `margin`; margin - sqrt(eps) at complete collapse.
    VICReg (arXiv 2105.04906) eq. 1-2, with the unbiased variance.
    """
    V, N, D = sizes(z)
    std = torch.sqrt(z.float().var(dim=1) + eps)  # (V, D)
    return F.relu(margin - std).mean()


def covariance(z: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances, divided by D, averaged over views.

    0 when the dimensions are uncorrelated, never less. VICReg (arXiv 2105.04906) eq. 3-4. Costs D^2 N
    operations, or D N^2 where the batch is the smaller: Z'Z and ZZ' have the same norm.
    """
    V, N, D = sizes(z)
    z = z.float() - z.float().mean(dim=1, keepdim=True)
    with torch.autocast(z.device.type, enabled=False):  # which would round the product to bf16
        product = z.mT @ z if D <= N else z @ z.mT  # (V, D, D) or (V, N, N)
    if D <= N:
        product = product - torch.diag_embed(product.diagonal(dim1=1, dim2=2))
        rest = product.square().sum(dim=(1, 2))  # of the off-diagonals: (V,)
    else:
        diagonal = z.square().sum(dim=1).square().sum(dim=1)  # of Z'Z, squared
        rest = product.square().sum(dim=(1, 2)) - diagonal
        rest = rest - rest.detach().clamp(max=0)  # rounding may leave less than 0; the gradient is right even there
    return (rest / (N - 1) ** 2 / D).mean()


def vicreg(
    z: Tensor, predicted: Tensor | None = None,
    sim_loss_weight: float = 25.0, var_loss_weight: float = 25.0, cov_loss_weight: float = 1.0,
) -> dict[str, Tensor]:
    """VICReg in its authors' normalisation (arXiv 2105.04906, eq. 6; weights lambda, mu, nu).

    Variance is averaged over two views and covariance summed, so that 25/25/1 means what it means
    there; with more views both keep the scale they have at two.
    """
    return {
        "prediction": sim_loss_weight * prediction(z if predicted is None else predicted, z),
        "variance": var_loss_weight * variance(z),
        "covariance": cov_loss_weight * 2 * covariance(z),
    }


def vc(
    z: Tensor, predicted: Tensor | None = None, std_coeff: float = 10.0, cov_coeff: float = 100.0
) -> dict[str, Tensor]:
    """The same three terms as EB-JEPA scales them (arXiv 2602.03604): prediction weighs 1, variance is
    summed over views, covariance is the mean square of the D (D - 1) off-diagonals, summed over views.

    With V = 2, sim/var/cov weights of `vicreg` in proportion s : v : c are std_coeff = v / (2 s) and
    cov_coeff = c (D - 1) / s.
    """
    V, N, D = sizes(z)
    return {
        "prediction": prediction(z if predicted is None else predicted, z),
        "variance": std_coeff * V * variance(z),
        "covariance": cov_coeff * V * covariance(z) / max(D - 1, 1),
    }


def random_directions(D: int, slices: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """`slices` unit vectors (D, K), uniform on the sphere; the same for the same seed and device type."""
    check_count(D, "D")
    check_count(slices, "slices")
    g = torch.Generator(device=device).manual_seed(seed)
    return F.normalize(torch.randn(D, slices, generator=g, device=device), dim=0)


def slices_of(step: int, seed: int, D: int, slices: int, device: torch.device | str = "cpu") -> Tensor:
    """The random directions (D, slices) of one step of a training: others at every step, and under every other seed.

    The seeds of trainings lie 10^7 apart here, so that one reaches the directions of another's start only after
    10^7 steps.
    """
    return random_directions(D, slices, seed * 10**7 + step, device)


def frequencies(points: int = 10, t_max: float = 3.0) -> tuple[Tensor, Tensor]:
    """Where the characteristic function is compared, t (T,), and the weights of the integral over it.

    `points` on [-t_max, t_max], trapezoid rule under a Gaussian window exp(-t^2 / 2). The integrand
    is even, so the t < 0 are folded onto the t > 0.
    """
    check_count(points, "points", 2)
    check_positive(t_max, "t_max")
    t = torch.linspace(-t_max, t_max, points, dtype=torch.float64)
    weights = torch.full_like(t, 2 * t_max / (points - 1))
    weights[[0, -1]] /= 2
    weights = weights * torch.exp(-t.square() / 2)
    keep = t > -1e-9
    weights = torch.where(t > 1e-9, 2 * weights, weights)
    return t[keep].float(), weights[keep].float()


def sigreg(z: Tensor, directions: Tensor, points: int = 10, t_max: float = 3.0) -> Tensor:
    """How far `z` is from a standard Gaussian: Epps-Pulley along each direction, averaged.

    Projects z (V, N, D) on directions (D, K) and compares the empirical characteristic function of
    each slice with exp(-t^2 / 2): the integral of |difference|^2 under a Gaussian window, averaged
    over slices and views. Without the factor N of the test statistic: about 1.05 / N for Gaussian
    embeddings, 0.40 when all of them are 0. LeJEPA (arXiv 2511.08544), algorithm 1; the defaults
    are EB-JEPA's grid.
    """
    V, N, D = sizes(z)
    slices = project(z, directions)
    t, weights = frequencies(points, t_max)
    return EppsPulley.apply(slices, tuple(t.tolist()), tuple(weights.tolist())).mean()


def project(z: Tensor, directions: Tensor) -> Tensor:
    """z (V, N, D) along each of the directions (D, K): (V, N, K), in float32."""
    V, N, D = sizes(z)
    if len(check_floats(directions, "directions", "D, K")) != D:
        raise InputError("directions", tuple(directions.shape), f"({D}, K), for z {tuple(z.shape)}")
    with torch.autocast(z.device.type, enabled=False):
        return z.float() @ directions.float()


class EppsPulley(torch.autograd.Function):
    """The Epps-Pulley integral of each slice: (V, N, K) -> (V, K).

    The gradient is gathered in the same pass over the frequencies, so memory holds a few arrays of
    the slices' size, however many frequencies there are, where autograd would keep two for each.
    """

    @staticmethod
    def forward(ctx, slices: Tensor, t: tuple[float, ...], weights: tuple[float, ...]) -> Tensor:
        N = slices.shape[1]
        value = slices.new_zeros(slices.shape[0], slices.shape[2])  # (V, K)
        gradient = torch.zeros_like(slices)
        for frequency, weight in zip(t, weights, strict=True):
            cos, sin = (slices * frequency).cos_(), (slices * frequency).sin_()
            real = cos.mean(dim=1) - torch.tensor(-(frequency**2) / 2).exp()  # (V, K)
            imaginary = sin.mean(dim=1)
            value += weight * (real.square() + imaginary.square())
            scale = 2 * weight * frequency / N
            gradient.addcmul_(cos, imaginary[:, None], value=scale).addcmul_(sin, real[:, None], value=-scale)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None], None, None


def bcs(
    z: Tensor, predicted: Tensor | None = None, lmbd: float = 10.0, seed: int = 0,
    slices: int = 256, points: int = 10, t_max: float = 3.0, scale: str = "eb", directions: Tensor | None = None,
) -> dict[str, Tensor]:
    """Prediction plus SIGReg on random slices drawn from `seed`, new at every step (BCS of EB-JEPA, arXiv 2602.03604);
    on `directions` (D, K) instead, if they are given (`seed` and `slices` say nothing then).

    scale "eb": prediction + lmbd * sigreg.
    scale "lejepa": (1 - lmbd) * distance to the mean view + lmbd * N * sigreg (arXiv 2511.08544).
    The distance to the mean view is (V - 1) / (2 V) of the prediction term, so the two agree up to a
    common factor when lmbd_eb = (2 V / (V - 1)) * N * lmbd / (1 - lmbd): 10 at N = 256 and two views
    is LeJEPA's 0.0097.
    """
    V, N, D = sizes(z)
    directions = random_directions(D, slices, seed, z.device) if directions is None else directions
    statistic = sigreg(z, directions, points, t_max)
    return mixed(z, predicted, {"sigreg": statistic * (N if scale == "lejepa" else 1)}, lmbd, scale)


def mixed(
    z: Tensor, predicted: Tensor | None, regularizers: dict[str, Tensor], lmbd: float, scale: str
) -> dict[str, Tensor]:
    """The prediction term and regularizers: 1 against lmbd in the scale "eb"; in "lejepa" the distance to the mean
    view, which is (V - 1) / (2 V) of the prediction term, and regularizers as 1 - lmbd to lmbd.
    """
    if scale not in ("eb", "lejepa"):
        raise InputError("scale", scale, "eb, lejepa")
    if scale == "lejepa":
        check_number(lmbd, "lmbd", 1, "a share from 0 to 1, with scale lejepa")
    V = len(z)
    share = 1 if scale == "eb" else (1 - lmbd) * (V - 1) / (2 * V)
    terms = {"prediction": share * prediction(z if predicted is None else predicted, z)}
    return terms | {name: lmbd * value for name, value in regularizers.items()}


def center(z: Tensor) -> Tensor:
    """Squared means over the images, averaged over dimensions and views. VISReg (arXiv 2606.02572) eq. 6."""
    sizes(z)
    return z.float().mean(dim=1).square().mean()


def size(z: Tensor, eps: float = 1e-4) -> Tensor:
    """(1 - std)^2, averaged over dimensions and views: 0 where every dimension varies by 1. VISReg's scale term.

    Its gradient does not fade while the standard deviation is above eps, where that of `sigreg` does. The standard
    deviation is the biased one, sqrt(var + eps^2): at a single point the root itself has no derivative.
    VISReg (arXiv 2606.02572) eq. 1.
    """
    sizes(z)
    return (1 - torch.sqrt(z.float().var(dim=1, correction=0) + eps**2)).square().mean()


def shape(z: Tensor, directions: Tensor, eps: float = 1e-4) -> Tensor:
    """How far the cloud's form is from a Gaussian's, whatever its size: the sliced Wasserstein distance, squared.

    z (V, N, D) is centred, divided by its standard deviations (constants: no gradient passes through them), and
    projected on directions (D, K). Each slice is sorted and compared with the normal distribution's quantiles at
    i / (N + 1): squared differences, averaged. VISReg (arXiv 2606.02572) eq. 2 to 5.
    """
    V, N, D = sizes(z)
    z = z.float()
    std = z.detach().std(dim=1, correction=0, keepdim=True)  # (V, 1, D)
    slices = project((z - z.mean(dim=1, keepdim=True)) / (std + eps), directions)  # (V, N, K)
    quantiles = torch.special.ndtri(torch.arange(1, N + 1, device=z.device) / (N + 1))  # (N,)
    return (slices.sort(dim=1).values - quantiles[:, None]).square().mean()


def visreg(
    z: Tensor, predicted: Tensor | None = None, lmbd: float = 10.0, seed: int = 0, slices: int = 256, scale: str = "eb",
    directions: Tensor | None = None,
) -> dict[str, Tensor]:
    """Prediction, and the cloud's center, size and shape, each held by a term of its own (VISReg, arXiv 2606.02572).

    The shape is looked at along random slices drawn from `seed`, or along `directions` (D, K), if they are
    given (`seed` and `slices` say nothing then).

    scale "eb": prediction + lmbd * (center + size + shape).
    scale "lejepa": (1 - lmbd) * distance to the mean view + lmbd * (center + size + shape), the paper's, whose lmbd
    is 0.6 for small data sets and 0.9 for large ones. At two views these are 6 and 36 in the scale "eb".
    """
    V, N, D = sizes(z)
    directions = random_directions(D, slices, seed, z.device) if directions is None else directions
    terms = {"center": center(z), "size": size(z), "shape": shape(z, directions)}
    return mixed(z, predicted, terms, lmbd, scale)


def sizes(z: Tensor) -> tuple[int, int, int]:
    """V, N, D of embeddings; refuses those that no batch statistic can be taken of."""
    V, N, D = check_floats(z, "z", "V, N, D").shape
    if N < 2:
        raise InputError("batch_size", N, "at least 2 images: a spread needs two")
    return V, N, D
