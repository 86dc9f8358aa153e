"""Proof without a GPU: whole trainings on a device that is not the CPU, in real numbers, forward and backward.

What CUDA would refuse raises there, and what it would wait for is counted (see other_device.py). float16 is not tried:
its gradient scaler waits for the overflow flag once a step, by design.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import other_device
import pytest
import torch
import training
from other_device import OtherDevice
from torch import nn

from jepa_utils import augment, encoders, finetune, losses, probe, runtime, train
from jepa_utils.config import CHOICES
from jepa_utils.data import Dataset
from jepa_utils.models import build_model, embeddings, settle_batchnorm
from jepa_utils.spectra import collapse_report

DEVICE = other_device.NAME
IMAGES, LABELS = training.IMAGES[:12], training.LABELS[:12]
TINY = replace(training.TINY, batch_size=4, max_steps=4)  # one epoch and a step of the next
STEPS = 3  # in an epoch
LOOK_EVERY = 2  # steps, in place of train.LOG_EVERY


@pytest.fixture(scope="module")
def elsewhere():
    """Starts a function in a process that has the other device, and goes on; its result can be asked for."""
    if other_device.missing():
        pytest.skip(other_device.missing())
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), other_device.register) as process:
        yield process.submit


@contextmanager
def same_everywhere():
    """Without a CPU's own ways, so that the other device should give the same numbers."""
    with (
        patch.object(runtime, "fast_bf16", lambda device: False),
        patch.object(train, "LOG_EVERY", LOOK_EVERY),
        patch.object(encoders, "ViT", shallow_vit),
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),  # the fused kernels are each device's own
    ):
        yield


def shallow_vit(dobs, width, depth, *sizes, vit=encoders.ViT):
    """Two blocks: the other ten would only take longer."""
    return vit(dobs, width, 2, *sizes)


def run(config, device="cpu", **options):
    """The history of a training and its last weights, in a row with the statistics of its BatchNorms."""
    with same_everywhere():
        images, labels = IMAGES[:, : config.dobs].to(device), LABELS.to(device)
        model, history = training.fit(config, images=images, labels=labels, **options)
    assert {value.device.type for value in model.state_dict().values()} == {device}
    return history, torch.cat([value.flatten() for value in model.state_dict().values()]).cpu().numpy()


def watched(config, **options):
    """`run` on the other device; also the waits of each epoch, and all copies to the device that nobody waited for."""
    epochs = []

    def on_epoch(epoch, model):
        epochs.append(device.waits.copy())
        device.waits.clear()

    with OtherDevice() as device:
        result = run(config, DEVICE, on_epoch=on_epoch, **options)
    return result, epochs[1:], device.sent  # what came before the first epoch is no part of the loop


def assert_same(result, expected):
    """Two results of `run` agree up to rounding."""
    (history, weights), (expected_history, expected_weights) = result, expected
    for record, expected in zip(history, expected_history, strict=True):
        assert record == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------------------------- the loop

LOSSES = ({"loss_type": "vc"}, {"loss_type": "vicreg"}, {"loss_type": "bcs"}, {"loss_type": "visreg"},
          {"loss_type": "bcs", "scale": "lejepa", "lmbd": 0.1}, {"loss_type": "none"})
PREDICTORS = ({"projector": "8-8"}, {"predictor": "mlp", "views": 3}, {"predictor": "conv"})
VIT = {"model_type": "vit_s", "patch_size": 16, "max_steps": 2}
CASES = [  # all pairs of a loss, a predictor and an optimizer
    *(LOSSES[i] | PREDICTORS[j] | {"optimizer": CHOICES["optimizer"][(i + j) % 3]}
      for i, j in product(range(len(LOSSES)), range(3))),
    VIT, VIT | {"optimizer": "lars", "loss_type": "bcs", "micro_batch": 3},
    VIT | {"optimizer": "muon", "predictor": "conv", "max_steps": 1},
    {"model_type": "resnet", "loss_type": "vicreg", "projector": "16-8", "max_steps": 1},
    {"dobs": 1}, {"model_type": "whitenet", "loss_type": "vicreg", "optimizer": "muon"},
]


@pytest.mark.parametrize("case", [
    pytest.param(case, id="-".join(map(str, case.values())), marks=[pytest.mark.slow] * (case not in CASES[1::6]))
    for case in CASES])
