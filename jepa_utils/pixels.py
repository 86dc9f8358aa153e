"""Pixels: what views, data, models and probes share about images."""

import torch
from torch import Tensor

from .checks import described
from .runtime import InputError

SIZE = 32  # every data set comes as SIZE x SIZE pixels
GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, torchvision's weights
TOLERANCE = 1e-3  # interpolation in float16 or bfloat16 may leave [0, 1] by so much


def check_images(images: Tensor, channels: int | None = None, name: str = "images") -> Tensor:
    """`images`, if they are (N, C, H, W), and uint8 or finite floats in [0, 1]; InputError otherwise.

    Floats have to be looked at, for which a GPU is waited for; uint8 needs no look.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != (channels or images.shape[1]):
        raise InputError(name, described(images), f"a tensor of shape (N, {channels or 'C'}, H, W)")
    if images.dtype != torch.uint8:
        to_float(images[:0], name)  # refuses what is neither uint8 nor floating point
        low, high = images.float().aminmax() if images.numel() else (torch.tensor(0.0), torch.tensor(0.0))
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also if either is NaN
            raise InputError(name, f"values from {low:.4g} to {high:.4g}", "uint8, or floats in [0, 1]")
    return images


def to_float(images: Tensor, name: str = "images") -> Tensor:
    """uint8 in [0, 255] or float in [0, 1] -> float32 in [0, 1]; InputError for any other type."""
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    if not images.is_floating_point():
        raise InputError(name, str(images.dtype), "torch.uint8 in [0, 255], or floats in [0, 1]")
    return images.float()


def luma(x: Tensor) -> Tensor:
    """Brightness as the eye weighs it: (N, C, H, W) -> (N, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])[:, None]


def column(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1), to act on images."""
    return values.view(-1, 1, 1, 1)
