"""A training small enough for tests, and how two of them are compared."""

import torch

from jepa_utils import train
from jepa_utils.augment import CIFAR10
from jepa_utils.config import TrainConfig
from jepa_utils.encoders import Encoder, Normalize, ViT
from jepa_utils.models import build_model
from jepa_utils.train import build_loss

TINY = TrainConfig(dobs=3, henc=4, dstc=8, stride=2, batch_size=16, epochs=4, slices=8)
IMAGES = torch.randint(0, 256, (48, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(48) % 4


def fit(config=TINY, out=None, resume=False, on_epoch=None, loss=None, images=IMAGES, labels=LABELS, extend=False):
    """Build a model and train it; the model and its history without the seconds."""
    model = build_model(config)
    history = train.train(model, loss or build_loss(config), images, CIFAR10, config, labels,
                          out, resume, extend, on_epoch, progress=False)
    return model, without(history, "seconds")


def tiny_vit(*_):
    """In place of `build_encoder`: a ViT of a few thousand weights, which `model_type` does not offer."""
    return Encoder(Normalize([0.5] * 3, [0.5] * 3), ViT(3, 16, 2, 2, 8), 16)


class Interrupted(Exception):
    """Someone closed the laptop."""


def interrupt_after(epoch):
    def on_epoch(done, model):
        if done == epoch:
            raise Interrupted

    return on_epoch


def without(history, name):
    """The records of a history without one of their entries."""
    return [{k: v for k, v in record.items() if k != name} for record in history]


def assert_same_weights(model, other):
    for (name, weights), expected in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(weights, expected), name