def test_a_training_elsewhere_is_the_one_on_the_cpu_and_waits_only_to_look_at_the_log(elsewhere, case):
    config = replace(TINY, **case)
    there, here = elsewhere(watched, config), run(config)
    result, waits, sent = there.result()
    assert_same(result, here)
    assert [[wait.function for wait in epoch] for epoch in waits] == looks(config.max_steps), waits
    assert {copy.function for copy in sent} == {"to_device"}, sent


def looks(steps):
    """Who may wait in each epoch: after every LOOK_EVERY steps and at the end."""
    epochs = [min(STEPS, steps - start) for start in range(0, steps, STEPS)]
    return [["check_finite"] * (count // LOOK_EVERY + 1) for count in epochs]


def fine_tuned(steps, device="cpu"):
    """The last weights of a training on labels; who waited for the device, and who copied to it without waiting."""
    encoder = build_model(TINY).encoder
    head = nn.Linear(encoder.features, 4)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    with nullcontext(OtherDevice()) if device == "cpu" else OtherDevice() as other, same_everywhere():
        images, labels = IMAGES.to(device), LABELS.to(device)
        network = finetune.train_on_labels(encoder, head, images, labels, augment.CIFAR10, steps, batch_size=4)
        waits = [wait.function for wait in other.waits]
        weights = torch.cat([value.flatten() for value in network.state_dict().values()]).cpu().numpy()
    return weights, waits, [copy.function for copy in other.sent]


def test_fine_tuning_elsewhere_is_that_on_the_cpu_and_waits_for_no_step(elsewhere):
    there, longer, (here, *_) = elsewhere(fine_tuned, 2, DEVICE), elsewhere(fine_tuned, 3, DEVICE), fine_tuned(2)
    weights, waits, sent = there.result()
    np.testing.assert_allclose(weights, here, rtol=1e-4, atol=1e-6)
    assert waits == longer.result()[1]  # to look at the labels, before the first step
    assert sent == ["to_device"] * 4  # in each step the choice of images, and what is random about their views


def test_a_copy_to_a_gpu_starts_from_page_locked_memory():  # from any other the caller waits, non_blocking or not
    calls = []
    x = SimpleNamespace(pin_memory=lambda: calls.append("pin") or x, to=lambda *_, **how: calls.append(how))
    runtime.to_device(x, torch.device("cuda"))
    assert calls == ["pin", {"non_blocking": True}]


def stopped_and_resumed(config, out):
    """`run` on the other device, stopped after an epoch and gone on with from its checkpoint."""
    def stop(epoch, model):
        if epoch == 1:
            raise KeyboardInterrupt

    with OtherDevice():
        try:
            run(config, DEVICE, out=out, on_epoch=stop)
        except KeyboardInterrupt:
            return run(config, DEVICE, out=out, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_a_training_elsewhere_can_be_resumed(elsewhere, tmp_path, optimizer):
    config = replace(TINY, optimizer=optimizer)
    assert_same(elsewhere(stopped_and_resumed, config, tmp_path).result(), run(config))


def figures(device):
    """What is measured of an encoder that settles and is evaluated on a device, and of views with blur."""
    with nullcontext() if device == "cpu" else OtherDevice(), same_everywhere():
        images = Dataset("made", ("a", "b", "c", "d"), IMAGES, LABELS, IMAGES.flip(0), LABELS.flip(0)).to(device)
        model = build_model(TINY, *images.statistics()).to(device)
        settle_batchnorm(model, images.train_images, batch_size=4)
        train_h, test_h = (probe.features(model.encoder, x) for x in (images.train_images, images.test_images))
        sets = train_h, images.train_labels, test_h, images.test_labels
        z = embeddings(model, images.test_images, batch_size=4)
        scores = (probe.linear_probe(*sets, penalties=[0.01]), probe.knn_probe(*sets, k=3),
                  probe.linear_probe_sgd(*sets, epochs=2, batch_size=4))
        blurred = augment.make_views(images.train_images, replace(augment.CIFAR10, blur=0.5), 2, runtime.generator(0))
        return [*scores, *vars(collapse_report(z)).values(), *blurred.mean(dim=(2, 3, 4)).flatten().tolist()]


@pytest.mark.slow
def test_an_evaluation_elsewhere_gives_the_figures_of_the_cpu(elsewhere):
    there, here = elsewhere(figures, DEVICE), figures("cpu")
    for figure, expected in zip(there.result(), here, strict=True):
        assert figure == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)


# ------------------------------------------------------------------------- can these tests fail at all?

REFUSED = {
    "a vector left on the CPU": lambda z: z + torch.zeros(z.shape[-1]),
    "a number of the CPU in a stack": lambda z: torch.stack([z.sum(), torch.tensor(0.0)]),
    "a table left on the CPU": lambda z: torch.zeros(z.shape[-1])[z.argmax(dim=-1)],
    "a result kept on the CPU": lambda z: torch.add(z.detach(), 1, out=torch.empty(z.shape)),
    "a sum kept on the CPU": lambda z: torch.zeros(()).add_(z.detach().sum()),
    "a vector of the CPU in the backward pass": lambda z: z.register_hook(lambda grad: grad * torch.ones(z.shape[-1])),
    "random numbers from the CPU's generator": lambda z: torch.rand(3, device=z.device, generator=torch.Generator()),
}
WAITED_FOR = {
    "item": lambda z: z.sum().item(),
    "float": lambda z: float(z.sum()),
    "if": lambda z: 1 if z.sum() > 0 else 0,
    "tolist": lambda z: z.tolist(),
    "print": lambda z: f"{z.sum()}",
    "equal": lambda z: torch.equal(z, z),
    "nonzero": lambda z: z.nonzero(),
    "unique": lambda z: z.unique(),
    "a mask": lambda z: z[z > 0],
    "a mask that is written through": lambda z: z.detach().clone().index_put_([z > 0], z.detach().sum()),
    "a list as index": lambda z: z[:, [0, 1]],
    "an index on the CPU": lambda z: z[:, torch.tensor([0, 1])],
    "cpu": lambda z: z.cpu(),
    "to the CPU, non-blocking": lambda z: z.to("cpu", non_blocking=True),
    "copy_ to the CPU": lambda z: torch.empty(z.shape).copy_(z.detach()),
    "to": lambda z: torch.zeros(3).to(z.device),
    "tensor": lambda z: torch.tensor([0.0, 1.0], device=z.device),
    "copy_": lambda z: torch.empty(3, device=z.device).copy_(torch.zeros(3)),
    "cholesky": lambda z: torch.linalg.cholesky(torch.eye(3, device=z.device)),
    "item in the backward pass": lambda z: z.register_hook(lambda grad: grad * grad.sum().item()),
}


def with_fault(fault):
    """`watched` with a fault in the loss."""
    def loss(z, predicted, step):
        (REFUSED | WAITED_FOR)[fault](z)
        return losses.vc(z, predicted)

    return watched(replace(TINY, max_steps=1), loss=loss)


@pytest.mark.parametrize("fault", REFUSED)
def test_tensors_on_two_devices_are_refused(elsewhere, fault):
    with pytest.raises(RuntimeError, match=r"two devices|another device"):
        elsewhere(with_fault, fault).result()


@pytest.mark.parametrize("fault", WAITED_FOR)
def test_waiting_for_the_device_is_noticed(elsewhere, fault):
    _, [waits], sent = elsewhere(with_fault, fault).result()
    *others, look = (wait.function for wait in waits)
    assert look == "check_finite"
    assert others == ["<lambda>"]


def with_other_copies(copy):
    """`watched` where views are drawn, with another function in place of to_device."""
    with patch.object(augment, "to_device", COPIES[copy]):
        return watched(replace(TINY, max_steps=2))


COPIES = {
    "none": lambda x, device: x,
    "blocking": lambda x, device: x.to(device),
    "not page-locked": lambda x, device: x.to(device, non_blocking=True),
}


def test_a_copy_by_anything_but_to_device_is_noticed(elsewhere):
    with pytest.raises(RuntimeError, match="on two devices"):
        elsewhere(with_other_copies, "none").result()
    _, [waits], _ = elsewhere(with_other_copies, "blocking").result()
    assert [wait.function for wait in waits].count("<lambda>") == 2 * TINY.views
    _, [waits], sent = elsewhere(with_other_copies, "not page-locked").result()
    assert [wait.function for wait in waits] == ["check_finite"] * 2
    assert {copy.function for copy in sent} == {"to_device", "<lambda>"}


def with_forgotten_buffers():
    """`watched` with a model whose normalisation has plain attributes, which `Module.to` leaves behind."""
    with patch.object(encoders.Normalize, "register_buffer", lambda *names: setattr(*names)):
        return watched(TINY)


@pytest.mark.slow
def test_a_buffer_left_behind_is_noticed(elsewhere):
    with pytest.raises(RuntimeError, match="on two devices"):
        elsewhere(with_forgotten_buffers).result()
