from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import nn
from training import IMAGES, LABELS, TINY, assert_same_weights, fit, without

from jepa_utils import data, losses, train
from jepa_utils.augment import CIFAR10
from jepa_utils.config import CHOICES, TrainConfig
from jepa_utils.models import build_model
from jepa_utils.runtime import InputError, generator
from jepa_utils.train import build_loss, build_optimizer, lr_at

# ------------------------------------------------------------------------- schedule and configuration


@pytest.mark.parametrize(("steps", "warmup"), [(1000, 0.05), (1000, 0.0), (1000, 1.0), (37, 0.3), (2, 0.5)])
def test_the_rate_rises_linearly_to_lr_then_falls_to_its_final_share(steps, warmup):
    rates = [lr_at(step, steps, 0.5, warmup) for step in range(steps)]
    rising = round(warmup * steps)
    warm_up = [0.5 * (i + 1) / rising for i in range(rising)]  # never 0, lr at its end
    assert rates[:rising] == pytest.approx(warm_up)
    falling = rates[rising:]
    assert falling == sorted(falling, reverse=True)
    if len(falling) > 1:
        assert (falling[0], falling[-1]) == (pytest.approx(0.5), pytest.approx(0.5 * train.FINAL_SHARE))
        assert lr_at(steps - 1, steps, 0.5, warmup, final=0.2) == pytest.approx(0.1)
        middle, half_way = falling[len(falling) // 2], 0.5 * (1 + train.FINAL_SHARE) / 2  # of a cosine
        assert len(falling) % 2 == 0 or middle == pytest.approx(half_way)


@pytest.mark.slow
def test_operations_of_a_resnet18_are_those_counted_by_hand():
    first = 3 * 64 * 9 * 32**2  # multiplications of a 3 x 3 convolution: channels in x channels out x 9 x positions
    convolutions = first + 4 * 64 * 64 * 9 * 32**2
    for channels, side in ((128, 16), (256, 8), (512, 4)):
        entry, others, shortcut = channels // 2 * channels * 9, 3 * channels * channels * 9, channels // 2 * channels
        convolutions += (entry + others + shortcut) * side**2
    projector = 512 * 2048 + 2048 * 128
    by_hand = 2 * (3 * (convolutions + projector) - first)  # backward is twice forward, but pixels need no gradient
    for views in (2, 4):
        config = TrainConfig(model_type="resnet", dobs=3, projector="2048-128", views=views)
        assert train.flops_per_view(config) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("views", [2, 4])
def test_operations_of_a_predictor_are_counted_forward_and_backward(views):
    alone, guessed = (train.flops_per_view(replace(TINY, predictor=predictor, hpre=5, views=views))
                      for predictor in ("identity", "mlp"))
    layers = TINY.dstc * 5 + 5 * TINY.dstc  # multiplications for one view of each image, the context
    assert guessed - alone == pytest.approx(2 * 3 * layers / views)


def test_one_step_is_taken_at_full_rate():
    assert lr_at(0, 1, 0.5) == 0.5


class Watched(TrainConfig):
    """A configuration that knows which of its fields were read, once it is made."""

    def __getattribute__(self, name):
        if seen := object.__getattribute__(self, "__dict__").get("seen"):
            seen.add(name)
        return object.__getattribute__(self, name)


@pytest.mark.slow
def test_every_field_of_the_configuration_is_read_by_a_training_that_it_shapes():
    seen = {"seen"}
    for changes in ({"loss_type": "vc"}, {"loss_type": "vicreg"}, {"loss_type": "bcs", "predictor": "mlp"},
                    {"loss_type": "visreg"},
                    {"model_type": "vit_s", "patch_size": 16}):
        config = Watched(**asdict(replace(TINY, max_steps=1)) | changes)
        config.__dict__["seen"] = seen
        fit(config)
    assert {field.name for field in fields(TrainConfig)} <= seen


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match=r"^batch_size: 49 .* 2 to 48"):
        fit(replace(TINY, batch_size=49))


