import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from filelock import FileLock
from training import IMAGES, LABELS, TINY, Interrupted, assert_same_weights, fit, interrupt_after

from jepa_utils import losses
from jepa_utils.checkpoint import Checkpoint, claimed
from jepa_utils.config import TrainConfig
from jepa_utils.runtime import InputError
from jepa_utils.train import FINAL_SHARE, build_loss


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
    {"loss_type": "bcs", "model_type": "whitenet"},
], ids=["adamw", "lars", "muon", "every third epoch", "whitened"])
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
    kept = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert [record["epoch"] for record in kept] == [1, 2, 3, 4]
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


@pytest.mark.fault("another run, or other data, under --resume")
@pytest.mark.parametrize(("name", "value"), [
    ("seed", 1), ("lr", 1e-2), ("batch_size", 8), ("epochs", 5), ("loss_type", "vicreg"), ("optimizer", "lars"),
    ("henc", 8), ("model_type", "resnet"), ("max_steps", 7), ("views", 3),
])
def test_another_configuration_is_refused_by_name(interrupted, name, value):
    before = contents(interrupted)
    told = rf"^{name}: {value!r} was given; accepted: {getattr(TINY, name)!r}, as in the checkpoint"
    with pytest.raises(InputError, match=told):
        fit(replace(TINY, **{name: value}), interrupted, resume=True)
    assert contents(interrupted) == before


def test_how_often_to_save_may_change_on_resume(interrupted):
    assert fit(replace(TINY, checkpoint_every=2), interrupted, resume=True)[1] == fit()[1]


OTHER_DATA = {
    "no labels": ("labels", {"labels": None}), "fewer classes": ("labels", {"labels": LABELS % 2}),
    "classes turned about": ("labels", {"labels": 3 - LABELS}),
    "a picture less": ("images", {"images": IMAGES[1:], "labels": LABELS[1:]}),
    "another order": ("images", {"images": IMAGES.flip(0)}),
    "a darker picture": ("images", {"images": IMAGES // (1 + (torch.arange(48) == 7).byte())[:, None, None, None]}),
}


@pytest.mark.fault("another run, or other data, under --resume")
@pytest.mark.parametrize(("name", "data"), OTHER_DATA.values(), ids=OTHER_DATA)
def test_other_images_or_labels_are_refused_on_resume(interrupted, name, data):
    before = contents(interrupted)
    with pytest.raises(InputError, match=f"^{name}: "):
        fit(out=interrupted, resume=True, **data)
    assert contents(interrupted) == before


def test_a_run_can_be_made_longer_on_purpose(interrupted):
    longer = replace(TINY, epochs=6)
    with pytest.raises(InputError, match=r"^epochs: 6 was given; accepted: 4, .*or extend"):
        fit(longer, interrupted, resume=True)
    model, history = fit(longer, interrupted, resume=True, extend=True)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert history[:2] == fit()[1][:2]  # what was done is kept, with the rates of the shorter schedule
    assert history[-1]["lr"] == pytest.approx(TINY.lr * FINAL_SHARE)
    again, same = fit(longer, interrupted, resume=True)  # the longer run is now the run
    assert same == history
    with pytest.raises(InputError, match=r"^epochs: 5 was given; accepted: more than 6"):
        fit(replace(TINY, epochs=5), interrupted, resume=True, extend=True)


def test_a_run_that_ends_by_steps_is_not_extended(tmp_path):
    config = replace(TINY, max_steps=4)  # in the middle of its second epoch
    fit(config, tmp_path)
    for changes in ({"epochs": 9}, {"max_steps": 8}, {"max_steps": None}):
        before = contents(tmp_path)
        with pytest.raises(InputError, match=r"^max_steps: "):
            fit(replace(config, **changes), tmp_path, resume=True, extend=True)
        assert contents(tmp_path) == before


def test_images_that_another_machine_rounds_otherwise_are_the_same(interrupted):
    grains = torch.randint(-1, 2, IMAGES.shape, generator=torch.Generator().manual_seed(1))
    rounded = (IMAGES.int() + grains).clamp(0, 255).byte()
    assert len(fit(out=interrupted, resume=True, images=rounded)[1]) == 4


def test_a_history_that_a_kill_left_behind_its_checkpoint_is_mended(tmp_path):
    fit(out=tmp_path)
    whole = (tmp_path / "history.json").read_text(encoding="utf-8")
    (tmp_path / "history.json").write_text("[]\n", encoding="utf-8")
    fit(out=tmp_path, resume=True)
    assert (tmp_path / "history.json").read_text(encoding="utf-8") == whole


@pytest.mark.slow
def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    claim = "import sys, time; from pathlib import Path; from jepa_utils.checkpoint import claimed\n" \
            "with claimed(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", claim, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(InputError, match=r"^out: .*a folder that no other run is using"):
            fit(out=tmp_path)
    finally:
        other.kill()  # the claim ends with the process, however it ends
        other.wait()
    (tmp_path / ".checkpoint.pt.123.part").write_bytes(b"left by a killed save")
    fit(replace(TINY, epochs=1), tmp_path)
    assert contents(tmp_path).keys() == {"checkpoint.pt", "history.json"}


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "No locks available")], ids=str)
def test_where_a_file_system_has_no_locks_a_run_goes_without(tmp_path, monkeypatch, error):
    def cannot(lock):
        raise error

    monkeypatch.setattr(FileLock, "acquire", cannot)
    fit(replace(TINY, epochs=1), tmp_path)
    assert contents(tmp_path).keys() == {"checkpoint.pt", "history.json"}


