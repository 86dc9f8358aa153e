"""Train an Image JEPA from the shell and probe what its encoder learned.

    python main.py --model_type resnet --loss_type vicreg --batch_size 256 --epochs 300
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import torch
from simple_parsing import ArgumentParser

from jepa_utils import data, distributed, probe
from jepa_utils.augment import PRESETS
from jepa_utils.checkpoint import Checkpoint
from jepa_utils.models import embeddings
from jepa_utils.runtime import InputError, atomic, environment, generator, pick_device, runs_folder, save_json
from jepa_utils.spectra import collapse_report
from jepa_utils.train import TrainConfig, build_loss, build_model, check_batch_size, train

# What a model type takes unless the command line says otherwise.
PREDICTIVE = {"dobs": 1, "dataset": "digits", "task": "present", "predictor": "conv", "projector": "", "micro_batch": 0}
JOINT = {"dobs": 3, "dataset": "cifar10", "task": "classes", "predictor": "identity", "projector": "2048-2048-2048", "micro_batch": 0}
DEFAULTS = {"resnet5": PREDICTIVE, "resnet": JOINT, "vit_s": JOINT | {"micro_batch": 16}, "vit_b": JOINT | {"micro_batch": 8}}


@dataclass
class Arguments(TrainConfig):
    """Train an Image JEPA on unlabeled images, then freeze its encoder and probe it with a linear classifier.

    resnet5 (the default) is the predictive recipe: embedded digits in grayscale (dobs 1), maps of the
    whole image predicted from a partial view (predictor conv, no projector), probed for digit
    present or absent. resnet, vit_s and vit_b are joint-embedding recipes: CIFAR-10 in colour
    (dobs 3), projector 2048-2048-2048, predictor identity, probed for the ten classes; where
    CIFAR-10 is not to be had they take the embedded digits and say so. henc and dstc shape resnet5
    alone, std_coeff and cov_coeff belong to loss vc, hpre to a predictor.
    """

    dobs: int | None = None  # input channels: 1 grayscale, 3 RGB (default: 1 for resnet5, 3 for the others)
    projector: str | None = None  # widths of the projector; "" for none (default: by model type, see above)
    predictor: str | None = None  # identity, mlp or conv (default: conv for resnet5, identity for the others)
    micro_batch: int | None = None  # views encoded at a time, 0 for all (default: 16 for vit_s and 8 for vit_b, to save memory; all for the others)
    dataset: str | None = None  # digits, cifar10 or folder (default: by model type, see above)
    task: str | None = None  # classes, or present (is there a digit?) on the digits (default: by model type)
    data_path: str | None = None  # folder of pictures, for dataset folder
    augmentation: str | None = None  # cifar10, digits, folder or nothing (default: that of the data set)
    limit: int | None = None  # use only the first N training and the first N test images
    probe_epochs: int = 50  # epochs of the final linear probe
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    out: str | None = None  # folder for checkpoint, encoder, config and metrics (default: a new one in the folder JEPA_RUNS, else in runs/)
    resume: bool = False  # go on from the checkpoint in --out
    json: bool = False  # print all final figures as one JSON object on the last line

    MAY_DIFFER_ON_RESUME: ClassVar[frozenset[str]] = TrainConfig.MAY_DIFFER_ON_RESUME | {
        "data_path", "probe_epochs", "device", "out", "resume", "json"}


def resolve(arguments: Arguments) -> tuple[Arguments, data.Dataset, str]:
    """Fill in what the command line left open and load the data; also a notice, empty if all is as asked."""
    a = arguments
    if a.model_type not in DEFAULTS:
        a.validate()  # names the parameter
    for name, value in DEFAULTS[a.model_type].items():
        if name != "dataset" and name != "task" and getattr(a, name) is None:
            setattr(a, name, value)
    chosen, notice = a.dataset is not None, ""
    a.dataset = a.dataset or DEFAULTS[a.model_type]["dataset"]
    a.task = a.task or (DEFAULTS[a.model_type]["task"] if a.dataset == "digits" else "classes")
    for name, least in (("limit", 2), ("probe_epochs", 1)):
        if getattr(a, name) is not None and getattr(a, name) < least:
            raise InputError(name, getattr(a, name), f"a whole number of at least {least}")
    if a.augmentation not in (None, *PRESETS):
        raise InputError("augmentation", a.augmentation, ", ".join(PRESETS))
    a.validate()
    try:
        images = data.load(a.dataset, a.task, a.dobs, a.data_path)
    except InputError as error:
        if chosen or a.dataset != "cifar10":
            raise
        notice = f"CIFAR-10 IS NOT TO BE HAD, TRAINING ON THE EMBEDDED DIGITS INSTEAD ({error})"
        a.dataset = "digits"
        images = data.load(a.dataset, a.task, a.dobs)
    a.augmentation = a.augmentation or a.dataset
    images = images.limited(a.limit)
    check_batch_size(a.batch_size, len(images.train_images))
    if len(images.test_images) < 2:
        raise InputError("data_path", a.data_path, "at least 10 pictures: a fifth of them is the test set")
    return a, images, notice


def output_folder(a: Arguments) -> Path:
    """Where results go; refuses a folder whose checkpoint would be overwritten."""
    out = Path(a.out) if a.out else runs_folder() / f"{datetime.now():%Y%m%d-%H%M%S}-{a.model_type}-{a.loss_type}"
    if (out / Checkpoint.NAME).exists() and not a.resume:
        raise InputError("out", str(out), "a folder without checkpoint.pt, or --resume to go on from it")
    if a.resume and not a.out:
        raise InputError("resume", True, "--resume together with --out, the folder to go on from")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error})") from error
    return out


def evaluate(model, images: data.Dataset, a: Arguments) -> dict:
    """Final figures: linear probe and k-NN on frozen features, state of features and embeddings."""
    parts = images.train_images, images.test_images
    train_h, test_h = (distributed.spread(lambda x: probe.features(model.encoder, x), part) for part in parts)
    if distributed.rank() > 0:
        return {}
    sets = train_h, images.train_labels, test_h, images.test_labels
    z = embeddings(model, images.test_images[:2000])
    z = z[torch.randperm(len(z), generator=generator(a.seed))[:5000].to(z.device)]  # of maps, a sample of positions
    return {
        "linear_probe": round(probe.linear_probe_sgd(*sets, a.probe_epochs, a.probe_lr, seed=a.seed), 2),
        "knn_probe": round(probe.knn_probe(*sets), 2),
        "chance": round(100 * images.test_labels.bincount().max().item() / len(test_h), 2),
        "features": asdict(collapse_report(test_h, scale=None)),
        "embeddings": asdict(collapse_report(z)),
    }


def run(a: Arguments) -> dict:
    """Train and evaluate as the arguments say; returns the metrics that are also written to `out`."""
    machine, device = environment(), distributed.start(pick_device(a.device))
    first = distributed.rank() == 0
    a, images, notice = distributed.in_turn(lambda: resolve(a))
    if notice and first:
        print(f"\n*** {notice} ***\n", file=sys.stderr, flush=True)
    images = images.to(device)
    model = build_model(a, *images.statistics())
    out = distributed.agreed(output_folder(a) if first else None)
    if first:
        if not (out / Checkpoint.NAME).exists():  # else it is there, and has to agree
            save_json(asdict(a), out / "config.json")
        print(f"{a.model_type} + {a.loss_type}: {len(images.train_images):,} images of {images.name}, {device}, results in {out}", file=sys.stderr)
    started = time.perf_counter()
    labels = images.train_labels if len(images.classes) > 1 else None
    history = train(model, build_loss(a), images.train_images, PRESETS[a.augmentation], a, labels, out, a.resume)
    metrics = {
        "model_type": a.model_type, "loss_type": a.loss_type, "dataset": a.dataset, "task": a.task,
        "dataset_notice": notice, "seed": a.seed, "epochs": len(history), "loss": history[-1]["loss"],
        "device": str(device), "processes": distributed.processes(), "train_seconds": round(sum(record["seconds"] for record in history), 2),
    }
    if labels is not None:
        metrics |= evaluate(model, images, a)
    metrics |= {"total_seconds": round(time.perf_counter() - started, 2), "out": str(out), "environment": machine}
    if not first:
        return {}
    with atomic(out / "encoder.pt") as temporary:
        torch.save({name: value.cpu() for name, value in model.encoder.state_dict().items()}, temporary)  # loads without a GPU
    save_json(metrics, out / "metrics.json")
    return metrics


def main() -> None:
    parser = ArgumentParser(usage="python main.py [--option value ...]", description=__doc__.splitlines()[0])
    parser.add_arguments(Arguments, dest="arguments")
    arguments = parser.parse_args().arguments
    try:
        metrics = run(arguments)
    except (InputError, FloatingPointError) as error:
        if distributed.rank() == 0:
            print(f"main.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        distributed.stop()
    if not metrics:  # one of several processes, not the first
        return
    if "linear_probe" in metrics:
        print(f"linear probe on {metrics['dataset']} ({metrics['task']}): {metrics['linear_probe']:.2f} % of the test images "
              f"right; always the commonest class: {metrics['chance']:.2f} %. Embeddings: {metrics['embeddings']['state']}.")
    if arguments.json:
        print(json.dumps(metrics))


if __name__ == "__main__":
    main()
