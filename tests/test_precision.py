"""What a device multiplies in, and the scaler that keeps float16 gradients from vanishing or overflowing."""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import multiply_in
from training import TINY, Interrupted, assert_same_weights, fit, interrupt_after, without

from jepa_utils import runtime, train
from jepa_utils.checkpoint import Checkpoint
from jepa_utils.config import CHOICES
from jepa_utils.models import build_model
from jepa_utils.runtime import generator
from jepa_utils.train import build_optimizer, train_step

CPU = torch.device("cpu")

# ----------------------------------------------------------------------------------- devices and precision


@pytest.mark.parametrize(("capability", "dtype"), [
    ((10, 0), torch.bfloat16), ((9, 0), torch.bfloat16), ((8, 9), torch.bfloat16), ((8, 0), torch.bfloat16),
    ((7, 5), torch.float16), ((7, 0), torch.float16),
    ((6, 1), torch.float32), ((6, 0), torch.float32), ((3, 7), torch.float32),
], ids=["B200", "H100", "L4", "A100", "T4", "V100", "P4", "P100", "K80"])
def test_precision_of_gpus(monkeypatch, capability, dtype):
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    device = torch.device("cuda", 1)
    assert runtime.precision(device) is dtype
    assert runtime.fast_bf16(device) == (dtype is torch.bfloat16)
    assert set(asked) == {device}  # of several, the one in question


@pytest.mark.parametrize(("capabilities", "dtype"), [
    ({"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon Platinum 8488C"}, torch.bfloat16),
    ({"amx_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
    ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "AMD EPYC 9R14"}, torch.bfloat16),
    ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "Intel Xeon"}, torch.float32),
    ({"avx512_bf16": False, "amx_bf16": False, "cpu_name": "AMD EPYC 7763"}, torch.float32),
    ({"architecture": "aarch64"}, torch.float32),
    ({}, torch.float32),
], ids=["Intel with AMX", "AMX alone", "AMD", "Intel without AMX", "older AMD", "ARM", "nothing known"])
def test_precision_of_cpus(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert runtime.precision(CPU) is dtype
    assert runtime.environment()["precision"] == {torch.bfloat16: "bfloat16", torch.float32: "float32"}[dtype]


def test_precision_where_torch_cannot_tell_what_a_cpu_has(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # as in older versions of torch
    assert runtime.precision(CPU) is torch.float32


def test_a_mac_multiplies_in_float32():
    assert runtime.precision(torch.device("mps")) is torch.float32
    assert not runtime.grad_scaler(torch.device("mps")).is_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_networks_multiply_in_the_precision_and_only_float16_is_scaled(monkeypatch, dtype):
    multiply_in(monkeypatch, dtype)
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with runtime.autocast(CPU):
        assert layer(x).dtype is dtype
    assert layer.weight.dtype is torch.float32
    scaler, loss = runtime.grad_scaler(CPU), torch.tensor(1.5)
    assert scaler.is_enabled() == (dtype is torch.float16)
    if dtype is not torch.float16:
        assert scaler.scale(loss) is loss
        assert scaler.state_dict() == {}  # nothing to keep, and nothing that another device would miss


# ----------------------------------------------------------------------------------------- training steps


@pytest.fixture
def float16(monkeypatch):
    multiply_in(monkeypatch, torch.float16)


VIEWS = torch.rand(2, 8, 3, 32, 32, generator=generator(0))
GOOD, OVERFLOWS = 1.0, 1e9  # weights of a loss whose gradient fits into float16, scaled, or does not


STEM = "encoder.body.0.weight"


class Steps:
    """Training steps on the same views, with a loss that weighs what each step asks for."""

    def __init__(self, scaler, **changes):
        self.config = replace(TINY, **changes)
        self.model = build_model(self.config).train()
        self.optimizer, self.scaler = build_optimizer(self.config, self.model), scaler

    def __call__(self, weight):
        def loss(z, predicted, step):
            return {"prediction": weight * z.float().square().mean()}

        return train_step(self.model, loss, self.optimizer, self.scaler, VIEWS, 0, 1e-3)[0]

    def state(self):
        """All that an update changes, copied."""
        return copy.deepcopy((dict(self.model.named_parameters()), self.optimizer.state_dict()["state"]))

    def gradients(self):
        return torch.cat([p.grad.flatten() for p in self.model.parameters()])


def assert_same_state(state, other):
    assert state[1].keys() == other[1].keys()
    for name, weights in state[0].items():
        assert torch.equal(weights, other[0][name]), name
    for number, entries in state[1].items():
        for name, value in entries.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[1][number][name])), name


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_an_overflowing_gradient_changes_no_weight_and_halves_the_scale(float16, optimizer):
    steps = Steps(runtime.grad_scaler(CPU), optimizer=optimizer)
    start = steps.state()
    steps(1e-3)
    before, scale = steps.state(), steps.scaler.get_scale()
    assert not torch.equal(before[0][STEM], start[0][STEM])  # else nothing is shown below
    assert before[1]
    terms = steps(OVERFLOWS)
    assert terms["prediction"].isfinite()  # it is not the loss that is too large
    assert not steps.gradients().isfinite().all()
    assert_same_state(steps.state(), before)
    assert steps.scaler.get_scale() == scale / 2
    steps(1e-3)
    assert not torch.equal(steps.state()[0][STEM], before[0][STEM])  # training goes on


