"""Recorded steps without a GPU: the parts that CUDA plays are played here, capture and replay by calling."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import training

from jepa_utils import losses, train
from jepa_utils.replay import WARMUP, Replay


class Graph:
    """Remembers the step that was captured; a real one keeps its kernels."""

    def __init__(self):
        self.replays = 0

    def replay(self):
        self.replays += 1
        if self.replays > 1:  # capture computed the first one, which a real one would not
            for name, value in self.owner.step(*self.owner.inputs).items():
                self.owner.result[name].copy_(value)


@pytest.fixture
def played(monkeypatch):
    """All Replays that are made while torch.cuda is played."""
    made, begin = [], Replay.__init__

    def watched(self, *args):
        begin(self, *args)
        made.append(self)

    def capture(graph, stream):
        graph.owner = made[-1]
        return nullcontext()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    stand_ins = {"Stream": lambda device: stream, "current_stream": lambda device: stream, "CUDAGraph": Graph,
                 "stream": lambda stream: nullcontext(), "graph": capture}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(Replay, "__init__", watched)
    return made


@pytest.mark.parametrize("optimizer", ["adamw", "lars", "muon"])
@pytest.mark.parametrize("loss", ["vc", "vicreg", "bcs", "visreg", "none"])
def test_a_recorded_training_has_the_rates_and_slices_of_the_plain_one(monkeypatch, played, loss, optimizer):
    config = replace(training.TINY, loss_type=loss, optimizer=optimizer, epochs=3)
    plain, history = training.fit(config)
    monkeypatch.setattr(train, "may_record", lambda *_: True)
    monkeypatch.setattr(train, "recordable", lambda *_: None)  # Adam refuses, on a CPU
    model, recorded = training.fit(config)
    [only] = played
    assert only.graph.replays == 9 - WARMUP
    for record, expected in zip(recorded, history, strict=True):
        assert record == pytest.approx(expected, rel=1e-4)
    for p, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-3, atol=1e-5)


def test_a_loss_of_ones_own_is_not_recorded(monkeypatch, played):
    monkeypatch.setattr(train, "may_record", lambda *_: True)
    training.fit(replace(training.TINY, epochs=1), loss=lambda z, predicted, step: losses.vc(z, predicted))
    assert played == []


def test_results_are_overwritten_and_inputs_copied(played):
    total = torch.zeros(())

    def step(x):
        return {"total": total.add_(x.sum()).clone()}

    recorded, x = Replay(step, torch.device("cpu")), torch.ones(2)
    results = [recorded(x * i) for i in range(WARMUP + 3)]
    assert total == 2 * sum(range(WARMUP + 3))
    assert results[-1]["total"] is results[-2]["total"]
