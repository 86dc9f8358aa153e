"""Views per second: this project, torchvision's per-image transforms in worker processes, and kornia.

    python benchmarks/augmentation.py

Each draws two CIFAR-10-style views of every image (crop, flip, colour jitter, grayscale, solarize,
normalise), in turns and several times; medians are compared.
"""

import argparse
import json
import statistics
import time

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from jepa_utils import augment, data
from jepa_utils.models import Normalize
from jepa_utils.runtime import environment, pick_device

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


class PerImage(Dataset):
    """torchvision's transforms on PIL images, as a DataLoader's workers run them."""

    def __init__(self, images):
        self.images = images.permute(0, 2, 3, 1).numpy()
        self.transform = T.Compose([
            T.RandomResizedCrop(32, scale=(0.2, 1.0)), T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8), T.RandomGrayscale(0.2), T.RandomSolarize(128, 0.1),
            T.ToTensor(), T.Normalize(MEAN, STD),
        ])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = Image.fromarray(self.images[i])
        return self.transform(image), self.transform(image)


def ours(images, batch_size, device):
    images, normalize = images.to(device), Normalize(MEAN, STD).to(device)

    def epoch():
        for batch in images.split(batch_size):
            normalize(augment.make_views(batch, augment.CIFAR10).flatten(0, 1))

    return epoch


def torchvision_workers(images, batch_size, workers):
    loader = DataLoader(PerImage(images), batch_size, num_workers=workers, persistent_workers=True)

    def epoch():
        for _ in loader:
            pass

    return epoch


def kornia_batches(images, batch_size, device):
    from kornia import augmentation as K

    images = images.to(device)
    pipeline = torch.nn.Sequential(
        K.RandomResizedCrop((32, 32), scale=(0.2, 1.0)), K.RandomHorizontalFlip(),
        K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), K.RandomGrayscale(p=0.2), K.RandomSolarize(0.0, 0.0, p=0.1),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )

    def epoch():
        for batch in images.split(batch_size):
            x = batch.float() / 255
            torch.stack([pipeline(x), pipeline(x)])

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = pick_device()
    images = data.digits(train=options.images).train_images
    contenders = {
        "this project": ours(images, options.batch_size, device),
        f"torchvision, {options.workers} workers": torchvision_workers(images, options.batch_size, options.workers),
        "kornia": kornia_batches(images, options.batch_size, device),
    }
    rates = {name: [] for name in contenders}
    for repeat in range(options.repeats + 1):  # the first round warms up
        for name, epoch in contenders.items():
            started = time.perf_counter()
            epoch()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                rates[name].append(2 * len(images) / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    fastest = medians["this project"]
    print(f"{environment()['hardware']}, {torch.get_num_threads()} threads, {device}, median of {options.repeats}")
    for name, rate in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:<26} {rate:>9,.0f} views/s  ({low:,.0f} to {high:,.0f})   {fastest / rate:5.1f} x")
    print(json.dumps({"views_per_second": rates, "environment": environment()}))


if __name__ == "__main__":
    main()
