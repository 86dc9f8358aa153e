"""The number of threads is tried, not assumed, and belongs to whoever set it."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from training import TINY, fit

from jepa_utils import threads, train
from jepa_utils.threads import EVERY, choose_threads

ALL = 8  # threads of the simulated machine
COUNTS = (8, 7, 4, 1)  # all, one spared, half, one


class Machine:
    """A machine whose work in a trial is `speed` by number of threads; `tried` are the trials made; `now` its clock."""

    def __init__(self):
        self.speed, self.tried, self.now = dict.fromkeys(COUNTS, 1), [], 1e6

    def trial(self, seconds):
        self.tried.append(torch.get_num_threads())
        work = self.speed[self.tried[-1]]
        return work.pop(0) if isinstance(work, list) else work


@pytest.fixture
def machine(monkeypatch):
    """Torch with eight threads, in a process where they have not been chosen yet."""
    machine, before = Machine(), torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "_state", dict.fromkeys(threads._state, 0))
    monkeypatch.setattr(threads, "speed", machine.trial)
    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=lambda: machine.now))
    torch.set_num_threads(ALL)
    yield machine
    torch.set_num_threads(before)


def chosen():
    count = choose_threads()
    assert count == torch.get_num_threads()
    return count


def test_a_number_fixed_by_the_environment_is_left_alone(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    machine.speed[1] = 100
    assert (chosen(), machine.tried) == (ALL, [])


def test_where_there_is_one_thread_there_is_nothing_to_try(machine):
    torch.set_num_threads(1)
    machine.speed[8] = 100
    assert (chosen(), machine.tried) == (1, [])


@pytest.mark.parametrize(("speed", "best"), [
    ({8: 9, 7: 5, 4: 4, 1: 2}, 8),
    ({8: 1, 7: 5, 4: 4, 1: 2}, 7),  # another program holds one core
    ({8: 1, 7: 1, 4: 5, 1: 2}, 4),
    ({8: 1, 7: 1, 4: 1, 1: 2}, 1),
    ({8: 3, 7: 3, 4: 3, 1: 3}, 8),
    ({8: 1, 7: 3, 4: 3, 1: 3}, 7),
    ({8: 0, 7: 0, 4: 0, 1: 0}, 8),
    ({8: [9, 0], 7: [5, 5], 4: [0, 9], 1: [1, 1]}, 7),  # each is tried twice, and both count
], ids=str)
def test_the_count_that_does_most_is_kept_and_of_equals_the_largest(machine, speed, best):
    machine.speed = speed
    assert chosen() == best
    assert sorted(machine.tried) == sorted(2 * COUNTS)


@pytest.mark.parametrize(("cores", "counts"), [(2, {2, 1}), (3, {3, 2, 1}), (4, {4, 3, 2, 1})])
def test_a_small_machine_is_not_tried_with_more_threads_than_it_has(machine, cores, counts):
    torch.set_num_threads(cores)
    machine.speed = dict.fromkeys(counts, 1)
    assert chosen() == cores
    assert set(machine.tried) == counts


def test_it_is_not_tried_again_within_the_interval_but_after_it_upwards_too(machine):
    machine.speed[1] = 100
    assert chosen() == 1
    machine.speed[8], trials = 1000, len(machine.tried)
    machine.now += EVERY - 0.1
    assert (chosen(), len(machine.tried)) == (1, trials)
    machine.now += 0.2
    assert (chosen(), len(machine.tried)) == (8, 2 * trials)


def test_a_number_set_after_a_choice_is_respected(machine):
    assert chosen() == 8
    torch.set_num_threads(1)
    machine.now += EVERY + 1
    assert chosen() == 1
    torch.set_num_threads(4)  # at once, though the interval is not over
    machine.speed = {4: 1, 3: 1, 2: 7, 1: 1}
    assert chosen() == 2
    assert max(machine.tried[-8:]) == 4


def test_an_interrupted_trial_leaves_no_fewer_threads_behind(machine, monkeypatch):
    def speed(seconds):
        if torch.get_num_threads() == 1:
            raise KeyboardInterrupt
        return 1

    monkeypatch.setattr(threads, "speed", speed)
    with pytest.raises(KeyboardInterrupt):
        choose_threads()
    assert torch.get_num_threads() == ALL
    monkeypatch.setattr(threads, "speed", machine.trial)
    machine.speed[8] = 2
    assert chosen() == ALL


def test_speed_is_work_over_the_time_it_really_took(monkeypatch):
    def speed(seconds, tick):
        ticks = iter(range(0, 10**6, tick))  # a clock that moves on at each look
        monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        return threads.speed(seconds)

    before = torch.get_rng_state()
    assert speed(0, tick=1) > 0  # never nothing, or all counts would seem alike
    assert speed(20, tick=1) == 2 * speed(40, tick=2)
    assert speed(0, tick=50) < speed(20, tick=1) / 10  # one slow piece of work is no fast one
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_chooses_at_every_epoch(monkeypatch):
    calls = []
    monkeypatch.setattr(train, "choose_threads", lambda device: calls.append(device.type))
    fit(replace(TINY, epochs=3))
    assert calls == ["cpu"] * 3


def test_a_training_on_another_device_tries_nothing(machine):
    assert (choose_threads("cuda"), machine.tried) == (ALL, [])
    assert (choose_threads("cpu"), bool(machine.tried)) == (torch.get_num_threads(), True)


@pytest.mark.slow
def test_it_works_in_a_fresh_process():
    code = (
        "import torch; before = torch.get_num_threads(); torch.manual_seed(3); state = torch.get_rng_state()\n"
        "from jepa_utils.threads import choose_threads; first = choose_threads()\n"
        "print(before, first, choose_threads(), torch.get_num_threads(), torch.equal(state, torch.get_rng_state()))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    before, first, second, now, untouched = done.stdout.split()
    assert 1 <= int(first) <= int(before)
    assert first == second == now
    assert untouched == "True"
