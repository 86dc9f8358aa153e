"""Encoders for 32-pixel images, projector, predictor, and the JEPA that joins them.

Every encoder maps images (N, C, 32, 32), uint8 or float in [0, 1], to features `h` (N, F) and has
`maps`, the same features before pooling, (N, F, H, W). `features` is F.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .augment import random_partial
from .pixels import to_float
from .runtime import InputError

ENCODERS = ("resnet5", "resnet", "vit_s", "vit_b")
PREDICTORS = ("identity", "mlp", "conv")


class Normalize(nn.Module):
    """Images to zero mean and unit variance per channel; part of the encoder, so nobody can forget it."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        mean, std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        self.register_buffer("scale", 1 / std)  # (C, 1, 1)
        self.register_buffer("shift", -mean / std)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != len(self.scale):
            raise InputError("images", tuple(x.shape), f"shape (N, {len(self.scale)}, H, W), the encoder's channel count")
        x = (to_float(x) * self.scale).add_(self.shift)
        return x.contiguous(memory_format=torch.channels_last)


class Encoder(nn.Module):
    """Normalise, compute feature maps, average them over positions."""

    def __init__(self, normalize: nn.Module, body: nn.Module, features: int):
        super().__init__()
        self.normalize, self.body, self.features = normalize, body, features

    def maps(self, x: Tensor) -> Tensor:
        """Features of every position, (N, F, H, W)."""
        return self.body(self.normalize(x))

    def forward(self, x: Tensor) -> Tensor:
        """Features of every image, `h` (N, F)."""
        return self.maps(x).mean(dim=(2, 3))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, as in ResNet (He et al. 2015, arXiv 1512.03385, figure 2)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out),
        )
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def resnet5(dobs: int = 1, henc: int = 32, dstc: int = 16, strides: tuple[int, int, int] = (1, 2, 2)) -> nn.Module:
    """Five convolutions: a stem and two residual blocks, (N, dobs, 32, 32) -> (N, dstc, 8, 8).

    `strides` are those of stem, first and second block; (2, 2, 2) is about five times faster and
    gives 4x4 maps.
    """
    return nn.Sequential(
        nn.Conv2d(dobs, henc, 3, strides[0], 1, bias=False), nn.BatchNorm2d(henc), nn.ReLU(),
        ResidualBlock(henc, 2 * henc, strides[1]),
        ResidualBlock(2 * henc, dstc, strides[2]),
    )


def resnet18(dobs: int = 3) -> nn.Module:
    """torchvision's ResNet-18 with the stem for small images: one 3x3 convolution, no pooling."""
    from torchvision.models import resnet18 as imagenet_resnet18  # slow to import: only when wanted

    net = imagenet_resnet18()
    stem = nn.Conv2d(dobs, 64, 3, 1, 1, bias=False)
    return nn.Sequential(stem, net.bn1, net.relu, net.layer1, net.layer2, net.layer3, net.layer4)


class ViT(nn.Module):
    """Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) without a class token.

    Cuts images into squares of `patch_size` pixels: (N, dobs, S, S) -> (N, width, S/patch, S/patch).
    """

    def __init__(self, dobs: int, width: int, depth: int, heads: int, patch_size: int, image_size: int = 32):
        super().__init__()
        if patch_size < 1 or image_size % patch_size:
            raise InputError("patch_size", patch_size, f"a divisor of the image size, {image_size}")
        side = image_size // patch_size
        self.patches = nn.Conv2d(dobs, width, patch_size, patch_size)
        self.positions = nn.Parameter(0.02 * torch.randn(1, side * side, width))
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)  # (N, width, H, W)
        H, W = x.shape[2:]
        if self.positions.shape[1] != H * W:
            raise InputError("images", f"{H} x {W} patches", f"{self.positions.shape[1]} patches: the size it was built for")
        tokens = x.flatten(2).transpose(1, 2) + self.positions  # (N, H*W, width)
        return self.blocks(tokens).transpose(1, 2).unflatten(2, (H, W))


def build_encoder(
    model_type: str = "resnet5", dobs: int = 1, henc: int = 32, dstc: int = 16, stride: int = 1, patch_size: int = 2,
    mean: list[float] | None = None, std: list[float] | None = None,
) -> Encoder:
    """An encoder by name. `henc`, `dstc` and `stride` (of the stem) shape resnet5; `patch_size` the ViTs.

    `mean` and `std` (one value per channel, on the [0, 1] scale) normalise the images; without
    them the values are only shifted to [-1, 1].
    """
    if model_type not in ENCODERS:
        raise InputError("model_type", model_type, ", ".join(ENCODERS))
    normalize = Normalize(mean or [0.5] * dobs, std or [0.5] * dobs)
    if model_type == "resnet5":
        return Encoder(normalize, resnet5(dobs, henc, dstc, (stride, 2, 2)), dstc)
    if model_type == "resnet":
        return Encoder(normalize, resnet18(dobs), 512)
    width, heads = {"vit_s": (384, 6), "vit_b": (768, 12)}[model_type]
    return Encoder(normalize, ViT(dobs, width, 12, heads, patch_size), width)


