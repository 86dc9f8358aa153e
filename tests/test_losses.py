import math

import numpy as np
import oracles
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jepa_utils import losses
from jepa_utils.runtime import InputError

SHAPES = [(2, 8, 5), (3, 7, 4), (2, 4, 9), (3, 5, 6)]  # D < N and D > N: covariance takes another way there
DIRECTIONS = losses.random_directions(16, 12, seed=5).double()


def directions(D):
    return DIRECTIONS[:D] / DIRECTIONS[:D].norm(dim=0)


def embeddings(V, N, D, seed=0):
    """Float64, correlated, with standard deviations on both sides of the variance term's margin of 1."""
    rng = np.random.default_rng(seed)
    correlated = rng.normal(size=(V, N, D)) @ rng.normal(size=(D, D)) / np.sqrt(D)
    return correlated * np.linspace(0.3, 1.6, D) + rng.normal(size=D)


def total(terms):
    return sum(terms.values())


# name: (the loss of (z, predicted), its oracle)
LOSSES = {
    "prediction": (lambda z, p: losses.prediction(p, z), lambda z, p: oracles.prediction(p, z)),
    "invariance": (lambda z, p: losses.invariance(z), lambda z, p: oracles.prediction(z, z)),
    "variance": (lambda z, p: losses.variance(z), lambda z, p: oracles.variance(z)),
    "variance, other margin": (lambda z, p: losses.variance(z, 0.7, 0.01), lambda z, p: oracles.variance(z, 0.7, 0.01)),
    "covariance": (lambda z, p: losses.covariance(z), lambda z, p: oracles.covariance(z)),
    "vicreg": (lambda z, p: total(losses.vicreg(z)), lambda z, p: oracles.vicreg(z, z, 25, 25, 1)),
    "vicreg, predicted": (lambda z, p: total(losses.vicreg(z, p, 3, 5, 7)), lambda z, p: oracles.vicreg(z, p, 3, 5, 7)),
    "vc": (lambda z, p: total(losses.vc(z)), lambda z, p: oracles.vc(z, z, 10, 100)),
    "vc, predicted": (lambda z, p: total(losses.vc(z, p, 3, 5)), lambda z, p: oracles.vc(z, p, 3, 5)),
    "sigreg": (
        lambda z, p: losses.sigreg(z, directions(z.shape[-1])),
        lambda z, p: oracles.sigreg(z, directions(z.shape[-1]).numpy())),
    "sigreg, odd grid": (
        lambda z, p: losses.sigreg(z, directions(z.shape[-1]), 17, 5.0),
        lambda z, p: oracles.sigreg(z, directions(z.shape[-1]).numpy(), 17, 5.0)),
    "bcs": (
        lambda z, p: total(losses.bcs(z, p, seed=3, slices=12)),
        lambda z, p: oracles.bcs(z, p, losses.random_directions(z.shape[-1], 12, 3).double().numpy(), 10.0, "eb")),
    "bcs, lejepa": (
        lambda z, p: total(losses.bcs(z, None, 0.05, 3, 12, 7, scale="lejepa")),
        lambda z, p: oracles.bcs(
            z, z, losses.random_directions(z.shape[-1], 12, 3).double().numpy(), 0.05, "lejepa", 7)),
}
VISREG = {"visreg": (10.0, "eb"), "visreg, the paper's scale": (0.6, "lejepa")}
REGULARIZERS = {
    "variance": losses.variance,
    "covariance": losses.covariance,
    "sigreg": lambda z: losses.sigreg(z, directions(z.shape[-1])),
    "vicreg": lambda z: total(losses.vicreg(z)),
    "vc": lambda z: total(losses.vc(z)),
    "bcs": lambda z: total(losses.bcs(z)),
    "visreg": lambda z: total(losses.visreg(z)),
}
each_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("loss", "oracle"), LOSSES.values(), ids=LOSSES)
def test_value_and_gradients_match_the_formula_in_float64(loss, oracle, shape):
    arrays = embeddings(*shape), embeddings(*shape, seed=1)[:1]  # one context view predicts all others
    z, predicted = (torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in arrays)
    arrays = [tensor.detach().double().numpy() for tensor in (z, predicted)]  # as rounded
    value = loss(z, predicted)
    value.backward()
    assert value.item() == pytest.approx(oracle(*arrays), rel=1e-5)
    for i, tensor in enumerate((z, predicted)):
        expected = oracles.gradient(lambda x, i=i: oracle(*arrays[:i], x, *arrays[i + 1 :]), arrays[i])
        found = np.zeros_like(expected) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max() + 1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("lmbd", "scale"), VISREG.values(), ids=VISREG)
