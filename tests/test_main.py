import importlib
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from shell import FINISHED, SMALL, figures, files, one_error_line, strict_json

from jepa_utils.config import TrainConfig
from jepa_utils.encoders import load_encoder
from jepa_utils.recipes import recipe

main = importlib.import_module("main")

COMMANDS = {  # word for word as the project's description gives them
    "ResNet + VICReg": r"""
        python main.py \
            --model_type resnet \
            --loss_type vicreg \
            --sim_loss_weight 25.0 \
            --var_loss_weight 25.0 \
            --cov_loss_weight 1.0 \
            --batch_size 256 \
            --epochs 300""",
    "ResNet + BCS": r"""
        python main.py \
            --model_type resnet \
            --loss_type bcs \
            --lmbd 10.0 \
            --batch_size 256 \
            --epochs 300""",
    "ViT + VICReg": r"""
        python main.py \
            --model_type vit_s \
            --patch_size 2 \
            --loss_type vicreg \
            --sim_loss_weight 25.0 \
            --var_loss_weight 25.0 \
            --cov_loss_weight 1.0 \
            --batch_size 256 \
            --epochs 300""",
}
DOCUMENTED = {  # the description's table
    "batch_size": 64, "dobs": 1, "henc": 32, "hpre": 32, "dstc": 16, "cov_coeff": 100.0, "std_coeff": 10.0,
    "epochs": 100, "lr": 1e-3, "probe_epochs": 50, "probe_lr": 1e-3,
}
def words(command):
    return shlex.split(command.replace("\\\n", ""))[2:]


