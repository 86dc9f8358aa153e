"""What tests of main.py share: a small run, and how its output is read. The fixture `call` is in conftest.py."""

import json
from pathlib import Path

import pytest

SMALL = "--device cpu --henc 4 --dstc 8 --hpre 4 --stride 2 --limit 64 --batch_size 32 --epochs 2 --probe_epochs 1"
FINISHED = {"checkpoint.pt", "config.json", "encoder.pt", "history.json", "metrics.json"}  # what a run leaves


def strict_json(text):
    """Numbers that are not finite are no JSON, though Python writes them."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def figures(metrics):
    """What a repetition of the run has to reproduce."""
    return {k: v for k, v in metrics.items() if k not in ("train_seconds", "total_seconds", "out", "environment")}


def one_error_line(text, name):
    """Whether stderr holds exactly one line about an error, of its own, and it names `name`."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if "error" in line.lower() or "Traceback" in line]
    return len(lines) == 1 and lines[0].startswith("main.py: error: ") and name in lines[0]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
