"""Figures of notebook 11: moving digits, what their embeddings hold, roll-outs, and futures that a coin decides."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ..moving_digits import HIGH, LOW
from ..plots import COLORS, array, beside, frames, guess, headline, picture, plt, show, styled, terms_and_spectra
from ..video import Interval

LOOKS = {"no regularizer": COLORS["collapsed"], "VICReg": COLORS["VICReg"], "SIGReg": COLORS["SIGReg"],
         "raw pixels": COLORS["raw pixels"], "untrained": COLORS["untrained"]}
BASELINES = {"predictor": (COLORS["VICReg"], "-"), "copy the last": ("#E69F00", "--"),
             "constant velocity": (COLORS["collapsed"], "-."), "the mean": ("#999999", ":")}
PREDICTORS = {"no variable": COLORS["collapsed"], "told the coin": "#56B4E9", "best of two": COLORS["VICReg"],
              "no coin in the world": "#999999", "best of two, picked blindly": "#CC79A7"}


def bounds(value: Interval) -> list[list[float]]:
    """An interval as matplotlib's error bars: distances below and above."""
    middle, low, high = value
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]


@styled
def clips(film: Tensor, positions: Tensor, hits: Tensor, labels: Sequence[str]) -> None:
    """Clips (T, N, 1, 32, 32) as rows of frames, with positions (T, N, 2) as crosses and the walls as a frame."""
    T, N = film.shape[:2]
    figure, axes = frames(N, [1.0] * T, "Digits that move at constant velocity and bounce off walls", 0.8, 0.13)
    for i in range(N):
        for t, ax in enumerate(axes[i]):
            picture(ax, film[t, i], "hit" if hits[t, i] else "")
            x, y = positions[t, i].tolist()
            ax.plot(x - 0.5, y - 0.5, "+", color="#E69F00", markersize=6, markeredgewidth=1.5)
            ax.plot(*[[side - 0.5 for side in sides] for sides in ((LOW, HIGH, HIGH, LOW, LOW),
                                                                 (LOW, LOW, HIGH, HIGH, LOW))],
                    color="#56B4E9", linewidth=0.6)
        beside(axes[i, 0], labels[i])
    show(figure, f"{N} clips of {T} frames: " + "; ".join(
        f"a {label} whose centre of mass, a cross, moves from ({positions[0, i, 0]:.0f}, {positions[0, i, 1]:.0f}) to "
        f"({positions[T - 1, i, 0]:.0f}, {positions[T - 1, i, 1]:.0f}), with {int(hits[:T, i].sum())} hits"
        for i, label in enumerate(labels)))


def collapse(terms: Mapping[str, Sequence[float]], spectra: Mapping[str, Tensor], states: Mapping[str, str]) -> None:
    """The prediction term step by step, and the spectra of z of unseen clips."""
    looks = {name: (LOOKS[name], style) for name, style in zip(terms, ("-", "--", ":"), strict=True)}
    terms_and_spectra(terms, spectra, states, looks, "z")


def bar_panels(table: Mapping[str, Mapping], lowest: float, widest: float,
               above: float) -> tuple[plt.Figure, dict[str, plt.Axes]]:
    """A panel for each quantity of a table, its rows from the top: from `lowest`, if below 0, to `widest`.

    `above`: inches for titles.
    """
    quantities = list(next(iter(table.values())))
    figure, axes = plt.subplots(1, len(quantities), figsize=(10, 0.42 * len(table) + above), layout="constrained",
                                sharey=True)
    axes[0].invert_yaxis()
    for ax, quantity in zip(axes, quantities, strict=True):
        ax.set(xlim=(lowest - 0.05 if lowest < 0 else 0, widest), title=quantity)
        ax.locator_params(axis="x", nbins=3)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.title.set_size(11)
        ax.grid(axis="y", visible=False)
    return figure, dict(zip(quantities, axes, strict=True))


