"""What a notebook teaches and what jepa_utils does are the same, in value and gradient."""

import ast
import importlib

import pytest
import torch
from series import PATHS, namespace, read, tagged
from torch import nn

from jepa_utils.config import TrainConfig
from jepa_utils.models import build_model
from jepa_utils.recipes import recipe
from jepa_utils.runtime import generator, grad_scaler


def z(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(N=4, H=16):
    return torch.rand(N, 3, H, H, generator=torch.Generator().manual_seed(1))


def labels(N, classes=3):
    return torch.arange(N) % classes


FLIPS = torch.tensor([0.0, 1, 0, 1])
BOXES = [torch.tensor(box) for box in ([0, 3, 8, 2], [1, 0, 4, 2], [16, 5, 8, 9], [15, 16, 7, 3])]

# For each taught name: the module that holds its twin, and the arguments to compare them with.
TAUGHT = {
    "crop": ("augment", [lambda: (pictures(), *BOXES, FLIPS)]),
    "luma": ("pixels", [lambda: (pictures(),)]),
    "blend": ("augment", [lambda: (pictures(), pictures().flip(0), torch.tensor([0.0, 0.5, 1.0, 1.7]))]),
    "adjust_saturation": ("augment", [lambda: (pictures(), torch.tensor([0.0, 0.5, 1.0, 1.7]))]),
    "ResidualBlock": ("encoders", [lambda: (3, 3, 1), lambda: (3, 8, 2)]),
    "resnet5": ("encoders", [lambda: (3, 8, 4), lambda: (3, 8, 4, (2, 2, 2))]),
    "WhiteningConv": ("encoders", [lambda: (3, 8)]),
    "whitenet": ("encoders", [lambda: (3, 8, 16), lambda: (3,)]),
    "prediction": ("losses", [lambda: (z(1, 8, 5, seed=1), z(2, 8, 5)), lambda: (z(3, 8, 5, seed=1), z(3, 8, 5))]),
    "invariance": ("losses", [lambda: (z(2, 8, 5),), lambda: (z(4, 8, 5),)]),
    "eigenvalues": ("spectra", [lambda: (z(20, 5) * torch.tensor([5.0, 2, 1, 0.5, 0.1]) + 3,)]),
    "entropy_rank": ("spectra", [lambda: (torch.tensor([4.0, 2, 1, 0]),)]),
    "effective_rank": ("spectra", [lambda: (z(20, 5) + 3,)]),
    "within_image_share": ("spectra", [lambda: (z(2, 20, 5),)]),
    "variance": ("losses", [lambda: (z(2, 16, 5) * 0.7,), lambda: (z(3, 4, 6) * 0.7,)]),
    "covariance": ("losses", [lambda: (z(2, 16, 5),), lambda: (z(3, 4, 6),)]),
    "vicreg": ("losses", [lambda: (z(2, 16, 5) * 0.7,), lambda: (z(2, 16, 5), z(1, 16, 5, seed=2), 3.0, 2.0, 0.5)]),
    "random_directions": ("losses", [lambda: (6, 4, 3)]),
    "frequencies": ("losses", [lambda: (), lambda: (17, 5.0)]),
    "sigreg": ("losses", [lambda: (z(2, 16, 5), z(5, 7, seed=3)), lambda: (z(3, 16, 5), z(5, 7, seed=3), 17, 5.0)]),
    "lr_at": ("train", [lambda: (0, 100, 1e-3), lambda: (4, 100, 1e-3), lambda: (57, 100, 1e-3, 0.1),
                        lambda: (99, 100, 1e-3)]),
    "flops_per_view": ("train", [lambda: (recipe("laptop-vicreg"),), lambda: (recipe("laptop-bcs", views=4), 3)]),
    "train_step": ("train", []),  # has a test of its own below
    "standardize": ("probe", [lambda: (z(20, 5) * 3 + 1, z(8, 5, seed=4))]),
    "accuracy": ("probe", [lambda: (z(20, 3), labels(20))]),
    "knn_probe": ("probe", [lambda: (z(40, 5), labels(40), z(30, 5, seed=5), labels(30)),
                            lambda: (z(40, 5), labels(40), z(30, 5, seed=5), labels(30), 3)]),
    "validation_split": ("probe", [lambda: (50,), lambda: (50, 0.3, 2)]),
    "draw_block": ("masks", [lambda: (8, (0.15, 0.2), (0.75, 1.5), generator(0)),
                             lambda: (5, (0.9, 1.0), (1, 1), generator(1))]),
    "sample_blocks": ("masks", [lambda: (8, generator(0)),
                                lambda: (6, generator(1), 2, (0.2, 0.4), (0.5, 0.6), (1, 2), 8)]),
    "grid_positions": ("masked", [lambda: (8, 64), lambda: (3, 8)]),
    "Predictor": ("masked", []),  # these two have a test of their own below
    "masked_step": ("masked", []),
}


def taught_names():
    """Name -> notebooks that teach it."""
    found = {}
    for path in PATHS:
        for source in tagged(read(path), "taught"):
            for node in ast.parse(source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found.setdefault(node.name, []).append(path)
    return found


def tensors(value):
    """Everything in a result, as a flat list of float64 tensors."""
    if isinstance(value, dict):
        return [t for key in sorted(value) for t in tensors(value[key])]
    if isinstance(value, tuple | list):
        return [t for part in value for t in tensors(part)]
    return [torch.as_tensor(value).double()]


def value_and_gradients(function, arguments, name):
    """The result, and the gradient of its sum with respect to every float tensor argument and parameter."""
    torch.manual_seed(0)
    leaves = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
              for a in arguments]
    result = function(*leaves)
    inputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if isinstance(result, nn.Module):
        inputs = [pictures().requires_grad_(), *result.parameters()]
        result = result(inputs[0])
    values = tensors(result)
    total = sum(value.sum() for value in values)
    differentiable = inputs and getattr(total, "requires_grad", False)
    gradients = torch.autograd.grad(total, inputs, allow_unused=True) if differentiable else []
    return [value.detach() for value in values], [torch.zeros(()) if g is None else g for g in gradients]


def test_every_taught_function_is_taught_once_and_compared():
    found = taught_names()
    assert set(found) == set(TAUGHT)
    assert {name: len(paths) for name, paths in found.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("name", [name for name, (_, cases) in TAUGHT.items() if cases])
def test_taught_code_agrees_with_the_module(name):
    module, cases = TAUGHT[name]
    ours = getattr(importlib.import_module(f"jepa_utils.{module}"), name)
    taught = namespace(read(taught_names()[name][0]), "taught")[name]
    for arguments in cases:
        values, gradients = value_and_gradients(taught, arguments(), name)
        expected_values, expected_gradients = value_and_gradients(ours, arguments(), name)
        torch.testing.assert_close(values, expected_values, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("c_out", [8, 112])  # fewer filters than directions, and more
def test_the_taught_stem_starts_from_the_same_filters(c_out):
    from jepa_utils.encoders import WhiteningConv

    stems = [namespace(read(taught_names()["WhiteningConv"][0]), "taught")["WhiteningConv"], WhiteningConv]
    filters = []
    for stem in stems:
        torch.manual_seed(0)
        layer = stem(3, c_out)
        layer.whiten(pictures(64, 32))
        filters.append(layer.weight)
    torch.testing.assert_close(*filters, rtol=1e-5, atol=1e-6)


def test_the_taught_train_step_makes_the_same_update():
    from jepa_utils import train

    taught = namespace(read(taught_names()["train_step"][0]), "taught")["train_step"]
    config = TrainConfig(dobs=3, henc=4, dstc=8, projector="8", loss_type="vicreg")
    outcomes = []
    for step_function in (taught, train.train_step):
        model = build_model(config).train()
        optimizer = train.build_optimizer(config, model)
        views = torch.stack([pictures(8), pictures(8).flip(3)])
        terms, h = step_function(model, train.build_loss(config), optimizer, grad_scaler(views.device), views, 0, 1e-2)
        assert not h.requires_grad
        outcomes.append([*tensors(terms), h.double(), *tensors(list(model.state_dict().values()))])
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-6)


def test_the_taught_predictor_and_masked_step_make_the_same_update():
    from jepa_utils import masked
    from jepa_utils.data import digits
    from jepa_utils.masks import sample_blocks

    notebook = read(taught_names()["masked_step"][0])
    taught = namespace(notebook, "taught")
    images, (context, blocks) = digits(600, 200), sample_blocks(8, generator(0))
    config, outcomes = masked.MaskedConfig(width=32, hpre=16, depth=1, predictor_depth=1), []
    for Predictor, step in ((taught["Predictor"], taught["masked_step"]), (masked.Predictor, masked.masked_step)):
        model = masked.new_masked(config, images)
        torch.manual_seed(1)
        model.predictor = Predictor(32, 32, 8, 16, 1, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        terms = step(model, optimizer, images.train_images[:8], context, torch.cat(blocks).unique(), 0.9)
        outcomes.append([*tensors(terms), *tensors(list(model.state_dict().values()))])
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-6)
