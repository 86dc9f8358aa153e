"""What a notebook teaches and what jepa_utils does are the same, in value and gradient."""

import ast
import importlib

import pytest
import torch
from conftest import multiply_in
from series import PATHS, namespace, read, tagged
from torch import nn

from jepa_utils.config import TrainConfig
from jepa_utils.encoders import build_encoder
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
    "train_on_labels": ("finetune", []),  # so has this
    "standard_error": ("probe", [lambda: (85.0, 2000), lambda: (10.0, 500)]),
    "standardize": ("probe", [lambda: (z(20, 5) * 3 + 1, z(8, 5, seed=4))]),
    "accuracy": ("probe", [lambda: (z(20, 3), labels(20))]),
    "knn_probe": ("probe", [lambda: (z(40, 5), labels(40), z(30, 5, seed=5), labels(30)),
                            lambda: (z(40, 5), labels(40), z(30, 5, seed=5), labels(30), 3)]),
    "validation_split": ("probe", [lambda: (50,), lambda: (50, 0.3, 2)]),
    "nt_xent": ("family", [lambda: (z(2, 8, 5),), lambda: (z(3, 8, 5) + 1, 0.1)]),
    "negative_cosine": ("family", [lambda: (z(2, 8, 5), z(2, 8, 5, seed=1)), lambda: (z(3, 8, 5), z(3, 8, 5, seed=1))]),
    "family_step": ("family", []),  # has a test of its own below
    "directions": ("search", [lambda: (z(20, 5) * 3 + 1,), lambda: (z(8, 5, seed=4), z(20, 5) * 3 + 1)]),
    "nearest": ("search", [lambda: (z(8, 5, seed=4), z(20, 5)), lambda: (z(8, 5, seed=4), z(20, 5), 30)]),
    "found_again": ("search", [lambda: (z(20, 5) + 0.5 * z(20, 5, seed=6), z(20, 5))]),
    "near_duplicates": ("search", [lambda: (z(20, 5), 0.3), lambda: (z(20, 5), 99.0), lambda: (z(20, 5),)]),
    "oddness": ("search", [lambda: (z(20, 5),), lambda: (z(20, 5), 2)]),
    "render": ("moving_digits", [lambda: (pictures(4, 12)[:, :1], 16 + 3 * z(2, 4, 2))]),
    "TemporalPredictor": ("video", []),  # has a test of its own below
    "guesses": ("video", [lambda: (lambda before, now: now + (now - before).tanh(), z(5, 8, 3))]),
    "loss_terms": ("video", [lambda: (lambda before, now: 2 * now - before, z(5, 8, 3),
                                      lambda z, step: {"sum": step * z.sum()}, 2)]),
    "rollout": ("video", [lambda: (lambda before, now: now + (now - before).tanh(), z(8, 3), z(8, 3, seed=1), 4)]),
    "options": ("video", [lambda: (lambda before, now, w: now + before * w[..., :1] - w[..., 1:], z(8, 3),
                                   z(8, 3, seed=1))]),
    "best_of": ("video", [lambda: (z(3, 8, 5), z(8, 5, seed=1))]),
    "draw_block": ("masks", [lambda: (8, (0.15, 0.2), (0.75, 1.5), generator(0)),
                             lambda: (5, (0.9, 1.0), (1, 1), generator(1))]),
    "sample_blocks": ("masks", [lambda: (8, generator(0)),
                                lambda: (6, generator(1), 2, (0.2, 0.4), (0.5, 0.6), (1, 2), 8)]),
    "grid_positions": ("masked", [lambda: (8, 64), lambda: (3, 8)]),
    "Predictor": ("masked", []),  # these two have a test of their own below
    "masked_step": ("masked", []),
    "normalized": ("masked", [lambda: (z(3, 5, 4), "features"), lambda: (z(3, 5, 4), "tokens")]),
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


def test_the_taught_fine_tuning_makes_the_same_network(monkeypatch):
    from jepa_utils import augment, finetune

    multiply_in(monkeypatch, torch.float32)  # the notebook's code has one precision

    taught = namespace(read(taught_names()["train_on_labels"][0]), "taught")["train_on_labels"]
    images = (255 * pictures(12, 32)).to(torch.uint8)
    torch.manual_seed(0)
    given = build_encoder(dobs=3, henc=4, dstc=8, stride=2), nn.Linear(8, 3), images, labels(12)
    outcomes = [function(*given, augment.PRESETS["digits"], 3, (6e-3, 2e-3), batch_size=8, seed=2)
                for function in (taught, finetune.train_on_labels)]
    values = [tensors(list(network.state_dict().values())) for network in outcomes]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    assert not torch.equal(outcomes[0][1].weight, given[1].weight)


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_the_taught_step_of_the_family_makes_the_same_update(momentum):
    from jepa_utils import family
    from jepa_utils.teacher import averaged
    from jepa_utils.train import build_optimizer

    taught = namespace(read(taught_names()["family_step"][0]), "taught")["family_step"]
    config = TrainConfig(dobs=3, henc=4, dstc=8, projector="8", predictor="mlp")
    method = family.Method(lambda z, p, t, step: {"prediction": family.negative_cosine(p, t.detach())}, True, momentum)
    outcomes = []
    for step_function in (taught, family.family_step):
        student = build_model(config).train()
        teacher = averaged(student) if momentum is not None else None
        optimizer, views = build_optimizer(config, student), torch.stack([pictures(8), pictures(8).flip(3)])
        terms = step_function(student, teacher, method, optimizer, grad_scaler(views.device), views, 0, 1e-2)
        networks = [student] if teacher is None else [student, teacher]
        outcomes.append([*tensors(terms), *tensors([list(each.state_dict().values()) for each in networks])])
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-6)


def test_the_taught_temporal_predictor_is_the_modules():
    from jepa_utils.video import TemporalPredictor

    guesses = []
    for predictor in (namespace(read(taught_names()["TemporalPredictor"][0]), "taught")["TemporalPredictor"],
                      TemporalPredictor):
        torch.manual_seed(0)
        guesses.append(predictor(5, 8, 2)(z(3, 4, 5), z(3, 4, 5, seed=1), z(3, 4, 2, seed=2)))
    torch.testing.assert_close(*guesses)


@pytest.mark.parametrize("over", ["features", "tokens"])
def test_the_taught_predictor_and_masked_step_make_the_same_update(over):
    from jepa_utils import masked
    from jepa_utils.data import digits
    from jepa_utils.masks import sample_blocks

    notebook = read(taught_names()["masked_step"][0])
    taught = namespace(notebook, "taught")
    images, (context, blocks) = digits(600, 200), sample_blocks(8, generator(0))
    config, outcomes = masked.MaskedConfig(over=over, width=32, hpre=16, depth=1, predictor_depth=1), []
    for Predictor, step in ((taught["Predictor"], taught["masked_step"]), (masked.Predictor, masked.masked_step)):
        model = masked.new_masked(config, images)
        torch.manual_seed(1)
        model.predictor = Predictor(32, 32, 8, 16, 1, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        terms = step(model, optimizer, images.train_images[:8], context, torch.cat(blocks).unique(), 0.9)
        outcomes.append([*tensors(terms), *tensors(list(model.state_dict().values()))])
    torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-6)
