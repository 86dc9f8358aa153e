"""Train on more pictures than fit into memory: workers read and shrink them, the views are made on the device.

    python scripts/train_from_disk.py path/to/pictures --workers 8 --epochs 10 --out runs/mine

`path/to/pictures` holds one folder per class, or all pictures, as
`main.py --dataset folder` reads them. Leaves encoder.pt and config.json, as main.py does.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from jepa_utils import pictures
from jepa_utils.augment import PRESETS, make_views
from jepa_utils.runtime import atomic, generator, grad_scaler, pick_device, progress_bar, save_json
from jepa_utils.train import build_loss, build_model, build_optimizer, laptop, lr_at, train_step


class Pictures(Dataset):
    """Pictures and labels as `data.folder` reads them, one at a time."""

    def __init__(self, path: Path):
        groups = pictures.find(path)
        self.samples = [(file, label) for label, files in enumerate(groups.values()) for file in files]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        file, label = self.samples[index]
        return pictures.read(file), label


def loader(path: Path, batch_size: int, workers: int) -> DataLoader:
    """Batches of uint8 images (N, 3, 32, 32) in random order, with their labels int64 (N,)."""
    return DataLoader(
        Pictures(path), batch_size, shuffle=True, num_workers=workers, drop_last=True,
        pin_memory=torch.cuda.is_available(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--loss-type", choices=["vicreg", "bcs"], default="vicreg")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/from-disk"))
    options = parser.parse_args()
    config = laptop(options.loss_type, batch_size=options.batch_size, epochs=options.epochs)
    device, g = pick_device(), generator(config.seed)
    batches = loader(options.path, config.batch_size, options.workers)
    if len(batches) == 0:
        parser.error(f"--batch-size: {config.batch_size} was given; accepted: 2 to {len(batches.dataset)}, the number of pictures")
    model = build_model(config).to(device, memory_format=torch.channels_last).train()
    loss, optimizer, scaler = build_loss(config), build_optimizer(config, model), grad_scaler(device)
    steps = config.epochs * len(batches)
    with progress_bar(total=steps, desc=config.loss_type) as bar:
        for _ in range(config.epochs):
            for images, _ in batches:
                views = make_views(images.to(device, non_blocking=True), PRESETS["folder"], config.views, g)
                train_step(model, loss, optimizer, scaler, views, bar.n, lr_at(bar.n, steps, config.lr, config.warmup))
                bar.update()
    with atomic(options.out / "encoder.pt") as temporary:
        torch.save({name: value.cpu() for name, value in model.encoder.state_dict().items()}, temporary)  # loads without a GPU
    save_json(asdict(config), options.out / "config.json")
    print(f"{len(batches.dataset):,} pictures, {steps} steps: {options.out / 'encoder.pt'}")


if __name__ == "__main__":
    main()
