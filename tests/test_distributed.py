"""Two processes that share a batch are one process that has it whole: losses, gradients, steps, runs."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from training import IMAGES, TINY, fit, tiny_vit, without

from jepa_utils import distributed, models, runtime
from jepa_utils.runtime import InputError
from jepa_utils.train import build_loss

pytestmark = pytest.mark.slow  # it starts processes

RUNS = {
    "vicreg": replace(TINY, loss_type="vicreg", projector="16-8", epochs=1),
    "bcs": replace(TINY, loss_type="bcs", projector="16-8", epochs=1, views=3),
    "visreg": replace(TINY, loss_type="visreg", projector="16-8", epochs=1),
    "lejepa": replace(TINY, loss_type="bcs", lmbd=0.05, scale="lejepa", epochs=1),
    "vc, predictive": replace(TINY, loss_type="vc", predictor="conv", epochs=1),
    "mlp predictor, lars": replace(TINY, loss_type="vicreg", predictor="mlp", optimizer="lars", lr=0.1, epochs=1),
}


def prepare():
    """What holds for all that a process does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    runtime.fast_bf16 = lambda device: False  # bf16 would round two half batches unlike one whole


def take_part(rank, rendezvous, job, *arguments):
    """The result of `job` in one of two processes, which meet for it over the loopback interface and part again."""
    dist.init_process_group("gloo", f"file://{rendezvous}", timedelta(minutes=1), rank=rank, world_size=2)
    try:
        return pickle.dumps(job(*arguments))
    finally:
        distributed.stop()  # after an error, too: so the other does not wait


@pytest.fixture(scope="module")
def pair():
    """Two processes that stay: what takes longest is to start one."""
    one, two = (ProcessPoolExecutor(1, get_context("spawn"), prepare) for _ in range(2))
    with one, two:
        yield one, two


@pytest.fixture
def together(pair, tmp_path):
    """The results of a job in each of two processes; all errors, if there are any: one's may be that the other left."""
    def call(job, *arguments):
        meeting = tmp_path / uuid4().hex  # a place of its own for each job
        results = [process.submit(take_part, rank, meeting, job, *arguments) for rank, process in enumerate(pair)]
        if errors := [error for result in results if (error := result.exception(timeout=240))]:
            raise BaseExceptionGroup("not together", errors)
        return [pickle.loads(result.result()) for result in results]

    return call


def fails_in_one_process():
    if distributed.rank() == 1:
        raise ArithmeticError("in one of two")
    distributed.agreed(0)
    distributed.gather(torch.zeros(1, 1))


def test_an_error_in_one_process_is_told_and_keeps_nobody_from_the_next_job(together):
    with pytest.raises(ExceptionGroup) as raised:
        together(fails_in_one_process)
    assert [str(error) for error in raised.value.exceptions if isinstance(error, ArithmeticError)] == ["in one of two"]
    assert together(distributed.rank) == [0, 1]


def loss_and_gradients(config):
    """Terms of the loss for this process's share of a batch, and the gradient of their sum for its rows."""
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 32, 6, generator=g), torch.randn(2, 32, 6, generator=g)
    z, predicted = (x[:, distributed.share(32)].clone().requires_grad_() for x in whole)
    terms = distributed.whole_batch(build_loss(config))(z, predicted, 3)
    sum(terms.values()).backward()
    gradients = (x.grad / distributed.processes() for x in (z, predicted))
    return {name: term.detach() for name, term in terms.items()}, *gradients


@pytest.mark.parametrize("config", [RUNS[name] for name in ("vicreg", "bcs", "visreg", "lejepa", "vc, predictive")],
                         ids=lambda c: f"{c.loss_type} {c.scale}")
def test_losses_and_gradients_are_those_of_the_whole_batch(together, config):
    terms, *gradients = loss_and_gradients(config)
    shares = together(loss_and_gradients, config)
    for share in shares:
        torch.testing.assert_close(share[0], terms, rtol=1e-5, atol=1e-7)
    for i, gradient in enumerate(gradients, 1):  # DistributedDataParallel divides by the number of processes
        torch.testing.assert_close(torch.cat([share[i] for share in shares], dim=1), gradient, rtol=1e-5, atol=1e-7)


def run(config, out=None, resume=False, leave_after=None):
    """Weights and history of a run; `leave_after` that many epochs it is interrupted."""
    class Left(Exception):
        pass

    def on_epoch(epoch, model):
        if epoch == leave_after:
            raise Left

    try:
        model, history = fit(config, Path(out) if out else None, resume, on_epoch)
    except Left:
        return None
    return model.state_dict(), history


