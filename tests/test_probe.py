import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from jepa_utils import probe
from jepa_utils.encoders import build_encoder
from jepa_utils.runtime import InputError, generator

CLASSES = 4
PROBES = {"linear": probe.linear_probe, "sgd": probe.linear_probe_sgd, "knn": probe.knn_probe}
each_probe = pytest.mark.parametrize("run", PROBES.values(), ids=PROBES)


def blobs(N, F=10, apart=2.0, seed=0, center_seed=99):
    """Features (N, F) around one centre per class, and their labels."""
    g = generator(seed)
    centers = apart * torch.randn(CLASSES, F, generator=generator(center_seed))
    y = torch.randint(CLASSES, (N,), generator=g)
    return centers[y] + torch.randn(N, F, generator=g), y


@pytest.mark.parametrize("penalty", [0.1, 1e-2, 1e-3])
def test_fit_logistic_is_scikit_learns(penalty):
    h, y = blobs(300, apart=0.5)
    weight, bias = probe.fit_logistic(h, y, penalty, tolerance=1e-7)
    peer = LogisticRegression(C=1 / (penalty * len(h)), tol=1e-8, max_iter=5000).fit(h.double().numpy(), y.numpy())

    def objective(weight, bias):
        scores = h.double().numpy() @ weight + bias
        likelihood = scores[np.arange(len(h)), y] - np.log(np.exp(scores).sum(axis=1))
        return -likelihood.mean() + penalty / 2 * (weight**2).sum()

    found = [part.double().numpy() for part in (weight, bias)]
    assert objective(*found) == pytest.approx(objective(peer.coef_.T, peer.intercept_), rel=1e-5)
    largest = np.abs(peer.coef_).max()
    np.testing.assert_allclose(found[0], peer.coef_.T, rtol=0, atol=5e-3 * largest)
    # A constant added to all biases changes no prediction.
    biases, expected = (values - values.mean() for values in (found[1], peer.intercept_))
    np.testing.assert_allclose(biases, expected, rtol=0, atol=5e-3 * largest)


def test_fit_logistic_ends_in_the_same_place_wherever_it_starts_and_leaves_the_start():
    h, y = blobs(300, apart=0.5)
    weight, bias = probe.fit_logistic(h, y, 1e-2)
    start = torch.randn(10, CLASSES, generator=generator(1)), torch.zeros(CLASSES)
    before = start[0].clone()
    again, _ = probe.fit_logistic(h, y, 1e-2, start)
    torch.testing.assert_close(again, weight, rtol=0, atol=5e-3)
    elsewhere, _ = probe.fit_logistic(h, y, 1e-2, moments=probe.second_moments(blobs(100, seed=1)[0]))
    torch.testing.assert_close(elsewhere, weight, rtol=0, atol=5e-3)
    assert torch.equal(start[0], before)


@pytest.mark.parametrize("features", [
    "more than images", "copies", "constant", pytest.param("smooth pictures", marks=pytest.mark.slow),
])
def test_fit_logistic_finds_the_minimum_where_features_depend_on_each_other(features):
    (h, y), penalty = blobs(200, apart=0.5), 1e-4
    h = {
        "more than images": torch.randn(200, 300, generator=generator(5)), "copies": h.repeat(1, 20),
        "constant": torch.cat([h, torch.zeros(200, 5)], dim=1),
        "smooth pictures": (h @ torch.randn(10, 3072, generator=generator(6))).cumsum(dim=1) / 50,
    }[features]
    weight, bias = probe.fit_logistic(h, y, penalty, tolerance=1e-7)
    scores = h.double() @ weight.double() + bias.double()
    one_hot = torch.nn.functional.one_hot(y, CLASSES).double()
    error = torch.softmax(scores, dim=1) - one_hot
    slope = h.double().mT @ error / len(h) + penalty * weight.double()  # 0 at the minimum
    at_start = h.double().mT @ (1 / CLASSES - one_hot) / len(h)
    assert slope.abs().max() < 1e-3 * at_start.abs().max()
    assert error.mean(dim=0).abs().max() < 1e-4


