"""Time of a linear probe with its choice of penalty, beside scikit-learn's logistic regression, at equal accuracy."""

import torch
from sklearn.linear_model import LogisticRegression
from timing import race

from jepa_utils import probe
from jepa_utils.runtime import generator


def features(N, F, classes=10, seed=0):
    """Standardised Gaussian features whose classes overlap, as an encoder's do."""
    g = generator(seed)
    centers, y = torch.randn(classes, F, generator=generator(1)), torch.randint(classes, (N,), generator=g)
    mixing = torch.randn(F, F, generator=generator(2)) / F**0.5
    return (0.25 * centers[y] + torch.randn(N, F, generator=g)) @ mixing, y


def measure(quick: bool = False) -> list[dict]:
    N, F = (500, 32) if quick else (50_000, 512)
    (train_h, train_y), (test_h, test_y) = features(N, F), features(N // 5, F, seed=3)
    scores = {}

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
        scores["sklearn"] = 100 * fit(standard_train, train_y, best).score(standard_test.numpy(), test_y.numpy())

    rows = race("linear probe", f"{N:,} x {F} features", {"ours": ours, "scikit-learn": sklearns}, "ms", repeats=2 if quick else 1)
    for row, score in zip(rows, scores.values(), strict=True):
        row["case"] += f", test accuracy {score:.1f} %"
    return rows