def build_projector(features: int, widths: str = "2048-2048-2048") -> nn.Module:
    """MLP from `h` to `z` with BatchNorm and ReLU between layers; no widths: `z` is `h`."""
    layers, size = [], features
    for width in [int(width) for width in widths.split("-") if width]:
        layers += [nn.Linear(size, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        size = width
    if not layers:
        return nn.Identity()
    return nn.Sequential(*layers[:-3], nn.Linear(layers[-3].in_features, size))  # the last layer is plain


def build_predictor(kind: str, features: int, hpre: int = 32) -> nn.Module:
    """From the embedding of a context view to that of its target.

    identity: the prediction term becomes VICReg's invariance; mlp: on embeddings (N, D); conv: on
    feature maps (N, D, H, W), for the recipe that reconstructs a whole image's maps from a partial view.
    """
    if kind == "identity":
        return nn.Identity()
    if kind == "mlp":
        return nn.Sequential(nn.Linear(features, hpre, bias=False), nn.BatchNorm1d(hpre), nn.ReLU(), nn.Linear(hpre, features))
    if kind == "conv":
        return nn.Sequential(
            nn.Conv2d(features, hpre, 3, 1, 1, bias=False), nn.BatchNorm2d(hpre), nn.ReLU(),
            nn.Conv2d(hpre, hpre, 3, 1, 1, bias=False), nn.BatchNorm2d(hpre), nn.ReLU(), nn.Conv2d(hpre, features, 1))
    raise InputError("predictor", kind, ", ".join(PREDICTORS))


class JEPA(nn.Module):
    """Encoder, projector and predictor: views in, features, embeddings and predictions out.

    With a convolutional predictor the model is the predictive recipe: `z` are feature maps, one
    embedding per position, and the first view is a partial one (see `partial_views`).

    With `micro_batch` a training encoder sees that many views at a time and keeps only their features. When
    the gradient of the loss, taken over the whole batch, reaches them, it sees them once more. Memory holds one
    part, arithmetic grows by a third, and the gradient is exact where the encoder never mixes images, so not with
    BatchNorm (GradCache: Gao et al. 2021, arXiv 2101.06983).
    """

    def __init__(
        self, encoder: Encoder, projector: nn.Module | None = None, predictor: nn.Module | None = None, micro_batch: int = 0
    ):
        super().__init__()
        self.encoder, self.micro_batch = encoder, micro_batch
        self.projector = projector or nn.Identity()
        self.predictor = predictor or nn.Identity()
        self.dense = any(isinstance(layer, nn.Conv2d) for layer in self.predictor.modules())

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """views (V, N, C, H, W) -> h (V, N, F), z (V, N, D), predicted (P, N, D).

        predicted[i] guesses every other view's z from view i. With the identity P is V; any other
        predictor looks at the first view alone, the context, and P is 1. In the predictive recipe
        every position counts as a sample: z is (V, N*H*W, D).
        """
        V, N = views.shape[:2]
        if self.dense:
            maps = self.encode(self.encoder.maps, views.flatten(0, 1))
            h, z = maps.mean(dim=(2, 3)), maps
        else:
            h = self.encode(self.encoder, views.flatten(0, 1))
            z = self.projector(h)
        h, z = h.unflatten(0, (V, N)), z.unflatten(0, (V, N))
        predicted = z if isinstance(self.predictor, nn.Identity) else self.predictor(z[0])[None]
        return h, positions_as_samples(z), positions_as_samples(predicted)

    def encode(self, encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """encoder(x), in parts of `micro_batch` images if that is set."""
        if not self.micro_batch or not torch.is_grad_enabled():
            return encoder(x)
        parts = x.split(self.micro_batch)
        return torch.cat([checkpoint(encoder, part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def positions_as_samples(z: Tensor) -> Tensor:
    """(V, N, D, H, W) -> (V, N*H*W, D); embeddings of shape (V, N, D) pass unchanged."""
    return z.permute(0, 1, 3, 4, 2).flatten(1, 3) if z.ndim == 5 else z


def partial_views(views: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The predictive recipe's views of one crop: a partial one, half hidden, then the whole.

    views (1, N, C, H, W) -> (2, N, C, H, W).
    """
    partial, _ = random_partial(views[0], generator=generator)
    return torch.stack([partial, views[0]])


@torch.no_grad()
def embeddings(model: JEPA, images: Tensor, batch_size: int = 128) -> Tensor:
    """`z` (N, D) of images (N, C, H, W) in float32, in evaluation mode; of every position, where z are maps."""
    model.eval()
    return torch.cat([model(batch[None])[1][0].float() for batch in images.split(batch_size)])


@torch.no_grad()
def settle_batchnorm(model: JEPA, images: Tensor, batches: int = 20, batch_size: int = 256) -> JEPA:
    """Give an untrained model BatchNorm statistics of its own images; a fair baseline needs them."""
    model.train()
    for batch in images[: batches * batch_size].split(batch_size):
        model(batch[None])
    return model.eval()


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
