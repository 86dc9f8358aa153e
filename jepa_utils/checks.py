"""What every public function refuses, in one line that names the parameter."""

import math
from numbers import Integral, Real

from torch import Tensor

from .runtime import InputError


def whole(value) -> bool:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def number(value) -> bool:
    """Whether it is a finite number; True and False are none, since a probability of 1 is seldom what they mean."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_count(value: int, name: str, least: int = 1) -> None:
    """InputError unless `value` is a whole number of at least `least`."""
    if not whole(value) or value < least:
        raise InputError(name, value, f"a whole number of at least {least}")


def check_number(value: float, name: str, most: float, accepted: str) -> None:
    """InputError unless `value` is a number from 0 to `most`."""
    if not number(value) or not 0 <= value <= most:
        raise InputError(name, value, accepted)


def check_positive(value: float, name: str, more: str = "") -> None:
    """InputError unless `value` is a finite number above 0; `more` is what else is said to be accepted."""
    if not number(value) or value <= 0:
        raise InputError(name, value, f"a finite number above 0{more}")


def check_range(pair: tuple[float, float], name: str, most: float = math.inf) -> None:
    """InputError unless `pair` are two finite numbers above 0, up to `most`, the smaller first."""
    two = isinstance(pair, tuple | list) and len(pair) == 2 and all(map(number, pair))
    if not two or not 0 < pair[0] <= pair[1] <= most:
        limit = "" if most == math.inf else f" <= {most}"
        raise InputError(name, pair, f"two numbers (low, high) with 0 < low <= high{limit}")


def check_floats(x: Tensor, name: str, axes: str) -> Tensor:
    """`x`, if it is a tensor of floats with the `axes` named, none of them empty; InputError otherwise.

    Looks at no value, so no device is waited for.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != axes.count(",") + 1 or 0 in x.shape:
        raise InputError(name, described(x), f"floats of shape ({axes}), none of them 0")
    return x


def described(x) -> str:
    """What was given, for an error: type and shape of a tensor, the type of anything else."""
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
