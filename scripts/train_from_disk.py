"""Train on a large folder of pictures: they are read once, by several processes, and kept as pixels.

    python scripts/train_from_disk.py path/to/pictures --workers 8 --epochs 10 --out runs/mine

`path/to/pictures` holds one folder per class, or all pictures, as `main.py --dataset folder` reads them. At
32 x 32 pixels a picture takes 3 kB, a million of them 3 GB. Called again, it goes on where it was stopped.
Leaves encoder.pt, as main.py does.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from jepa_utils import pictures
from jepa_utils.augment import PRESETS
from jepa_utils.checks import check_count
from jepa_utils.data import Dataset
from jepa_utils.encoders import save_encoder
from jepa_utils.pixels import SIZE
from jepa_utils.recipes import recipe
from jepa_utils.runtime import InputError, atomic, generator, pick_device, progress_bar
from jepa_utils.train import build_loss, check_batch_size, new_model, train


def loader(files: list[Path], workers: int) -> Iterator[torch.Tensor]:
    """The pictures in their order, uint8 (3, 32, 32) each, read by `workers` processes (0: by this one)."""
    if not workers:
        yield from map(pictures.read, files)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(pictures.read, files, chunksize=32)


def packed(files: list[Path], workers: int, folder: Path) -> torch.Tensor:
    """All pictures as uint8 (N, 3, 32, 32) in a file that is mapped, not loaded; made anew where a picture changed."""
    known = hashlib.sha256("".join(f"{file}{(s := file.stat()).st_size}{s.st_mtime_ns}" for file in files).encode())
    path = folder / f"pictures-{known.hexdigest()[:16]}.npy"
    if not path.exists():
        with atomic(path) as temporary, progress_bar(loader(files, workers), total=len(files), desc="pictures") as bar:
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(files), 3, SIZE, SIZE))
            for i, picture in enumerate(bar):
                pixels[i] = picture
            pixels.flush()
            del pixels  # Windows renames no file that is mapped
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--loss-type", choices=["vicreg", "bcs"], default="vicreg")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/from-disk"))
    parser.add_argument("--extend", action="store_true", help="to more epochs than the run was begun with")
    options = parser.parse_args()
    try:
        check_count(options.workers, "workers", 0)
        config = recipe(f"laptop-{options.loss_type}", batch_size=options.batch_size, epochs=options.epochs)
        groups = pictures.find(options.path)
        samples = [(file, label) for label, files in enumerate(groups.values()) for file in files]
        check_batch_size(config.batch_size, len(samples))
        samples = [samples[i] for i in torch.randperm(len(samples), generator=generator(0))]  # no class comes first
        labels = torch.tensor([label for _, label in samples])
        images = packed([file for file, _ in samples], options.workers, options.out)
        data = Dataset("folder", tuple(groups), images, labels, images[:0], labels[:0]).to(pick_device())
        model = new_model(config, data)
        labels = data.train_labels if len(groups) > 1 else None
        train(model, build_loss(config), data.train_images, PRESETS["folder"], config,
              labels=labels, out=options.out, resume=True, extend=options.extend)
    except (InputError, FloatingPointError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: stopped; the same command goes on")
    print(f"{len(samples):,} pictures: {save_encoder(model.encoder, config, options.out)}")


if __name__ == "__main__":
    main()