@pytest.mark.parametrize(("script", "scales"), [
    ("ggg", [8, 8, 16]), ("ggoggg", [8, 8, 4, 4, 4, 8]),
    pytest.param("oggg", [4, 4, 4, 8], marks=pytest.mark.slow),
    pytest.param("oogggggg", [4, 2, 2, 2, 4, 4, 4, 8], marks=pytest.mark.slow),
])
def test_the_scale_recovers_after_a_number_of_good_steps_in_a_row(float16, script, scales):
    steps, seen = Steps(torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)), []
    for letter in script:
        steps(OVERFLOWS if letter == "o" else GOOD)
        seen.append(steps.scaler.get_scale())
    assert seen == scales


@pytest.mark.parametrize("changes", [
    {"loss_type": "vicreg", "projector": "16-8"}, {"loss_type": "bcs", "optimizer": "muon"},
    {"loss_type": "vc", "predictor": "conv", "optimizer": "lars", "lr": 0.1},
], ids=lambda changes: changes["loss_type"])
def test_a_run_of_scaled_steps_ends_with_the_weights_of_plain_ones(monkeypatch, changes):
    """To the last bit: in float32 a power of two changes exponents alone."""
    multiply_in(monkeypatch, torch.float32)
    plain, history = fit(replace(TINY, epochs=2, **changes))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    monkeypatch.setattr(train, "grad_scaler", lambda device: scaler)
    scaled, scaled_history = fit(replace(TINY, epochs=2, **changes))
    assert scaler.get_scale() == 2.0**13  # six steps, none skipped
    assert scaled_history == history
    assert_same_weights(scaled, plain)


def test_gradients_too_small_for_float16_arrive_with_the_scaler_and_not_without(monkeypatch):
    def gradients(dtype, scaler):
        multiply_in(monkeypatch, dtype)
        steps = Steps(scaler)
        steps(1e-4)
        return steps.gradients()  # unscaled by the step

    off, on = torch.amp.GradScaler("cpu", enabled=False), torch.amp.GradScaler("cpu")
    exact, lost, kept = gradients(torch.float32, off), gradients(torch.float16, off), gradients(torch.float16, on)
    assert (kept - exact).norm() < 0.05 * exact.norm()
    assert (lost - exact).norm() > 0.5 * exact.norm()


@pytest.mark.slow
def test_a_training_in_float16_follows_that_in_float32(monkeypatch):
    histories = []
    for dtype in (torch.float32, torch.float16):
        multiply_in(monkeypatch, dtype)
        scaler = torch.amp.GradScaler("cpu", 2.0**8, enabled=dtype is torch.float16)  # at that scale no step is skipped
        monkeypatch.setattr(train, "grad_scaler", lambda device, scaler=scaler: scaler)
        histories.append([record["loss"] for record in fit(replace(TINY, loss_type="bcs", lr=1e-2))[1]])
    assert histories[1] == pytest.approx(histories[0], rel=0.02)
    assert histories[0][2] < 0.7 * histories[0][0]


# --------------------------------------------------------------------------------------- stop and resume


@pytest.fixture
def scalers(monkeypatch, float16):
    """Scalers as trainings get them, with an interval that a small run reaches; all of them, by age."""
    made = []

    def grad_scaler(device):
        made.append(torch.amp.GradScaler("cpu", growth_interval=5, enabled=runtime.precision(device) is torch.float16))
        return made[-1]

    monkeypatch.setattr(train, "grad_scaler", grad_scaler)
    return made


def loud(z, predicted, step):
    """A loss that overflows float16 until the scale has come down by some powers of two."""
    return {"prediction": 1000 * z.float().square().mean()}


def interrupted(out, epoch, **options):
    """The checkpoint of a run that stopped after that many epochs."""
    with pytest.raises(Interrupted):
        fit(out=out, on_epoch=interrupt_after(epoch), **options)
    return torch.load(out / Checkpoint.NAME, weights_only=True)


@pytest.mark.slow
def test_a_resumed_run_has_the_scale_and_the_weights_of_an_undisturbed_one(tmp_path, scalers):
    model, history = fit(loss=loud)
    (undisturbed,) = scalers
    kept = interrupted(tmp_path, 3, loss=loud)["scaler"]
    assert kept == scalers[1].state_dict()
    assert kept["scale"] < 2.0**16  # steps were skipped, which a resumed run must not do again
    assert 0 < kept["_growth_tracker"] < 5  # in the middle of an interval
    resumed, resumed_history = fit(out=tmp_path, resume=True, loss=loud)
    assert scalers[-1].state_dict() == undisturbed.state_dict()
    assert resumed_history == history
    assert_same_weights(resumed, model)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [
    (torch.float32, torch.float16), (torch.bfloat16, torch.float16),
    (torch.float16, torch.float32), (torch.float16, torch.bfloat16),
], ids=str)
def test_a_checkpoint_goes_on_where_another_precision_is_the_faster(tmp_path, monkeypatch, scalers, first, then):
    multiply_in(monkeypatch, first)
    kept = interrupted(tmp_path, 2)
    assert bool(kept["scaler"]) == (first is torch.float16)
    multiply_in(monkeypatch, then)
    model, history = fit(out=tmp_path, resume=True)
    assert history[:2] == without(kept["history"], "seconds")
    assert len(history) == TINY.epochs
    assert scalers[-1].is_enabled() == (then is torch.float16)
    undisturbed = fit()[1]  # in the second precision from the beginning
    assert [record["loss"] for record in history] == pytest.approx([record["loss"] for record in undisturbed], rel=0.1)
    moved = [not torch.equal(model.state_dict()[name], weights) for name, weights in kept["model"].items()]
    assert sum(moved) > 0.9 * len(moved)
