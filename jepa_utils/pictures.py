"""Your own pictures: which files of a folder are read, how each becomes 32 x 32 pixels, which are held out."""

import io
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .pixels import SIZE
from .runtime import InputError, generator, progress_bar, watched

DRAFT = 8 * SIZE  # a large JPEG is decoded at a half, a quarter or an eighth, no smaller than this: faster
NEVER_READ = {"BUFR", "GRIB", "HDF5", "MPEG"}  # Pillow knows them when it sees them, but has no decoder
# How Pillow turns each EXIF orientation upright, by the name of its Transpose; 1 stands upright already.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}
PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def tell(line: str) -> None:
    """A line for whoever watches, where progress bars go."""
    print(line, file=watched())


# ----------------------------------------------------------------------------------------- finding


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The suffixes of every format that this Pillow can read, in lower case."""
    from PIL import Image

    known = Image.registered_extensions().items()  # which also fills OPEN; MPO, a pair of JPEGs, is opened as JPEG
    read = {*Image.OPEN, "MPO"} - NEVER_READ
    return frozenset(suffix for suffix, kind in known if kind in read)


def find(path: str | Path | None, beside: bool = False) -> dict[str, list[Path]]:
    """Picture files by class: those of `path/<class>/`, however deep, or of `path` itself, then all "unlabeled".

    With `beside`, pictures beside class folders are "unlabeled" too; without, they are passed over. Hidden names (with
    a leading dot) are passed over; that and whatever else is left out is counted in a line.
    InputError if `path` is no folder that can be read, or holds no picture.
    """
    root = _existing(path)
    passed: Counter[tuple[str, str]] = Counter()
    inside = visible(root, passed)
    groups = {child.name: _below(child, passed, (root.resolve(),)) for child in inside if os.path.isdir(child)}
    loose = _pictures([child for child in inside if not os.path.isdir(child)], passed)
    found = {name: files for name, files in groups.items() if files}
    if not found and not loose:
        raise InputError("data_path", str(path), "a folder with at least one .png, .jpg, .webp or other picture")
    if found and not beside:
        passed["picture beside the class folders", "pictures beside the class folders"] = len(loose)
    elif loose:
        found["unlabeled"] = [*found.get("unlabeled", []), *loose]
    _tell_passed(passed, [name for name, files in groups.items() if not files], found)
    return found


def _existing(path: str | Path | None) -> Path:
    accepted = "a folder of pictures: path/<class>/* or path/*"
    try:
        root = Path(path or "").expanduser()
    except RuntimeError as error:  # ~somebody whom this machine does not know
        raise InputError("data_path", str(path), f"{accepted} ({error})") from error
    if not path or not os.path.isdir(root):  # unlike Path.is_dir, never an error of its own
        raise InputError("data_path", path if path is None else str(path), accepted)
    return root


def visible(folder: Path, passed: Counter[tuple[str, str]]) -> list[Path]:
    """What a folder holds, sorted, but for hidden names, which are counted."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError("data_path", str(folder), f"a folder that can be read ({error})") from error
    shown = [entry for entry in entries if not entry.name.startswith(".")]
    passed["hidden name", "hidden names"] += len(entries) - len(shown)
    return shown


def _pictures(files: list[Path], passed: Counter[tuple[str, str]]) -> list[Path]:
    """Those of the files that are pictures by their suffix; the others are counted."""
    pictures = [file for file in files if file.suffix.lower() in suffixes() and os.path.isfile(file)]
    passed["file that is no picture", "files that are no pictures"] += len(files) - len(pictures)
    return pictures


def _below(folder: Path, passed: Counter[tuple[str, str]], above: tuple[Path, ...]) -> list[Path]:
    """All pictures in a folder and in the folders inside it; a link back to one of those `above` is not followed."""
    here = folder.resolve()
    if here in above:
        return []
    inside = visible(folder, passed)
    deeper = [file for child in inside if os.path.isdir(child) for file in _below(child, passed, (*above, here))]
    return _pictures([child for child in inside if not os.path.isdir(child)], passed) + deeper


def _tell_passed(passed: Counter[tuple[str, str]], empty: list[str], found: dict[str, list[Path]]) -> None:
    parts = [f"{count:,} {one if count == 1 else many}" for (one, many), count in passed.items() if count]
    if empty:
        parts.append(f"the empty class folder{'s' * (len(empty) > 1)} {listed(empty)}")
    if parts:
        kinds = Counter(file.suffix.lower().lstrip(".") for files in found.values() for file in files)
        read = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        tell(f"pictures: skipped {_and(parts)}; found: {read} in {listed(list(found))}")