@each_probe
def test_probes_read_separable_features(run):
    train, test = blobs(600), blobs(300, seed=1)
    assert run(*train, *test) > 99


@each_probe
def test_probes_read_nothing_from_labels_drawn_at_random(run):
    train_h, test_h = (torch.randn(2000, 10, generator=generator(seed)) for seed in (0, 1))
    train_y, test_y = (torch.randint(CLASSES, (2000,), generator=generator(seed)) for seed in (2, 3))
    assert run(train_h, train_y, test_h, test_y) == pytest.approx(100 / CLASSES, abs=4)  # four standard deviations


@each_probe
def test_probes_ignore_a_features_offset_and_unit(run):
    train, test = blobs(400, apart=1.0), blobs(300, apart=1.0, seed=1)
    stretch = 10 ** torch.linspace(-3, 3, 10) if run is not probe.knn_probe else torch.tensor(1e-3)
    shift = 0 if run is probe.knn_probe else 5 * stretch  # cosines need the features' origin and shape
    expected = run(*train, *test)
    moved_train, moved_test = (h * stretch + shift for h in (train[0], test[0]))
    assert run(moved_train, train[1], moved_test, test[1]) == pytest.approx(expected, abs=0.7)


@each_probe
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_no_probe_chooses_by_the_test_labels(run, seed):
    """Each prediction is right under exactly one of the shifts of all test labels, if it is always the same one."""
    train_h, train_y = blobs(60, F=30, apart=0.3, seed=seed)  # few and noisy: choices change the predictions
    test_h, test_y = blobs(100, F=30, apart=0.3, seed=seed + 10)
    scores = [run(train_h, train_y, test_h, (test_y + shift) % CLASSES) for shift in range(CLASSES)]
    assert sum(scores) == pytest.approx(100, abs=1e-3)


@each_probe
def test_no_probe_adapts_to_the_test_features(run):
    train, (test_h, test_y) = blobs(200, apart=0.5), blobs(400, apart=0.5, seed=1)
    halves = [run(*train, test_h[part], test_y[part]) for part in (slice(0, 200), slice(200, 400))]
    assert run(*train, test_h, test_y) == pytest.approx(sum(halves) / 2, abs=1e-3)


@pytest.mark.parametrize(("F", "apart", "seed", "best"), [(120, 0.1, 0, 10), (60, 0.25, 1, 0.1), (30, 0.25, 2, 1e-5)])
def test_the_penalty_is_the_best_on_the_validation_part(monkeypatch, F, apart, seed, best):
    (h, y), penalties = blobs(400, F=F, apart=apart, seed=seed), (0.1, 10, 1e-5)
    fits, fit = [], probe.fit_logistic

    def spy(h, y, penalty, *more):
        fits.append((penalty, len(y), fit(h, y, penalty, *more)))
        return fits[-1][2]

    monkeypatch.setattr(probe, "fit_logistic", spy)
    probe.linear_probe(h, y, h[:10], y[:10], penalties)
    (_, held_out), h = probe.validation_split(400), (h - h.mean(dim=0)) / h.std(dim=0)
    scores = {penalty: ((h[held_out] @ w + b).argmax(dim=1) == y[held_out]).float().mean().item()
              for penalty, _, (w, b) in fits[:3]}
    assert len(set(scores.values())) == 3  # else there is nothing to choose
    assert best == max(scores, key=scores.get)
    fitted = [(penalty, N) for penalty, N, _ in fits]
    assert fitted == [(10, 360), (0.1, 360), (1e-5, 360), (best, 400)]  # the best then on everything


