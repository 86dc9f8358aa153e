"""Images as uint8 tensors: embedded digits, CIFAR-10, or a folder of your own.

`python -m jepa_utils.data cifar10` fetches CIFAR-10 ahead of time and says where it lies.
"""

import argparse
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import pictures
from .checks import check_count, described
from .cifar10 import KEYS, arrays, at_hand
from .pixels import SIZE, check_images, column, luma, to_float
from .runtime import InputError, generator

DATASETS = ("digits", "cifar10", "folder")
TASKS = ("classes", "present")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, C, 32, 32) and labels int64 (N,), split into train and test. InputError for any other."""

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def __post_init__(self):
        for images, labels in (KEYS[:2], KEYS[2:]):
            x, y = check_images(getattr(self, images), name=images), getattr(self, labels)
            if x.dtype != torch.uint8:
                raise InputError(images, str(x.dtype), "torch.uint8")
            if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != x.shape[:1]:
                raise InputError(labels, described(y),
                                 f"torch.int64 of shape ({len(x)},), a label for each of {images}")

    def limited(self, train: int | None, test: int | None = None) -> "Dataset":
        """The first `train` training and `test` test images; `test` defaults to `train`, None keeps all."""
        test = train if test is None else test
        for name, count in (("train", train), ("test", test)):
            if count is not None:
                check_count(count, name)
        return replace(
            self,
            train_images=self.train_images[:train], train_labels=self.train_labels[:train],
            test_images=self.test_images[:test], test_labels=self.test_labels[:test],
        )

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, **{key: getattr(self, key).to(device) for key in KEYS})

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of the first 10,000 training images, on the [0, 1] scale."""
        x = to_float(self.train_images[:10_000])
        return x.mean(dim=(0, 2, 3)).tolist(), x.std(dim=(0, 2, 3)).tolist()


def chosen(train: int | None = None, test: int | None = None) -> Dataset:
    """The data set named by JEPA_DATASET (default: digits), its first `train` and `test` images."""
    name = os.environ.get("JEPA_DATASET") or "digits"
    if name not in ("digits", "cifar10"):
        raise InputError("JEPA_DATASET", name, "digits, cifar10")
    return load(name).limited(train, test)


def load(name: str, task: str = "classes", channels: int = 3, path: str | Path | None = None) -> Dataset:
    """A data set by name: digits, cifar10 or folder (which needs `path`).

    `task` "present" exists on the digits alone: half of the images are background, and the label
    says whether there is a digit. `channels` is 3 for RGB or 1 for grayscale.
    """
    if name not in DATASETS:
        raise InputError("dataset", name, ", ".join(DATASETS))
    if task not in TASKS:
        raise InputError("task", task, ", ".join(TASKS))
    if channels not in (1, 3):
        raise InputError("channels", channels, "1 (grayscale), 3 (RGB)")
    if task == "present" and name != "digits":
        raise InputError("task", task, f"classes, for dataset {name}; present belongs to the digits")
    if name == "digits":
        data = digits(task=task)
    elif name == "cifar10":
        data = cifar10()
    else:
        data = folder(path)
    return data if channels == 3 else grayscale(data)


def grayscale(data: Dataset) -> Dataset:
    """The same images with one channel."""
    def gray(images):
        return (luma(to_float(images)) * 255).round().to(torch.uint8)

    return replace(data, train_images=gray(data.train_images), test_images=gray(data.test_images))


# ---------------------------------------------------------------------------------------- digits