def listed(names: list[str], most: int = 5) -> str:
    """The names, or the first of them and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _and(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


# ----------------------------------------------------------------------------------------- reading


class Unreadable(InputError):
    """A file that cannot be read as a picture, and why."""

    def __init__(self, path: Path, reason: str):
        super().__init__("data_path", str(path), f"a readable picture ({reason})")
        self.path, self.reason = path, reason

    def __reduce__(self):  # from a worker that reads pictures, too
        return type(self), (self.path, self.reason)


def read_each(files: list[Path]) -> tuple[list[Tensor], list[int], list[Unreadable]]:
    """Images uint8 (3, 32, 32), which of the files they are, and what is wrong with the others."""
    images, kept, errors = [], [], []
    with progress_bar(files, desc="pictures") as bar:
        for i, file in enumerate(bar):
            try:
                images.append(read(file))
                kept.append(i)
            except Unreadable as error:
                errors.append(error)
    return images, kept, errors


def read_all(files: list[Path]) -> Tensor:
    """All of the files as uint8 (N, 3, 32, 32); InputError names up to three of those that cannot be read."""
    images, _, errors = read_each(files)
    if errors:
        first, others = errors[0], [error.given for error in errors[1:]]
        more = f"; nor can be read {listed(others, most=2)}" if others else ""
        raise InputError("data_path", first.given, first.accepted + more)
    return torch.stack(images)


def read(path: str | Path) -> Tensor:
    """The middle square of a picture file as uint8 (3, 32, 32): upright, over white where transparent.

    Of several frames the first; gray of more than 8 bits is scaled. Unreadable if it cannot be read, or is
    larger than Pillow's limit, some 179 megapixels.
    """
    from PIL import Image, ImageOps

    try:
        picture = _decoded(Path(path).read_bytes())
        if picture.mode == "F" or picture.mode.startswith("I"):
            picture = Image.fromarray(_eight_bits(np.asarray(picture)))
        square = ImageOps.fit(picture.convert("RGBA"), (SIZE, SIZE))
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    except Exception as error:  # a damaged file can make Pillow and its codecs raise almost anything
        unknown = isinstance(error, Image.UnidentifiedImageError)  # whose own words name an object in memory
        reason = "it is damaged, or no picture" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise Unreadable(Path(path), reason) from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _decoded(raw: bytes):
    """The first frame, upright."""
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a large size, of damaged metadata: the pixels are what counts
        try:
            picture = Image.open(io.BytesIO(raw))
            if picture.format == "JPEG":
                picture.draft(None, (DRAFT, DRAFT))
            picture.load()
        except Exception:  # of damage, almost any
            if not raw.startswith(b"\x89PNG"):
                raise
            picture = Image.open(io.BytesIO(_bare_png(raw)))
            picture.load()
        turn = UPRIGHT.get(_orientation(picture))
    return picture.transpose(Image.Transpose[turn]) if turn else picture


def _orientation(picture) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # damaged metadata can raise almost anything, and must not stop a readable picture
        return 1


def _bare_png(raw: bytes) -> bytes:
    """A PNG's pixels alone: damage in its texts and profiles would stop Pillow."""
    kept, at = [raw[:8]], 8
    while at < len(raw):
        end = at + 12 + int.from_bytes(raw[at : at + 4])  # length, name, content, checksum
        kept += [raw[at:end]] * (raw[at + 4 : at + 8] in PNG_PIXELS)
        at = end
    return b"".join(kept)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Gray of 16 bits, 32 bits or floats, which Pillow would clip, scaled to 8 bits: (H, W) -> uint8 (H, W).

    White is 65535; for floats 1, 255 or 65535, the least that no value exceeds; else the highest value.
    Black is 0, or the lowest value below it. What is not finite is black.
    """
    usual = (1, 255, 65535) if values.dtype.kind == "f" else (65535,)
    values = np.where(np.isfinite(values), values, 0).astype(np.float32)
    black, high = min(values.min(), 0), values.max()
    white = next((white for white in usual if high <= white), high)
    return ((values - black) / (white - black) * 255).round().astype(np.uint8)


# --------------------------------------------------------------------------------------- splitting


def split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of training and test pictures for labels (N,), both in a fixed random order.

    Of each class of n, round(n / 5) are test pictures, whatever the sizes of the others.
    """
    train, test = [], []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        held_out, kept = shuffled(members).tensor_split([round(len(members) / 5)])
        train.append(kept)
        test.append(held_out)
    return shuffled(torch.cat(train)), shuffled(torch.cat(test))


def shuffled(x: Tensor) -> Tensor:
    """The rows of x in a fixed random order."""
    return x[torch.randperm(len(x), generator=generator(0))]
