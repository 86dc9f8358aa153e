"""The tables of the README are what was measured, and the scripts beside the notebooks run."""

import importlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from html import unescape
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from PIL import Image
from series import PATHS, read
from torch import nn

from benchmarks import timing
from benchmarks.experiments import estimate, layers, search
from jepa_utils import data, probe
from jepa_utils.encoders import build_encoder, load_encoder
from jepa_utils.recipes import RECIPES, recipe
from jepa_utils.runtime import InputError

KEYS = {"name", "dataset", "loss", "encoder", "device", "hardware", "seeds", "linear_probe", "minutes",
        "command", "date"}
ROWS = sorted((ROOT / "assets" / "results").glob("*.json"))


def script(*words, cwd=ROOT):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_a_row_says_how_it_was_made(path):
    row = json.loads(path.read_text(encoding="utf-8"))
    assert set(row) >= KEYS
    assert row["name"] == path.stem
    assert row["command"] == f"python main.py --recipe {row['name']}"
    assert (row["epochs"], row["loss"]) == (RECIPES[path.stem].config.epochs, RECIPES[path.stem].config.loss_type)
    assert len(row["seeds"]) == len(row["linear_probe"]) == len(row["minutes"]) == len(set(row["seeds"])) > 0
    assert all(0 < value <= 100 for value in row["linear_probe"])
    assert row["device"] in ("cpu", "cuda")


@pytest.mark.slow
def test_the_readme_says_what_the_files_say():
    script("scripts/fill_tables.py", "--check")