@lru_cache(maxsize=4)  # composed in about a second, so kept in memory and never on disk
def digits(train: int = 10_000, test: int = 2_000, task: str = "classes", seed: int = 0) -> Dataset:
    """Handwritten digits in colour over pieces of photographs, RGB; the same for the same seed.

    Handwriting and photographs come with scikit-learn (8 x 8 digits of the UCI "optical recognition
    of handwritten digits" set). The writing is split before composing: no digit in a test image is
    drawn from handwriting that a training image shows.
    """
    for count, name in ((train, "train"), (test, "test")):
        check_count(count, name)
    if task not in TASKS:
        raise InputError("task", task, ", ".join(TASKS))
    from sklearn.datasets import load_digits  # 0.5 s to import: only when digits are wanted

    bundle = load_digits()
    ink = torch.from_numpy(bundle.images).float()[:, None] / 16  # (1797, 1, 8, 8), 0 paper to 1 ink
    writing = torch.from_numpy(bundle.target)
    shuffled = torch.randperm(len(ink), generator=generator(seed))
    by_digit = [shuffled[writing[shuffled] == digit] for digit in range(10)]  # a fifth of each for the test set
    pools = {
        "train": [pool[len(pool) // 5 :] for pool in by_digit],
        "test": [pool[: len(pool) // 5] for pool in by_digit],
    }
    parts = {}
    for split, count in (("train", train), ("test", test)):
        g = generator(2 * seed + (split == "test"))
        order = torch.randperm(count, generator=g)
        labels = order % 10  # as many of each digit as of the others
        lots = [pools[split][label] for label in labels]
        pick = torch.tensor([lot[torch.randint(len(lot), (), generator=g)] for lot in lots])
        shown = order % 20 < 10 if task == "present" else torch.ones(count, dtype=torch.bool)
        parts[f"{split}_images"] = _compose(ink[pick], shown, g)
        parts[f"{split}_labels"] = shown.long() if task == "present" else labels
    classes = ("absent", "present") if task == "present" else tuple("0123456789")
    return Dataset("digits", classes, **parts)


def _compose(ink: Tensor, shown: Tensor, g: torch.Generator) -> Tensor:
    """Ink (N, 1, 8, 8) over random backgrounds, where `shown` (N,) -> uint8 (N, 3, 32, 32)."""
    N = len(ink)
    background = _backgrounds(N, g)
    size = 24 + 8 * torch.rand(N, generator=g)  # of the whole 8 x 8 sheet, in pixels
    shift = (torch.rand(N, 2, generator=g) * 2 - 1) * (1 - size / SIZE)[:, None]  # anywhere inside the image
    theta = torch.zeros(N, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = SIZE / size
    theta[:, :, 2] = -shift * (SIZE / size)[:, None]
    grid = F.affine_grid(theta, [N, 1, SIZE, SIZE], align_corners=False)
    alpha = F.grid_sample(ink, grid, mode="bicubic", align_corners=False).clamp(0, 1) * column(shown.float())
    # A random colour, made light over dark backgrounds and dark over light ones.
    color = torch.rand(N, 3, 1, 1, generator=g)
    dark = luma(background).mean(dim=(2, 3), keepdim=True) < 0.5
    color = torch.where(dark, 0.65 + 0.35 * color, 0.35 * color)
    return (torch.lerp(background, color.expand_as(background), alpha) * 255).round().to(torch.uint8)


def _backgrounds(N: int, g: torch.Generator) -> Tensor:
    """Random squares of scikit-learn's two photographs, blurred and shrunk: (N, 3, 32, 32) in [0, 1]."""
    from sklearn.datasets import load_sample_images

    photos = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    photos = F.avg_pool2d(to_float(photos), 16)  # (2, 3, 26, 40): shrinking is the blur
    H, W = photos.shape[2:]
    side = 6 + 10 * torch.rand(N, generator=g)  # of the square, in pixels of the shrunk photograph
    centre = torch.rand(N, 2, generator=g) * 2 - 1  # as far as the square stays inside
    theta = torch.zeros(N, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = side / W, side / H
    theta[:, 0, 2], theta[:, 1, 2] = centre[:, 0] * (1 - side / W), centre[:, 1] * (1 - side / H)
    grid = F.affine_grid(theta, [N, 3, SIZE, SIZE], align_corners=False)
    which = torch.randint(len(photos), (N,), generator=g)
    out = torch.empty(N, 3, SIZE, SIZE)
    for i, photo in enumerate(photos):
        grids = grid[which == i]
        photos_i = photo.expand(len(grids), -1, -1, -1)
        out[which == i] = F.grid_sample(photos_i, grids, padding_mode="border", align_corners=False)
    return out.clamp(0, 1)


# --------------------------------------------------------------------------------------- CIFAR-10


def cifar10() -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images in ten classes; see `cifar10.py` for its files."""
    tensors = {k: torch.from_numpy(v) for k, v in arrays().items()}
    return Dataset("cifar10", CIFAR10_CLASSES, **{k: v.long() if "labels" in k else v for k, v in tensors.items()})


# ----------------------------------------------------------------------------------------- folder


def folder(path: str | Path | None) -> Dataset:
    """Your own pictures: `path/<class>/*`, however deep, or unlabeled `path/*`, resized to 32 x 32.

    In a fixed random order; a fifth of each class is held out as the test set. Unlabeled pictures are all of
    one class, so that probes have nothing to tell apart. What is read, and how: see `pictures.py`.
    """
    groups = pictures.find(path)
    images = pictures.read_all([file for files in groups.values() for file in files])
    labels = torch.tensor([label for label, files in enumerate(groups.values()) for _ in files])
    train, test = pictures.split(labels)
    untested = [name for label, name in enumerate(groups) if label not in labels[test]]
    if untested:
        pictures.tell(f"pictures: too few to hold one out for the test set in {pictures.listed(untested)}")
    return Dataset("folder", tuple(groups), images[train], labels[train], images[test], labels[test])


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch CIFAR-10 ahead of time and say where it lies.")
    parser.add_argument("dataset", choices=["cifar10"])
    parser.parse_args()
    try:
        data = cifar10()
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"CIFAR-10: {len(data.train_images):,} training and {len(data.test_images):,} test images in {at_hand()}")


if __name__ == "__main__":
    main()
