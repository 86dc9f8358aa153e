"""The losses once more, in NumPy float64, written from the papers' formulas: what jepa_utils is tested against."""

from itertools import product

import numpy as np
from scipy.integrate import trapezoid
from scipy.stats import norm


def prediction(predicted, z):
    """Mean over all pairs (guess i, view j != i) of the mean squared difference."""
    pairs = [(i, j) for i, j in product(range(len(predicted)), range(len(z))) if i != j]
    return np.mean([np.mean((predicted[i] - z[j]) ** 2) for i, j in pairs])


def variance(z, margin=1.0, eps=1e-4):
    """VICReg eq. 1-2, averaged over views."""
    return np.mean([np.maximum(0, margin - np.sqrt(np.var(view, axis=0, ddof=1) + eps)) for view in z])


def covariance(z):
    """VICReg eq. 3-4, averaged over views."""
    return np.mean([squared_off_diagonals(view).sum() / view.shape[1] for view in z])


def squared_off_diagonals(view):
    """The D (D - 1) entries of the covariance matrix beside its diagonal, squared."""
    matrix = np.cov(view.T)
    return matrix[~np.eye(len(matrix), dtype=bool)] ** 2


def vicreg(z, predicted, sim, var, cov):
    """VICReg eq. 6 as its authors' code weighs it at two views: variance averaged, covariance summed."""
    return sim * prediction(predicted, z) + var * variance(z) + cov * 2 * covariance(z)


def vc(z, predicted, std_coeff, cov_coeff):
    """EB-JEPA: hinge and mean squared off-diagonal of every view, both summed over views."""
    hinges = sum(variance(view[None]) for view in z)
    off_diagonals = sum(squared_off_diagonals(view).mean() for view in z)
    return prediction(predicted, z) + std_coeff * hinges + cov_coeff * off_diagonals


def sigreg(z, directions, points=10, t_max=3.0):
    """LeJEPA algorithm 1 without its factor N: complex characteristic functions on the whole grid."""
    t = np.linspace(-t_max, t_max, points)
    gaussian = np.exp(-(t**2) / 2)
    slices = np.einsum("vnd,dk->vkn", z, directions)
    empirical = np.exp(1j * slices[..., None] * t).mean(axis=2)  # (V, K, T)
    return trapezoid(np.abs(empirical - gaussian) ** 2 * gaussian, t, axis=-1).mean()


def bcs(z, predicted, directions, lmbd, scale, points=10):
    """EB-JEPA's mix, or LeJEPA's (algorithm 2) with its distance to the mean view."""
    statistic = sigreg(z, directions, points)
    if scale == "eb":
        return prediction(predicted, z) + lmbd * statistic
    return (1 - lmbd) * np.mean((z - z.mean(axis=0)) ** 2) + lmbd * z.shape[1] * statistic


def visreg(z, predicted, directions, lmbd, scale, std=None):
    """VISReg's algorithm 1: center, scale and shape of every view; `std` are the deviations that shape divides by."""
    std = deviations(z) if std is None else std
    center = np.mean(z.mean(axis=1) ** 2)
    size = np.mean((1 - deviations(z)) ** 2)
    normal = (z - z.mean(axis=1, keepdims=True)) / (std[:, None] + 1e-4)
    slices = np.sort(np.einsum("vnd,dk->vnk", normal, directions), axis=1)
    N = z.shape[1]
    shape = np.mean((slices - norm.ppf(np.arange(1, N + 1) / (N + 1))[:, None]) ** 2)
    if scale == "eb":
        return prediction(predicted, z) + lmbd * (center + size + shape)
    return (1 - lmbd) * np.mean((z - z.mean(axis=0)) ** 2) + lmbd * (center + size + shape)


def deviations(z):
    """Biased standard deviations (V, D)."""
    return np.sqrt(np.var(z, axis=1) + 1e-8)


def gradient(function, x, step=1e-6):
    """Central differences of a scalar function at x, one entry at a time."""
    slope = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        slope[index] = (function(ahead) - function(behind)) / (2 * step)
    return slope
