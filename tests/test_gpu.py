"""On a real GPU, where there is one: the CPU's training, no wait in the loop, low precisions that learn as well."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import training
from test_device import shallow_vit
from torch import nn

from jepa_utils import augment, data, encoders, losses, probe, replay, runtime, train
from jepa_utils.encoders import load_encoder, save_encoder
from jepa_utils.models import JEPA, build_model
from jepa_utils.recipes import recipe

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")]
CUDA = torch.device("cuda")
TINY = replace(training.TINY, batch_size=8, max_steps=7)  # an epoch of six steps, and one of the next
LOSSES = {
    "vc": {"loss_type": "vc", "predictor": "mlp", "views": 3},
    "predictive": {"loss_type": "vc", "predictor": "conv"},
    "vicreg": {"loss_type": "vicreg", "projector": "16-8"},
    "bcs": {"loss_type": "bcs", "projector": "16-8"},
    "visreg": {"loss_type": "visreg", "projector": "16-8"},
    "none": {"loss_type": "none"},
}
MODELS = {
    "resnet5": {},
    "whitenet": {"model_type": "whitenet"},
    "resnet": {"model_type": "resnet", "max_steps": 2},
    "vit_s": {"model_type": "vit_s", "patch_size": 8, "max_steps": 4},
    "vit_s in parts": {"model_type": "vit_s", "patch_size": 8, "micro_batch": 5, "max_steps": 4},
}


@contextmanager
def comparable():
    """float32 products without shortcuts, and the CPU's random slices: what is left is the order of sums."""
    def directions(D, slices, seed, device="cpu", drawn=losses.random_directions):
        return runtime.to_device(drawn(D, slices, seed), torch.device(device))

    with ExitStack() as stack:
        stack.enter_context(in_precision(torch.float32))
        stack.enter_context(patch.object(losses, "random_directions", directions))
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False))
        stack.enter_context(patch.object(train, "LOG_EVERY", 2))
        stack.enter_context(patch.object(encoders, "ViT", shallow_vit))
        stack.enter_context(nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH))
        yield


def in_precision(dtype):
    return patch.object(runtime, "precision", lambda device: dtype)


def run(config, device, **options):
    return training.fit(config, images=training.IMAGES.to(device), labels=training.LABELS.to(device), **options)


def assert_same(history, expected, rel=0.03):
    """Records agree: the order of sums differs, and a few steps through BatchNorm make that much of it."""
    for record, other in zip(history, expected, strict=True):
        assert without_probe(record) == pytest.approx(without_probe(other), rel=rel, abs=1e-4)


def without_probe(record):
    """Of four dozen images, one that is judged otherwise is two percent."""
    return {name: value for name, value in record.items() if name != "online_probe"}


@pytest.mark.parametrize("preset", augment.PRESETS)
def test_views_are_those_of_the_cpu(preset):
    recipe_ = replace(augment.PRESETS[preset], blur=0.5)
    here, there = (augment.make_views(training.IMAGES.to(device), recipe_, 2, runtime.generator(0)).cpu()
                   for device in ("cpu", CUDA))
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", ["adamw", "lars", "muon"])
def test_a_training_is_the_one_on_the_cpu(loss, model, optimizer):
    if model != "resnet5" and (loss == "none" or optimizer == "muon"):
        pytest.skip("nothing that the other models would not show")
    config = replace(TINY, optimizer=optimizer, **LOSSES[loss] | MODELS[model])
    with comparable():
        assert_same(run(config, CUDA)[1], run(config, "cpu")[1])