def test_visreg_matches_its_formula_and_lets_no_gradient_through_the_deviations_it_divides_by(lmbd, scale, shape):
    values = embeddings(*shape)
    slices, std = losses.random_directions(shape[-1], 12, 3).double().numpy(), oracles.deviations(values)

    def oracle(z):
        return oracles.visreg(z, z, slices, lmbd, scale, std)

    z = torch.tensor(values, requires_grad=True)
    found = total(losses.visreg(z, None, lmbd, 3, 12, scale))
    found.backward()
    assert found.item() == pytest.approx(oracle(values), rel=1e-5)
    expected = oracles.gradient(oracle, values)
    np.testing.assert_allclose(z.grad.numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max() + 1e-8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_visreg_is_lightlys(shape, monkeypatch):
    peer = pytest.importorskip("lightly.loss.visreg_loss")
    z, fixed = torch.tensor(embeddings(*shape)).float(), losses.random_directions(shape[-1], 32, seed=4)
    monkeypatch.setattr(torch, "randn", lambda *args, **options: fixed)
    expected = peer.VISRegLoss(lambda_param=0.6, num_slices=32)(local_proj=z[:0], global_proj=z)
    monkeypatch.undo()
    torch.testing.assert_close(total(losses.visreg(z, None, 0.6, 4, 32, "lejepa")), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3])
