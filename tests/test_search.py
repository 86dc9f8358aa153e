"""Search: against plain NumPy in float64, and by what must hold for any features."""

import numpy as np
import pytest
import torch

from jepa_utils import search
from jepa_utils.runtime import InputError, generator


def features(N=40, F=6, seed=0):
    return torch.randn(N, F, generator=generator(seed)) * torch.tensor([5.0, 1, 0.1, 2, 1, 30])[:F] + 3


def cosines(h, everyone=None):
    """(N, N) in float64, by NumPy alone."""
    everyone = (h if everyone is None else everyone).double().numpy()
    h = (h.double().numpy() - everyone.mean(axis=0)) / everyone.std(axis=0, ddof=1)
    h = h / np.linalg.norm(h, axis=1, keepdims=True)
    return h @ h.T


def test_directions_are_standardised_and_of_length_1():
    h = features()
    d = search.directions(h)
    assert np.allclose((d @ d.mT).numpy(), cosines(h), atol=1e-5)
    torch.testing.assert_close(d.norm(dim=1), torch.ones(40))


def test_directions_do_not_depend_on_units_and_take_those_of_everyone():
    h = features()
    unit = torch.tensor([1e-3, 1, 7, 1e3, 1, 2])
    torch.testing.assert_close(search.directions(h * unit + 1), search.directions(h), rtol=1e-3, atol=1e-4)
    assert np.allclose(search.directions(h[:5], h) @ search.directions(h[:5], h).mT, cosines(h[:5], h), atol=1e-5)


def test_a_dead_feature_and_a_picture_at_the_mean_make_no_nan():
    h = torch.cat([features(3, 2), torch.ones(3, 1)], dim=1)
    h[2] = h[:2].mean(dim=0)
    assert search.directions(h).isfinite().all()


@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_nearest_are_those_of_a_full_sort(monkeypatch, chunk):
    monkeypatch.setattr(search, "CHUNK", chunk)
    h = features()
    cosine, row = search.nearest(search.directions(h), search.directions(h), 5)
    expected = np.argsort(-cosines(h), axis=1, kind="stable")[:, :5]
    assert np.array_equal(row.numpy(), expected)
    assert np.allclose(cosine.numpy(), np.take_along_axis(cosines(h), expected, 1), atol=1e-5)
    assert row[:, 0].tolist() == list(range(40))  # a row finds itself


def test_fewer_rows_than_asked_for_are_all_returned():
    d = search.directions(features(4))
    assert search.nearest(d, d, 10)[1].sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 4


def test_views_are_found_again_where_no_other_picture_is_nearer():
    d = torch.eye(4)
    views = torch.tensor([[1.0, 0.1, 0, 0], [1, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, -0.1, -1]])
    assert search.found_again(views, d).tolist() == [True, False, True, False]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_oddness_is_the_distance_to_the_kth_other(k):
    h = features()
    expected = 1 - np.sort(cosines(h), axis=1)[:, -1 - k]
    assert np.allclose(search.oddness(search.directions(h), k), expected, atol=1e-5)


def test_a_lonely_picture_is_the_oddest_and_twins_hide_from_the_first_neighbour_alone():
    h = torch.cat([torch.ones(20, 3) + 0.1 * features(20, 3), -torch.eye(3)[:1] * 30, -torch.eye(3)[:1] * 30.1])
    d = torch.nn.functional.normalize(h, dim=1)
    assert set(search.oddness(d, 5).topk(2).indices.tolist()) == {20, 21}
    assert not set(search.oddness(d, 1).topk(2).indices.tolist()) & {20, 21}


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("least", [0.99, 0.5, -1.0])
def test_near_duplicates_are_all_pairs_from_the_line_on_each_once(monkeypatch, chunk, least):
    monkeypatch.setattr(search, "CHUNK", chunk)
    h = features()
    h[30] = h[3] + 1e-4
    table = cosines(h)
    cosine, pairs = search.near_duplicates(search.directions(h), least)
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if table[i, j] >= least}
    assert set(map(tuple, pairs.tolist())) == expected
    assert len(pairs) == len(expected)
    assert (cosine.diff() <= 0).all()
    assert np.allclose(cosine, [table[i, j] for i, j in pairs.tolist()], atol=1e-5)
    assert pairs[0].tolist() == [3, 30]


def test_no_pair_is_an_empty_list():
    cosine, pairs = search.near_duplicates(torch.eye(3), 0.5)
    assert (cosine.shape, pairs.shape) == ((0,), (0, 2))


@pytest.mark.parametrize(("name", "call"), [
    ("d", lambda d: search.nearest(d, d[0])), ("query", lambda d: search.nearest(d[0], d)),
    ("k", lambda d: search.nearest(d, d, 0)), ("k", lambda d: search.oddness(d, 0)),
    ("d", lambda d: search.oddness(d[:1])), ("d", lambda d: search.near_duplicates(d.long())),
    ("views", lambda d: search.found_again(d[:2], d)),
])
def test_what_cannot_be_used_is_named(name, call):
    with pytest.raises(InputError, match=rf"^{name}: "):
        call(features())