@contextmanager
def no_waits():
    """An error wherever the loop waits for the GPU, but for its looks at the log."""
    def look(*arguments, real=train.check_finite):
        torch.cuda.set_sync_debug_mode("default")
        try:
            return real(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    with patch.object(train, "check_finite", look):
        try:
            yield lambda epoch, model: torch.cuda.set_sync_debug_mode("error")  # as on_epoch: from the first epoch on
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_the_loop_waits_for_nothing_but_its_looks_at_the_log(loss, model, dtype):
    config = replace(TINY, **LOSSES[loss] | MODELS[model])
    with in_precision(dtype), no_waits() as from_now_on:
        run(config, CUDA, on_epoch=from_now_on)


def test_a_wait_would_be_noticed():
    def waits(z, predicted, step):
        return {"prediction": losses.prediction(predicted, z) * (1 if z.sum() > 0 else 2)}

    with no_waits() as from_now_on, pytest.raises(RuntimeError, match="synchroniz"):
        run(TINY, CUDA, on_epoch=from_now_on, loss=waits)


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "muon"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_recorded_training_is_the_plain_one(loss, optimizer):
    config = replace(TINY, optimizer=optimizer, epochs=2, max_steps=None, **LOSSES[loss])
    with comparable(), patch.object(JEPA, "compile"):  # recorded, but not compiled
        assert_same(run(replace(config, compile=True), CUDA)[1], run(config, CUDA)[1])


def test_a_recorded_step_is_replayed_and_draws_new_slices(monkeypatch):
    calls, draws = [], []
    step, draw = train.train_step, losses.random_directions
    monkeypatch.setattr(train, "train_step", lambda *inputs: calls.append(1) or step(*inputs))
    monkeypatch.setattr(losses, "random_directions", lambda *inputs: draws.append(1) or draw(*inputs))
    monkeypatch.setattr(JEPA, "compile", lambda model: None)
    run(replace(TINY, compile=True, epochs=2, max_steps=None, **LOSSES["bcs"]), CUDA)
    assert (len(calls), len(draws)) == (replay.WARMUP + 1, 12)


@pytest.mark.parametrize("model", MODELS)
def test_a_compiled_training_is_the_plain_one(model):
    config = replace(TINY, **LOSSES["vicreg"] | MODELS[model] | {"max_steps": 6})
    with comparable():
        assert_same(run(replace(config, compile=True), CUDA)[1], run(config, CUDA)[1])


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "muon"])
@pytest.mark.parametrize(("first", "then"), [(False, False), (True, True), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_training_can_be_resumed_recorded_or_not(tmp_path, optimizer, dtype, first, then):
    config = replace(TINY, optimizer=optimizer, max_steps=None, epochs=2, compile=first)
    with comparable(), in_precision(dtype), patch.object(JEPA, "compile"):
        with pytest.raises(training.Interrupted):
            run(config, CUDA, out=tmp_path, on_epoch=training.interrupt_after(1))
        gone_on = run(replace(config, compile=then), CUDA, out=tmp_path, resume=True)[1]
        assert_same(gone_on, run(config, CUDA)[1], rel=0.02)


def test_a_recorded_training_goes_on_on_the_cpu(tmp_path):
    config = replace(TINY, max_steps=None, epochs=2, compile=True)
    with comparable(), patch.object(JEPA, "compile"):
        with pytest.raises(training.Interrupted):
            run(config, CUDA, out=tmp_path, on_epoch=training.interrupt_after(1))
        gone_on = run(replace(config, compile=False), "cpu", out=tmp_path, resume=True)[1]
        assert_same(gone_on, run(config, CUDA)[1])


@pytest.fixture(scope="module")
def digits():
    return data.digits(train=5000, test=1000).to(CUDA)


def probed(digits, dtype, seed):
    """The linear probe after a training of some 230 steps."""
    with in_precision(dtype):
        config = recipe("laptop-vicreg", batch_size=128, epochs=6, seed=seed)
        model, _ = train.fit(config, digits, progress=False)
    h = [probe.features(model.encoder, images) for images in (digits.train_images, digits.test_images)]
    return probe.linear_probe(h[0], digits.train_labels, h[1], digits.test_labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precisions_learn_as_well(digits, dtype):
    """Paired by seed; a probe on 1,000 test images is uncertain by a point and a half."""
    seeds = range(4)
    gains = [probed(digits, dtype, seed) - probed(digits, torch.float32, seed) for seed in seeds]
    print(f"{dtype} against float32, percentage points by seed: {[round(gain, 1) for gain in gains]}")
    assert sum(gains) / len(seeds) == pytest.approx(0, abs=3)


def test_the_probes_are_those_of_the_cpu(digits):
    encoder = build_model(recipe("laptop-vicreg"), *digits.statistics()).encoder.to(CUDA)
    with in_precision(torch.float32):
        sets = [probe.features(encoder, digits.train_images[:2000]), digits.train_labels[:2000],
                probe.features(encoder, digits.test_images), digits.test_labels]
    for judge in (probe.linear_probe, probe.knn_probe, probe.linear_probe_sgd):
        assert judge(*sets) == pytest.approx(judge(*(part.cpu() for part in sets)), abs=1), judge.__name__


def test_an_encoder_trained_here_loads_without_a_gpu(tmp_path):
    model, _ = run(TINY, CUDA)
    loaded = load_encoder(save_encoder(model.encoder, TINY, tmp_path))
    x = training.IMAGES[:8]
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model.encoder.eval()(x.to(CUDA)).cpu(), rtol=1e-2, atol=1e-2)