def test_the_sgd_probe_keeps_its_best_epoch(monkeypatch):
    train, test = blobs(200, apart=0.3), blobs(50, apart=0.3, seed=1)

    def scores_on_test(validation):
        """What the classifier finally says of the test features, had its epochs scored `validation`."""
        seen, told = [], iter([*validation, 0.0])
        monkeypatch.setattr(probe, "accuracy", lambda scores, y: seen.append(scores) or next(told))
        probe.linear_probe_sgd(*train, *test, epochs=len(validation))
        return seen[-1]

    best_second = scores_on_test([10, 40, 30, 20])
    assert torch.equal(best_second, scores_on_test([10, 40, 20, 30]))
    for best_elsewhere in ([40, 30, 20, 10], [10, 20, 40, 30], [10, 20, 30, 40]):
        assert not torch.allclose(best_second, scores_on_test(best_elsewhere))


def test_the_sgd_probes_rate_falls_by_a_cosine(monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def noting(optimizer, *args, **options):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", noting)
    probe.linear_probe_sgd(*blobs(200), *blobs(50, seed=1), epochs=4, lr=0.1, batch_size=500)  # a step an epoch
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)])


def numpy_knn(train_h, train_y, test_h, k, temperature):
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train_h, test_h))
    guesses = []
    for query in test:
        cosine = train @ query
        votes = np.zeros(train_y.max() + 1)
        for i in np.argsort(-cosine)[:k]:
            votes[train_y[i]] += np.exp(cosine[i] / temperature)
        guesses.append(votes.argmax())
    return np.array(guesses)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 5.0), (500, 0.5)])
def test_knn_is_the_loop_over_neighbours(k, temperature):
    train_h, train_y = blobs(120, apart=0.4)
    test_h, _ = blobs(1100, apart=0.4, seed=1)  # more than one part of queries
    train_h, test_h = train_h.double(), test_h.double()
    guesses = torch.tensor(numpy_knn(train_h.numpy(), train_y.numpy(), test_h.numpy(), k, temperature))
    assert probe.knn_probe(train_h, train_y, test_h, guesses, k, temperature) == 100


def test_standardize_uses_the_training_features_and_silences_dead_ones():
    train, test = blobs(200)[0] * 7 + 3, blobs(50, seed=1)[0] * 7 + 3
    train[:, 2], train[:, 5] = 0.1, 0.0  # dead
    a, b = probe.standardize(train, test)
    alive = torch.tensor([i not in (2, 5) for i in range(10)])
    torch.testing.assert_close(a.mean(dim=0), torch.zeros(10), rtol=0, atol=1e-5)
    torch.testing.assert_close(a.std(dim=0), alive.float(), rtol=0, atol=1e-5)
    array, mean, std = test.numpy(), train.numpy().mean(axis=0), train.numpy().std(axis=0, ddof=1)
    np.testing.assert_allclose(b[:, alive], ((array - mean) / np.where(alive, std, 1))[:, alive], rtol=1e-4, atol=1e-5)
    assert (b[:, ~alive] == 0).all()
    assert (probe.standardize(torch.ones(5, 3), torch.rand(4, 3))[1] == 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_features_leave_the_encoder_as_it_was(training):
    encoder = build_encoder(dobs=3, henc=4).train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    h = probe.features(encoder, torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8), batch_size=4)
    assert all(module.training == training for module in encoder.modules())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert h.shape == (10, 16)
    assert h.dtype == torch.float32
    assert not h.requires_grad