@styled
def probes(table: Mapping[str, Mapping[str, Interval]], guesses: Mapping[str, float | None]) -> None:
    """A panel for each probe, a bar for each kind of features; guesses, by probe, belong to the last kind."""
    figure, panels = bar_panels(table, min(low for row in table.values() for _, low, _ in row.values()), 1.25, 1.6)
    for quantity, ax in panels.items():
        for i, (name, row) in enumerate(table.items()):
            value = row[quantity]
            ax.barh(name, value[0], xerr=bounds(value), color=LOOKS.get(name, COLORS["VICReg"]))
            ax.text(max(value[2], 0) + 0.02, i, f"{value[0]:z.2f}", va="center", fontsize=9)
        guess(ax, guesses.get(quantity), len(table) - 1)
        ax.set(title=quantity.replace(", ", ",\n"), xlabel="share of frames" if quantity == "digit" else "R²")
    best = max(table, key=lambda name: table[name]["digit"][0])
    headline(figure, f"Linear probes in unseen handwriting; the digit is read best from: {best}")
    show(figure, "Bars with 95 % intervals. " + ". ".join(
        f"{quantity}: " + ", ".join(f"{name} {row[quantity][0]:z.2f}" for name, row in table.items())
        for quantity in panels))


@styled
def rollouts(rows: Mapping[str, Tensor]) -> None:
    """Rows of frames (T, 1, 32, 32), in turn real and rolled out; the first two of each were seen."""
    T = len(next(iter(rows.values())))
    figure, axes = frames(len(rows), [1.0] * T, "Real clips, and roll-outs from their first two frames, shown as the "
                          "nearest known frames", 1.5, 0.03)
    for i, (name, film) in enumerate(rows.items()):
        for t, image in enumerate(film):
            picture(axes[i, t], image, ("" if i else "seen" if t < 2 else f"+{t - 1}"))
        beside(axes[i, 0], name)
    show(figure, f"Rows of {T} frames, the first two of them seen: " + ", ".join(rows)
         + ". Below each real clip the frames nearest to what was rolled out")


@styled
def chosen(rows: Mapping[str, Tensor]) -> None:
    """For some hits: two frames seen, two possible next ones, and the nearest frames to three guesses."""
    titles = ("seen", "seen", "if it\ngoes on", "if it\nturns back", "no\nvariable", "best of two:\nfirst", "\nsecond")
    figure, axes = frames(len(rows), [1.0] * len(titles), "Two possible futures, and what was predicted", 0.6, 0.1)
    for i, (name, film) in enumerate(rows.items()):
        for ax, image, title in zip(axes[i], film, titles, strict=True):
            picture(ax, image, "" if i else title)
        beside(axes[i, 0], name)
    show(figure, f"{len(rows)} hits as rows of frames: two that were seen, the two possible next ones, and the frames "
                 "nearest to the guess without a variable and to the two guesses of the best of two")


@styled
def horizon(errors: Mapping[str, Sequence[Interval]], my_guess: float | None) -> None:
    """Error of each way of looking ahead against the number of frames; the mean's error is 1."""
    figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    for name, line in errors.items():
        color, style = BASELINES[name]
        steps = range(1, len(line) + 1)
        middle, low, high = zip(*line, strict=True)
        ax.plot(steps, middle, style, color=color, label=name)
        ax.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    guess(ax, my_guess, 1.0)
    at = [{name: line[k][0] for name, line in errors.items()} for k in range(len(errors["predictor"]))]
    best = sum(values["predictor"] == min(values.values()) for values in at)
    ax.set(xlabel="frames ahead", ylabel="squared error in z\n(that of the mean: 1)", yscale="log",
           title=f"The rolled-out predictor is the best of the four at {best} of {len(at)} horizons")
    ax.set_xticks(range(1, len(at) + 1))
    ax.legend(fontsize=9)
    show(figure, "Squared error of z against frames ahead, on a log axis. " + ". ".join(
        f"{name}: from {line[0][0]:.2f} to {line[-1][0]:.2f}" for name, line in errors.items()))