def dies(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.fixture
def tables(monkeypatch, tmp_path):
    """Calls fill_tables.py for a page of one table that should say "new"; the page."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script, page = importlib.import_module("fill_tables"), tmp_path / "page.md"
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "pages", lambda: {"page.md": {"mark": "new"}})
    page.write_text("<!-- mark -->\nold\n<!-- /mark -->\n", encoding="utf-8")

    def fill(*options):
        monkeypatch.setattr(sys, "argv", ["fill_tables.py", *options])
        script.main()

    return fill, page


def test_tables_are_only_looked_at_in_a_check_and_only_written_where_they_change(tables):
    fill, page = tables
    with pytest.raises(SystemExit, match=r"^page.md: its tables are not what assets/ says"):
        fill("--check")
    assert "old" in page.read_text(encoding="utf-8")
    fill()
    assert page.read_text(encoding="utf-8") == "<!-- mark -->\nnew\n<!-- /mark -->\n"
    written = page.stat()
    fill("--check")
    fill()
    assert page.stat().st_ino == written.st_ino
    assert page.stat().st_mtime_ns == written.st_mtime_ns


def test_a_page_that_cannot_be_written_whole_stays_as_it_was(tables, monkeypatch):
    fill, page = tables
    before = page.read_bytes()
    monkeypatch.setattr("os.fsync", dies)
    with pytest.raises(OSError, match="No space left"):
        fill()
    assert page.read_bytes() == before
    assert list(page.parent.iterdir()) == [page]


@pytest.mark.slow
def test_a_recipe_without_a_result_has_an_estimate():
    planned = json.loads((ROOT / "assets" / "planned.json").read_text(encoding="utf-8"))
    assert planned == [estimate.estimate(name, recipe(name)) for name in estimate.NAMES]
    steps = 300 * (50_000 // 256)
    by_name = {row["name"]: 60_000 * row["estimated_minutes"] / steps for row in planned}
    assert by_name == pytest.approx({"resnet18-vicreg": 7.66, "vit-s-vicreg": 75.9}, rel=0.01)


@pytest.mark.slow
def test_measure_keeps_a_row_and_adds_only_the_missing_seeds(tmp_path):
    small = "--limit 32 --batch_size 16 --henc 4 --dstc 8 --projector 8 --epochs 1 --probe_epochs 1"
    name = "laptop-vicreg"

    def measure(*seeds):
        places = ["--results", tmp_path, "--runs", tmp_path / "runs"]
        return script("-m", "benchmarks.experiments.measure", name, *places, "--seeds", *seeds, "--", *small.split())

    measure(0)
    first = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert set(first) >= KEYS
    assert "seed 1" in (said := measure(0, 1))
    assert "seed 0" not in said
    both = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert both["seeds"] == [0, 1]
    assert both["linear_probe"][0] == first["linear_probe"][0]
    assert both["command"] == f"python main.py --recipe {name} {small}"
    (tmp_path / f"{name}.json").write_text(json.dumps(both | {"hardware": "an abacus"}), encoding="utf-8")
    with pytest.raises(AssertionError, match="holds runs of an abacus"):
        measure(2)


def test_two_layers_are_h_and_what_the_last_layer_is_given():
    encoder, images = build_encoder("whitenet", 3, 8, 16).eval(), torch.rand(4, 3, 32, 32)
    given = []
    encoder.body[-2].register_forward_hook(lambda layer, inputs, output: given.append(inputs[0].float()))
    both, h = layers.two_layers(encoder, images), probe.features(encoder, images)
    torch.testing.assert_close(both, torch.cat([h, given[-1].mean(dim=(2, 3))], dim=1), rtol=0.01, atol=0.01)


@pytest.mark.slow
def test_benchmarks_end_with_a_table(tmp_path):
    said = script("-m", "benchmarks.run", "--quick", "sigreg", "probe", "--out", tmp_path)
    kept = [json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("sigreg", "probe")]
    assert all(row["median"] > 0 for part in kept for row in part["rows"])
    assert {row["contender"] for part in kept for row in part["rows"]} == {"ours", "lightly", "scikit-learn"}
    assert said.splitlines()[-1].startswith("| linear probe | 500 x 32 features, synthetic; test accuracy")


def holds(small=False):
    torch.ones(1 if small else 10**7)


def exits(small=False):
    os._exit(1)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(),
                    reason="a process of its own is for CPUs, under Linux")
def test_a_peak_of_memory_is_that_of_the_call_and_a_process_that_dies_ends_the_wait():
    assert timing.peak_memory(holds) == pytest.approx(4e7, rel=0.2)
    with pytest.raises(BrokenProcessPool):
        timing.peak_memory(exits)


@pytest.mark.slow
def test_the_plain_loop_makes_new_views_in_every_epoch():
    from benchmarks.training import per_image, plain_vicreg  # these need the peers
    from benchmarks.views import TwoViews

    seen = []
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].numpy().tobytes()))
    images = data.digits(train=8).train_images
    _, step = per_image(images, TwoViews(), encoder, nn.Identity(), plain_vicreg, 4, torch.device("cpu"))
    for _ in range(6):  # three epochs of two batches
        step()
    assert len(set(seen)) == len(seen) == 12


@pytest.mark.slow
def test_a_search_logs_what_it_tried_and_spares_the_test_set():
    images = data.digits(train=100, test=20)
    held_out = search.hold_out(images)
    assert (len(held_out.train_images), len(held_out.test_images)) == (90, 10)
    assert held_out.test_images.float().mean() != images.test_images.float().mean()
    words, usual = "lmbd=3 max_steps=4 projector=8-4 compile=false", recipe("laptop-bcs")
    assert search.parse(words, usual) == {"lmbd": 3.0, "max_steps": 4, "projector": "8-4", "compile": False}
    for wrong in ("lmdb=3", "lmbd", "compile=no"):
        with pytest.raises(InputError, match=rf"^variants: '{wrong}' was given"):
            search.parse(wrong, usual)
    small = {"epochs": 1, "batch_size": 16, "henc": 4, "dstc": 8, "projector": "8"}
    result = search.trial(held_out, "laptop-bcs", small, seed=0)
    assert 0 <= result["validation_probe"] <= 100


def test_html_of_the_series_keeps_the_texts_of_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    notebook = read(PATHS[2])
    texts = [output.metadata["image/png"]["alt"] for cell in notebook.cells for output in cell.get("outputs", [])
             if "image/png" in output.get("data", {})]
    html = importlib.import_module("run_series").page(notebook)
    assert set(texts) <= {unescape(text) for text in re.findall(r'alt="([^"]*)"', html)}


def test_a_notebook_whose_outputs_cannot_be_written_whole_stays_as_it_was(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    run_series = importlib.import_module("run_series")
    path = tmp_path / "01_a.ipynb"
    path.write_text("the author's", encoding="utf-8")

    def half(notebook, file):
        file.write_text("half of", encoding="utf-8")
        dies()

    for name, value in (("NOTEBOOKS", tmp_path), ("execute", lambda path: None), ("nbformat.write", half)):
        monkeypatch.setattr(f"run_series.{name}", value)
    monkeypatch.setattr(sys, "argv", ["run_series.py", str(tmp_path / "build"), "--in-place"])
    with pytest.raises(OSError, match="No space left"):
        run_series.main()
    assert path.read_text(encoding="utf-8") == "the author's"


@pytest.mark.slow
def test_training_from_a_folder_that_is_read_by_several_processes(tmp_path):
    for i in range(12):
        picture = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + i, 64), (20 * i, 100, 50)).save(picture)
    script(ROOT / "scripts/train_from_disk.py", tmp_path / "pictures",
           "--batch-size", 4, "--epochs", 2, "--workers", 2, "--out", tmp_path)
    assert torch.isfinite(load_encoder(tmp_path)(torch.zeros(2, 3, 32, 32))).all()


def test_fewer_than_no_processes_to_read_pictures_are_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr(sys, "argv", ["train_from_disk.py", str(tmp_path), "--workers", "-1"])
    with pytest.raises(SystemExit, match=r"^train_from_disk.py: error: workers: -1 .* at least 0$"):
        importlib.import_module("train_from_disk").main()


@pytest.fixture
def shipped():
    return load_encoder(ROOT / "assets" / "encoder_cifar10.pt")


def test_the_shipped_encoder_is_small_and_of_the_shape_its_run_says(shipped):
    assert (ROOT / "assets" / "encoder_cifar10.pt").stat().st_size < 5e6
    assert shipped.features == 256


def test_the_shipped_encoder_knows_cifar10(shipped, users_cifar10, monkeypatch):
    monkeypatch.setenv("JEPA_DATA", str(users_cifar10))
    images = data.load("cifar10").limited(5000, 1000)
    h = [probe.features(shipped, x) for x in (images.train_images, images.test_images)]
    percent = probe.knn_probe(h[0], images.train_labels, h[1], images.test_labels)
    assert percent > 50  # of ten classes; 69.5 with all training images
