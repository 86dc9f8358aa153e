"""Six methods in one step: the losses against oracles of their own, and every collapse and cure on a toy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from jepa_utils import losses
from jepa_utils.family import Method, family_step, lanes, negative_cosine, nt_xent, on_sphere
from jepa_utils.models import JEPA, build_predictor, build_projector
from jepa_utils.optimizers import Muon
from jepa_utils.runtime import InputError
from jepa_utils.spectra import collapse_report
from jepa_utils.teacher import averaged
from jepa_utils.train import lr_at

SHAPES = [(2, 8, 5), (3, 4, 6), (2, 2, 3)]
OFF = torch.amp.GradScaler("cpu", enabled=False)


def embeddings(V, N, D, seed=0):
    return np.random.default_rng(seed).normal(size=(V, N, D)) * np.linspace(0.3, 3, D) + 0.2


# --------------------------------------------------------------------------- the formulas, in NumPy float64


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def nt_xent_by_hand(z, temperature):
    """SimCLR eq. 1, view by view: the mean over views and their partners."""
    V, N, _ = z.shape
    views = [(v, n) for v in range(V) for n in range(N)]
    parts = []
    for v, n in views:
        scores = {(w, m): cosine(z[v, n], z[w, m]) / temperature for w, m in views if (w, m) != (v, n)}
        total = np.log(sum(np.exp(score) for score in scores.values()))
        parts += [total - scores[w, n] for w in range(V) if w != v]
    return np.mean(parts)


def negative_cosine_by_hand(predicted, target):
    V, N, _ = target.shape
    return -np.mean([cosine(predicted[v, n], target[w, n])
                     for v in range(V) for w in range(V) for n in range(N) if v != w])


def slope(function, x, step=1e-5):
    """The gradient of a function of one array, by central differences."""
    found = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        found[i] = (function(up) - function(down)) / (2 * step)
    return found


def value_and_gradient(loss, z):
    z = torch.tensor(z).float().requires_grad_()
    value = loss(z)
    return value.item(), torch.autograd.grad(value, z)[0].numpy()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nt_xent_is_its_formula(shape, temperature):
    z = embeddings(*shape)
    value, gradient = value_and_gradient(lambda z: sum(nt_xent(z, temperature).values()), z)
    assert value == pytest.approx(nt_xent_by_hand(z, temperature), rel=1e-5)
    np.testing.assert_allclose(gradient, slope(lambda z: nt_xent_by_hand(z, temperature), z), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_negative_cosine_is_its_formula_in_both_arguments(shape):
    p, z = embeddings(*shape), embeddings(*shape, seed=1)
    value, by_guess = value_and_gradient(lambda each: negative_cosine(each, torch.tensor(z).float()), p)
    _, by_target = value_and_gradient(lambda each: negative_cosine(torch.tensor(p).float(), each), z)
    assert value == pytest.approx(negative_cosine_by_hand(p, z), rel=1e-5)
    np.testing.assert_allclose(by_guess, slope(lambda p: negative_cosine_by_hand(p, z), p), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(by_target, slope(lambda z: negative_cosine_by_hand(p, z), z), rtol=1e-3, atol=1e-6)


def test_both_are_lightlys_at_two_views():
    peer = pytest.importorskip("lightly.loss")
    z, p = (torch.tensor(embeddings(2, 16, 8, seed)).float() for seed in (0, 1))
    for temperature in (0.1, 0.5):
        expected = peer.NTXentLoss(temperature)(z[0], z[1])
        torch.testing.assert_close(sum(nt_xent(z, temperature).values()), expected, rtol=1e-4, atol=1e-5)
    cosine_loss = peer.NegativeCosineSimilarity()
    expected = (cosine_loss(p[0], z[1]) + cosine_loss(p[1], z[0])) / 2
    torch.testing.assert_close(negative_cosine(p, z), expected, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- properties


def test_lengths_change_nothing():
    z = torch.tensor(embeddings(2, 8, 5)).float()
    longer = z * torch.logspace(-3, 3, 8)[None, :, None]
    for name, term in nt_xent(z).items():
        torch.testing.assert_close(nt_xent(longer)[name], term)
    torch.testing.assert_close(negative_cosine(longer, z), negative_cosine(z, longer))
    torch.testing.assert_close(on_sphere(longer), on_sphere(z))


def test_one_direction_for_all_pays_for_guessing_and_images_at_right_angles_pay_less():
    V, N = 2, 8
    same, apart = torch.ones(V, N, N), torch.eye(N).expand(V, N, N)
    for temperature in (0.1, 1.0):
        flat, good = (sum(nt_xent(z, temperature).values()).item() for z in (same, apart))
        assert flat == pytest.approx(np.log(V * N - 1), rel=1e-5)
        assert good == pytest.approx(np.log(1 + (V * N - 2) * np.exp(-1 / temperature)), rel=1e-3, abs=1e-5)
        assert 0 < good < flat
    assert negative_cosine(same, same).item() == pytest.approx(-1)
    assert negative_cosine(same, -same).item() == pytest.approx(1)


def test_the_pull_alone_reads_one_image_at_a_time_and_the_push_reads_all():
    z = torch.tensor(embeddings(2, 8, 5)).float()
    other = torch.cat([z[:, :1], torch.tensor(embeddings(2, 7, 5, seed=3)).float()], dim=1)

    def told(name, z):
        z = z.clone().requires_grad_()
        return torch.autograd.grad(nt_xent(z)[name], z)[0][:, 0]

    torch.testing.assert_close(told("pull", z), told("pull", other))
    assert not torch.allclose(told("push", z), told("push", other))


def test_without_a_predictor_the_stop_gradient_only_halves_the_pull():
    z = torch.tensor(embeddings(2, 8, 5)).float().requires_grad_()
    (pull,) = torch.autograd.grad(nt_xent(z, 0.2)["pull"], z)
    (stopped,) = torch.autograd.grad(negative_cosine(z, z.detach()), z)
    torch.testing.assert_close(stopped, 0.1 * pull)


def test_a_cloud_that_fills_the_sphere_has_a_std_of_one():
    z = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(on_sphere(7 * z).std(dim=0), torch.ones(16), rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_has_the_directions_of_its_values_and_zeros_stay_zeros(dtype):
    z = torch.tensor(embeddings(2, 8, 5)).to(dtype)
    assert torch.equal(on_sphere(z), on_sphere(z.float()))
    assert torch.equal(on_sphere(torch.zeros(3, 5, dtype=dtype)), torch.zeros(3, 5))


@pytest.mark.parametrize(("call", "parameter"), [
    (lambda: nt_xent(torch.randn(1, 8, 4)), "views"),
    (lambda: nt_xent(torch.randn(8, 4)), "z"),
    (lambda: nt_xent(torch.randn(2, 1, 4)), "batch_size"),
    (lambda: nt_xent(torch.randn(2, 8, 4), 0), "temperature"),
    (lambda: nt_xent(torch.randn(2, 8, 4), float("nan")), "temperature"),
    (lambda: nt_xent(torch.randn(2, 8, 4), "warm"), "temperature"),
    (lambda: negative_cosine(torch.randn(1, 8, 4), torch.randn(1, 8, 4)), "views"),
    (lambda: negative_cosine(torch.randn(1, 8, 4), torch.randn(2, 8, 4)), "predicted"),
])
def test_what_cannot_be_used_is_refused_by_name(call, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        call()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(bad):
    z = torch.randn(2, 8, 4)
    z[0, 0, 0] = bad
    assert not any(term.isfinite() for term in nt_xent(z).values())
    assert not negative_cosine(z, torch.randn(2, 8, 4)).isfinite()


# --------------------------------------------------------------------------- the step, and what it leads to

POINTS, DIMENSIONS = 8, 16


def network(predictor, seed=0):
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(POINTS, 32), nn.ReLU())
    guess = build_predictor("mlp", DIMENSIONS, 8) if predictor else None
    return JEPA(encoder, build_projector(32, f"32-{DIMENSIONS}"), guess)


def trained(method, steps=200, seed=0):
    """What is left of a cloud of points, as the loss reads it, after a training on nudged points."""
    student = network(method.predictor, seed)
    teacher = averaged(student) if method.momentum is not None else None
    optimizer, g = Muon(student.parameters(), lr=1e-2), torch.Generator().manual_seed(seed)
    points = torch.randn(512, POINTS, generator=g)
    for step in range(steps):
        batch = points[torch.randperm(512, generator=g)[:128]]
        views = batch + 0.3 * torch.randn(2, *batch.shape, generator=g)
        family_step(student, teacher, method, optimizer, OFF, views, step, lr_at(step, steps, 1e-2))
    with torch.no_grad():
        z = lanes(student, points[None])[0][0]
    return on_sphere(z) if method.sphere else z


def without(method, *terms):
    return replace(method, loss=lambda *given: {k: v for k, v in method.loss(*given).items() if k not in terms})


SIMCLR = Method(lambda z, p, t, step: nt_xent(z, 0.2), sphere=True)
SIMSIAM = Method(lambda z, p, t, step: {"prediction": negative_cosine(p, t.detach())}, predictor=True, sphere=True)
BYOL = replace(SIMSIAM, momentum=0.9)
VICREG = Method(lambda z, p, t, step: losses.vicreg(z, None, 25, 50, 2))
SIGREG = Method(lambda z, p, t, step: losses.bcs(z, None, 30, step))
VISREG = Method(lambda z, p, t, step: losses.visreg(z, None, 10, step))
WHOLE = {"SimCLR": SIMCLR, "SimSiam": SIMSIAM, "BYOL": BYOL, "VICReg": VICREG, "SIGReg": SIGREG, "VISReg": VISREG}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_the_cloud_stays_open(name):
    report = collapse_report(trained(WHOLE[name]))
    assert report.state == "healthy", report
    assert report.std > 0.6, report
    assert report.effective_rank > 6, report


@pytest.mark.parametrize("method", [
    without(SIMCLR, "push"),
    replace(SIMSIAM, predictor=False),
    replace(SIMSIAM, loss=lambda z, p, t, step: {"prediction": negative_cosine(p, z)}),
    replace(BYOL, predictor=False, momentum=0.5),
    without(VICREG, "variance"),
    without(SIGREG, "sigreg"),
    without(VISREG, "size"),
], ids=["SimCLR, no negatives", "SimSiam, no predictor", "SimSiam, no stop-gradient", "BYOL, no predictor",
        "VICReg, no variance", "SIGReg, weight 0", "VISReg, no size"])
def test_without_the_part_that_holds_it_the_cloud_collapses(method):
    assert collapse_report(trained(method)).state in ("scale collapse", "complete collapse")


@pytest.mark.parametrize(("method", "part"), [(VICREG, "covariance"), (VISREG, "shape")])
def test_without_the_part_that_keeps_dimensions_apart_the_cloud_is_open_and_flatter(method, part):
    report, whole = collapse_report(trained(without(method, part))), collapse_report(trained(method))
    assert report.std > 0.8
    assert report.effective_rank < 0.7 * whole.effective_rank


def test_a_teacher_that_never_moves_cannot_be_agreed_with_by_collapsing():
    assert collapse_report(trained(replace(BYOL, momentum=1.0))).state == "healthy"


def test_a_teacher_without_memory_makes_byol_simsiam():
    torch.testing.assert_close(trained(replace(BYOL, momentum=0.0), 20), trained(SIMSIAM, 20))


def test_the_step_moves_the_student_by_its_gradient_and_the_teacher_towards_it():
    student = network(True)
    teacher, old = averaged(student), [p.detach().clone() for p in student.parameters()]
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    views = torch.randn(2, 16, POINTS)
    terms = family_step(student, teacher, BYOL, optimizer, OFF, views, 0, 0.1)
    assert set(terms) == {"prediction"}
    assert not terms["prediction"].requires_grad
    assert all(p.grad is None for p in teacher.parameters())
    for before, own, follower in zip(old, student.parameters(), teacher.parameters(), strict=True):
        torch.testing.assert_close(own, before - 0.1 * own.grad)
        torch.testing.assert_close(follower, 0.9 * before + 0.1 * own)
