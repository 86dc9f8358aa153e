"""A folder of picture files like somebody's own, made from the embedded digits: what notebook 10 opens by itself.

Sizes, shapes and formats are mixed, some pictures were saved twice, some do not belong, few have a label.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import data
from .pixels import SIZE, to_float
from .runtime import generator

SUFFIXES = ("jpg", "png", "webp", "jpg", "bmp")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FOLDERS = ("2023/spring", "2023/summer", "2024", "phone/camera")


@dataclass(frozen=True)
class Planted:
    """What was hidden in the folder, by file: each copy's original, and the pictures that do not belong."""

    copies: dict[Path, Path]
    odd: tuple[Path, ...]


def write(root: str | Path, unlabeled: int = 600, labeled: int = 400, copies: int = 40, odd: int = 20,
          seed: int = 0) -> Planted:
    """Write the folder: root/unlabeled/…, root/zero/ to root/nine/, and returns what is planted in it.

    Files of `unlabeled` + `labeled` pictures of digits, then `copies` of some of the unlabeled ones, saved again
    smaller, a little cropped, brighter or darker, as JPEG; and `odd` pictures that show no digit. Beside them a text
    and a damaged picture, as folders have them.
    """
    root, g, rng = Path(root), generator(seed), np.random.default_rng(seed)
    digits = data.digits(seed=seed)
    order = torch.randperm(len(digits.train_images), generator=g)[: unlabeled + labeled]
    shown, numbers = to_float(digits.train_images[order]), digits.train_labels[order].tolist()
    files = []
    for i, (image, number) in enumerate(zip(shown, numbers, strict=True)):
        where = f"unlabeled/{FOLDERS[i % 4]}" if i < unlabeled else NAMES[number]
        file = root / where / f"IMG_{i:04}.{SUFFIXES[i % 5]}"
        files.append(save(image, file, rng, quality=85))
    twice = {}
    for i in range(copies):
        cut = int(rng.integers(0, 4))  # pixels of each edge
        cropped = shown[i : i + 1, :, cut : SIZE - cut, cut : SIZE - cut] * float(rng.uniform(0.75, 1.15))
        again = F.interpolate(cropped, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0].clamp(0, 1)
        twice[save(again, root / "unlabeled/backup" / f"copy_{i:03}.jpg", rng, quality=60)] = files[i]
    strangers = [save(odd_one(i, rng), root / "unlabeled/misc" / f"scan_{i:03}.{SUFFIXES[i % 5]}", rng, quality=90)
                 for i in range(odd)]
    (root / "unlabeled/misc/notes.txt").write_text("not a picture", encoding="utf-8")
    (root / "unlabeled/misc/broken.jpg").write_bytes(b"\xff\xd8 the rest was lost")
    return Planted(twice, tuple(strangers))


def save(image: Tensor, file: Path, rng: np.random.Generator, quality: int) -> Path:
    """Write one picture (3, 32, 32), floats in [0, 1], enlarged to a random size and a wide, tall or square shape.

    The picture is the middle square; what is beside it repeats its edge.
    """
    from PIL import Image

    side = int(rng.integers(40, 200))
    more = int(side * rng.choice([0, 1 / 6, 1 / 4]))
    margin = [(more, more), (0, 0)][:: rng.choice([1, -1])]
    square = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).resize((side, side))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.pad(np.asarray(square), [*margin, (0, 0)], mode="edge")).save(file, quality=quality)
    return file


def odd_one(i: int, rng: np.random.Generator) -> Tensor:
    """The i-th picture that does not belong, (3, 32, 32): of eight kinds in turn, none like another of its kind."""
    from sklearn.datasets import load_sample_images

    def sharp_photograph() -> Tensor:
        photos = load_sample_images().images
        photo = to_float(torch.tensor(photos[i // 4 % len(photos)]).permute(2, 0, 1)[None])
        top, left = (int(rng.integers(0, size - 200)) for size in photo.shape[2:])
        return F.adaptive_avg_pool2d(photo[:, :, top : top + 200, left : left + 200], SIZE)[0]

    rows, columns = torch.meshgrid(*[torch.arange(SIZE) / SIZE] * 2, indexing="ij")
    one, two = (torch.from_numpy(rng.uniform(0, 1, 3)).float()[:, None, None] for _ in range(2))
    turn, width = rng.uniform(0, np.pi), int(rng.integers(3, 9))
    along = rows * np.sin(turn) + columns * np.cos(turn)
    ends = torch.from_numpy(rng.uniform(0.4, 0.95, SIZE)).float()[:, None]
    line = ((rows * SIZE).int() % 5 < 2) & (columns > 0.1) & (columns < ends)
    kinds: list[Callable[[], Tensor]] = [
        sharp_photograph,
        lambda: torch.lerp(one, two, (torch.sin(along * 4 * width) > 0).float()),  # stripes
        lambda: 1 - 0.9 * line.float().expand(3, -1, -1),  # a page of text
        lambda: torch.from_numpy(rng.uniform(0, 1, (3, SIZE, SIZE))).float(),  # noise
        sharp_photograph,
        lambda: torch.lerp(one, two, ((rows * width).int() + (columns * width).int()).float() % 2),  # a chessboard
        lambda: torch.lerp(one, two, along.clamp(0, 1)),  # a smooth gradient
        lambda: torch.lerp(one, two, ((rows - 0.5).square() + (columns - 0.5).square() < 0.1).float()),  # a disc
    ]
    return kinds[i % len(kinds)]().clamp(0, 1)
