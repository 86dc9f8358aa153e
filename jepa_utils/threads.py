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
_state = {"all": 0, "chosen": 0, "next": 0.0}


def choose_threads(device: torch.device | str = "cpu") -> int:
    """Try torch's thread counts on a small training step and keep the fastest; returns it.

    Does nothing for a training on another device, or where OMP_NUM_THREADS has fixed the number; takes no more threads
    than torch.set_num_threads was last told, and tries at most every 20 seconds. Another count rounds differently: fix
    it where runs should agree to the last bit.
    """
    now = torch.get_num_threads()
    if torch.device(device).type != "cpu":
        return now
    if now != _state["chosen"]:  # the first call, or somebody else has set the number
        _state.update(all=now, chosen=now, next=0.0)
    if os.environ.get("OMP_NUM_THREADS") or time.monotonic() < _state["next"]:
        return now
    most = int(_state["all"])
    counts = sorted({most, max(1, most - 1), max(1, most // 2), 1}, reverse=True)
    if len(counts) > 1:
        speeds = dict.fromkeys(counts, 0.0)
        try:
            for count in counts * 2:
                torch.set_num_threads(count)
                speeds[count] += speed(TRIAL)
        finally:  # an interrupted trial must not leave its count behind
            best = max(counts, key=speeds.__getitem__)  # of equals the largest
            _state["chosen"] = best
            torch.set_num_threads(best)
    _state["next"] = time.monotonic() + EVERY
    return torch.get_num_threads()


def speed(seconds: float) -> float:
    """Small convolutions, forward and backward, per second; tried for about that long.

    Small, so that threads meet often, as they do in a training of the small encoder.
    """
    weight = torch.full((64, 64, 3, 3), 0.01, requires_grad=True)
    x = torch.ones(16, 64, 16, 16).contiguous(memory_format=torch.channels_last)
    done, started = -1, time.perf_counter()  # the first one warms up
    while (spent := time.perf_counter() - started) < seconds or done < 1:
        if done == 0:
            started = time.perf_counter()
        F.conv2d(x, weight, padding=1).relu().sum().backward()
        done += 1
    return done / spent