def test_near_collapse_visregs_push_outwards_stays_while_sigregs_fades(spread):
    def push(loss):
        z = (spread * torch.randn(1, 256, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
        loss(z).backward()
        return z.grad.norm().item()

    wide = losses.random_directions(8, 64, seed=0)
    assert push(losses.size) == pytest.approx(2 / (256 * 8) * (256 * 8) ** 0.5, rel=0.15)  # whatever the spread
    assert push(lambda z: losses.sigreg(z, wide)) < 2 * spread * push(losses.size) * 10


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES[::2], ids=str)
def test_vicreg_is_lightlys_at_two_views(shape):
    peer = pytest.importorskip("lightly.loss").VICRegLoss(25, 25, 1)
    z = torch.tensor(embeddings(*shape)).float()
    torch.testing.assert_close(total(losses.vicreg(z)), peer(*z), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sigreg_and_its_mix_are_lightlys_lejepa(shape):
    peer = pytest.importorskip("lightly.loss.lejepa_loss")
    V, N, D = shape
    fixed = losses.random_directions(D, 256, seed=4)
    regularizer = peer.SIGReg(knots=17, t_max=3.0)  # 17 on [0, 3] are 33 on [-3, 3]
    regularizer._generate_unit_vectors = lambda *args: fixed
    z = torch.tensor(embeddings(*shape)).float()
    statistic = regularizer(z)
    torch.testing.assert_close(N * losses.sigreg(z, fixed, points=33), statistic, rtol=1e-5, atol=0)
    mix = 0.05 * statistic + 0.95 * peer.lejepa_invariance_loss(all_proj=z, global_proj=z)
    torch.testing.assert_close(total(losses.bcs(z, None, 0.05, 4, points=33, scale="lejepa")), mix, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_two_scales_of_bcs_differ_by_a_common_factor(shape):
    V, N, D = shape
    z, lmbd = torch.tensor(embeddings(*shape)), 0.02
    eb = total(losses.bcs(z, lmbd=2 * V / (V - 1) * N * lmbd / (1 - lmbd)))
    lejepa = total(losses.bcs(z, lmbd=lmbd, scale="lejepa"))
    torch.testing.assert_close((1 - lmbd) * (V - 1) / (2 * V) * eb, lejepa, rtol=1e-5, atol=0)


def test_vicreg_and_vc_agree_in_proportion_as_vcs_docstring_says():
    z, (s, v, c) = torch.tensor(embeddings(2, 8, 5)), (25, 50, 2)
    scaled = total(losses.vc(z, std_coeff=v / (2 * s), cov_coeff=c * (5 - 1) / s))
    torch.testing.assert_close(s * scaled, total(losses.vicreg(z, None, s, v, c)), rtol=1e-5, atol=0)


def test_a_collapsed_batch_has_the_largest_variance_loss():
    collapsed = losses.variance(torch.full((2, 6, 3), 4.0))
    assert collapsed.item() == pytest.approx(1 - math.sqrt(1e-4))
    assert all(losses.variance(scale * torch.tensor(embeddings(2, 6, 3))) < collapsed for scale in (1e-3, 0.1, 1, 10))
    assert losses.variance(100 * torch.tensor(embeddings(2, 6, 3))) == 0


@pytest.mark.parametrize(("N", "D"), [(64, 6), (8, 7)])
def test_whitened_embeddings_have_no_covariance(N, D):
    z = embeddings(1, N, D)[0]
    z = z - z.mean(axis=0)
    whitened = np.linalg.qr(z)[0] * np.sqrt(N - 1)  # centred columns stay centred: QR keeps their span
    assert losses.covariance(torch.tensor(whitened[None])).item() == pytest.approx(0, abs=1e-6)
    assert losses.covariance(torch.tensor(z[None])) > 1e-3


@pytest.mark.parametrize("regularizer", [losses.invariance, losses.variance, losses.covariance])
def test_a_shift_of_the_whole_cloud_changes_no_vicreg_term(regularizer):
    z = torch.tensor(embeddings(3, 16, 5))
    torch.testing.assert_close(regularizer(z + 3.0), regularizer(z), rtol=1e-4, atol=0)


@each_regularizer
def test_the_order_of_views_and_images_does_not_matter(regularizer):
    z = torch.tensor(embeddings(3, 16, 5))
    torch.testing.assert_close(regularizer(z[[2, 0, 1]][:, torch.randperm(16)]), regularizer(z), rtol=1e-5, atol=0)


def test_turning_embeddings_and_directions_together_leaves_sigreg():
    z, rotation = torch.tensor(embeddings(2, 32, 6)), torch.linalg.qr(torch.tensor(embeddings(1, 6, 6)[0]))[0]
    turned = losses.sigreg(z @ rotation, rotation.T @ directions(6))
    torch.testing.assert_close(turned, losses.sigreg(z, directions(6)), rtol=1e-5, atol=0)
    assert abs(losses.sigreg(z @ rotation, directions(6)) - turned) > 1e-3  # with the slices left behind it does change


# The integrals in closed form, and what the default grid makes of them.
@pytest.mark.parametrize(("grid", "collapsed", "gaussian"), [
    ((25, 5.0), math.sqrt(2 * math.pi) - 2 * math.sqrt(math.pi) + math.sqrt(2 * math.pi / 3),
     math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)),
    ((), 0.400, 1.050),
], ids=["exact", "default grid"])
def test_guide_values_of_sigreg(grid, collapsed, gaussian):
    N, D = 128, 32
    assert losses.sigreg(torch.zeros(2, N, D), torch.eye(D), *grid).item() == pytest.approx(collapsed, rel=1e-3)
    z = torch.randn(64, N, D, generator=torch.Generator().manual_seed(0))  # 2,048 independent slices
    assert N * losses.sigreg(z, torch.eye(D), *grid).item() == pytest.approx(gaussian, rel=0.05)


def test_sigreg_cannot_cure_full_collapse_to_zero():
    z = torch.zeros(2, 8, 4, requires_grad=True)
    losses.sigreg(z, directions(4)).backward()
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_sigreg_pushes_a_collapsed_cloud_towards_zero():
    z = torch.full((1, 8, 1), 0.5, requires_grad=True)
    losses.sigreg(z, torch.ones(1, 1)).backward()
    assert (z.grad > 0).all()


@pytest.mark.parametrize(("loss", "oracle"), LOSSES.values(), ids=LOSSES)
def test_bf16_embeddings_give_the_float32_loss_of_their_values(loss, oracle):
    z, predicted = (torch.tensor(embeddings(2, 8, 5, seed)).bfloat16() for seed in (0, 1))
    value = loss(z, predicted)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(z.float(), predicted.float()), rtol=0, atol=0)


def test_directions_are_unit_vectors_spread_over_the_sphere_and_set_by_their_seed():
    drawn = losses.random_directions(5, 20_000, seed=3)
    torch.testing.assert_close(drawn.norm(dim=0), torch.ones(20_000))
    torch.testing.assert_close(drawn @ drawn.T / 20_000, torch.eye(5) / 5, rtol=0, atol=0.01)  # no axis is preferred
    torch.testing.assert_close(drawn.mean(dim=1), torch.zeros(5), rtol=0, atol=0.02)
    assert torch.equal(drawn, losses.random_directions(5, 20_000, seed=3))
    assert not torch.isclose(drawn, losses.random_directions(5, 20_000, seed=4)).all(dim=0).any()


def test_bcs_draws_new_slices_every_step_and_the_same_for_the_same_step():
    z = torch.tensor(embeddings(2, 8, 5))
    first, again, second = (losses.bcs(z, seed=step, slices=4)["sigreg"] for step in (0, 0, 1))
    assert first == again
    assert first != second


class Watch(TorchDispatchMode):
    """Notes the dtype and size of every tensor made."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        self.made += [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        return out


@pytest.mark.parametrize("points", [4, 64])
def test_sigregs_memory_is_that_of_its_slices_whatever_the_points(points):
    z, saved = torch.randn(2, 32, 8, requires_grad=True), []
    slices = 2 * 32 * 12

    def count(x):
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x), Watch() as watch:
        losses.sigreg(z, directions(8), points).backward()
    assert max(x.numel() for x in watch.made) == slices
    assert slices <= sum(saved) < slices + 1000  # the gradient, and what the projection keeps
    assert not any(x.is_complex() for x in watch.made)


@each_regularizer
@pytest.mark.parametrize(("shape", "parameter"), [
    ((2, 1, 4), "batch_size"), ((8, 4), "z"), ((2, 8, 4, 4), "z"), ((0, 8, 4), "z"), ((2, 8, 0), "z"),
], ids=str)
def test_embeddings_without_a_batch_statistic_are_refused(regularizer, shape, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        regularizer(torch.randn(shape))


Z = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
# what is given, the call, the parameter that the error names
BAD = [
    ("whole numbers", lambda: losses.variance(Z.long()), "z"),
    ("truth values", lambda: losses.covariance(Z > 0), "z"),
    ("complex numbers", lambda: losses.sigreg(Z.cfloat(), directions(4)), "z"),
    ("a list", lambda: losses.vicreg(Z.tolist()), "z"),
    ("an array", lambda: losses.vc(Z.numpy()), "z"),
    ("one view", lambda: losses.invariance(Z[:1]), "views"),
    ("a guess without its axis of views", lambda: losses.prediction(Z[0], Z), "predicted"),
    ("a guess of other images", lambda: losses.prediction(Z[:1, :7], Z), "predicted"),
    ("one image's guess for all", lambda: losses.prediction(Z[:1, :1], Z), "predicted"),
    ("one dimension's guess for all", lambda: losses.vicreg(Z, Z[..., :1]), "predicted"),
    ("more guesses than views", lambda: losses.vc(Z, torch.cat([Z, Z])), "predicted"),
    ("no guess", lambda: losses.bcs(Z, Z[:0]), "predicted"),
    ("guesses in whole numbers", lambda: losses.prediction(Z.long(), Z), "predicted"),
    ("directions of other dimensions", lambda: losses.sigreg(Z, directions(5)), "directions"),
    ("directions, turned", lambda: losses.sigreg(Z, directions(4).T), "directions"),
    ("one direction without its axis", lambda: losses.sigreg(Z, torch.ones(4)), "directions"),
    ("no direction", lambda: losses.sigreg(Z, torch.ones(4, 0)), "directions"),
    ("directions in whole numbers", lambda: losses.sigreg(Z, torch.ones(4, 2, dtype=torch.long)), "directions"),
    ("no slices", lambda: losses.bcs(Z, slices=0), "slices"),
    ("half a slice", lambda: losses.random_directions(4, 0.5, 0), "slices"),
    ("no dimensions", lambda: losses.random_directions(0, 4, 0), "D"),
    ("one frequency", lambda: losses.bcs(Z, points=1), "points"),
    ("a fraction of frequencies", lambda: losses.frequencies(7.5), "points"),
    ("no range of frequencies", lambda: losses.sigreg(Z, directions(4), t_max=0.0), "t_max"),
    ("an endless range of frequencies", lambda: losses.frequencies(10, math.inf), "t_max"),
    ("a range that is no number", lambda: losses.frequencies(10, math.nan), "t_max"),
    ("a range in words", lambda: losses.frequencies(10, "wide"), "t_max"),
    ("a scale nobody knows", lambda: losses.bcs(Z, scale="paper"), "scale"),
    *((f"{loss.__name__} with a share of {lmbd!r}", lambda loss=loss, lmbd=lmbd: loss(Z, lmbd=lmbd, scale="lejepa"),
       "lmbd") for loss in (losses.bcs, losses.visreg) for lmbd in (-0.1, 1.1, math.nan, "half")),
    ("visreg without slices", lambda: losses.visreg(Z, slices=0), "slices"),
    ("visreg in a scale nobody knows", lambda: losses.visreg(Z, scale="paper"), "scale"),
    ("the shape of one image", lambda: losses.shape(Z[:, :1], directions(4)), "batch_size"),
    ("the shape along other dimensions", lambda: losses.shape(Z, directions(5)), "directions"),
]


@pytest.mark.fault("bad input to losses")
@pytest.mark.parametrize(("what", "call", "parameter"), BAD, ids=[row[0] for row in BAD])
def test_what_cannot_be_used_is_refused_by_name(what, call, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        call()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 1), *SHAPES], ids=str)
def test_what_is_not_finite_shows_in_every_term(shape, bad):
    z = torch.tensor(embeddings(*shape)).float()
    z[0, 1, 0] = bad
    mixes = losses.bcs(z, lmbd=0.5, scale="lejepa"), losses.visreg(z), losses.visreg(z, lmbd=0.5, scale="lejepa")
    for terms in (losses.vicreg(z), losses.vc(z), losses.bcs(z), *mixes):
        assert not any(term.isfinite() for term in terms.values()), terms


@pytest.mark.parametrize("D", [1, 9])
def test_the_covariance_term_is_never_below_zero_and_its_gradient_is_right_there(D):
    """Dimensions that are uncorrelated but for rounding, in which the difference of two sums may be negative."""
    for seed in range(20):
        z = torch.zeros(1, 8, D)
        z[0, :, 0] = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        z.requires_grad_()
        value = losses.covariance(z)
        value.backward()
        assert value >= 0
        assert value <= 1e-6
        assert z.grad.abs().max() < 1e-5
        assert D > 1 or value == 0


@pytest.mark.parametrize("loss", [losses.invariance, losses.vicreg, losses.vc, losses.bcs])
def test_one_view_alone_is_refused(loss):
    with pytest.raises(InputError, match=r"^(z|views): "):
        loss(torch.randn(1, 8, 4))


def test_slices_are_others_at_every_step_and_seed_and_those_that_they_always_were():
    assert torch.equal(losses.slices_of(3, 2, 5, 4), losses.random_directions(5, 4, 20_000_003))
    drawn = [losses.slices_of(step, seed, 5, 4) for step in range(3) for seed in range(3)]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_unusable_scale_and_points_are_refused_by_name():
    with pytest.raises(InputError, match=r"^scale: 'other'.*eb, lejepa"):
        losses.bcs(torch.randn(2, 8, 4), scale="other")
    with pytest.raises(InputError, match=r"^points: 1 "):
        losses.sigreg(torch.randn(2, 8, 4), directions(4), points=1)