def test_features_are_those_of_evaluation_mode_whatever_the_batch_size(monkeypatch):
    monkeypatch.setattr(probe, "autocast", lambda device: nullcontext())
    encoder, images = build_encoder(dobs=3, henc=4).train(), torch.rand(10, 3, 32, 32, generator=generator(0))
    h = probe.features(encoder, images, batch_size=3)
    torch.testing.assert_close(h, probe.features(encoder, images), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(h, encoder.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("N", "share", "held_out"), [(100, 0.1, 10), (7, 0.5, 4), (5, 0.01, 1)])
def test_validation_split_is_disjoint_covering_and_decided_by_its_seed(N, share, held_out):
    rest, validation = probe.validation_split(N, share, seed=3)
    assert len(validation) == held_out
    assert sorted([*rest.tolist(), *validation.tolist()]) == list(range(N))
    assert all(map(torch.equal, probe.validation_split(N, share, seed=3), (rest, validation)))
    assert not torch.equal(torch.cat(probe.validation_split(N, share, seed=4)), torch.cat([rest, validation]))


def test_accuracy_is_the_percentage_of_rows_led_by_their_label():
    scores = torch.tensor([[2.0, 1, 0], [0, 1, 2], [5, 6, 1], [-1, -2, -3]])
    assert probe.accuracy(scores, torch.tensor([0, 1, 1, 0])) == 75


def test_raw_pixels_are_the_flattened_images():
    images = torch.randint(0, 256, (3, 2, 4, 5), dtype=torch.uint8)
    np.testing.assert_allclose(probe.raw_pixels(images), images.numpy().reshape(3, 40) / 255, rtol=1e-6)


(H, Y), (TEST_H, TEST_Y) = blobs(60, F=6), blobs(40, F=6, seed=1)
SPOILT_H, SPOILT_Y = {  # what is given: features, labels
    "a vector": lambda h: h[:, 0], "a table of tables": lambda h: h[None],
    "no feature": lambda h: h[:, :0], "no image": lambda h: h[:0],
    "whole numbers": lambda h: h.long(), "a hole": lambda h: h.masked_fill(torch.eye(len(h), 6) > 0, math.nan),
    "infinity": lambda h: h / 0, "what float32 cannot hold": lambda h: 1e300 * h.double(),
    "an array": lambda h: h.numpy(),
}, {
    "one too few": lambda y: y[1:], "floats": lambda y: y.float(), "truth values": lambda y: y > 1,
    "negative": lambda y: y - 1, "one-hot": lambda y: torch.nn.functional.one_hot(y),
    "a column": lambda y: y[:, None], "a list": lambda y: y.tolist(),
}


def spoilt(run, place, spoil):
    sets = [H, Y, TEST_H, TEST_Y]
    sets[place] = spoil(sets[place])
    return run(*sets)


# what is given, the call, the parameter that the error names
BAD = [
    *((f"{name}, {parameter}: {what}", lambda run=run, place=place, spoil=spoil: spoilt(run, place, spoil), parameter)
      for name, run in PROBES.items()
      for place, parameter in enumerate(("train_h", "train_y", "test_h", "test_y"))
      for what, spoil in (SPOILT_Y if place % 2 else SPOILT_H).items()),
    *((f"{name}: other features in the test set", lambda run=run: run(H, Y, TEST_H[:, 1:], TEST_Y), "test_h")
      for name, run in PROBES.items()),
    ("standardize: one image", lambda: probe.standardize(H[:1], TEST_H), "train_h"),
    ("standardize: other features", lambda: probe.standardize(H, TEST_H[:, 1:]), "test_h"),
    ("no penalty", lambda: probe.linear_probe(H, Y, TEST_H, TEST_Y, ()), "penalties"),
    ("a negative penalty", lambda: probe.linear_probe(H, Y, TEST_H, TEST_Y, (0.1, -0.1)), "penalties"),
    ("a penalty that is no number", lambda: probe.linear_probe(H, Y, TEST_H, TEST_Y, (math.nan,)), "penalties"),
    ("fit: negative penalty", lambda: probe.fit_logistic(H, Y, -1.0), "penalty"),
    ("fit: infinite penalty", lambda: probe.fit_logistic(H, Y, math.inf), "penalty"),
    ("fit: labels missing", lambda: probe.fit_logistic(H, Y[1:], 0.1), "y"),
    ("fit: a class without weights", lambda: probe.fit_logistic(H, Y, 0.1, (torch.zeros(6, 2), torch.zeros(2))), "y"),
    ("fit: a hole", lambda: probe.fit_logistic(SPOILT_H["a hole"](H), Y, 0.1), "h"),
    ("fit: squares beyond float32", lambda: probe.fit_logistic(1e30 * H, Y, 0.1), "h"),
    ("no neighbour", lambda: probe.knn_probe(H, Y, TEST_H, TEST_Y, k=0), "k"),
    ("a fraction of neighbours", lambda: probe.knn_probe(H, Y, TEST_H, TEST_Y, k=1.5), "k"),
    ("temperature 0", lambda: probe.knn_probe(H, Y, TEST_H, TEST_Y, temperature=0), "temperature"),
    ("negative temperature", lambda: probe.knn_probe(H, Y, TEST_H, TEST_Y, temperature=-0.07), "temperature"),
    *((f"{parameter} in words", call, parameter) for parameter, call in {
        "penalties": lambda: probe.linear_probe(H, Y, TEST_H, TEST_Y, ("small",)),
        "penalty": lambda: probe.fit_logistic(H, Y, "small"),
        "temperature": lambda: probe.knn_probe(H, Y, TEST_H, TEST_Y, temperature="warm"),
        "lr": lambda: probe.linear_probe_sgd(H, Y, TEST_H, TEST_Y, lr="fast"),
        "share": lambda: probe.validation_split(10, "half"),
        "percent": lambda: probe.standard_error("many", 10),
    }.items()),
    ("no epoch", lambda: probe.linear_probe_sgd(H, Y, TEST_H, TEST_Y, epochs=0), "epochs"),
    ("no batch", lambda: probe.linear_probe_sgd(H, Y, TEST_H, TEST_Y, batch_size=0), "batch_size"),
    ("no learning rate", lambda: probe.linear_probe_sgd(H, Y, TEST_H, TEST_Y, lr=0.0), "lr"),
    ("one image to split", lambda: probe.validation_split(1), "N"),
    ("no share", lambda: probe.validation_split(10, 0.0), "share"),
    ("all of it", lambda: probe.validation_split(10, 1.0), "share"),
    ("accuracy: NaN", lambda: probe.accuracy(torch.full((3, 2), math.nan), torch.zeros(3).long()), "scores"),
    ("accuracy: labels as a column", lambda: probe.accuracy(torch.zeros(3, 2), torch.zeros(3, 1).long()), "y"),
    ("online: negative labels", lambda: probe.OnlineProbe(6, Y - 1), "labels"),
    ("online: labels in floats", lambda: probe.OnlineProbe(6, Y.float()), "labels"),
    ("online: no labels", lambda: probe.OnlineProbe(6, Y[:0]), "labels"),
    ("online: other features", lambda: probe.OnlineProbe(5, Y).step(H[:8], torch.arange(8)), "h"),
    ("online: other images", lambda: probe.OnlineProbe(6, Y).step(H[:7], torch.arange(8)), "h"),
    ("online: one image", lambda: probe.OnlineProbe(6, Y).step(H[:1], torch.arange(1)), "h"),
    ("pixels out of range", lambda: probe.raw_pixels(torch.full((2, 3, 4, 4), 255.0)), "images"),
]


@pytest.mark.fault("bad input to probes")
@pytest.mark.parametrize(("what", "call", "parameter"), BAD, ids=[row[0] for row in BAD])
def test_what_cannot_be_used_is_refused_by_name(what, call, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        call()


@each_probe
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_features_of_any_precision_are_read_as_float32(run, dtype):
    h, test_h = (x.to(dtype) for x in (H, TEST_H))
    assert run(h, Y, test_h, TEST_Y) == run(h.float(), Y, test_h.float(), TEST_Y)


@each_probe
def test_labels_of_any_whole_type_are_read(run):
    assert run(H, Y.to(torch.uint8), TEST_H, TEST_Y.int()) == run(H, Y, TEST_H, TEST_Y)


@each_probe
@pytest.mark.parametrize("where", [
    "validation alone", "test alone", "one class", "gaps", "huge numbers", "most classes once"])
def test_rare_and_missing_classes_are_read(run, where):
    y, test_y = Y.clone(), TEST_Y.clone()
    if where == "validation alone":
        y[probe.validation_split(len(y))[1][0]] = 7
    elif where == "test alone":
        test_y[0] = 9
    elif where == "one class":
        y, test_y = torch.full_like(y, 3), torch.full_like(test_y, 3)
    elif where == "most classes once":
        y = torch.arange(len(y))
    else:
        y, test_y = (10 ** (3 if where == "gaps" else 17) * part for part in (y, test_y))
    score = run(H, y, TEST_H, test_y)
    expected = {"one class": 100, "gaps": run(H, Y, TEST_H, TEST_Y), "huge numbers": run(H, Y, TEST_H, TEST_Y)}
    assert score == expected[where] if where in expected else 0 <= score < 100


@each_probe
def test_dead_and_very_unequal_features_spoil_nothing(run):
    """Dead ones, a constant one that only the test set breaks, and all of them dead."""
    sets = (*blobs(200), *blobs(150, seed=1))
    more, test_more = torch.zeros(200, 3), torch.zeros(150, 3)
    more[:, 1] = test_more[:, 1] = 0 if run is probe.knn_probe else 0.1
    test_more[::2, 2] = 0 if run is probe.knn_probe else 5e4
    padded = torch.cat([sets[0], more], dim=1), sets[1], torch.cat([sets[2], test_more], dim=1), sets[3]
    assert run(*padded) == pytest.approx(run(*sets), abs=0.7)
    assert 0 <= run(torch.zeros(200, 4), sets[1], torch.zeros(150, 4), sets[3]) <= 60


def test_standardize_sees_no_unit_however_small_or_large():
    unit = 10 ** torch.linspace(-15, 15, 10, dtype=torch.float64)
    plain = blobs(50)[0], blobs(20, seed=1)[0]
    scaled = ((x.double() * unit).float() for x in plain)
    for found, expected in zip(probe.standardize(*scaled), probe.standardize(*plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("temperature", [1e-4, 0.07])
def test_neighbours_are_found_at_any_scale_and_temperature(scale, temperature):
    """exp(1 / 0.01) is more than float32 holds: then all classes with a near neighbour would score the same."""
    (h, y), (test_h, test_y) = blobs(120, apart=0.4), blobs(100, apart=0.4, seed=1)
    nearest_alone = {"k": 1} if temperature < 0.01 else {}
    expected = probe.knn_probe(h, y, test_h, test_y, **nearest_alone)
    found = probe.knn_probe(h * scale, y, test_h * scale, test_y, temperature=temperature)
    assert found == pytest.approx(expected, abs=1.1)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_a_constant_channel_of_a_batch_leaves_the_online_probe_finite(value):
    head, h = probe.OnlineProbe(6, Y), H.clone()
    h[:, 2] = value
    for _ in range(3):
        assert head.step(h[:16], torch.arange(16))["online_probe"].isfinite()
    assert all(parameter.isfinite().all() for parameter in head.parameters())


def test_the_smallest_split_has_one_image_on_either_side():
    assert [len(part) for part in probe.validation_split(2, 0.9)] == [1, 1]


@pytest.mark.parametrize(("share", "N"), [(0.8, 2000), (0.1, 500), (0.5, 10_000)])
def test_the_standard_error_is_the_spread_of_accuracies_over_test_sets(share, N):
    drawn = np.random.default_rng(0).binomial(N, share, size=20_000) / N
    assert probe.standard_error(100 * share, N) == pytest.approx(100 * drawn.std(), rel=0.03)


@pytest.mark.parametrize(("percent", "N", "name"), [
    (101, 10, "percent"), (-1, 10, "percent"), (float("nan"), 10, "percent"), (50, 0, "N"), (50, 2.5, "N")])
def test_a_standard_error_of_nonsense_is_refused(percent, N, name):
    with pytest.raises(InputError, match=rf"^{name}: "):
        probe.standard_error(percent, N)
