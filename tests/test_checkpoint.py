import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from training import LABELS, TINY, Interrupted, assert_same_weights, fit, interrupt_after

from jepa_utils import losses
from jepa_utils.checkpoint import Checkpoint
from jepa_utils.runtime import InputError
from jepa_utils.train import TrainConfig, build_loss


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that stopped after two of its four epochs, for all tests to copy."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        fit(out=folder, on_epoch=interrupt_after(2))
    return folder


@pytest.fixture
def interrupted(stopped, tmp_path):
    """The folder of a run that stopped after two of its four epochs."""
    return Path(shutil.copytree(stopped, tmp_path, dirs_exist_ok=True))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("changes", [
    {"loss_type": "bcs"},
    *(pytest.param({"loss_type": "bcs", "optimizer": name}, marks=pytest.mark.slow) for name in ("lars", "muon")),
    {"loss_type": "vc", "predictor": "conv", "checkpoint_every": 3},
], ids=["adamw", "lars", "muon", "every third epoch"])
def test_a_resumed_run_ends_exactly_as_one_that_was_never_interrupted(tmp_path, monkeypatch, changes):
    config, slices, draw = replace(TINY, **changes), [], losses.random_directions
    monkeypatch.setattr(losses, "random_directions", lambda *args: slices.append(draw(*args)) or slices[-1])
    model, history = fit(config)
    undisturbed = slices[:]
    with pytest.raises(Interrupted):
        fit(config, tmp_path, on_epoch=interrupt_after(3))
    before, calls = len(slices), []
    resumed, resumed_history = fit(config, tmp_path, resume=True, on_epoch=lambda epoch, _: calls.append(epoch))
    assert resumed_history == history
    assert_same_weights(resumed, model)
    assert calls == [4]
    expected = undisturbed[9:]  # three steps an epoch
    assert len(slices[before:]) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(slices[before:], expected, strict=True))


def test_an_interruption_in_the_middle_of_an_epoch_costs_that_epoch_alone(tmp_path):
    model, history = fit()
    loss, steps = build_loss(TINY), []

    def dies(z, predicted, step):
        steps.append(step)
        if step == 7:
            raise Interrupted
        return loss(z, predicted, step)

    with pytest.raises(Interrupted):
        fit(out=tmp_path, loss=dies)
    resumed, resumed_history = fit(out=tmp_path, resume=True, loss=lambda *args: steps.append(args[2]) or loss(*args))
    assert steps == [*range(8), *range(6, 12)]
    assert resumed_history == history
    assert_same_weights(resumed, model)


def test_resuming_a_finished_run_changes_nothing_and_resuming_nothing_starts(tmp_path):
    model, history = fit(out=tmp_path, resume=True)
    again, same_history = fit(out=tmp_path, resume=True, loss=lambda *_: pytest.fail("a step was taken"))
    assert same_history == history
    assert_same_weights(again, model)
    assert [record["epoch"] for record in json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))] == [1, 2, 3, 4]
    assert contents(tmp_path).keys() == {"checkpoint.pt", "history.json"}


@pytest.mark.parametrize(("every", "saved"), [(1, [1, 2, 3, 4]), (3, [3, 4])])
def test_checkpoints_come_as_often_as_configured_and_at_the_end(tmp_path, every, saved):
    seen = []

    def on_epoch(epoch, model):
        if (tmp_path / Checkpoint.NAME).exists():
            seen.append(len(torch.load(tmp_path / Checkpoint.NAME, weights_only=True)["history"]))

    fit(replace(TINY, checkpoint_every=every), tmp_path, on_epoch=on_epoch)
    assert sorted(set(seen)) == saved


def test_a_checkpoint_loads_as_plain_tensors_and_values(interrupted):
    state = torch.load(interrupted / Checkpoint.NAME, weights_only=True)  # runs no code of whoever made the file
    assert state["config"] == asdict(TINY)
    assert TrainConfig(**state["config"]) == TINY
    assert len(state["history"]) == 2


