import numpy as np
import pytest
import torch

from jepa_utils import spectra
from jepa_utils.runtime import InputError, generator


def cloud(N=200, D=8, seed=0):
    """Correlated, off centre, in float32: (N, D)."""
    g = generator(seed)
    return torch.randn(N, D, generator=g) @ torch.randn(D, D, generator=g) + torch.randn(D, generator=g)


def isotropic(N=64, D=8):
    """Exactly uncorrelated and centred, with variance 1 in every dimension."""
    z = np.random.default_rng(0).normal(size=(N, D))
    return torch.tensor(np.linalg.qr(z - z.mean(axis=0))[0] * np.sqrt(N - 1))


def line(N=64, D=8):
    """All variance along one direction."""
    return torch.randn(N, 1, generator=generator(0)) @ torch.ones(1, D)


def entropy_rank(singular_values):
    share = singular_values[singular_values > 0] / singular_values.sum()
    return np.exp(-(share * np.log(share)).sum())


SHAPES = pytest.mark.parametrize(("N", "D"), [(200, 8), (50, 50), (6, 20)])  # fewer images than dimensions, too


@SHAPES
def test_eigenvalues_are_those_of_numpys_covariance(N, D):
    z = cloud(N, D)
    found = spectra.eigenvalues(z)
    expected = np.linalg.eigvalsh(np.cov(z.double().numpy().T))[::-1]
    assert found.shape == (D,)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * expected[0])


@SHAPES
def test_ranks_are_the_entropies_of_singular_values(N, D):
    z = cloud(N, D)
    array = z.double().numpy()
    centred = np.linalg.svd(array - array.mean(axis=0), compute_uv=False)
    uncentred = np.linalg.svd(array, compute_uv=False)
    assert spectra.effective_rank(z) == pytest.approx(entropy_rank(centred), rel=1e-5)
    assert spectra.rankme(z) == pytest.approx(entropy_rank(uncentred), rel=1e-5)


def ranks(z):
    return {"effective_rank": spectra.effective_rank(z), "rankme": spectra.rankme(z)}


@pytest.mark.parametrize(("z", "rank"), [(isotropic(), 8), (isotropic(D=5), 5), (line(), 1)],
                         ids=["isotropic", "isotropic-5", "line"])
def test_ranks_of_known_clouds(z, rank):
    assert ranks(z) == pytest.approx(dict.fromkeys(ranks(z), rank), rel=1e-5)


def test_ranks_with_half_of_the_dimensions_dead():
    z = torch.cat([isotropic(), torch.zeros(64, 8)], dim=1)
    assert ranks(z) == pytest.approx(dict.fromkeys(ranks(z), 8), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_ranks_see_no_scale_and_eigenvalues_its_square(scale):
    z = cloud()
    assert ranks(scale * z) == pytest.approx(ranks(z), rel=1e-4)
    torch.testing.assert_close(spectra.eigenvalues(scale * z), scale**2 * spectra.eigenvalues(z), rtol=1e-4, atol=0)


def test_only_rankme_sees_where_the_cloud_lies():
    z, moved = isotropic(), isotropic() + 1000
    assert spectra.effective_rank(moved) == pytest.approx(spectra.effective_rank(z), rel=1e-4)
    torch.testing.assert_close(spectra.eigenvalues(moved), spectra.eigenvalues(z), rtol=1e-6, atol=0)
    assert spectra.rankme(z) == pytest.approx(8)
    assert spectra.rankme(moved) < 1.2


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 3.0])
def test_within_image_share_is_that_of_the_views_in_the_variance(spread):
    g = generator(0)
    image, noise = torch.randn(1, 4000, 4, generator=g), torch.randn(3, 4000, 4, generator=g)
    assert spectra.within_image_share(image + spread * noise) == pytest.approx(spread**2 / (1 + spread**2), abs=0.01)


def test_within_image_share_when_views_say_nothing_of_their_image():
    z = torch.randn(2, 1, 4, generator=generator(0))
    assert spectra.within_image_share(z.expand(2, 50, 4)) == 1  # all images look alike
    assert spectra.within_image_share(torch.randn(2, 4000, 4, generator=generator(1))) == pytest.approx(1, abs=0.03)
    assert spectra.within_image_share(torch.ones(2, 50, 4)) == 0  # nothing varies at all


HEALTHY, DIMENSIONAL, SCALE, COMPLETE = "healthy", "dimensional collapse", "scale collapse", "complete collapse"


