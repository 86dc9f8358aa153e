"""LARS and Muon are timm's; what Muon calls orthogonal is; rates may be tensors."""

from copy import deepcopy

import pytest
import torch
from conftest import multiply_in
from torch import nn

from jepa_utils import runtime
from jepa_utils.optimizers import LARS, Muon, orthogonal, set_rate
from jepa_utils.replay import recordable

RATES = [0.01, 0.03, 0.02, 0.005]


def net():
    """Two kernels, a matrix and its transpose, norms and biases."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(),
        nn.Linear(72, 24), nn.ReLU(), nn.Linear(24, 72, bias=False))


def groups(model):
    return [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]


def trained(build, rates=RATES, unused=False):
    """The weights after a step at each of the rates."""
    model, g = net(), torch.Generator().manual_seed(1)
    if unused:
        model.append(nn.Linear(2, 2))
    optimizer = build(groups(model))
    for lr in rates:
        set_rate(optimizer, lr)
        optimizer.zero_grad()
        model[:8](torch.randn(6, 3, 9, 9, generator=g)).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_one_rate_goes_to_all_groups_several_to_one_each():
    optimizer = Muon(groups(net()), 1)
    for rates, expected in (([0.1], [0.1, 0.1]), ([0.2, 0.3], [0.2, 0.3])):
        set_rate(optimizer, *rates)
        assert [group["lr"] for group in optimizer.param_groups] == expected
    with pytest.raises(ValueError, match="zip"):
        set_rate(optimizer, 0.1, 0.2, 0.3)


def test_lars_is_timms():
    peer = pytest.importorskip("timm.optim").Lars
    theirs = trained(lambda groups: peer(groups, lr=1, momentum=0.9, trust_coeff=0.02, trust_clip=True))
    torch.testing.assert_close(trained(lambda groups: LARS(groups, 1)), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_muon_is_timms(monkeypatch, dtype):
    timm = pytest.importorskip("timm.optim.muon")
    multiply_in(monkeypatch, dtype)
    exact = timm.zeropower_via_newtonschulz
    monkeypatch.setattr(timm, "zeropower_via_newtonschulz", lambda *args, **options: exact(
        *args, **options | {"dtype": torch.float32}).float())
    theirs = trained(lambda groups: timm.Muon(groups, lr=1, momentum=0.95, nesterov=True))
    ours, start = trained(lambda groups: Muon(groups, 1)), trained(lambda groups: Muon(groups, 1), [])
    assert (ours - theirs).norm() < (1e-3 if dtype is torch.float32 else 0.1) * (theirs - start).norm()


@pytest.mark.parametrize("optimizer", [LARS, Muon])
def test_a_rate_may_be_a_tensor_and_a_parameter_without_gradient_stays(monkeypatch, optimizer):
    multiply_in(monkeypatch, torch.float32)  # bfloat16 would round apart
    plain = trained(lambda groups: optimizer(groups, 1))
    tensors = trained(lambda groups: optimizer(groups, 1), [torch.tensor(lr) for lr in RATES])
    torch.testing.assert_close(tensors, plain, rtol=1e-4, atol=1e-6)
    assert torch.equal(trained(lambda groups: optimizer(groups, 1), unused=True)[: len(plain)], plain)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 40), (2, 64, 64)])
def test_orthogonal_moves_singular_values_near_one_and_turns_nothing(monkeypatch, shape):
    multiply_in(monkeypatch, torch.float32)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    made = left.mT @ orthogonal(x) @ right.mT
    torch.testing.assert_close(made, torch.diag_embed(made.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-3)
    well = made.diagonal(dim1=1, dim2=2)[values > 0.02 * values.square().sum(-1, keepdim=True).sqrt()]
    assert well.min() > 0.6
    assert well.max() < 1.3


def test_orthogonal_of_nothing_is_nothing_and_of_nan_nan():
    nothing = torch.zeros(1, 2, 3, dtype=runtime.precision(torch.device("cpu")))
    assert torch.equal(orthogonal(nothing), nothing)
    assert orthogonal(torch.full((1, 2, 3), torch.nan)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_muons_step_does_not_depend_on_the_size_of_the_gradient(monkeypatch, dtype):
    multiply_in(monkeypatch, dtype)
    x = torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonal(1e-9 * x), orthogonal(x), rtol=0, atol=0.02)


def test_muon_treats_a_single_row_as_a_vector():
    positions, bias = (nn.Parameter(torch.ones(shape)) for shape in ((1, 4, 6), (24,)))
    optimizer = Muon([positions, bias], lr=0.1)
    gradient = torch.randn(24, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        positions.grad, bias.grad = gradient.view(1, 4, 6), gradient.clone()
        optimizer.step()
    assert torch.equal(positions.flatten(), bias)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, LARS, Muon])
def test_a_state_saved_while_steps_were_recorded_goes_on_without(optimizer):
    """`recordable` flags come back with the state; step counts have to count on."""
    def stepped(model, made, times):
        for seed in range(times):
            for i, p in enumerate(model.parameters()):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * seed + i))
            made.step()

    first, again = net(), net()
    before, after = optimizer(groups(first), lr=0.01), optimizer(groups(again), lr=0.01)
    stepped(first, before, 2)
    recordable(before, torch.device("cpu"), on=True)
    again.load_state_dict(first.state_dict())
    after.load_state_dict(deepcopy(before.state_dict()))
    recordable(after, torch.device("cpu"), on=False)
    recordable(before, torch.device("cpu"), on=False)
    stepped(first, before, 2)
    stepped(again, after, 2)
    for p, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, other)
    counts = {float(state.get("count", state.get("step", 4))) for state in after.state.values()}
    assert counts == {4.0}
