"""JEPA_BUDGET names a level of work; `quick` takes the one that suits the speed of this machine, measured once."""

import json
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jepa_utils import budget, scoreboard
from jepa_utils.budget import BUDGETS
from jepa_utils.runtime import InputError, cache_folder

LEVELS = {  # training images and epochs
    "smoke": (512, 1), "quick-4": (10_000, 4), "quick-8": (10_000, 8), "quick-16": (10_000, 16), "full": (50_000, 100),
}
STEP = 0.045  # seconds
HERE = {"hardware": "Abacus 9", "device": "cpu", "precision": "float32", "torch": "2.4.0"}


class Machine:
    """A machine on which a training step takes `times` STEP; `measured` are the devices measured on."""

    def __init__(self):
        self.times, self.measured, self.environment = 1.0, [], dict(HERE)

    def step_seconds(self, device):
        self.measured.append(device.type)
        return self.times * STEP


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that has never been measured."""
    machine = Machine()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(budget, "step_seconds", machine.step_seconds)
    monkeypatch.setattr(budget, "environment", lambda: machine.environment)
    return machine


def names(count=1):
    return [budget.budget().name for _ in range(count)]


# ------------------------------------------------------------------------------------------ JEPA_BUDGET


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("setting", [None, "", "quick"])
def test_quick_is_the_default_with_and_without_a_gpu(monkeypatch, machine, setting, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if setting is not None:
        monkeypatch.setenv("JEPA_BUDGET", setting)
    assert names() == ["quick-4"]
    assert machine.measured == ["cuda" if gpu else "cpu"]


@pytest.mark.parametrize(("name", "images", "epochs"), [(name, *sizes) for name, sizes in LEVELS.items()])
def test_a_level_asked_for_by_name_is_taken_without_measuring(monkeypatch, machine, name, images, epochs):
    monkeypatch.setenv("JEPA_BUDGET", name)
    machine.times = 1000
    chosen = budget.budget()
    assert (chosen.name, chosen.train_images, chosen.epochs) == (name, images, epochs)
    assert chosen.reason == "asked for by name"
    assert machine.measured == []
    assert not cache_folder().exists()


def test_no_other_level_can_be_asked_for():
    assert set(BUDGETS) == set(LEVELS)


@pytest.mark.parametrize("name", ["enormous", "Quick", "quick-5", "quick 8", "8"])
def test_an_unknown_budget_is_refused_in_one_line(monkeypatch, machine, name):
    monkeypatch.setenv("JEPA_BUDGET", name)
    with pytest.raises(InputError) as refused:
        budget.budget()
    accepted = "quick, smoke, quick-4, quick-8, quick-16, full"
    assert str(refused.value) == f"JEPA_BUDGET: {name!r} was given; accepted: {accepted}"
    assert machine.measured == []


def test_a_bad_budget_is_found_before_the_training(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("JEPA_BUDGET", "enormous")
    monkeypatch.setattr("sys.argv", ["scoreboard", str(tmp_path / "out")])
    monkeypatch.setattr(scoreboard, "make", lambda *_: pytest.fail("a training was started"))
    with pytest.raises(SystemExit, match="2"):
        scoreboard.main()
    assert capsys.readouterr().err.startswith("error: JEPA_BUDGET: 'enormous' was given; accepted: quick, smoke")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- the levels


@pytest.mark.parametrize(("times", "epochs"), [
    (0.001, 16), (0.26, 16), (0.27, 8), (0.55, 8), (0.56, 4), (1.0, 4), (1000.0, 4),
])
def test_the_measured_speed_chooses_the_level(machine, times, epochs):
    machine.times = times
    chosen = budget.budget()
    assert (chosen.name, chosen.epochs) == (f"quick-{epochs}", epochs)
    assert f"a training step takes {times * 45:.0f} ms here" in chosen.reason
    assert f"quick-{epochs} ({chosen.reason}): {epochs} epochs of 10,000 images" in str(chosen)


def test_levels_of_quick_differ_in_epochs_alone():
    """So that a slow and a fast device show the same experiment, on the same images."""
    first, *others = ({**vars(BUDGETS[f"quick-{epochs}"]), "name": "", "epochs": 0} for epochs in (4, 8, 16))
    assert others == [first, first]


def test_one_epoch_is_not_told_as_several():
    assert "1 epoch of 512 images" in str(BUDGETS["smoke"])


@pytest.mark.parametrize(("share", "level", "epochs"), [
    (1, "quick-8", 8), (0.5, "quick-8", 4), (0.5, "quick-4", 2), (0.25, "quick-16", 4), (0.3, "quick-8", 2),
    (0.35, "quick-8", 3), (0.1, "quick-4", 1), (0, "full", 1), (1, "smoke", 1), (0.2, "smoke", 1), (0.2, "full", 20),
])
def test_a_part_is_a_share_of_the_epochs_and_at_least_one(share, level, epochs):
    assert BUDGETS[level].part(share) == epochs


@pytest.mark.parametrize("level", LEVELS)
def test_pick_takes_the_value_of_the_budget_whatever_the_level(level):
    assert BUDGETS[level].pick(smoke="smoke", quick="quick", full="full") == level.split("-")[0]


# -------------------------------------------------------------------------------------- remembered speed


def test_a_machine_measured_once_keeps_its_level_though_other_programs_slow_it_later(machine):
    levels = []
    for machine.times in (0.5, 1.0, 0.2):
        levels += names(2)
    assert levels == ["quick-8"] * 6
    assert machine.measured == ["cpu"]


@pytest.mark.parametrize("part", HERE)
def test_other_hardware_and_another_torch_are_measured_anew_and_the_first_is_not_forgotten(machine, part):
    first = machine.environment
    assert names() == ["quick-4"]
    machine.environment, machine.times = first | {part: "another"}, 0.1  # in the same home, as on a cluster
    assert names(2) == ["quick-16"] * 2
    machine.environment = first
    assert names() == ["quick-4"]
    assert len(machine.measured) == 2


def test_what_says_nothing_of_speed_does_not_bring_another_measurement(machine):
    for more in ({}, {"threads": 1}, {"python": "3.13"}):
        machine.environment = HERE | more
        names()
    assert len(machine.measured) == 1


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"3", b'"fast"', b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"another machine": "fast"}',
    *[b'{"Abacus 9 \\u00b7 cpu \\u00b7 float32 \\u00b7 2.4.0": %s}' % value for value in
      (b'"fast"', b"null", b"[]", b"{}", b"NaN", b"Infinity", b"-1", b"0", b"1" * 400)],
], ids=lambda content: repr(content[-30:]))
def test_a_damaged_file_is_measured_anew_and_mended(machine, content):
    file = cache_folder() / "speed.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    machine.times = 2
    assert names(2) == ["quick-4"] * 2
    assert machine.measured == ["cpu"]
    assert list(json.loads(file.read_text(encoding="utf-8")).values()) == [2 * STEP]


def test_the_damaged_entries_above_are_those_of_this_machine(machine):
    names()
    kept = json.loads((cache_folder() / "speed.json").read_text(encoding="utf-8"))
    assert kept == {"Abacus 9 · cpu · float32 · 2.4.0": STEP}


def no_folder(cache, monkeypatch):
    cache.parent.mkdir()
    cache.write_text("in the way", encoding="utf-8")


def folder_of_that_name(cache, monkeypatch):
    (cache / "speed.json" / "full").mkdir(parents=True)


def read_only(cache, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(budget, "save_json", refuse)


@pytest.mark.parametrize("spoil", [no_folder, folder_of_that_name, read_only])
def test_where_nothing_can_be_remembered_every_call_measures(machine, monkeypatch, spoil):
    spoil(cache_folder(), monkeypatch)
    machine.times = 2
    assert names(2) == ["quick-4"] * 2
    assert len(machine.measured) == 2


# ------------------------------------------------------------------------------------------ measuring


class Clock:
    """A clock that stands still but for what the test lets a piece of work take."""

    def __init__(self, monkeypatch):
        self.now, self.monkeypatch = 0.0, monkeypatch
        monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def takes(self, name, seconds, work):
        """Let budget's `name` do `work` and take the seconds that `seconds()` says."""
        def timed(*args, **options):
            self.now += seconds()
            return work(*args, **options)

        self.monkeypatch.setattr(budget, name, timed)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock(monkeypatch)
    clock.takes("keep_freed_memory", lambda: 1000, lambda: None)
    clock.takes("choose_threads", lambda: 1000, lambda device: None)
    clock.takes("build_model", lambda: 1000, budget.build_model)
    return clock


