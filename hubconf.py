"""Entry points of torch.hub: torch.hub.load("OWNER/NAME", "cifar10_encoder"), with the address of this repository."""

from pathlib import Path

from jepa_utils.encoders import Encoder, load_encoder

dependencies = ["torch", "torchvision", "numpy", "tqdm"]


def cifar10_encoder(device: str = "cpu") -> Encoder:
    """ResNet5 trained on CIFAR-10 without labels, ten minutes on two CPU cores: images (N, 3, 32, 32) -> h (N, 256)."""
    return load_encoder(Path(__file__).parent / "assets" / "encoder_cifar10.pt", device)