def assert_same_run(one, other):
    for name, weights in other[0].items():
        if name != "projector.3.bias":  # shifts all embeddings alike: its gradient is rounding, which AdamW enlarges
            torch.testing.assert_close(one[0][name], weights, rtol=1e-4, atol=2e-5,
                                       msg=lambda told, name=name: f"{name}: {told}")
    assert len(one[1]) == len(other[1])
    for record, expected in zip(one[1], other[1], strict=True):
        assert record == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.fixture
def full_precision(monkeypatch):
    monkeypatch.setattr(runtime, "fast_bf16", lambda device: False)


@pytest.mark.parametrize("name", RUNS)
def test_three_optimizer_steps_in_two_processes_are_three_in_one(together, full_precision, name):
    assert len(IMAGES) // RUNS[name].batch_size == 3
    alone = run(RUNS[name])
    for shared in together(run, RUNS[name]):
        assert_same_run(shared, alone)


def run_vit(config):
    """`run` with a small ViT."""
    with patch.object(models, "build_encoder", tiny_vit):
        return run(config)


def test_micro_batches_in_two_processes_are_the_whole_batch_in_one(together, full_precision):
    config = replace(TINY, model_type="vit_s", loss_type="vicreg", projector="16-8", optimizer="lars", lr=0.1, epochs=1)
    alone = run_vit(config)
    for shared in together(run_vit, replace(config, micro_batch=3)):  # of the 16 views that each process has
        assert_same_run(shared, alone)


def test_a_run_goes_on_with_another_number_of_processes(together, tmp_path, full_precision):
    config, out = replace(RUNS["bcs"], epochs=3), str(tmp_path / "out")
    undisturbed = run(config)
    together(run, config, out, False, 1)
    assert_same_run(run(config, out, True), undisturbed)


def test_one_process_goes_on_as_two(together, tmp_path, full_precision):
    config, out = replace(RUNS["vicreg"], epochs=3), str(tmp_path / "out")
    run(config, out, False, 1)
    undisturbed = run(config)
    for shared in together(run, config, out, True):
        assert_same_run(shared, undisturbed)


def first_rows(N):
    seen = []
    rows = distributed.spread(lambda x: seen.append(len(x)) or 2.0 * x, torch.arange(N).float()[:, None])
    return rows, seen


@pytest.mark.parametrize("N", [1, 7, 8])
def test_features_are_computed_in_shares_and_put_together_in_order(together, N):
    for rows, seen in together(first_rows, N):
        assert torch.equal(rows, 2.0 * torch.arange(N)[:, None])
        assert seen == [-(-N // 2)]


def uneven_batch():
    with pytest.raises(InputError, match=r"^batch_size: 15 was given; accepted: a multiple of the 2 processes"):
        fit(replace(TINY, batch_size=15))


def test_a_batch_that_cannot_be_shared_out_is_refused(together):
    together(uneven_batch)


def test_torchrun_gives_one_result_from_one_writer(tmp_path):
    options = "--limit 48 --batch_size 16 --henc 4 --dstc 8 --hpre 4 --epochs 2 --probe_epochs 2 --json --device cpu"
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    results = {}
    for processes in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        out = tmp_path / str(processes)
        done = subprocess.run([*launch, str(ROOT / "main.py"), *options.split(), "--out", str(out)],
                              capture_output=True, text=True, env=environment, timeout=240)
        assert done.returncode == 0, done.stderr
        results[processes] = json.loads(done.stdout.splitlines()[-1])
        assert done.stdout.count("linear probe on digits") == 1
        assert sorted(path.name for path in out.iterdir()) == [
            "checkpoint.pt", "config.json", "encoder.pt", "history.json", "metrics.json"]
    assert [results[n]["processes"] for n in (1, 2)] == [1, 2]
    assert results[2]["loss"] == pytest.approx(results[1]["loss"], rel=0.02)  # bf16, where the machine has it
    texts = ((tmp_path / str(n) / "history.json").read_text(encoding="utf-8") for n in (1, 2))
    histories = (without(json.loads(text), "seconds") for text in texts)
    for one, two in zip(*histories, strict=True):
        assert two["lr"] == one["lr"]


def test_an_error_under_torchrun_is_told_once(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = ["--dataset", "folder", "--data_path", str(tmp_path / "none")]
    done = subprocess.run([*launch, str(ROOT / "main.py"), *options],
                          capture_output=True, text=True, env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"}, timeout=240)
    assert done.returncode != 0
    assert done.stderr.count("main.py: error: data_path") == 1
