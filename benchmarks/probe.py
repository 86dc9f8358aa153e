"""Time of a linear probe with its choice of penalty, beside scikit-learn's logistic regression, at equal accuracy."""

from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression

from jepa_utils import data, probe
from jepa_utils.encoders import load_encoder
from jepa_utils.runtime import generator

from .timing import race


def synthetic(N, F, classes=10, seed=0):
    """Features (N, F) whose classes overlap and whose spectrum falls like 1/k, as an encoder's does."""
    g = generator(seed)
    centers, y = torch.randn(classes, F, generator=generator(1)), torch.randint(classes, (N,), generator=g)
    mixing = torch.randn(F, F, generator=generator(2)) * torch.arange(1.0, F + 1).rsqrt()[:, None]
    return (0.25 * centers[y] + torch.randn(N, F, generator=g)) @ mixing, y


def measured():
    """Features (N, 256) of all CIFAR-10 images by the encoder in assets/."""
    encoder = load_encoder(Path(__file__).resolve().parent.parent / "assets" / "encoder_cifar10.pt")
    images = data.cifar10()
    return ((probe.features(encoder, x), y) for x, y in (
        (images.train_images, images.train_labels), (images.test_images, images.test_labels)))


def measure(quick: bool = False) -> list[dict]:
    cases = {"synthetic": (synthetic(500, 32), synthetic(100, 32, seed=3))} if quick else {
        "synthetic": (synthetic(50_000, 512), synthetic(10_000, 512, seed=3)),
        "of CIFAR-10 by the encoder in assets/": measured()}
    return [row for name, parts in cases.items() for row in compare(name, *parts, repeats=2 if quick else 3)]


def compare(name, train, test, repeats):
    """Rows of one set of features: ours and scikit-learn's time, test accuracies in the case."""
    (train_h, train_y), (test_h, test_y), scores = train, test, {}

    def ours():
        scores["ours"] = probe.linear_probe(train_h, train_y, test_h, test_y)

    def sklearns():
        """The same choice among the same penalties, on the same split."""
        fit_part, held_out = probe.validation_split(len(train_y))
        standard_train, standard_test = probe.standardize(train_h, test_h)

        def fit(h, y, penalty):
            return LogisticRegression(C=1 / (penalty * len(y)), max_iter=1000).fit(h.numpy(), y.numpy())

        best = max(probe.PENALTIES, key=lambda penalty: fit(standard_train[fit_part], train_y[fit_part], penalty).score(
            standard_train[held_out].numpy(), train_y[held_out].numpy()))
        scores["scikit-learn"] = 100 * fit(standard_train, train_y, best).score(standard_test.numpy(), test_y.numpy())

    case = f"{len(train_h):,} x {train_h.shape[1]} features, {name}"
    rows = race("linear probe", case, {"ours": ours, "scikit-learn": sklearns}, "ms", repeats=repeats)
    for row in rows:
        row["case"] += f"; test accuracy {scores[row['contender']]:.1f} %"
    return rows
