"""A run of main.py killed again and again until it ends: how often, how, and what was found on the disk each time.

    python tests/lives.py OUT SEED OPTIONS...     prints one JSON object

Each life is a process forked from this one, so that torch is loaded once. It is killed by SIGKILL or SIGTERM, at a
random moment of its start or after so many checkpoints, or by its own hand in the middle of writing one. (POSIX:
other systems have no fork.)
"""

import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import main
from jepa_utils import data

KILLS = ("SIGKILL", "SIGTERM", "while saving")
KILLED = 21  # lives that do not end by themselves


def live(words: list[str], half_a_save: int | None) -> None:
    """One life: main.py in a forked process. With `half_a_save` it dies in the middle of its so-manieth save."""
    saves, save = [], torch.save

    def half(value, file):
        saves.append(value)
        if len(saves) == half_a_save:
            whole = io.BytesIO()
            save(value, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(value, file)

    torch.save, sys.argv = half, ["main.py", *words]
    try:
        main.main()
        os._exit(0)
    except SystemExit as leaving:
        os._exit(leaving.code)


def wait_for(checkpoint: Path, saves: int, child: int) -> None:
    """Until the checkpoint has been written so many times, or the child is dead."""
    def written():
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    for _ in range(saves):
        before = written()
        while written() == before and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.001)


def until_it_ends(out: Path, words: list[str], chance: random.Random) -> list[dict]:
    """Lives of one run, one after the other, the last of them undisturbed."""
    lives, checkpoint = [], out / "checkpoint.pt"
    while True:
        kill = chance.choice(KILLS) if len(lives) < KILLED else "none"
        child = os.fork()
        if not child:
            os.setsid()
            live([*words, "--out", str(out), "--resume"], chance.randint(1, 3) if kill == "while saving" else None)
        if kill in ("SIGKILL", "SIGTERM"):
            wait_for(checkpoint, chance.randint(0, 3), child)
            time.sleep(chance.uniform(0, 0.05))
            os.kill(child, signal.Signals[kill])
        status = os.waitpid(child, 0)[1]
        epochs = len(torch.load(checkpoint, weights_only=True)["history"]) if checkpoint.exists() else 0  # or it raises
        lives.append({"kill": kill, "code": os.waitstatus_to_exitcode(status), "epochs": epochs})
        if kill == "none":
            return lives


if __name__ == "__main__":
    torch.set_num_threads(1)  # a process with OpenMP's threads cannot be forked
    data.load("digits", "present", 1), data.load("digits")  # made once, for all lives
    folder, seed, *options = sys.argv[1:]
    print(json.dumps(until_it_ends(Path(folder), options, random.Random(int(seed)))))