# ------------------------------------------------------------------------------------------- training


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"loss_type": "vc"}, {"loss_type": "vicreg", "projector": "64-32"}, {"loss_type": "bcs", "views": 3},
    {"loss_type": "none", "predictor": "mlp"}, {"loss_type": "vc", "predictor": "conv"},
    {"loss_type": "bcs", "optimizer": "lars", "lr": 0.3}, {"loss_type": "bcs", "optimizer": "muon"},
], ids=lambda changes: "-".join(map(str, changes.values())))
def test_training_decreases_the_loss(changes):
    config = replace(TINY, **({"henc": 8, "dstc": 32, "batch_size": 32, "lr": 1e-2, "epochs": 16} | changes))
    digits = data.digits(128, 10)
    _, history = fit(config, images=digits.train_images, labels=digits.train_labels)
    assert [record["epoch"] for record in history] == list(range(1, 17))
    assert history[-1]["loss"] < 0.95 * history[0]["loss"]
    for record in history:
        terms = [value for name, value in record.items() if name not in ("epoch", "loss", "online_probe", "lr")]
        assert record["loss"] == pytest.approx(sum(terms))
        assert 0 <= record["online_probe"] <= 100


def test_the_seed_decides_the_run_and_the_state_of_torchs_own_generator_does_not():
    model, history = fit()
    built = build_model(TINY)
    torch.manual_seed(123)  # another cell of a notebook drew random numbers
    again = train.train(built, build_loss(TINY), IMAGES, CIFAR10, TINY, LABELS, progress=False)
    assert without(again, "seconds") == history
    assert_same_weights(model, built)
    assert fit(replace(TINY, seed=1))[1] != history


def test_the_seed_decides_the_slices(monkeypatch):
    drawn = spy_on_slices(monkeypatch)
    for seed in (0, 0, 1):
        fit(replace(TINY, loss_type="bcs", seed=seed, epochs=1))
    first, again, other = drawn[:3], drawn[3:6], drawn[6:]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])  # new ones at every step


def spy_on_slices(monkeypatch):
    """The list to which every call adds the directions that it draws."""
    drawn, draw = [], losses.random_directions
    def spy(*args, **options):
        drawn.append(draw(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(losses, "random_directions", spy)
    return drawn


def test_max_steps_stops_in_the_middle_of_an_epoch_at_the_end_of_the_schedule():
    seen = []

    def loss(z, predicted, step):
        seen.append(step)
        return {"prediction": z.square().mean()}

    _, history = fit(replace(TINY, max_steps=4), loss=loss)
    assert seen == [0, 1, 2, 3]  # three steps an epoch
    assert len(history) == 2
    assert history[-1]["lr"] == pytest.approx(TINY.lr * train.FINAL_SHARE)


def test_unlabelled_images_train_the_same_encoder_as_labelled_ones():
    """The online probe, trained beside it, sends no gradient into the model and moves none of its random numbers."""
    labelled, history = fit()
    unlabelled, plain = fit(labels=None)
    assert_same_weights(labelled, unlabelled)
    assert without(history, "online_probe") == plain


@pytest.mark.slow
def test_the_online_probe_learns():
    colours = torch.stack([torch.full((3, 32, 32), 60 * i, dtype=torch.uint8) for i in range(4)])[LABELS]
    _, history = fit(replace(TINY, probe_lr=0.05, epochs=15), images=colours)
    assert history[-1]["online_probe"] > 60  # of four classes


@pytest.mark.parametrize("model_type", ["resnet5", "vit_s"])
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_weight_decay_spares_biases_and_norms_and_nothing_else(model_type, optimizer):
    config = replace(TINY, model_type=model_type, optimizer=optimizer, patch_size=16, projector="16-8",
                     weight_decay=0.3)
    model = build_model(config)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
    spared = {id(p) for module in model.modules() if isinstance(module, norms) for p in module.parameters()}
    spared |= {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    groups = build_optimizer(config, model).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {id(p): 0.0 if id(p) in spared else 0.3 for p in model.parameters()}


def test_muon_evens_out_the_singular_values_of_every_kernels_update():
    config = replace(TINY, optimizer="muon", lr=1e-2, weight_decay=0, henc=8)
    model, noise = build_model(config), generator(0)
    kernels = {name: p for name, p in model.named_parameters() if p.ndim == 4}
    before = {name: p.detach().flatten(1).clone() for name, p in kernels.items()}
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=noise).cumsum(dim=-1)
    build_optimizer(config, model).step()
    for name, p in kernels.items():
        update = before[name] - p.detach().flatten(1)
        even, uneven = torch.linalg.svdvals(update), torch.linalg.svdvals(p.grad.flatten(1))
        assert even.max() / even.min() < 0.8 * uneven.max() / uneven.min(), name
        assert even.max() / even.min() < 2.5, name
        size = update.square().mean().sqrt()
        assert size == pytest.approx(0.2 * config.lr, rel=0.3), name  # about AdamW's usual size