def test_a_claim_may_be_nested_and_is_given_back_only_at_the_end(tmp_path):
    with claimed(tmp_path):
        with claimed(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def rewrite(change):
    """Damage that leaves a file torch can read: `change` alters what is in it."""
    def damage(path):
        state = torch.load(path, weights_only=True)
        torch.save(change(state), path)
    return damage


@pytest.mark.fault("damaged or foreign checkpoints and encoders")
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
], ids=["empty", "text", "start", "end missing", "weights alone", "list", "config alone", "no optimizer",
        "a weight missing"])
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


@pytest.mark.parametrize("bad", [range(5, 12), range(6, 12), range(8, 12), (4,), (6, 8)], ids=str)
def test_a_loss_that_is_not_finite_names_step_and_term_and_keeps_the_last_good_checkpoint(tmp_path, bad):
    saved, step = {}, bad[0]

    def loss(z, predicted, now):  # detached, so that the weights stay finite
        return {"prediction": z.square().mean(), "spread": z.std().detach() * (float("nan") if now in bad else 1)}

    def on_epoch(epoch, model):
        saved.update({name: content for name, content in contents(tmp_path).items() if name != ".lock"})  # held, still

    told = f"^step {step}: .*spread = nan.*; the last good checkpoint is {tmp_path / Checkpoint.NAME}"
    with pytest.raises(FloatingPointError, match=told):
        fit(out=tmp_path, loss=loss, on_epoch=on_epoch)
    assert contents(tmp_path) == saved
    assert len(torch.load(tmp_path / Checkpoint.NAME, weights_only=True)["history"]) == step // 3


def test_a_rate_far_too_high_ends_in_an_error_and_not_in_numbers():
    with pytest.raises(FloatingPointError, match=r"^step \d+: .* = (nan|inf).*; try a smaller lr$"):
        fit(replace(TINY, lr=1e30))


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()],
                         ids=["full disk", "interrupt"])
def test_a_save_that_dies_midway_leaves_the_old_checkpoint_and_no_other_file(interrupted, monkeypatch, error):
    before = contents(interrupted)

    def dies(state, file):
        file.write(b"half a checkpoint")
        file.flush()
        raise error

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(type(error)):
        fit(out=interrupted, resume=True)
    assert contents(interrupted) == before
    monkeypatch.undo()
    assert fit(out=interrupted, resume=True)[1] == fit()[1]