@pytest.mark.parametrize(("name", "value"), [
    ("seed", 1), ("lr", 1e-2), ("batch_size", 8), ("epochs", 5), ("loss_type", "vicreg"), ("optimizer", "lars"), ("henc", 8),
    ("model_type", "resnet"), ("max_steps", 7), ("views", 3),
])
def test_another_configuration_is_refused_by_name(interrupted, name, value):
    before = contents(interrupted)
    with pytest.raises(InputError, match=rf"^{name}: {value!r} was given; accepted: {getattr(TINY, name)!r}, as in the checkpoint"):
        fit(replace(TINY, **{name: value}), interrupted, resume=True)
    assert contents(interrupted) == before


def test_how_often_to_save_may_change_on_resume(interrupted):
    assert fit(replace(TINY, checkpoint_every=2), interrupted, resume=True)[1] == fit()[1]


@pytest.mark.parametrize("labels", [None, LABELS % 2, LABELS + 1], ids=["none", "fewer classes", "more classes"])
def test_labels_of_another_kind_are_refused_on_resume(interrupted, labels):
    before = contents(interrupted)
    with pytest.raises(InputError):
        fit(out=interrupted, resume=True, labels=labels)
    assert contents(interrupted) == before


def rewrite(change):
    """Damage that leaves a file torch can read: `change` alters what is in it."""
    def damage(path):
        state = torch.load(path, weights_only=True)
        torch.save(change(state), path)
    return damage


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("no checkpoint", encoding="utf-8"),
    lambda path: path.write_bytes(path.read_bytes()[:5000]),
    lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    rewrite(lambda state: state["model"]),
    rewrite(lambda state: [state]),
    rewrite(lambda state: {"config": state["config"]}),
    rewrite(lambda state: state | {"optimizer": {}}),
    rewrite(lambda state: state | {"model": dict(list(state["model"].items())[1:])}),
], ids=["empty", "text", "start", "end missing", "weights alone", "list", "config alone", "no optimizer", "a weight missing"])
def test_a_damaged_checkpoint_is_refused_by_name(interrupted, damage):
    path = interrupted / Checkpoint.NAME
    damage(path)
    with pytest.raises(InputError, match=rf"'{path}'"):
        fit(out=interrupted, resume=True)


class MakesAFolder:
    """What a file from a stranger can hold: reading it by pickle runs os.mkdir."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_resuming_runs_no_code_that_a_checkpoint_holds(interrupted, tmp_path):
    rewrite(lambda state: state | {"history": MakesAFolder(str(tmp_path / "made"))})(interrupted / Checkpoint.NAME)
    with pytest.raises(InputError, match="UnpicklingError"):
        fit(out=interrupted, resume=True)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("step", [5, 6, 8])
def test_a_loss_that_is_not_finite_names_step_and_term_and_keeps_the_last_good_checkpoint(tmp_path, step):
    saved = {}

    def loss(z, predicted, now):
        return {"prediction": z.square().mean(), "spread": z.std() * (float("nan") if now >= step else 1)}

    def on_epoch(epoch, model):
        saved.update(contents(tmp_path))

    with pytest.raises(FloatingPointError, match=f"^step {step}: .*spread = nan.*; the last good checkpoint is {tmp_path / Checkpoint.NAME}"):
        fit(out=tmp_path, loss=loss, on_epoch=on_epoch)
    assert contents(tmp_path) == saved
    assert len(torch.load(tmp_path / Checkpoint.NAME, weights_only=True)["history"]) == step // 3


def test_a_rate_far_too_high_ends_in_an_error_and_not_in_numbers():
    with pytest.raises(FloatingPointError, match=r"^step \d+: .* = (nan|inf).*; try a smaller lr$"):
        fit(replace(TINY, lr=1e30))


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_a_save_that_dies_midway_leaves_the_old_checkpoint_and_no_other_file(interrupted, monkeypatch, error):
    before = contents(interrupted)

    def dies(state, path):
        with open(path, "wb") as file:
            file.write(b"half a checkpoint")
            os.fsync(file.fileno())
        raise error

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(type(error)):
        fit(out=interrupted, resume=True)
    assert contents(interrupted) == before
    monkeypatch.undo()
    assert fit(out=interrupted, resume=True)[1] == fit()[1]