# ------------------------------------------------------------------------------- what the description promises


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_described_commands_run_on_cifar10(tmp_path, cifar10_folder, command):
    small = "--limit 2 --batch_size 2 --max_steps 1 --probe_epochs 2 --json --out here"  # later options win
    done = subprocess.run([sys.executable, ROOT / "main.py", *words(command), *small.split()],
                          cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "\n***" not in done.stderr  # no notice: all is as asked
    metrics = strict_json(done.stdout.splitlines()[-1])
    asked = dict(zip(*[iter(option.removeprefix("--") for option in words(command))] * 2, strict=True))
    assert (metrics["model_type"], metrics["loss_type"]) == (asked["model_type"], asked["loss_type"])
    assert (metrics["dataset"], metrics["task"], metrics["dataset_notice"]) == ("cifar10", "classes", "")
    assert 0 <= metrics["linear_probe"] <= 100
    assert 0 <= metrics["linear_probe_mirrored"] <= 100  # photographs: their views are mirrored too
    out = tmp_path / "here"
    assert {path.name for path in out.iterdir()} == FINISHED
    assert strict_json((out / "metrics.json").read_text(encoding="utf-8")) == metrics
    config = strict_json((out / "config.json").read_text(encoding="utf-8"))
    assert (config["projector"], config["dobs"], config["predictor"]) == ("2048-2048-2048", 3, "identity")
    assert load_encoder(out)(torch.zeros(1, 3, 32, 32)).shape == (1, {"resnet": 512, "vit_s": 384}[asked["model_type"]])
    for name in ("checkpoint.pt", "encoder.pt"):  # hundreds of megabytes that nobody will look at
        (out / name).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_without_cifar10_the_described_commands_take_the_digits_and_say_so(monkeypatch, call, command):
    tiny = "--projector 16-8 --limit 4 --batch_size 4 --max_steps 1 --probe_epochs 1 --json"
    options = f"{' '.join(words(command))} {tiny}"
    if "vit" in command:
        options += " --patch_size 16"  # four patches: the same code, sooner done
    done = call(options)
    assert done.code == 0
    metrics = strict_json(done.out[-1])
    assert (metrics["dataset"], metrics["task"]) == ("digits", "classes")
    assert f"*** {metrics['dataset_notice']} ***" in done.err.splitlines()
    assert "EMBEDDED DIGITS" in metrics["dataset_notice"]
    assert "JEPA_OFFLINE" in metrics["dataset_notice"]


def test_cifar10_asked_for_by_name_is_never_replaced(call):
    done = call("--model_type resnet --dataset cifar10 --projector 16-8 --limit 4 --batch_size 4 --max_steps 1")
    assert done.code == 2
    assert one_error_line(done.err, "JEPA_DATA")
    assert files(".") == {}


@pytest.mark.slow
def test_the_default_run_probes_digit_present_or_absent(call):
    done = call("--limit 256 --epochs 1 --probe_epochs 2 --json")
    assert done.code == 0
    metrics = strict_json(done.out[-1])
    kind = [metrics[name] for name in ("model_type", "loss_type", "dataset", "task")]
    assert kind == ["resnet5", "vc", "digits", "present"]
    assert 45 < metrics["chance"] < 60
    percent = f"{metrics['linear_probe']:.2f} %"
    assert done.out[0].startswith(f"linear probe on digits (present): {percent} of the test images right")
    assert metrics["features"]["dimensions"] == 16
    assert "linear_probe_mirrored" not in metrics  # a mirrored digit is another sign
    assert files(metrics["out"]).keys() == FINISHED


def test_documented_defaults_are_the_parsed_ones():
    config, options, given = main.parse([])
    assert (vars(config) | vars(options)).items() >= DOCUMENTED.items()
    resolved, images, notice = main.resolve(config, options, given)
    assert (images.train_images.shape[1:], resolved.task, notice) == ((1, 32, 32), "present", "")


@pytest.mark.parametrize(("options", "micro_batch"), [
    ("", 0), ("--model_type resnet", 0), ("--model_type vit_s", 16), ("--model_type vit_b", 8),
    ("--model_type vit_s --micro_batch 0", 0), ("--model_type vit_s --micro_batch 5", 5),
])
def test_vits_are_trained_in_micro_batches_unless_told_otherwise(options, micro_batch):
    assert main.parse(shlex.split(options))[0].micro_batch == micro_batch


def test_a_recipe_by_name_is_taken_whole_and_other_options_change_it():
    config, options, _ = main.parse(["--recipe", "laptop-vicreg-10min", "--seed", "3", "--lr", "0.01"])
    assert config == recipe("laptop-vicreg-10min", seed=3, lr=0.01)
    assert options.recipe == "laptop-vicreg-10min"


def test_only_missing_data_are_replaced(call, cifar10_folder):
    done = call("--model_type resnet --task present")
    assert done.code == 2
    assert one_error_line(done.err, "task")


def test_a_recipes_data_are_never_replaced_as_those_of_a_model_type_are(call):
    done = call("--recipe laptop-vicreg-10min --limit 64")
    assert done.code == 2
    assert one_error_line(done.err, "JEPA_DATA")


def test_a_run_is_resumed_without_repeating_its_options(call):
    without_hpre = SMALL.replace("--hpre 4 ", "")
    first = call(f"{without_hpre} --predictor identity --loss_type vicreg --projector 8-8 --out here --json")
    again = call("--resume --out here --json")
    assert (first.code, again.code) == (0, 0), again.err
    assert figures(strict_json(again.out[-1])) == figures(strict_json(first.out[-1]))
    longer = call("--resume --extend --epochs 3 --out here --json")
    assert strict_json(longer.out[-1])["epochs"] == 3
    assert strict_json(Path("here/config.json").read_text(encoding="utf-8"))["epochs"] == 3


def test_without_a_folder_of_its_own_a_run_is_kept_where_jepa_runs_says(call, monkeypatch, tmp_path):
    monkeypatch.setenv("JEPA_RUNS", str(tmp_path / "kept"))
    metrics = strict_json(call(f"{SMALL} --json").out[-1])
    assert Path(metrics["out"]).parent == tmp_path / "kept"
    assert files(metrics["out"]).keys() >= {"checkpoint.pt", "config.json", "encoder.pt", "metrics.json"}
    assert files(".") == {}


def test_a_budget_is_the_notebooks_and_no_concern_of_a_run(call, monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "enormous")
    assert call(f"{SMALL} --out here").code == 0


def test_help_explains_every_option(call):
    done = call("--help")
    assert done.code == 0
    text = "\n".join(done.out)
    for field in (*fields(TrainConfig), *fields(main.Options)):
        explained = text.split(f"  --{field.name} ", 1)[1].split("\n  --")[0]
        assert len(explained.split()) > 3, field.name


# ----------------------------------------------------------------------------------------------- bad input


BAD = [
    ("--dataset mnist", "dataset"), ("--loss_type simclr", "loss_type"), ("--model_type resnet50", "model_type"),
    ("--batch_size 1", "batch_size"), ("--cov_coeff -1", "cov_coeff"), ("--std_coeff nan", "std_coeff"),
    ("--lmbd inf", "lmbd"), ("--lr nan", "lr"), ("--dobs 2", "dobs"),
    ("--batch_size 65", "batch_size"), ("--limit 1", "limit"), ("--probe_epochs 0", "probe_epochs"),
    ("--augmentation sepia", "augmentation"), ("--projector wide", "projector"), ("--model_type vit_s", "henc"),
    ("--resume false --extend", "extend"),
    ("--micro_batch 8", "micro_batch"), ("--micro_batch -1", "micro_batch"),
    ("--seed -1", "seed"), ("--seed 99999999999999999999", "seed"),
    ("--data_path pictures", "data_path"), ("--data_path pictures --dataset cifar10", "data_path"),
    ("--extend", "extend"), ("--lmbd 3", "lmbd"), ("--patch_size 4", "patch_size"),
    ("--sim_loss_weight 1", "sim_loss_weight"), ("--loss_type vicreg --cov_coeff 1", "cov_coeff"),
    ("--model_type resnet --predictor identity", "henc"),
    ("--recipe laptop-simclr", "recipe"), ("--recipe laptop-vicreg", "hpre"),
    ("--dataset folder --data_path ~/no/such/folder", "data_path"), ("--batch 8", "batch"),
    ("--limit", "limit"), ("--dataset --seed 1", "dataset"), ("--limit many", "limit"),
    ("--optimizer sgd", "optimizer"), ("--device abacus", "device"),
    ("--dataset folder", "data_path"), ("--dataset folder --data_path .", "data_path"),
    ("--dataset cifar10 --task present", "task"), ("--task count", "task"), ("--resume", "resume"),
    ("--epochs ten", "epochs"), ("--no_such_option 1", "no_such_option"),
]


@pytest.mark.fault("bad options of main.py")
@pytest.mark.parametrize(("options", "name"), BAD)
def test_bad_input_is_one_line_that_names_the_parameter_and_leaves_no_file(call, options, name):
    done = call(f"{SMALL} {options}")
    assert done.code == 2
    assert one_error_line(done.err, name)
    assert (done.out, files(".")) == ([], {})


def test_a_truncated_cifar10_is_one_line_that_names_the_file(call, cifar10_folder):
    npz = cifar10_folder / "cifar10.npz"
    npz.write_bytes(npz.read_bytes()[:5000])
    done = call(f"{SMALL} --dataset cifar10")
    assert (done.code, files(".")) == (2, {})
    assert one_error_line(done.err, str(npz))


def paint(path, count, seed=0):
    path.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(path / f"{i}.png")


def test_an_unreadable_picture_is_one_line_that_names_it(call, tmp_path):
    paint(tmp_path / "pictures", 8)
    (tmp_path / "pictures" / "9.png").write_bytes(b"no picture")
    done = call(f"{SMALL} --dataset folder --data_path {tmp_path / 'pictures'}")
    assert (done.code, files(".")) == (2, {})
    assert one_error_line(done.err, "9.png")


def test_a_rate_far_too_high_is_one_line_that_names_step_and_term(call):
    done = call(f"{SMALL} --lr 1e30 --out here")
    assert done.code == 2
    assert one_error_line(done.err, "step ")
    assert files("here").keys() == {"config.json"}


@pytest.mark.parametrize("counts", [(3, 4), (5, 3), (6, 7)], ids=str)
def test_a_folder_of_a_handful_of_pictures_trains(call, tmp_path, counts):
    for name, count in zip("ab", counts, strict=True):
        paint(tmp_path / "pictures" / name, count)
    done = call(f"{SMALL} --batch_size 4 --dataset folder --json --data_path {tmp_path / 'pictures'}")
    assert done.code == 0, done.err
    assert 0 <= strict_json(done.out[-1])["linear_probe"] <= 100


@pytest.mark.parametrize("counts", [(2, 2), (6, 2)], ids=str)
def test_too_few_pictures_to_test_on_are_refused_by_name(call, tmp_path, counts):
    for name, count in zip("ab", counts, strict=True):
        paint(tmp_path / "pictures" / name, count)
    done = call(f"{SMALL} --batch_size 4 --dataset folder --out here --data_path {tmp_path / 'pictures'}")
    assert done.code == 2
    assert one_error_line(done.err, "data_path")
    assert files(".") == {}


def test_an_unlabelled_folder_trains_without_a_probe(call, tmp_path):
    paint(tmp_path / "pictures", 10)
    done = call(f"{SMALL} --batch_size 4 --dataset folder --out here --json --data_path {tmp_path / 'pictures'}")
    assert done.code == 0
    metrics = strict_json(done.out[-1])
    assert metrics["loss"] > 0
    assert "linear_probe" not in metrics
    assert files("here").keys() >= {"encoder.pt", "metrics.json"}
