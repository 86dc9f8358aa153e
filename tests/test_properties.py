"""What must hold for every input: losses, views and probes on inputs that hypothesis draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jepa_utils import losses, probe
from jepa_utils.augment import CIFAR10, DIGITS, NOTHING, Augmentation, make_views
from jepa_utils.runtime import generator

EPS = 1.2e-7  # float32's, in which losses compute
small = settings(deadline=None, derandomize=True, database=None, max_examples=20)
few = settings(small, max_examples=6)


@st.composite
def clouds(draw):
    """Embeddings (V, N, D), float64: off centre, with any scale, and dead, doubled or constant dimensions."""
    shape = draw(st.tuples(st.integers(2, 3), st.integers(2, 9), st.integers(1, 10)))
    seed = draw(st.integers(0, 2**16))
    z = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    D = shape[2]
    kinds = draw(st.lists(st.sampled_from(["free", "free", "dead", "first", "constant"]), min_size=D, max_size=D))
    for d, kind in enumerate(kinds):
        if kind != "free":
            z[..., d] = {"dead": 0.0, "first": z[..., 0], "constant": 3.0}[kind]
    return z * 10 ** draw(st.floats(-3, 1)) + draw(st.sampled_from([0.0, 0.0, 1.0]))


def directions(z):
    return losses.random_directions(z.shape[2], 6, seed=1)


TERMS = {
    "invariance": losses.invariance, "variance": losses.variance, "covariance": losses.covariance,
    "sigreg": lambda z: losses.sigreg(z, directions(z)),
}
each_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)


def size(term, z):
    """The order of what the term sums up, of which float32 leaves EPS: rounding is seen relative to this."""
    power = {losses.covariance: 4, losses.invariance: 2}.get(term, 0)
    return max(1.0 if power == 0 else 0.0, z.abs().max().item() ** power * z.shape[2])


def agree(term, z, other, tolerance=100 * EPS):
    found, expected = term(other).item(), term(z).item()
    assert found == pytest.approx(expected, rel=1e-4, abs=tolerance * size(term, z) + 1e-30)


def rotation(D, seed):
    return torch.linalg.qr(torch.randn(D, D, generator=generator(seed), dtype=torch.float64))[0]


@each_term
@small
@given(z=clouds(), seed=st.integers(0, 99))
def test_images_and_views_have_no_order(term, z, seed):
    V, N, D = z.shape
    agree(term, z, z[torch.randperm(V, generator=generator(seed))][:, torch.randperm(N, generator=generator(seed))])


@each_term
@small
@given(z=clouds(), seed=st.integers(0, 99))
def test_dimensions_have_no_order(term, z, seed):
    order = torch.randperm(z.shape[2], generator=generator(seed))
    if term is TERMS["sigreg"]:  # its slices have to come along
        reordered = losses.sigreg(z[..., order], directions(z)[order])
        assert reordered.item() == pytest.approx(term(z).item(), rel=1e-4, abs=1e-5)
    else:
        agree(term, z, z[..., order])


@each_term
@small
@given(z=clouds())
def test_no_term_is_negative_and_dtype_and_device_are_float32s_own(term, z):
    value = term(z)
    assert value >= 0
    assert (value.dtype, value.device, value.shape) == (torch.float32, z.device, ())


@small
@given(z=clouds(), seed=st.integers(0, 99))
def test_distances_between_views_do_not_turn(z, seed):
    agree(losses.invariance, z, z @ rotation(z.shape[2], seed))


@small
@given(z=clouds(), seed=st.integers(0, 99))
def test_turning_trades_variance_for_covariance_and_keeps_their_sum(z, seed):
    """The squared norm of the covariance matrix does not turn: covariance term times D, and the squared variances."""
    def norm(z):
        return losses.covariance(z).item() * z.shape[2] + z.var(dim=1).square().sum(dim=1).mean().item()

    bound = 100 * EPS * size(losses.covariance, z) * z.shape[1]
    assert norm(z @ rotation(z.shape[2], seed)) == pytest.approx(norm(z), rel=1e-4, abs=bound)


@small
@given(N=st.integers(3, 12), D=st.integers(1, 8), seed=st.integers(0, 99))
def test_whitened_clouds_lose_nothing_to_variance_and_covariance(N, D, seed):
    assume(D < N)
    z = torch.randn(1, N, D, generator=generator(seed), dtype=torch.float64)
    white = torch.linalg.qr(z - z.mean(dim=1, keepdim=True))[0] * math.sqrt(N - 1)
    assert losses.covariance(white) < 1e-9
    assert losses.variance(white) < 1e-5


@pytest.mark.parametrize("term", [losses.variance, losses.covariance], ids=["variance", "covariance"])
@small
@given(z=clouds(), shift=st.floats(-3, 3))
def test_spread_does_not_see_where_the_cloud_lies(term, z, shift):
    found, expected = term(z + shift).item(), term(z).item()
    scale = z.abs().max().item() + abs(shift)  # of which float32 keeps EPS in every coordinate
    assert found == pytest.approx(expected, rel=1e-3, abs=100 * EPS * scale * max(1, scale) ** 3 * z.shape[2])


@small
@given(z=clouds(), s=st.floats(0.1, 10))
def test_scale_laws(z, s):
    """Prediction goes with the square of the scale, covariance with its fourth power, variance falls."""
    for term, power in ((losses.invariance, 2), (losses.covariance, 4)):
        bound = 100 * EPS * size(term, z) * s**power + 1e-30
        assert term(s * z).item() == pytest.approx(s**power * term(z).item(), rel=1e-4, abs=bound)
    assert (losses.variance(s * z) - losses.variance(z)).item() * (s - 1) <= 1e-5


@each_term
@small
@given(shape=st.tuples(st.integers(2, 3), st.integers(4, 9), st.integers(1, 10)),
       scale=st.sampled_from([0.3, 0.6, 2.5]), seed=st.integers(0, 99))
def test_gradients_are_differences_in_some_direction(term, shape, scale, seed):
    """Central differences of a float32 loss: a step of 1e-2 balances rounding and curvature."""
    z, way = torch.randn(2, *shape, generator=generator(seed), dtype=torch.float64)
    z = scale * z
    way, step = way / way.norm(), 1e-2
    assume((z.std(dim=1) - 1).abs().min() > 2 * step)  # the hinge has a corner
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term(leaf), leaf)
    assert gradient.dtype == torch.float64
    difference = (term(z + step * way) - term(z - step * way)).item() / (2 * step)
    assert (gradient * way).sum().item() == pytest.approx(difference, rel=0.01, abs=1e-3)


@each_term
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@small
@given(z=clouds())
def test_half_precision_is_finite_and_the_float32_loss_of_its_values(term, dtype, z):
    leaf = z.to(dtype).requires_grad_()
    value = term(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.dtype == dtype
    assert value == term(z.to(dtype).float())


share, strength = st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.4, 1.0])
recipes = st.one_of(st.sampled_from([CIFAR10, DIGITS, NOTHING]), st.builds(
    Augmentation, scale=st.sampled_from([(0.01, 1.0), (0.5, 0.5)]), ratio=st.sampled_from([(0.2, 5.0), (1.0, 1.0)]),
    flip=share, jitter=share, brightness=strength, contrast=strength, saturation=strength,
    hue=st.sampled_from([0.0, 0.5]), grayscale=share, blur=share,
    sigma=st.sampled_from([(0.1, 2.0), (1e-3, 50.0)]), solarize=share))
shapes = st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(3, 12), st.integers(3, 12))


def bytes_of(shape, seed):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


@small
@given(recipe=recipes, shape=shapes, seed=st.integers(0, 999), views=st.integers(1, 3))
def test_views_are_images_decided_by_their_seed(recipe, shape, seed, views):
    images = bytes_of(shape, seed)
    made = make_views(images, recipe, views, generator(seed))
    assert (made.shape, made.dtype) == ((views, *shape), torch.float32)
    assert -1e-6 <= made.min() <= made.max() <= 1 + 1e-6  # also False for NaN
    assert torch.equal(made, make_views(images, recipe, views, generator(seed)))
    assert torch.equal(made, make_views(images.float() / 255, recipe, views, generator(seed)))


@small
@given(recipe=recipes, shape=shapes, seed=st.integers(0, 999), cuts=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_a_part_has_the_views_it_has_among_all(recipe, shape, seed, cuts):
    part, images = slice(*sorted(cuts)), bytes_of(shape, seed)
    assume(len(images[part]) > 0)
    whole = make_views(images, recipe, 2, generator(seed))[:, part]
    torch.testing.assert_close(make_views(images, recipe, 2, generator(seed), part), whole, rtol=0, atol=1e-6)


@small
@given(recipe=recipes, shape=shapes, seed=st.integers(0, 999))
def test_gray_stays_gray_and_an_even_image_even(recipe, shape, seed):
    gray = bytes_of((shape[0], 1, *shape[2:]), seed).expand(-1, 3, -1, -1)
    made = make_views(gray, recipe, 2, generator(seed))
    assert (made - made[:, :, :1]).abs().max() < 1e-5
    even = bytes_of((*shape[:2], 1, 1), seed).expand(shape)
    made = make_views(even, recipe, 2, generator(seed))
    assert (made - made[..., :1, :1]).abs().max() < 1e-5


@small
@given(shape=shapes, seed=st.integers(0, 999))
def test_a_flip_alone_mirrors_and_leaves_rows_of_one_value(shape, seed):
    flip = Augmentation(scale=(1, 1), ratio=(shape[3] / shape[2],) * 2, flip=1, jitter=0, grayscale=0, solarize=0)
    images = bytes_of(shape, seed)
    torch.testing.assert_close(make_views(images, flip, 1)[0], images.flip(3) / 255, rtol=0, atol=1e-5)
    rows = bytes_of((*shape[:3], 1), seed).expand(shape)
    torch.testing.assert_close(make_views(rows, flip, 1)[0], rows / 255, rtol=0, atol=1e-5)


PROBES = {
    "linear": probe.linear_probe, "knn": probe.knn_probe,
    "sgd": lambda *sets: probe.linear_probe_sgd(*sets, epochs=8, lr=0.1, batch_size=16),
}
each_probe = pytest.mark.parametrize("run", PROBES.values(), ids=PROBES)


@st.composite
def sets(draw):
    """Training and test features around one centre per class, and labels: of 1 to 4 classes, some perhaps rare."""
    g, classes, F = generator(draw(st.integers(0, 999))), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    centres, scale = torch.randn(classes, F, generator=g), draw(st.floats(0, 2))
    made = []
    for N in (draw(st.integers(2, 40)), draw(st.integers(1, 30))):
        y = torch.randint(classes, (N,), generator=g)
        made += [scale * centres[y] + torch.randn(N, F, generator=g), y]
    return made


@each_probe
@few
@given(sets=sets(), seed=st.integers(0, 99))
def test_accuracies_are_percentages_and_classes_have_no_names(run, sets, seed):
    """Names in the same order may be any numbers at all; in another order ties alone may be broken otherwise."""
    train_h, train_y, test_h, test_y = sets
    score = run(*sets)
    assert 0 <= score <= 100
    names = torch.randint(0, 10**6, (4,), generator=generator(seed)).cumsum(0) + torch.arange(4)
    assert run(train_h, names[train_y], test_h, names[test_y]) == score
    names = torch.randperm(4, generator=generator(seed))
    assert run(train_h, names[train_y], test_h, names[test_y]) == pytest.approx(score, abs=100 * 2.5 / len(test_y))


@few
@given(sets=sets(), seed=st.integers(0, 99), unit=st.sampled_from([1e-30, 1e-15, 1e30]))
def test_neighbours_have_no_order_and_no_unit(sets, seed, unit):
    train_h, train_y, test_h, test_y = sets
    distinct = {tuple(row) for row in train_h.tolist()}
    assume(len(distinct) == len(train_h) and train_h.shape[1] > 1)  # in 1-D all cosines are +-1
    score, order = probe.knn_probe(*sets), torch.randperm(len(train_y), generator=generator(seed))
    assert probe.knn_probe(train_h[order], train_y[order], test_h, test_y) == pytest.approx(score, abs=1e-3)
    scaled = train_h * unit, train_y, test_h * unit, test_y
    assert probe.knn_probe(*scaled) == pytest.approx(score, abs=1e-3)


@few
@given(sets=sets(), seed=st.integers(0, 99))
def test_the_linear_probe_sees_neither_unit_nor_offset(sets, seed):
    """Of each feature; the same penalty is chosen, and the same minimum found to a tolerance."""
    train_h, train_y, test_h, test_y = sets
    g = generator(seed)
    unit = 10 ** torch.linspace(-6, 6, train_h.shape[1])
    offset = unit * torch.randn(train_h.shape[1], generator=g)
    moved = train_h * unit + offset, train_y, test_h * unit + offset, test_y
    assert probe.linear_probe(*moved, penalties=[1e-2]) == pytest.approx(
        probe.linear_probe(*sets, penalties=[1e-2]), abs=100 * 1.5 / len(test_y))  # one image on the border


@few
@given(sets=sets(), seed=st.integers(0, 99))
def test_one_fit_does_not_see_the_order_of_its_rows(sets, seed):
    h, y, _, _ = sets
    order = torch.randperm(len(y), generator=generator(seed))
    for found, expected in zip(probe.fit_logistic(h[order], y[order], 0.1), probe.fit_logistic(h, y, 0.1), strict=True):
        torch.testing.assert_close(found - found.mean(-1, True), expected - expected.mean(-1, True), rtol=0, atol=2e-2)


@each_probe
@few
@given(classes=st.integers(2, 5), seed=st.integers(0, 99))
def test_classes_far_apart_are_all_told_apart(run, classes, seed):
    g, centres = generator(seed), 20 * torch.eye(classes)
    y, test_y = torch.arange(12 * classes) % classes, torch.arange(3 * classes) % classes
    h, test_h = (centres[labels] + torch.rand(len(labels), classes, generator=g) for labels in (y, test_y))
    assert run(h, y, test_h, test_y) == 100


@small
@given(N=st.integers(2, 500), share=st.floats(0.001, 0.999), seed=st.integers(0, 99))
def test_a_split_is_two_parts_of_all(N, share, seed):
    fit_part, held_out = probe.validation_split(N, share, seed)
    assert min(len(fit_part), len(held_out)) >= 1
    np.testing.assert_array_equal(torch.cat([fit_part, held_out]).sort().values, np.arange(N))