def measure(clock, times, waiting=0.0, steps=12):
    """`step_seconds` where the training steps take these times, one after the other."""
    left = iter(times)
    clock.takes("train_step", lambda: next(left), lambda *_: None)
    clock.takes("synchronize", lambda: waiting, lambda device: None)
    seconds = budget.step_seconds(torch.device("cpu"), steps)
    assert next(left, None) is None  # no fewer steps were made
    return seconds


@pytest.mark.parametrize("factor", [0.2, 1, 5])
def test_the_time_measured_is_that_of_a_step_and_of_waiting_for_the_device(clock, factor):
    assert measure(clock, [0.25 * factor] * 15) == pytest.approx(0.25 * factor)
    assert measure(clock, [0.25 * factor] * 15, waiting=0.5) == pytest.approx(0.25 * factor + 0.5)


def test_neither_the_first_steps_nor_a_program_beside_half_of_the_others_is_measured(clock):
    assert measure(clock, [9, 8, 7] + [0.25, 2] * 6) == pytest.approx(0.25)
    assert measure(clock, [9, 8, 7] + [0.5, 2] * 6) == pytest.approx(0.5)
    for first in (9, 0.1):
        assert measure(clock, [first] * 3 + [0.5] * 4, steps=4) == pytest.approx(0.5)


