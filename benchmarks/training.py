"""End to end, views to optimizer: ResNet-18 beside its peers, a recipe for two CPU cores beside its variants.

Peers have the same batch and precision. The compiled ones need a C++ compiler.
"""

from dataclasses import replace
from itertools import chain, repeat

import torch
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from torch import nn
from torchvision.models import resnet18

from jepa_utils import data
from jepa_utils.augment import CIFAR10, make_views
from jepa_utils.config import TrainConfig
from jepa_utils.recipes import recipe
from jepa_utils.runtime import autocast, generator, grad_scaler, pick_device, to_device
from jepa_utils.train import build_loss, build_optimizer, new_model, train_step

from .timing import race
from .views import TwoViews, lightly_views, loader

WIDTH = 2048
# VICReg on a laptop as it is in most hands: AdamW on two views of 256 images a step, the paper's weights.
# Then four views of fewer images, and Muon, with this small encoder.
PLAIN = recipe("laptop-vicreg", dstc=256, projector="512-512-512", var_loss_weight=25, cov_loss_weight=1,
               batch_size=256, optimizer="adamw", lr=3e-3)
RECIPE = replace(PLAIN, views=4, batch_size=64, optimizer="muon", lr=5e-3, weight_decay=1.0)


def ours(images, config, device):
    """The encoder and a step of this project's loop on a data set, at a rate."""
    model = new_model(config, images).to(device, memory_format=torch.channels_last).train()
    optimizer, scaler, loss, g = build_optimizer(config, model), grad_scaler(device), build_loss(config), generator(0)
    if config.compile:
        model.compile()
    pictures = images.train_images.to(device)

    def step(lr=1e-3):
        pick = to_device(torch.randperm(len(pictures), generator=g)[: config.batch_size], device)
        train_step(model, loss, optimizer, scaler, make_views(pictures[pick], CIFAR10, config.views, g), 0, lr)

    return model.encoder, step


def small_resnet18():
    """torchvision's network with the stem for 32 pixels, up to the pooled features."""
    net = resnet18()
    net.conv1, net.maxpool, net.fc = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity(), nn.Identity()
    return net


def mlp(c_in, width):
    """Three linear layers with BatchNorm and ReLU between them."""
    hidden = [layer for size in (c_in, width)
              for layer in (nn.Linear(size, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, width))


def plain_vicreg(a, b):
    """VICReg as its paper's formulas read, of two batches (N, D)."""
    N, D = a.shape
    loss = 25 * nn.functional.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(dim=0)
        loss = loss + 25 * torch.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() / 2
        matrix = z.T @ z / (N - 1)
        loss = loss + (matrix.square().sum() - matrix.diagonal().square().sum()) / D
    return loss


def per_image(images, transform, encoder, head, loss, batch_size, device):
    """The same of the usual loop: a DataLoader's workers make the views, which pass the network one by one."""
    model = nn.Sequential(encoder, head).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=PLAIN.weight_decay)
    batches = chain.from_iterable(repeat(loader(images, transform, batch_size)))  # cycle would keep one epoch's views

    def step(lr=1e-3):
        optimizer.param_groups[0]["lr"] = lr
        a, b = (view.to(device) for view in next(batches)[:2])
        with autocast(device):
            za, zb = model(a), model(b)
        value = loss(za.float(), zb.float())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return encoder, step


def measure(quick: bool = False) -> list[dict]:
    device = pick_device()
    batch_size = 16 if quick else 64 if device.type == "cpu" else 256
    images = data.digits(train=64 if quick else 2048)
    projector = "-".join([str(WIDTH)] * 3)
    config = TrainConfig(model_type="resnet", dobs=3, projector=projector, loss_type="vicreg", batch_size=batch_size)
    head = VICRegProjectionHead(512, WIDTH, WIDTH, num_layers=3)
    contenders = {
        "ours": ours(images, config, device),
        **({} if quick else {"ours, compiled": ours(images, replace(config, compile=True), device)}),
        "plain loop, torchvision": per_image(
            images.train_images, TwoViews(), small_resnet18(), mlp(512, WIDTH), plain_vicreg, batch_size, device),
        "lightly": per_image(
            images.train_images, lightly_views(), small_resnet18(), head, VICRegLoss(), batch_size, device),
    }
    steps = {name: step for name, (_, step) in contenders.items()}
    rows = race("training, ResNet-18", f"batch {batch_size}", steps, "images/s", batch_size, 2 if quick else 7)
    variants = {"ours": RECIPE, "AdamW instead": replace(RECIPE, optimizer="adamw")}
    if not quick:
        variants["compiled"] = replace(RECIPE, compile=True)
    steps = {name: ours(images, config, device)[1] for name, config in variants.items()}
    return rows + race("a step, ResNet5", "4 views of 64 images, Muon", steps, "ms", repeats=2 if quick else 21)
