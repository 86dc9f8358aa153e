"""How many operations a training step hands to the device: on a GPU each is a launch, and short ones wait in a row."""

import pytest
import torch
from conftest import multiply_in
from torch.utils._python_dispatch import TorchDispatchMode

from jepa_utils import augment, train
from jepa_utils.models import build_model
from jepa_utils.optimizers import build_optimizer
from jepa_utils.recipes import recipe
from jepa_utils.runtime import generator, grad_scaler

FREE = ("empty", "detach", "_unsafe_view")  # that compute nothing
SMALL = {"batch_size": 4, "projector": "64-32"}


class Launches(TorchDispatchMode):
    """Counts operations that compute; a call for many tensors at once counts once."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view and not any(name in str(function) for name in FREE)
        return function(*args, **(kwargs or {}))


def launches(config):
    """Of the second step: for the views, for forward and backward and update together, and for the update alone."""
    model, loss = build_model(config).train(), train.build_loss(config)
    optimizer, scaler, g = build_optimizer(config, model), grad_scaler(torch.device("cpu")), generator(0)
    for group in optimizer.param_groups:
        if "foreach" in group:
            group["foreach"] = True  # as torch's AdamW does on a GPU
    images = torch.randint(256, (config.batch_size, 3, 32, 32), dtype=torch.uint8, generator=g)
    for step in range(2):
        with Launches() as drawn:
            views = train.draw_views(model, images, augment.PRESETS["cifar10"], config.views, g)
        with Launches() as made:
            train.train_step(model, loss, optimizer, scaler, views, step, 1e-3)
    with Launches() as updated:
        optimizer.step()
    return drawn.count, made.count, updated.count


@pytest.mark.parametrize(("name", "most", "casts"), [
    ("laptop-vicreg", 720, 60), ("laptop-bcs", 770, 60), ("whitenet-vicreg-10min", 1050, 60),
    ("whitenet-bcs-10min", 1090, 60), ("resnet18-vicreg", 600, 60), ("resnet18-bcs", 650, 60),
    ("vit-s-vicreg", 1270, 290),
])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_step_stays_within_so_many_launches(monkeypatch, name, most, casts, dtype):
    """`casts` more where networks multiply in bfloat16, since weights are of float32."""
    multiply_in(monkeypatch, dtype)
    large = name.startswith(("resnet18", "vit"))
    drawn, made, _ = launches(recipe(name, compile=False, **SMALL) if large else recipe(name, batch_size=4))
    assert drawn + made <= most + (casts if dtype is torch.bfloat16 else 0)


def test_launches_for_views_do_not_grow_with_the_batch():
    few, many = (launches(recipe("laptop-vicreg", batch_size=size))[0] for size in (4, 16))
    assert few == many


def test_lars_takes_as_many_launches_for_65_tensors_as_for_29():
    shallow, deep = (recipe(name, optimizer="lars", **SMALL) for name in ("laptop-vicreg", "joint-resnet18"))
    assert launches(shallow)[2] == launches(deep)[2]


def test_muon_takes_no_more_for_more_norms():
    """A projector that repeats a shape adds matrices of one shape, made orthogonal together, and norms."""
    short, long = (launches(recipe("laptop-vicreg", batch_size=4, projector=widths))[2]
                   for widths in ("64-64-32", "64-64-64-64-32"))
    matrices = 2
    assert long - short <= 4 * matrices  # its momentum and its step are its own
