"""Views per second: two CIFAR-10-style views of every image, normalised, by four libraries."""

import torch
from lightly.transforms.vicreg_transform import VICRegTransform
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from jepa_utils import augment, data
from jepa_utils.encoders import Normalize
from jepa_utils.runtime import pick_device

from .timing import race

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
WORKERS = 2


class TwoViews:
    """torchvision's transforms of one PIL image, twice."""

    def __init__(self):
        self.transform = T.Compose([
            T.RandomResizedCrop(32, scale=(0.2, 1.0)), T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8), T.RandomGrayscale(0.2), T.RandomSolarize(128, 0.1),
            T.ToTensor(), T.Normalize(MEAN, STD),
        ])

    def __call__(self, image):
        return self.transform(image), self.transform(image)


def lightly_views(normalize=True):
    """lightly's VICReg transform with this recipe's strengths."""
    return VICRegTransform(
        32, cj_strength=1.0, cj_bright=0.4, cj_contrast=0.4, cj_sat=0.2, cj_hue=0.1, min_scale=0.2,
        gaussian_blur=0.0, normalize={"mean": MEAN, "std": STD} if normalize else None)


class PerImage(Dataset):
    """Images as PIL pictures under a transform that gives two views, as a DataLoader's workers run it."""

    def __init__(self, images, transform):
        self.images, self.transform = images.permute(0, 2, 3, 1).cpu().numpy(), transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i]))


def loader(images, transform, batch_size):
    return DataLoader(PerImage(images, transform), batch_size, shuffle=True, drop_last=True,
                      num_workers=WORKERS, persistent_workers=True)


def ours(images, batch_size, device):
    images, normalize = images.to(device), Normalize(MEAN, STD).to(device)

    def epoch():
        for batch in images.split(batch_size):
            normalize(augment.make_views(batch, augment.CIFAR10).flatten(0, 1))

    return epoch


def workers(images, transform, batch_size):
    batches = loader(images, transform, batch_size)

    def epoch():
        for _ in batches:
            pass

    return epoch


def kornia(images, batch_size, device):
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


def measure(quick: bool = False) -> list[dict]:
    device, batch_size = pick_device(), 256
    images = data.digits(train=512 if quick else 10_240).train_images
    return race("views", f"batch {batch_size}", {
        "ours": ours(images, batch_size, device),
        f"torchvision, {WORKERS} workers": workers(images, TwoViews(), batch_size),
        f"lightly, {WORKERS} workers": workers(images, lightly_views(), batch_size),
        "kornia": kornia(images, batch_size, device),
    }, "views/s", 2 * len(images), 2 if quick else 5)
