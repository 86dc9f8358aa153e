"""Your own pictures as a collection: from a folder or a zip, all of them, labelled where subfolders say so.

`data.folder` makes a data set of a folder, and is strict. This is for looking around: pictures without a label stay,
and one that cannot be read is named and left out.
"""

import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from . import pictures
from .checks import check_count
from .pictures import listed, tell, visible
from .runtime import InputError, generator

LEAST = 50  # pictures, below which there is next to nothing to learn from
UNPACKED = 20 * 2**30  # bytes that a zip may unpack to
UNLABELED = "unlabeled"  # the subfolder whose name is no label


@dataclass(frozen=True)
class Collection:
    """Pictures: their files, images uint8 (N, 3, 32, 32), labels int64 (N,), -1 for none, and the classes' names."""

    files: tuple[Path, ...]
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def collect(path: str | Path, unpack_to: str | Path, most: int | None = None, labels: bool = True) -> Collection:
    """The pictures of a folder, or of a zip, which is unpacked into a new folder inside `unpack_to`.

    A class is a subfolder of `path`, its pictures as deep as they lie; pictures beside the subfolders, and those of
    one called "unlabeled", have no label. Without `labels` none has, nor where there is a single class. A folder
    that holds one folder alone is entered. Of more than `most` a fixed random sample is taken. InputError with
    fewer than LEAST.
    """
    if most is not None:
        check_count(most, "most")
    root = Path(os.path.expanduser(path or ""))  # these functions of os.path never raise
    if path and root.suffix.lower() == ".zip" and os.path.isfile(root):
        root = unzipped(root, unpack_to)
    try:
        groups = pictures.find(entered(root) if path else path, beside=True)
    except InputError as error:
        accepted = error.accepted if os.path.isdir(root) else "a folder of pictures, or a zip of them"
        raise InputError("pictures", error.given, accepted) from error
    files = [file for group in groups.values() for file in group]
    names = [name for name, group in groups.items() for _ in group]
    if most is not None and len(files) > most:
        tell(f"pictures: {most:,} of {len(files):,} taken, drawn at random")
        chosen = torch.randperm(len(files), generator=generator(0))[:most].sort().values.tolist()
        files, names = [files[i] for i in chosen], [names[i] for i in chosen]
    images, kept, errors = pictures.read_each(files)
    if errors:
        said = [f"{error.path.name}: {error.reason}" for error in errors]
        tell(f"pictures: skipped {len(errors):,} that cannot be read ({listed(said, most=2)})")
    files, names = [files[i] for i in kept], [names[i] for i in kept]
    if len(files) < LEAST:
        raise InputError("pictures", f"{len(files)} in {path}", f"{LEAST} or more that can be read")
    classes = sorted({*names} - {UNLABELED}) if labels else []
    classes = classes if len(classes) > 1 else []  # a single one tells nothing apart
    numbers = [classes.index(name) if name in classes else -1 for name in names]
    return Collection(tuple(files), torch.stack(images), torch.tensor(numbers), tuple(classes))


def received(sent: dict[str, bytes], folder: str | Path) -> Path:
    """Write files that were sent by name into a folder: the folder, or the zip where that is all that was sent."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / PurePosixPath(name.replace("\\", "/")).name for name in sent]
    for file, content in zip(files, sent.values(), strict=True):
        file.write_bytes(content)
    return files[0] if len(files) == 1 and files[0].suffix.lower() == ".zip" else folder


def entered(root: Path) -> Path:
    """The folder itself, or the one folder that is all it shows, as most zips have it, or that one's, and so on."""
    while os.path.isdir(root):
        inside = visible(root, Counter())  # what is hidden is counted where the pictures are found
        if len(inside) != 1 or not os.path.isdir(inside[0]) or inside[0].is_symlink():
            break
        root = inside[0]
    return root


def unzipped(path: Path, unpack_to: str | Path) -> Path:
    """The folder into which a zip was unpacked: one of its own inside `unpack_to`, since other zips have its name.

    InputError, in one line, for a file that is no zip, is damaged or locked, would write outside of the folder, or
    would unpack to more than UNPACKED bytes; nothing of it stays. What macOS adds for itself is left out.
    """
    unpack_to = Path(unpack_to)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.filename.startswith("__MACOSX/")]
            for info in members:
                _refuse_outside(path, info.filename)
            if (size := sum(info.file_size for info in members)) > UNPACKED:
                raise InputError("pictures", str(path), f"a zip of at most {UNPACKED >> 30} GB, not {size / 2**30:.1f}")
            unpack_to.mkdir(parents=True, exist_ok=True)
            target = Path(tempfile.mkdtemp(prefix=f"{path.stem}-", dir=unpack_to))
            try:
                archive.extractall(target, members)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError("pictures", str(path), f"a zip that can be unpacked ({reason})") from error
    return target


def _refuse_outside(path: Path, name: str) -> None:
    plain = name.replace("\\", "/")
    if ".." in PurePosixPath(plain).parts or re.match(r"/|[A-Za-z]:", plain):
        raise InputError("pictures", str(path), f"a zip whose files stay in its folder; {name!r} would not")
