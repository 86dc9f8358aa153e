"""Views: random crops and colours, drawn per image and applied to a whole batch on its device.

Parameters have the distributions that torchvision's per-image transforms draw from, and each
operation gives torchvision's result for the same parameters. One thing is shared within a view of a
batch: the order of the four colour operations, which torchvision draws for every image.

Random numbers come from a CPU generator whatever the images' device: the same seed gives the same
views everywhere, and a GPU is never waited for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_count, check_number, check_range
from .pixels import check_images, column, luma, to_float
from .runtime import InputError, to_device

ATTEMPTS = 10  # crops drawn per image before falling back to the largest central one, as torchvision does
CPU_CHUNK = 256  # images per pass on a CPU: bounds the intermediates


@dataclass(frozen=True)
class Augmentation:
    """How one view is drawn. A strength or probability of 0 switches that part off."""

    scale: tuple[float, float] = (0.2, 1.0)  # share of the image's area that a crop keeps
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop
    flip: float = 0.5  # probability of a horizontal flip
    jitter: float = 0.8  # probability of the four colour operations that follow
    brightness: float = 0.4  # factor drawn from [1 - b, 1 + b]
    contrast: float = 0.4  # likewise
    saturation: float = 0.2  # likewise
    hue: float = 0.1  # shift drawn from [-hue, hue], in turns of the colour wheel
    grayscale: float = 0.2  # probability of dropping the colour
    blur: float = 0.0  # probability of a Gaussian blur
    sigma: tuple[float, float] = (0.1, 2.0)  # its standard deviation, in pixels
    solarize: float = 0.1  # probability of inverting every value of at least 0.5

    def __post_init__(self):
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            check_number(getattr(self, name), name, 1, "a probability from 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            check_number(getattr(self, name), name, 1, "a strength from 0 to 1")
        check_number(self.hue, "hue", 0.5, "a shift from 0 to 0.5 turns")
        check_range(self.scale, "scale", 1)
        check_range(self.ratio, "ratio")
        check_range(self.sigma, "sigma")


def check_generator(generator: torch.Generator | None) -> None:
    """InputError unless random numbers come from the CPU."""
    if generator is not None and not (isinstance(generator, torch.Generator) and generator.device.type == "cpu"):
        raise InputError("generator", generator, "None, or a torch.Generator of the CPU, whatever the images' device")


CIFAR10 = Augmentation()  # the recipe that VICReg implementations use on CIFAR-10
DIGITS = replace(CIFAR10, scale=(0.5, 1.0), flip=0.0, hue=0.5, solarize=0.0)
NOTHING = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grayscale=0, solarize=0)
PRESETS = {"cifar10": CIFAR10, "digits": DIGITS, "folder": CIFAR10, "nothing": NOTHING}


def make_views(
    images: Tensor, augmentation: Augmentation, views: int = 2,
    generator: torch.Generator | None = None, part: slice = slice(None),
) -> Tensor:
    """`views` independent random views of every image.

    images (N, C, H, W), uint8 or float in [0, 1] -> (views, N, C, H, W), float32 in [0, 1]. With
    `part` only the views of images[part], the same as they would be among all. Colours are changed in
    images of 1 or 3 channels; others need a recipe without jitter and grayscale. Raises InputError, by name.
    """
    check_count(views, "views")
    check_generator(generator)
    if not isinstance(augmentation, Augmentation):
        raise InputError("augmentation", augmentation, "an Augmentation, for instance of PRESETS")
    shape = check_images(images).shape
    if 0 in shape:
        raise InputError("images", tuple(shape), "at least one image of at least one pixel")
    if shape[1] not in (1, 3) and (augmentation.jitter or augmentation.grayscale):
        raise InputError("images", tuple(shape), "1 or 3 channels, or an augmentation with jitter=0 and grayscale=0")
    rows = range(shape[0])[part] if isinstance(part, slice) else ()
    if len(rows) == 0 or rows.step < 0:
        raise InputError("part", part, f"a slice that keeps some of the {shape[0]} images, in their order")
    images = to_float(images[part])
    out = torch.empty(views, *images.shape, device=images.device)
    size = CPU_CHUNK if images.device.type == "cpu" else len(images)
    for view in out:
        drawn = draw_parameters(shape, augmentation, generator)
        order = torch.randperm(4, generator=generator).tolist()
        values = to_device(torch.stack(list(drawn.values()))[:, part], images.device)  # (parameters, N): one copy
        for source, target, chunk in zip(images.split(size), view.split(size), values.split(size, dim=1), strict=True):
            target.copy_(apply_parameters(source, augmentation, dict(zip(drawn, chunk, strict=True)), order))
    return out


def draw_parameters(
    shape: Sequence[int], a: Augmentation, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Everything random about one view of each image: tensors (N,) by name; choices are 0 or 1."""
    N, C, H, W = shape

    def uniform(low, high, *more):
        return torch.empty(N, *more).uniform_(low, high, generator=generator)

    def chosen(probability):
        return (uniform(0, 1) < probability).float()

    top, left, height, width = random_boxes(uniform, H, W, a.scale, a.ratio)
    jitter = chosen(a.jitter)

    def factor(strength):
        return 1 + jitter * uniform(-strength, strength)

    return {
        "top": top, "left": left, "height": height, "width": width, "flip": chosen(a.flip),
        "brightness": factor(a.brightness), "contrast": factor(a.contrast), "saturation": factor(a.saturation),
        "hue": factor(a.hue) - 1, "grayscale": chosen(a.grayscale),
        "sigma": uniform(*a.sigma), "blur": chosen(a.blur), "solarize": chosen(a.solarize),
    }