@styled
def kept(table: Mapping[str, Mapping[str, float]], guesses: Mapping[str, float | None]) -> None:
    """How well the digit and the position are read from z, run by run, and which share of z moves within a clip."""
    figure, panels = bar_panels(table, min(value for row in table.values() for value in row.values()), 1.2, 1.5)
    for quantity, ax in panels.items():
        for i, (name, row) in enumerate(table.items()):
            ax.barh(name, row[quantity], color=COLORS["VICReg"], alpha=1 if i % 2 == 0 else 0.6)
            ax.text(max(row[quantity], 0) + 0.02, i, f"{row[quantity]:z.2f}", va="center", fontsize=9)
            if quantity == "position, R²":
                guess(ax, guesses.get(name), i)
    where = {name: row["position, R²"] for name, row in table.items()}
    headline(figure, f"Position survives grain that flickers (R² {where['flickering grain']:z.2f}) better than grain "
             f"that stays ({where['still grain']:z.2f})" if where["flickering grain"] > where["still grain"] else
             "Position does not suffer more from grain that stays")
    show(figure, "Bars. " + ". ".join(
        f"{quantity}: " + ", ".join(f"{name} {row[quantity]:z.2f}" for name, row in table.items())
        for quantity in panels))


@styled
def events(errors: Mapping[str, Sequence[Interval]], price: float) -> None:
    """Squared error of each predictor where no wall is hit, and where one is; the price of a guess without the coin."""
    figure, ax = plt.subplots(figsize=(9, 0.75 * len(errors) + 1.2), layout="constrained")
    for i, (name, pair) in enumerate(errors.items()):
        for place, value, alpha, where in zip((i - 0.19, i + 0.19), pair, (0.45, 1), ("no hit", "hit"), strict=True):
            ax.barh(place, value[0], 0.36, xerr=bounds(value), color=PREDICTORS[name], alpha=alpha)
            ax.text(value[2], place, f" {value[0]:.3f}  {where}", va="center", fontsize=9,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=3)
    ax.axvline(price, color="black", linestyle="--", linewidth=1, label="price of a single guess without the coin")
    ax.set_yticks(range(len(errors)), list(errors))
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.grid(axis="y", visible=False)
    quiet, hit = (value[0] for value in errors["no variable"])
    ax.set(xlabel="squared error of the next z (that of the mean: 1)",
           title=f"Without a variable, {hit / quiet:.1f} times the error where the coin decides")
    ax.legend(fontsize=9, loc="upper right")
    show(figure, "Squared errors with 95 % intervals, without a hit and at a hit: " + ", ".join(
        f"{name} {pair[0][0]:.3f} and {pair[1][0]:.3f}" for name, pair in errors.items())
        + f". A dashed line at {price:.3f}, the price of any single guess without the coin")


@styled
def sides(places: Mapping[str, Tensor], my_guess: Mapping[str, float | None]) -> None:
    """Where guesses lie between two futures: -1 is the one, 1 the other, 0 half-way. A histogram for each."""
    figure, axes = plt.subplots(1, len(places), figsize=(10, 2.9), layout="constrained", sharey=True)
    for ax, (name, place) in zip(axes, places.items(), strict=True):
        ax.hist(array(place).clip(-1.95, 1.95), bins=np.linspace(-2, 2, 41), density=True,
                color=PREDICTORS.get(name, "#000000"))
        count = len(place) // len(places["what happened"])
        ax.set(xlabel="place between the futures", xticks=(-1, 0, 1),
               title=name if name == "what happened" else f"{name}:\n{count} guess{'es' * (count > 1)} at each hit")
        ax.title.set_size(11)
        guess(ax, my_guess.get(name), 0.1)
    axes[0].set(ylabel="density")
    share = {name: (place.abs() < 0.5).float().mean().item() for name, place in places.items()}
    headline(figure, "Closer to half-way than to either future: "
             + ", ".join(f"{name} {value:.0%}" for name, value in share.items()))
    show(figure, "Histograms of the place between two futures at minus 1 and 1; share within one half of the middle: "
         + ", ".join(f"{name} {value:.0%}" for name, value in share.items()))
