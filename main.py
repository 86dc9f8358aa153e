"""Train an Image JEPA from the shell and probe what its encoder learned.

    python main.py --model_type resnet --loss_type vicreg --batch_size 256 --epochs 300
    python main.py --recipe laptop-vicreg
    python main.py --resume --out runs/mine
"""

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path

import torch
from simple_parsing import ArgumentParser
from simple_parsing.utils import str2bool
from torch import Tensor

from jepa_utils import data, distributed, probe, recipes
from jepa_utils.augment import PRESETS
from jepa_utils.checkpoint import Checkpoint, claimed
from jepa_utils.config import TrainConfig, check_effect
from jepa_utils.encoders import save_encoder
from jepa_utils.models import JEPA, embeddings
from jepa_utils.runtime import InputError, environment, generator, pick_device, runs_folder, save_json
from jepa_utils.spectra import collapse_report
from jepa_utils.train import build_loss, check_batch_size, check_installed, new_model, train

ABOUT = """Train an Image JEPA on unlabeled images, then freeze its encoder and probe it with a linear classifier.

Defaults are those of a recipe (jepa_utils/recipes.py): the one that --recipe names, else by model type.
resnet5 is the predictive recipe: embedded digits in grayscale, maps of the whole image predicted from a
partial view, probed for digit present or absent. resnet, vit_s and vit_b are joint-embedding recipes:
CIFAR-10 in colour, projector 2048-2048-2048, probed for the ten classes; whitenet is one for CPUs, with VICReg
and 3,300 steps. Where CIFAR-10 is not available these take the embedded digits and say so. With --resume,
defaults are those of the run in --out."""