def apply_parameters(images: Tensor, a: Augmentation, p: dict[str, Tensor], order=(0, 1, 2, 3)) -> Tensor:
    """The view of each image that the parameters `p` describe.

    `order` is that of brightness, contrast, saturation and hue.
    """
    x = crop(images, p["top"], p["left"], p["height"], p["width"], p["flip"])
    color = x.shape[1] == 3
    if a.jitter:
        for i in order:
            name, operation, in_gray_too = COLOR_OPERATIONS[i]
            if getattr(a, name) and (color or in_gray_too):
                x = operation(x, p[name])
    if a.grayscale and color:
        x.lerp_(luma(x).expand_as(x), column(p["grayscale"]))
    if a.blur:
        x = torch.where(column(p["blur"]) > 0, gaussian_blur(x, p["sigma"]), x)
    if a.solarize:
        x = solarize(x, p["solarize"])
    return x


def random_boxes(uniform, H: int, W: int, scale, ratio) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a random crop of every image, in whole pixels, each (N,)."""
    area = H * W * uniform(*scale, ATTEMPTS)  # (N, ATTEMPTS)
    aspect = torch.exp(uniform(*map(math.log, ratio), ATTEMPTS))
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (width >= 1) & (width <= W) & (height >= 1) & (height <= H)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first attempt that fits; 0 where none does
    some = fits.any(dim=1)
    # Where no attempt fits: the largest box of an allowed aspect ratio.
    aspect = min(max(W / H, ratio[0]), ratio[1])
    height = torch.where(some, height.gather(1, first)[:, 0], round(min(H, W / aspect)))
    width = torch.where(some, width.gather(1, first)[:, 0], round(min(W, H * aspect)))
    top = torch.where(some, uniform(0, 1) * (H - height + 1), (H - height) / 2).floor()
    left = torch.where(some, uniform(0, 1) * (W - width + 1), (W - width) / 2).floor()
    return top, left, height, width


def crop(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor) -> Tensor:
    """Cut one box per image and resize it bilinearly to (H, W), mirrored where `flip` is 1; all arguments (N,).

    x (N, C, H, W), uint8 or float -> float32.
    """
    check_images(x[:0], name="x")  # looks at no value: a GPU would be waited for
    N, C, H, W = (x := to_float(x)).shape
    for name, value in {"top": top, "left": left, "height": height, "width": width, "flip": flip}.items():
        if value.shape != (N,):
            raise InputError(name, tuple(value.shape), f"({N},), one of each image")
    rows = _sample_positions(top, height, H)  # (N, H), in pixels
    columns = _sample_positions(left, width, W)  # (N, W)
    columns = torch.where(flip[:, None] > 0, columns.flip(1), columns)
    grid = torch.stack([
        (columns * (2 / W) + (1 / W - 1))[:, None, :].expand(N, H, W),
        (rows * (2 / H) + (1 / H - 1))[:, :, None].expand(N, H, W),
    ], dim=-1)  # (N, H, W, 2), from -1 to 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where `size` output pixels fall in a box, never beyond the centres of its outermost pixels."""
    steps = (torch.arange(size, device=start.device) + 0.5) / size
    inside = (steps * length[:, None] - 0.5).clamp_(min=0)
    return start[:, None] + torch.minimum(inside, length[:, None] - 1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the values of every image: factor (N,), 0 gives black, 1 the image."""
    return (x * column(factor)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Move towards or away from the mean gray of every image: factor (N,), 0 gives flat gray."""
    mean = luma(x.mean(dim=(2, 3), keepdim=True))  # (N, 1, 1, 1), for which `blend` is slow on a CPU
    return (x * column(factor)).add_(mean * column(1 - factor)).clamp_(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Move towards or away from gray: factor (N,), 0 gives a gray image."""
    return blend(x, luma(x), factor)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour wheel by `shift` (N,) turns, keeping HSV's saturation and value."""
    if x.shape[1] != 3:
        raise InputError("x", tuple(x.shape), "(N, 3, H, W): gray has no hue")
    red, green, blue = x.unbind(1)  # (N, H, W) each
    value = x.amax(1)
    chroma = value - x.amin(1)
    # How far from red, in sixths of a turn, 0 to 3; negative on blue's side. No case for each largest channel:
    # a select costs several times an addition on a CPU.
    hue = (green + blue).sub_(red).sub_(value).div_(chroma.clamp(min=1e-12)).add_(2).copysign_(green - blue)
    hue = hue.add_(6 * shift[:, None, None])
    hue = hue.sub_((hue / 6).floor_(), alpha=6)  # in [0, 6): red 0, green 2, blue 4
    # Each channel falls short of the value by chroma times a trapezoid around its own hue.
    short = torch.empty_like(x)
    for channel, away in enumerate((3, 2, 4)):
        torch.sub(hue, away, out=short[:, channel])
    short.abs_()
    short[:, 0].neg_().add_(2)
    short[:, 1:].sub_(1)
    return torch.addcmul(value[:, None], chroma[:, None], short.clamp_(0, 1), value=-1)


COLOR_OPERATIONS = (
    ("brightness", adjust_brightness, True),
    ("contrast", adjust_contrast, True),
    ("saturation", adjust_saturation, False),
    ("hue", adjust_hue, False),
)


def gaussian_blur(x: Tensor, sigma: Tensor, reach: int = 2) -> Tensor:
    """Blur each image with its own sigma (N,), in pixels, by a kernel of 2 * reach + 1 taps, mirrored at edges."""
    H, W = x.shape[2:]
    if min(H, W) <= reach:
        raise InputError("images", tuple(x.shape), f"sides of more than {reach} pixels, to be blurred")
    offsets = torch.arange(-reach, reach + 1, device=x.device)
    weights = torch.softmax(-0.5 * (offsets / sigma[:, None]) ** 2, dim=1)  # (N, taps): a normalised Gaussian
    x = F.pad(x, [reach] * 4, mode="reflect")
    nothing, taps = torch.zeros(()), [column(w) for w in weights.unbind(1)]
    x = sum((w * x[:, :, i : i + H] for i, w in enumerate(taps)), nothing)
    return sum((w * x[..., i : i + W] for i, w in enumerate(taps)), nothing)


def solarize(x: Tensor, on: Tensor) -> Tensor:
    """Invert the values of at least 0.5 in the images where `on` (N,) is 1."""
    return torch.minimum(x, column(2 - on) - x)  # 1 - x where that is the smaller; 2 - x never is


def random_partial(
    x: Tensor, share: float = 0.5, patch: int = 8, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Hide a random `share` of each image's patch x patch squares behind the image's mean colour.

    x (N, C, H, W), uint8 or float -> the partial view (N, C, H, W), float32, and the mask (N, 1, H, W), True
    where hidden.
    """
    check_images(x[:0], name="x")  # looks at no value: a GPU would be waited for
    check_number(share, "share", 1, "a share from 0 to 1")
    check_count(patch, "patch")
    check_generator(generator)
    N, C, H, W = (x := to_float(x)).shape
    if H % patch or W % patch:
        raise InputError("patch", patch, f"a divisor of the image's sides, {H} and {W}")
    rows, columns = H // patch, W // patch
    noise = torch.rand(N, rows * columns, generator=generator)
    hidden = noise.argsort(dim=1).argsort(dim=1) < round(share * rows * columns)  # exactly that share of each image
    hidden = to_device(hidden, x.device)
    mask = hidden.view(N, 1, rows, columns).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return torch.where(mask, x.mean(dim=(2, 3), keepdim=True), x), mask


def partial_views(views: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The predictive recipe's views of one crop: a partial one, half hidden, then the whole.

    views (1, N, C, H, W) -> (2, N, C, H, W).
    """
    partial, _ = random_partial(views[0], generator=generator)
    return torch.stack([partial, views[0]])


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """factor * x + (1 - factor) * other, kept in [0, 1]; factor (N,)."""
    return torch.lerp(other.expand_as(x), x, column(factor)).clamp_(0, 1)