@pytest.mark.parametrize(("z", "scale", "state"), [
    (isotropic(), 1.0, HEALTHY),
    (cloud(500, 16), 1.0, HEALTHY),
    (cloud(6, 64), 1.0, HEALTHY),  # six images can span five dimensions at most
    (line(), 1.0, DIMENSIONAL),
    (line() + 1e-4 * isotropic(), 1.0, DIMENSIONAL),
    (line(D=128), None, DIMENSIONAL),
    (0.2 * isotropic(), 1.0, HEALTHY),
    (0.05 * isotropic(), 1.0, SCALE),
    (0.05 * isotropic(), 0.1, HEALTHY),
    (isotropic(), 20.0, SCALE),
    (0.05 * isotropic(), None, HEALTHY),  # the scale of features is free
    (1e-6 * line(), 1.0, SCALE),  # and flat as well: the graver name
    (1e-6 * line(), None, DIMENSIONAL),
    (isotropic() + 100, 1.0, COMPLETE),  # beside their length, images hardly differ
    (0.001 * isotropic() + 0.1, 1.0, COMPLETE),
    (isotropic() + 100, None, COMPLETE),
    (isotropic() + 10, None, HEALTHY),
    (torch.zeros(32, 8), 1.0, COMPLETE),
    (torch.zeros(32, 8), None, COMPLETE),
    (torch.full((32, 8), 3.0), None, COMPLETE),
])
def test_collapse_report_names_the_state_of_constructed_clouds(z, scale, state):
    report = spectra.collapse_report(z, scale)
    assert report.state == state
    assert str(report).startswith(f"{state}: std ")


def test_collapse_report_carries_the_figures_that_decide():
    z = 0.3 * isotropic() + 0.4
    report = spectra.collapse_report(z)
    assert report.dimensions == 8
    assert report.std == pytest.approx(0.3)
    assert report.effective_rank == pytest.approx(8)
    array = z.numpy()
    length = np.sqrt(np.mean(np.linalg.norm(array, axis=1) ** 2))
    spread = np.sqrt(array.var(axis=0, ddof=1).sum())
    assert report.relative_std == pytest.approx(spread / length)
    assert "60%" in str(report)  # 0.3 / sqrt(0.3^2 + 0.4^2)
    assert "8.0 of 8" in str(report)


CLOUD = cloud(20, 4)
VIEWS = torch.stack([CLOUD, CLOUD + 1])
HOLED = CLOUD.clone()
HOLED[3, 1] = float("nan")
# what is given, the call, the parameter that the error names
BAD = [
    *((f"{name} of {what}", lambda call=call, z=z: call(z), "z")
      for name, call in {"spectrum": spectra.eigenvalues, "effective rank": spectra.effective_rank,
                         "RankMe": spectra.rankme, "report": spectra.collapse_report}.items()
      for what, z in {"one image": CLOUD[:1], "views": VIEWS, "a vector": CLOUD[0], "no dimension": CLOUD[:, :0],
                      "a hole": HOLED, "infinity": CLOUD / 0, "whole numbers": CLOUD.long(),
                      "a list": CLOUD.tolist()}.items()),
    ("share of one view", lambda: spectra.within_image_share(VIEWS[:1]), "z"),
    ("share of a cloud without views", lambda: spectra.within_image_share(CLOUD), "z"),
    ("share of one image", lambda: spectra.within_image_share(VIEWS[:, :1]), "z"),
    ("share of a hole", lambda: spectra.within_image_share(torch.stack([CLOUD, HOLED])), "z"),
    ("rank of negative values", lambda: spectra.entropy_rank(torch.tensor([2.0, -1.0])), "values"),
    ("rank of a hole", lambda: spectra.entropy_rank(torch.tensor([2.0, float("nan")])), "values"),
    ("rank of a table", lambda: spectra.entropy_rank(CLOUD), "values"),
    ("rank of nothing", lambda: spectra.entropy_rank(torch.zeros(0)), "values"),
    ("rank of infinity", lambda: spectra.entropy_rank(torch.tensor([2.0, float("inf")])), "values"),
    ("no scale", lambda: spectra.collapse_report(CLOUD, 0.0), "scale"),
    ("a negative scale", lambda: spectra.collapse_report(CLOUD, -1.0), "scale"),
    ("a scale that is no number", lambda: spectra.collapse_report(CLOUD, float("nan")), "scale"),
    ("a scale in words", lambda: spectra.collapse_report(CLOUD, "large"), "scale"),
]


@pytest.mark.fault("bad input to spectra and the collapse report")
@pytest.mark.parametrize(("what", "call", "parameter"), BAD, ids=[row[0] for row in BAD])
def test_what_cannot_be_used_is_refused_by_name(what, call, parameter):
    with pytest.raises(InputError, match=f"^{parameter}: "):
        call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_gives_the_figures_of_its_values(dtype):
    z = CLOUD.to(dtype)
    assert ranks(z) == ranks(z.double())
    assert spectra.collapse_report(z) == spectra.collapse_report(z.double())


@pytest.mark.parametrize("z", [torch.zeros(5, 3), torch.zeros(5, 1), torch.ones(5, 1)],
                         ids=["zeros", "one zero", "one constant"])
def test_a_cloud_without_spread_has_finite_figures(z):
    assert (spectra.eigenvalues(z) == 0).all()
    assert spectra.effective_rank(z) == 1
    assert spectra.entropy_rank(torch.zeros(3)) == 1
    assert spectra.collapse_report(z).state == COMPLETE


def test_one_dimension_is_a_cloud_too():
    z = cloud(20, 1)
    assert spectra.eigenvalues(z).item() == pytest.approx(z.double().var().item())
    assert ranks(z) == dict.fromkeys(ranks(z), pytest.approx(1))


def test_eigenvalues_negative_by_rounding_are_zeros():
    assert spectra.entropy_rank(torch.tensor([2.0, -1e-9])) == 1