@dataclass(frozen=True)
class Options:
    """Data, evaluation and files of a run."""

    recipe: str | None = None  # a configuration by name; other options change it (default: by model type)
    dataset: str | None = None  # digits, cifar10 or folder (default: the recipe's)
    task: str | None = None  # classes, or present (is there a digit?) on the digits (default: the recipe's)
    data_path: str | None = None  # folder of pictures, for dataset folder
    augmentation: str | None = None  # cifar10, digits, folder or nothing (default: that of the data set)
    limit: int | None = None  # use only the first N training and the first N test images
    probe_epochs: int = 50  # epochs of the final linear probe
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    # folder for all that a run leaves (default: a new one in the folder JEPA_RUNS, else in runs/)
    out: str | None = None
    resume: bool = False  # go on from the checkpoint in --out
    extend: bool = False  # with --resume: to more epochs than the run was begun with
    json: bool = False  # print all final figures as one JSON object on the last line

    def __post_init__(self):
        for name, least in (("limit", 2), ("probe_epochs", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise InputError(name, getattr(self, name), f"a whole number of at least {least}")
        if self.augmentation not in (None, *PRESETS):
            raise InputError("augmentation", self.augmentation, ", ".join(PRESETS))
        if self.data_path is not None and self.dataset != "folder":
            raise InputError("data_path", self.data_path, "a folder of pictures together with --dataset folder")
        if self.resume and not self.out:
            raise InputError("resume", True, "--resume together with --out, the folder to go on from")
        if self.extend and not self.resume:
            raise InputError("extend", True, "--extend together with --resume")


# What config.json keeps beside the configuration, for --resume.
KEPT = ("recipe", "dataset", "task", "data_path", "augmentation", "limit", "probe_epochs")
SAME_ON_RESUME = ("recipe", "dataset", "task", "augmentation", "limit")


def parse(words: list[str]) -> tuple[TrainConfig, Options, set[str]]:
    """Configuration and options of a command line, and the names that it gives itself."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("recipe", "model_type", "out"):
        first.add_argument(f"--{name}")
    first.add_argument("--resume", nargs="?", type=str2bool, const=True, default=False)
    start = first.parse_known_args(words)[0]
    config, options = defaults(start)
    parser = ArgumentParser(usage="python main.py [--option value ...]", description=ABOUT, allow_abbrev=False)
    parser.add_arguments(TrainConfig, "config", default=config)
    parser.add_arguments(Options, "options", default=options)
    found = parser.parse_args(words)
    given = {word.removeprefix("--").split("=")[0] for word in words if word.startswith("--")}
    for name, value in (vars(found.config) | vars(found.options)).items():
        if name in given and value is None:
            raise InputError(name, "", "a value")
    check_effect(found.config, [field.name for field in fields(TrainConfig) if field.name in given])
    return found.config, found.options, given


def defaults(start: argparse.Namespace) -> tuple[TrainConfig, Options]:
    """What holds unless the command line says otherwise: the run to be resumed, a recipe by name, or by model type."""
    path = Path(start.out or "").expanduser() / "config.json"
    if start.resume and start.out and path.exists():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            config = TrainConfig(**{field.name: saved[field.name] for field in fields(TrainConfig)})
            return config, Options(**{name: saved[name] for name in KEPT})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("resume", str(path), f"the complete config.json of a run ({error})") from error
    if start.recipe is None and start.model_type not in (None, *recipes.DEFAULTS):
        raise InputError("model_type", start.model_type, ", ".join(recipes.DEFAULTS))
    name = start.recipe or recipes.DEFAULTS[start.model_type or "resnet5"]
    return recipes.named(name).config, Options(recipe=name)


def resolve(config: TrainConfig, options: Options, given: Iterable[str]) -> tuple[Options, data.Dataset, str]:
    """Fill in what the command line left open and load the data; also a notice, empty if all is as asked."""
    recipe, notice = recipes.named(str(options.recipe)), ""
    dataset = options.dataset or recipe.dataset
    task = options.task or (recipe.task if dataset == recipe.dataset else "classes")
    try:
        images = data.load(dataset, task, config.dobs, options.data_path)
    except InputError as error:
        if error.parameter != "JEPA_DATA" or options.dataset or "recipe" in given:
            raise
        notice = f"CIFAR-10 IS NOT AVAILABLE, TRAINING ON THE EMBEDDED DIGITS INSTEAD ({error})"
        dataset = "digits"
        images = data.load(dataset, task, config.dobs)
    images = images.limited(options.limit)
    check_batch_size(config.batch_size, len(images.train_images))
    if len(images.test_images) < 2:
        raise InputError("data_path", options.data_path,
                         "more pictures: a fifth of each class is held out, fewer than 2 here")
    return replace(options, dataset=dataset, task=task, augmentation=options.augmentation or dataset), images, notice


def output_folder(config: TrainConfig, options: Options) -> Path:
    """Where results go: the folder asked for, unless it holds a run that would be overwritten, or a new one."""
    if options.out:
        out = Path(options.out).expanduser()
        if (out / Checkpoint.NAME).exists() and not options.resume:
            raise InputError("out", str(out), f"a folder without {Checkpoint.NAME}, or --resume to go on from it")
        return out
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{config.model_type}-{config.loss_type}"
    for ending in ("", *(f"-{number}" for number in range(2, 1000))):  # runs may start in the same second
        out = runs_folder() / (name + ending)
        try:
            out.mkdir(parents=True)
            return out
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError("out", str(out), f"a folder that can be written ({error.strerror})") from error
    raise InputError("out", str(out), "a name that is free")


def check_same(saved: dict, options: Options) -> None:
    """Refuse to go on with other data than the run in `saved`, its config.json, began with."""
    for name in SAME_ON_RESUME:
        if saved[name] != getattr(options, name):
            raise InputError(name, getattr(options, name), f"{saved[name]!r}, as the run began")


def evaluate(model: JEPA, images: data.Dataset, config: TrainConfig, probe_epochs: int, mirror: bool) -> dict:
    """Final figures: linear probe and k-NN on frozen features, state of features and embeddings.

    With `mirror`, for views that are mirrored as well: also the probe on the mean over image and mirror image.
    """
    def features(part: Tensor, flip: bool = False) -> Tensor:
        return distributed.spread(lambda x: probe.features(model.encoder, x.flip(3) if flip else x), part)

    def linear(train_h: Tensor, test_h: Tensor) -> float:
        sets = train_h, images.train_labels, test_h, images.test_labels
        return round(probe.linear_probe_sgd(*sets, probe_epochs, config.probe_lr, seed=config.seed), 2)

    parts = images.train_images, images.test_images
    train_h, test_h = map(features, parts)
    pairs = zip((train_h, test_h), parts, strict=True) if mirror else ()
    mirrored = [(h + features(part, flip=True)) / 2 for h, part in pairs]
    if distributed.rank() > 0:
        return {}
    z = embeddings(model, images.test_images[:2000])
    sample = torch.randperm(len(z), generator=generator(config.seed))[:5000]
    z = z[sample.to(z.device)]  # of maps, some positions
    return {
        "linear_probe": linear(train_h, test_h),
        **({"linear_probe_mirrored": linear(*mirrored)} if mirrored else {}),
        "knn_probe": round(probe.knn_probe(train_h, images.train_labels, test_h, images.test_labels), 2),
        "chance": round(100 * images.test_labels.bincount().max().item() / len(test_h), 2),
        "features": asdict(collapse_report(test_h, scale=None)),
        "embeddings": asdict(collapse_report(z)),
    }


def run(config: TrainConfig, options: Options, given: Iterable[str] = ()) -> dict:
    """Train and evaluate as asked; returns the metrics that are also written to the run's folder."""
    device = distributed.start(pick_device(options.device))
    check_installed(config, device)
    distributed.share(config.batch_size)  # refuses what the processes cannot share
    first = distributed.rank() == 0
    options, images, notice = distributed.in_turn(lambda: resolve(config, options, given))
    if notice and first:
        print(f"\n*** {notice} ***\n", file=sys.stderr, flush=True)
    out = distributed.agreed(output_folder(config, options) if first else None)
    with claimed(out if first else None):
        try:
            return train_and_evaluate(config, options, images.to(device), notice, out)
        except KeyboardInterrupt as stopped:
            stopped.add_note(how_to_go_on(out))
            raise


def train_and_evaluate(config: TrainConfig, options: Options, images: data.Dataset, notice: str, out: Path) -> dict:
    """The run itself, in the folder `out`; the metrics, none of them in any process but the first."""
    first, started, settings = distributed.rank() == 0, time.perf_counter(), out / "config.json"
    whole = {name: getattr(options, name) for name in KEPT} | asdict(config)
    if first and not (out / Checkpoint.NAME).exists():
        save_json(whole, settings)
        if options.resume:
            print(f"nothing to go on from in {out}: a new run starts", file=sys.stderr)
    if first:
        check_same(json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else whole, options)
        print(f"{config.model_type} + {config.loss_type}: {len(images.train_images):,} images of {images.name}, "
              f"{images.train_images.device}, results in {out}", file=sys.stderr, flush=True)
    model = new_model(config, images)
    labels = images.train_labels if len(images.classes) > 1 else None

    def on_epoch(epoch: int, _) -> None:
        if first and epoch and options.extend:
            save_json(whole, settings)  # the checkpoint is of the longer run now

    history = train(model, build_loss(config), images.train_images, PRESETS[str(options.augmentation)], config,
                    labels=labels, out=out, resume=options.resume, extend=options.extend, on_epoch=on_epoch)
    metrics: dict = {
        "model_type": config.model_type, "loss_type": config.loss_type,
        "dataset": options.dataset, "task": options.task, "dataset_notice": notice,
        "recipe": options.recipe, "seed": config.seed, "epochs": len(history),
        "loss": history[-1]["loss"], "device": str(images.train_images.device), "processes": distributed.processes(),
        "train_seconds": round(sum(record["seconds"] for record in history), 2),
    }
    if labels is not None:
        metrics |= evaluate(model, images, config, options.probe_epochs, PRESETS[str(options.augmentation)].flip > 0)
    if not first:
        return {}
    machine = environment(images.train_images.device)
    metrics |= {"total_seconds": round(time.perf_counter() - started, 2), "out": str(out), "environment": machine}
    save_encoder(model.encoder, config, out)
    save_json(metrics, out / "metrics.json")
    return metrics


def how_to_go_on(out: Path) -> str:
    """The command that was given, and what else it takes to go on."""
    if not (out / Checkpoint.NAME).exists():
        return f"stopped before the first checkpoint in {out}"
    given = sys.argv[1:]
    words = [word for before, word in zip(["", *given], given, strict=False)
             if word.partition("=")[0] != "--resume" and (before != "--resume" or word.startswith("--"))]
    where = [] if any(word.split("=")[0] == "--out" for word in words) else ["--out", str(out)]
    return f"stopped; go on with: python main.py {shlex.join([*words, *where, '--resume'])}"


def stop(signum: int, frame) -> None:
    """SIGTERM is answered as Ctrl-C is: nothing half-written stays behind."""
    raise KeyboardInterrupt(signum)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    try:
        config, options, given = parse(sys.argv[1:])
        metrics = run(config, options, given)
    except (InputError, FloatingPointError, OSError) as error:
        if first:
            print(f"main.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        if first:
            print(f"\nmain.py: {getattr(stopped, '__notes__', ['stopped'])[0]}", file=sys.stderr)
        sys.exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT))
    finally:
        distributed.stop()
    if not metrics:  # one of several processes, not the first
        return
    if "linear_probe" in metrics:
        print(f"linear probe on {metrics['dataset']} ({metrics['task']}): {metrics['linear_probe']:.2f} % of the "
              f"test images right; always the commonest class: {metrics['chance']:.2f} %. "
              f"Embeddings: {metrics['embeddings']['state']}.")
    if options.json:
        print(json.dumps(metrics))


if __name__ == "__main__":
    main()
