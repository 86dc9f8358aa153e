"""Encoders for 32-pixel images: built by name, saved, and loaded in one line.

Every encoder maps images (N, C, 32, 32), uint8 or float in [0, 1], to features `h` (N, F) and has
`maps`, the same features before pooling, (N, F, H, W). `features` is F.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import CHOICES, TrainConfig
from .pixels import SIZE, to_float
from .runtime import InputError, save_tensors

FORMAT, VERSION = "jepa_utils encoder", 1  # of the file that `save_encoder` writes
FIELDS = ("model_type", "dobs", "henc", "dstc", "stride", "patch_size")  # of a configuration: what shapes an encoder


class Normalize(nn.Module):
    """Images (N, C, H, W), uint8 or in [0, 1], to mean 0, variance 1 per channel: in the encoder, never forgotten."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        centre, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]  # (C, 1, 1) each
        spread = torch.where(spread > 0, spread, 1.0)  # a constant channel becomes 0
        self.register_buffer("scale", 1 / spread)
        self.register_buffer("shift", -centre / spread)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != len(self.scale):
            raise InputError("images", tuple(x.shape),
                             f"shape (N, {len(self.scale)}, H, W), the encoder's channel count")
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
        # Positions as they lie in memory, (N, H*W, F). The gradient of a mean over (2, 3) has another layout than the
        # maps, and on a CPU with AMX the operations that met the mixture took 15 % of a step of WhiteNet.
        return self.maps(x).permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)


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

    `strides` are those of stem, first and second block; (2, 2, 2) is a quarter of the
    arithmetic and gives 4x4 maps.
    """
    return nn.Sequential(
        nn.Conv2d(dobs, henc, 3, strides[0], 1, bias=False), nn.BatchNorm2d(henc), nn.ReLU(),
        ResidualBlock(henc, 2 * henc, strides[1]),
        ResidualBlock(2 * henc, dstc, strides[2]),
    )


class WhiteningConv(nn.Conv2d):
    """Patches of 4x4 pixels, every second pixel: a stem that can start from what the images are like."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, 4, 2, 1, bias=False)

    @torch.no_grad()
    def whiten(self, x: Tensor, eps: float = 1e-3) -> None:
        """Start from the principal directions of the patches of x (N, c_in, H, W), each scaled to unit variance.

        The first half of the filters are the leading directions, the second half their negatives, so that a ReLU
        loses nothing. Where there are more filters than directions, the others stay random. Page 2019, "How to
        train your ResNet 8"; both signs: Jordan 2024 (arXiv 2404.00498).
        """
        patches = F.unfold(x.float(), self.kernel_size, stride=self.stride).transpose(1, 2).flatten(0, 1)
        values, directions = torch.linalg.eigh(patches.T.cov().cpu().double())  # ascending
        count = min(self.out_channels // 2, len(values))
        leading = (directions / (values + eps).sqrt()).flip(1).T[:count].unflatten(1, self.weight.shape[1:])
        self.weight[: 2 * count] = torch.cat([leading, -leading]).to(self.weight)


def whitenet(dobs: int = 3, henc: int = 48, dstc: int = 1024) -> nn.Module:
    """Whitened patches, two residual blocks on 8x8 maps, and a wide last layer: (N, dobs, 32, 32) -> (N, dstc, 8, 8).

    Made for the time a step takes on a CPU: few layers, of 48 to 192 channels, on maps large enough to fill its
    multipliers. The widest layer is a 1x1 convolution, without a norm: on so many values that took as long as the
    convolution, where it was timed.
    """
    return nn.Sequential(
        WhiteningConv(dobs, henc), nn.BatchNorm2d(henc), nn.ReLU(),
        ResidualBlock(henc, 2 * henc, 2),
        ResidualBlock(2 * henc, 4 * henc),
        nn.Conv2d(4 * henc, dstc, 1), nn.ReLU(),
    )


def whiten(encoder: Encoder, images: Tensor, count: int = 5000) -> None:
    """Let a WhiteningConv in an encoder start from the first `count` images (N, C, H, W); other encoders stay."""
    for layer in encoder.modules():
        if isinstance(layer, WhiteningConv):
            layer.whiten(encoder.normalize(images[:count].to(layer.weight.device)))


def resnet18(dobs: int = 3) -> nn.Module:
    """torchvision's ResNet-18 with the stem for small images: one 3x3 convolution, no pooling."""
    from torchvision.models import resnet18 as imagenet_resnet18  # slow to import: only when wanted

    net = imagenet_resnet18()
    stem = nn.Conv2d(dobs, 64, 3, 1, 1, bias=False)
    return nn.Sequential(stem, net.bn1, net.relu, net.layer1, net.layer2, net.layer3, net.layer4)


class ViT(nn.Module):
    """Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) without a class token.

    Cuts images into squares of `patch_size` pixels: (N, dobs, 32, 32) -> (N, width, 32/patch, 32/patch).
    """

    def __init__(self, dobs: int, width: int, depth: int, heads: int, patch_size: int):
        super().__init__()
        if patch_size < 1 or SIZE % patch_size:
            raise InputError("patch_size", patch_size, f"a divisor of the image size, {SIZE}")
        side = SIZE // patch_size
        self.patches = nn.Conv2d(dobs, width, patch_size, patch_size)
        self.positions = nn.Parameter(0.02 * torch.randn(1, side * side, width))
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (SIZE, SIZE):
            size = f"{SIZE} x {SIZE} pixels: every patch has a position of its own"
            raise InputError("images", f"{x.shape[2]} x {x.shape[3]} pixels", size)
        x = self.patches(x)  # (N, width, H, W)
        H, W = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2) + self.positions  # (N, H*W, width)
        return self.blocks(tokens).transpose(1, 2).unflatten(2, (H, W))


