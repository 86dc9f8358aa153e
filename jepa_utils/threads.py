"""As many threads as pay. Beside another busy program, fewer threads are several times faster.

An operation shared by two threads ends when the slower one does. Where another program holds a core, that
thread waits for its turn, at every operation. So the counts are tried, and the fastest is kept.
"""

import os
import time

import torch
import torch.nn.functional as F

EVERY = 20.0  # seconds between two trials
TRIAL = 0.06  # seconds given to each count, twice
_state = {"all": 0, "next": 0.0}


def choose_threads() -> int:
    """Try torch's thread counts on a small training step and keep the fastest; returns it.

    Does nothing where OMP_NUM_THREADS or torch.set_num_threads has fixed the number, and tries at most every
    20 seconds. Another count rounds differently: fix it where runs should agree to the last bit.
    """
    now = torch.get_num_threads()
    if _state["all"] == 0:
        _state["all"] = now
    if os.environ.get("OMP_NUM_THREADS") or time.monotonic() < _state["next"]:
        return now
    counts = sorted({_state["all"], max(1, _state["all"] - 1), max(1, _state["all"] // 2), 1}, reverse=True)
    if len(counts) > 1:
        done = dict.fromkeys(counts, 0)
        for count in counts * 2:
            torch.set_num_threads(count)
            done[count] += work_done(TRIAL)
        torch.set_num_threads(max(counts, key=done.get))  # of equals the largest
    _state["next"] = time.monotonic() + EVERY
    return torch.get_num_threads()


def work_done(seconds: float) -> int:
    """How many small convolutions, forward and backward, are finished in that time."""
    weight = torch.full((64, 64, 3, 3), 0.01, requires_grad=True)
    x = torch.ones(32, 64, 16, 16).contiguous(memory_format=torch.channels_last)
    end, count = time.perf_counter() + seconds, -1  # the first one warms up
    while time.perf_counter() < end or count < 1:
        F.conv2d(x, weight, padding=1).relu().sum().backward()
        count += 1
    return count
