"""The toy's mathematics, written by hand in JavaScript, is that of the package: values, gradients, steps, verdicts.

Everything is compared in float64. Node runs the script of the page.
"""

import json
import os
import re
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT
from torch import nn

from jepa_utils import losses
from jepa_utils.spectra import collapse_report

PAGE = (ROOT / "docs" / "toy" / "collapse.html").read_text(encoding="utf-8")
MATHEMATICS = re.search(r'<script id="mathematics">(.*?)</script>', PAGE, re.S)[1]
WEIGHTS = {"agreement": 0.7, "variance": 5.0, "covariance": 3.0, "sigreg": 10.0}

runs_node = shutil.which("node") or os.environ.get("CI")  # where a missing one has to be noticed
needs_node = pytest.mark.skipif(not runs_node, reason="no node, which runs the script of the page")
clouds = pytest.mark.parametrize(("seed", "scale", "shift"), [(0, 1.0, 0.0), (1, 0.05, 0.3), (2, 3.0, -1.0)])


def node(expression, **names):
    """Value of a JavaScript expression in which the page's functions and these names are known."""
    given = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in names.items())
    script = f"{MATHEMATICS}\n{given}console.log(JSON.stringify({expression}))"
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def exactly(monkeypatch):
    """The package's losses in float64 instead of float32."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def cloud(seed, scale=1.0, shift=0.0, N=40):
    """Two views (2, N, 2) of a slanted cloud."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(1, N, 2, generator=g, dtype=torch.float64) @ torch.tensor([[1.0, 0.6], [0.0, 0.5]]).double()
    return scale * (z + 0.2 * torch.randn(2, N, 2, generator=g, dtype=torch.float64)) + shift


def directions(seed, K=8):
    return losses.random_directions(2, K, seed).double()


def terms(z, u):
    return {"agreement": losses.invariance(z), "variance": losses.variance(z),
            "covariance": losses.covariance(z), "sigreg": losses.sigreg(z, u)}


def weighted(z, u, weights=WEIGHTS):
    return sum(weights[name] * value for name, value in terms(z, u).items())


def same(found, wanted, atol=1e-12):
    torch.testing.assert_close(torch.tensor(found).double(), wanted.detach(), rtol=1e-9, atol=atol)


VIEWS = "z.map(view => Float64Array.from(view.flat()))"
PLAIN = "(({value, gradient}) => ({value, gradient: gradient.map(g => [...g])}))"


@needs_node
@clouds
@pytest.mark.parametrize("name", WEIGHTS)
def test_each_term_has_the_packages_value_and_gradient(exactly, name, seed, scale, shift):
    z, u = cloud(seed, scale, shift).requires_grad_(), directions(seed)
    value = terms(z, u)[name]
    (gradient,) = torch.autograd.grad(value, z)
    found = node(f"{PLAIN}({name}({VIEWS}, u))", z=z.tolist(), u=u.T.tolist())
    same(found["value"], value)
    same(found["gradient"], gradient.flatten(1))


@needs_node
@clouds
def test_the_loss_is_their_weighted_sum(exactly, seed, scale, shift):
    z, u = cloud(seed, scale, shift).requires_grad_(), directions(seed)
    value = weighted(z, u)
    (gradient,) = torch.autograd.grad(value, z)
    found = node(f"{PLAIN}(loss({VIEWS}, weights, u))", z=z.tolist(), u=u.T.tolist(), weights=WEIGHTS)
    same(found["value"], value)
    same(found["gradient"], gradient.flatten(1))


@needs_node
def test_a_training_is_that_of_notebook_03_with_its_network_and_optimizer(exactly):
    torch.manual_seed(0)
    network, u = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2)), directions(3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

    def flat():  # as the page keeps them: a hidden unit after the other, then the last biases
        (a, b, c, d) = network.parameters()
        return torch.cat([torch.cat([a, b[:, None], c.T], dim=1).flatten(), d]).tolist()

    start, steps, values = flat(), [cloud(seed) for seed in range(5)], []
    for views in steps:
        value = weighted(network(views), u)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value)
    training = f"net => ({{values: steps.map(z => train(net, {VIEWS}, weights, u).value), w: [...net.w]}})"
    found = node(f"({training})(fresh(Float64Array.from(start)))", start=start, u=u.T.tolist(), weights=WEIGHTS,
                 steps=[views.tolist() for views in steps])
    same(found["values"], torch.stack(values))
    same(found["w"], torch.tensor(flat()), atol=1e-9)


@needs_node
@pytest.mark.parametrize(("z", "state"), [
    (cloud(0), "healthy"),
    (cloud(0, scale=0.05), "scale collapse"),
    (cloud(0, scale=0.05, shift=5.0), "complete collapse"),
    (cloud(0)[..., :1] + torch.tensor([0.0, 1e-3]) * cloud(1), "dimensional collapse"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_the_verdict_and_its_figures_are_those_of_collapse_report(z, state):
    ours = collapse_report(z.flatten(0, 1))
    found = node("report(Float64Array.from(z.flat(2)))", z=z.tolist())
    assert found["state"] == state
    if state != "dimensional collapse":  # which two dimensions cannot reach by the package's threshold
        assert ours.state == state
    assert (found["std"], found["relative"], found["rank"]) == pytest.approx(
        (ours.std, ours.relative_std, ours.effective_rank), rel=1e-6)


@needs_node
def test_a_cloud_that_is_one_point_gives_figures_all_the_same():
    found = node("report(new Float64Array(20))")
    assert (found["state"], found["rank"]) == ("complete collapse", 1)


def test_the_page_is_small_and_asks_nobody_for_anything():
    assert len(PAGE.encode()) < 20_000
    assert not re.search(r"https?:|src=|@import|fetch\(", PAGE)