def build_encoder(
    model_type: str = "resnet5", dobs: int = 1, henc: int = 32, dstc: int = 16, stride: int = 1, patch_size: int = 2,
    mean: list[float] | None = None, std: list[float] | None = None,
) -> Encoder:
    """An encoder by name. `henc` and `dstc` shape resnet5 and whitenet, `stride` (of the stem) resnet5; `patch_size`
    the ViTs.

    `mean` and `std` (one value per channel, on the [0, 1] scale) normalise the images; without
    them the values are only shifted to [-1, 1].
    """
    if model_type not in CHOICES["model_type"]:
        raise InputError("model_type", model_type, ", ".join(map(str, CHOICES["model_type"])))
    normalize = Normalize(mean or [0.5] * dobs, std or [0.5] * dobs)
    if model_type == "resnet5":
        return Encoder(normalize, resnet5(dobs, henc, dstc, (stride, 2, 2)), dstc)
    if model_type == "whitenet":
        return Encoder(normalize, whitenet(dobs, henc, dstc), dstc)
    if model_type == "resnet":
        return Encoder(normalize, resnet18(dobs), 512)
    width, heads = {"vit_s": (384, 6), "vit_b": (768, 12)}[model_type]
    return Encoder(normalize, ViT(dobs, width, 12, heads, patch_size), width)


def save_encoder(encoder: Encoder, config: TrainConfig, folder: str | Path) -> Path:
    """Write `folder`/encoder.pt, all or nothing: weights (normalisation included), configuration and a version."""
    weights = {name: value.detach().cpu() for name, value in encoder.state_dict().items()}  # loads without a GPU
    saved = {"format": FORMAT, "version": VERSION, "config": asdict(config), "weights": weights}
    return save_tensors(saved, Path(folder).expanduser() / "encoder.pt")


def load_encoder(path: str | Path, device: torch.device | str = "cpu") -> Encoder:
    """The encoder that `save_encoder` left in a folder, or in such a file, in evaluation mode on `device`.

    Raises InputError for a file that is missing, damaged, of another kind or of a later version.
    Nothing in it is executed.
    """
    path = Path(path).expanduser()
    file = path / "encoder.pt" if path.is_dir() else path
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a missing or damaged file makes torch raise
        accepted = f"a run's folder or its encoder.pt, complete ({type(error).__name__})"
        raise InputError("path", str(file), accepted) from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise InputError("path", str(file), "a file that save_encoder wrote; this holds something else")
    if (version := saved.get("version")) != VERSION:
        raise InputError("path", str(file), f"version {VERSION} of the format, not {version}: update jepa_utils")
    try:
        encoder = build_encoder(**{name: saved["config"][name] for name in FIELDS})
        encoder.load_state_dict(saved["weights"])
    except (KeyError, TypeError, RuntimeError, InputError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("path", str(file), f"weights that fit their own configuration ({reason})") from error
    return encoder.to(device).eval()


@torch.no_grad()
def in_batches(model: nn.Module, function: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 128) -> Tensor:
    """function(images) in float32, batch by batch on the model's device, in evaluation mode; restores the mode."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        return torch.cat([function(batch.to(device)).float() for batch in images.split(batch_size)])
    finally:
        model.train(training)