def test_a_single_step_that_seems_too_quick_is_not_believed(clock):
    assert measure(clock, [0.5] * 8 + [0.001] + [0.5] * 6) == pytest.approx(0.5)


@pytest.mark.filterwarnings("error")
def test_it_says_nothing_where_there_are_several_gpus(monkeypatch):
    """As torch does when asked to keep the random numbers of all of them; a notebook would show it in red."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(budget, "train_step", lambda *_: None)
    assert budget.step_seconds(torch.device("cpu"), steps=2) >= 0


@pytest.mark.slow
def test_it_trains_the_recipe_of_the_notebooks_and_leaves_the_random_numbers_alone(monkeypatch):
    steps, train_step = [], budget.train_step

    def spy(model, loss, optimizer, scaler, views, step, lr):
        before = [p.detach().clone() for p in model.parameters()]
        terms, h = train_step(model, loss, optimizer, scaler, views, step, 1e-3)
        moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
        steps.append((views.shape, sum(moved) / len(moved), sum(terms.values()).isfinite().item(), model.training))
        return terms, h

    monkeypatch.setattr(budget, "train_step", spy)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002  the global streams are those in question
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert budget.step_seconds(torch.device("cpu"), steps=2) > 0
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002
    assert steps == [((2, 128, 3, 32, 32), 1.0, True, True)] * 5


# -------------------------------------------------------------------------------------------- JEPA_SEED


def test_a_seed_moves_all_seeds_and_nothing_else(monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "quick-4")
    plain = budget.budget()
    monkeypatch.setenv("JEPA_SEED", "5")
    moved = budget.budget()
    assert (plain.seed, plain.seeds) == (0, (0, 1, 2))
    assert (moved.seed, moved.seeds) == (5, (5, 6, 7))
    assert vars(moved) | {"seeds": plain.seeds} == vars(plain)


@pytest.mark.parametrize("seed", ["-1", "1.5", "one", "²", "1000001"])
def test_a_seed_that_is_none_is_refused_by_name(monkeypatch, seed):
    monkeypatch.setenv("JEPA_BUDGET", "smoke")
    monkeypatch.setenv("JEPA_SEED", seed)
    with pytest.raises(InputError, match=rf"JEPA_SEED: '?{re.escape(seed)}"):
        budget.budget()


def test_rows_of_another_seed_are_kept_apart(monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "smoke")
    images = SimpleNamespace(name="digits")
    files = [scoreboard._file(images)]
    monkeypatch.setenv("JEPA_SEED", "1")
    assert scoreboard._file(images) not in files
