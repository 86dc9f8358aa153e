"""Figures of notebook 09: blocks on the image, what is predicted where, collapse, and what it is worth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

from ..plots import COLORS, array, bars, beside, guess, headline, picture, plt, show, styled, terms_and_spectra

METHODS = {
    "raw pixels": COLORS["raw pixels"], "untrained ViT": COLORS["untrained"],
    "averaged teacher": "#E69F00", "I-JEPA": "#E69F00", "I-JEPA, centred": "#56B4E9",
    "SIGReg": COLORS["SIGReg"], "VICReg": COLORS["VICReg"],
    "no teacher": COLORS["collapsed"], "SIGReg's weight 0": COLORS["supervised"],
}
DASHES = {"no teacher": "--", "SIGReg's weight 0": "--"}


@styled
def layouts(images: Tensor, drawn: Sequence[tuple[Tensor, Sequence[Tensor]]], side: int) -> None:
    """Images (N, C, H, W) with a layout each: its target blocks outlined, and below what the context encoder sees."""
    figure, axes = plt.subplots(2, len(images), figsize=(9, 3.5), layout="constrained")
    patch = images.shape[-1] // side
    for image, (context, blocks), (top, bottom) in zip(images, drawn, axes.T, strict=True):
        picture(top, image)
        for block, color in zip(blocks, plt.rcParams["axes.prop_cycle"].by_key()["color"], strict=False):
            rows, columns = np.divmod(block.tolist(), side)
            corner = (columns.min() * patch - 0.5, rows.min() * patch - 0.5)
            size = (np.ptp(columns) + 1) * patch, (np.ptp(rows) + 1) * patch
            top.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=3.5))
            top.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=2))
        hidden = np.ones(side * side, dtype=bool)
        hidden[context.tolist()] = False
        covered = image.clone()
        covered[:, hidden.reshape(side, side).repeat(patch, 0).repeat(patch, 1)] = 225
        picture(bottom, covered, f"{len(context)} of {side * side}")
    beside(axes[0, 0], "targets")
    beside(axes[1, 0], "context")
    counts = [len(context) for context, _ in drawn]
    headline(figure, "Four blocks to be guessed, and what is left to guess them from")
    show(figure, f"{len(images)} images with four overlapping rectangles drawn on each; below, the same images without "
                 f"what the rectangles cover: {min(counts)} to {max(counts)} of {side * side} patches are left")


@styled
def positions(table: Tensor, side: int, places: Sequence[int]) -> None:
    """Cosine between the positions (side * side, width) and that of each of some places."""
    figure, axes = plt.subplots(1, len(places), figsize=(9, 2.5), layout="constrained")
    unit = array(table) / np.linalg.norm(array(table), axis=1, keepdims=True)
    for ax, place in zip(axes, places, strict=True):
        shown = ax.imshow((unit @ unit[place]).reshape(side, side), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.plot(place % side, place // side, "o", color="white", markerfacecolor="none", markersize=9)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.set_title(f"place {place}", fontsize=10)
    figure.colorbar(shown, ax=axes, label="cosine", ticks=[-1, 0, 1])
    headline(figure, "Neighbours have similar positions, and no two places the same")
    show(figure, f"{len(places)} maps of the grid: how similar every position is to that of one place, most at the "
                 "place itself, falling with distance, most slowly along its row and its column")


@styled
def training(runs: Mapping[str, tuple[Sequence[Mapping[str, float]], Sequence[float]]],
             my_guess: Mapping[str, float | None]) -> None:
    """Of each run: loss, step by step; explained share of the variance and probe (percent) at each look."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    told = []
    for name, (looks, loss) in runs.items():
        steps, style = [look["step"] for look in looks], {"color": METHODS[name]}
        axes[0].plot(np.arange(1, len(loss) + 1), loss, linewidth=1, label=name, **style)
        axes[1].plot(steps, [look["explained"] for look in looks], "o-", **style)
        axes[2].errorbar(steps, [look["probe"] for look in looks], [look["error"] for look in looks], fmt="o-", **style)
        first, last = looks[0], looks[-1]
        told.append(f"{name}: the loss goes from {loss[0]:.2f} to {np.mean(loss[-20:]):.2f}; R² from "
                    f"{first['explained']:.2f} to {last['explained']:.2f}; the probe from {first['probe']:.1f} to "
                    f"{last['probe']:.1f} percent.")
    axes[1].axhline(0, color="gray", linestyle=":")
    axes[2].axhline(looks[0]["probe"], color=METHODS["untrained ViT"], linestyle="--", linewidth=1)
    guess(axes[1], steps[-1], my_guess.get("explained"))
    guess(axes[2], steps[-1], my_guess.get("probe"))
    for ax, title in zip(axes, ("loss of the batch", "R² on test images", "linear probe on h, %"), strict=True):
        ax.set(xlabel="step", title=title)
    lowest = min(look["explained"] for looks, _ in runs.values() for look in looks)
    axes[1].set(ylim=(max(-3.0, min(lowest, 0.0)) - 0.15, 1.05))  # what lies deeper yet is in the text beside
    if len(runs) > 1:
        axes[0].legend(fontsize=9)
    show(figure, "Three panels over training. " + " ".join(told))


def grouped(ax: plt.Axes, table: Mapping[str, Mapping[str, float]], digits: int) -> None:
    """A group of bars for each kind of value, in it one for each method, with its value above."""
    for i, (name, values) in enumerate(table.items()):
        at = np.arange(len(values)) + 0.4 * (i - (len(table) - 1) / 2)
        ax.bar(at, list(values.values()), 0.36, color=METHODS[name])
        for x, value in zip(at, values.values(), strict=True):
            ax.text(x, max(value, 0), f"{value:.{digits}f}", ha="center", va="bottom", fontsize=9)
    ax.set_xticks(range(len(values)), list(values))
    ax.grid(axis="x", visible=False)


@styled
def parts(found: Mapping[str, Mapping[str, tuple[float, float]]], my_guess: Mapping[str, float | None]) -> None:
    """Of each model, and each part of its targets: the share of their variance, percent, and R² of the guesses."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.0), layout="constrained")
    for ax, column, label in zip(axes, (0, 1), ("share of the targets' variance, %", "of that, explained: R²"),
                                 strict=True):
        grouped(ax, {name: {kind: pair[column] for kind, pair in kinds.items()} for name, kinds in found.items()},
                2 * column)
        for group, name in zip(ax.containers, found, strict=True):
            group.set_label(name)
        for x, kind in enumerate(next(iter(found.values()))):
            guess(ax, x, my_guess.get(f"{('share', 'R²')[column]} {kind}"))
        ax.axhline(0, color="gray", linewidth=1)
        ax.set_title(label)
        ax.margins(y=0.15)
    if len(found) > 1:
        axes[0].legend(fontsize=9)
    headline(figure, "Common to the whole image: " + "; ".join(
        f"{name} {kinds['common'][0]:.0f} %" for name, kinds in found.items()) + " of the variance")
    show(figure, "Bars. " + " ".join(f"{name}: " + "; ".join(
        f"{kind} {share:.0f} percent of the variance, R² {r2:.2f}" for kind, (share, r2) in kinds.items()) + "."
        for name, kinds in found.items()))


@styled
def places(by_distance: Mapping[str, Mapping[float, float]], by_detail: Mapping[str, Mapping[str, float]],
           my_guess: Mapping[str, float | None]) -> None:
    """Explained share against the distance to the context, and by how much there is to see in a patch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    for name, shares in by_distance.items():
        left.plot(list(shares), list(shares.values()), "o-", color=METHODS[name], label=name)
    grouped(right, by_detail, 2)
    for x, kind in enumerate(next(iter(by_detail.values()))):
        guess(right, x, my_guess.get(kind))
    for ax in (left, right):
        ax.axhline(0, color="gray", linestyle=":")
    left.set(xlabel="patches to the nearest one that is seen", ylabel="explained share, R²",
             title="By distance from the context")
    right.set_title("By what is in the hidden patch")
    left.legend(fontsize=9)
    show(figure, "Explained share of the variance. " + " ".join(
        f"{name}: " + ", ".join(f"{share:.2f} at distance {far:g}" + " and more" * (far == max(shares))
                                for far, share in shares.items())
        + "; " + ", ".join(f"{kind} {share:.2f}" for kind, share in by_detail[name].items()) + "."
        for name, shares in by_distance.items()))


@styled
def maps(images: Tensor, similar: Mapping[str, Tensor]) -> None:
    """Images (N, C, H, W), and for each method how well every place was guessed when hidden, (N, side, side)."""
    figure, axes = plt.subplots(1 + len(similar), len(images), layout="constrained",
                                figsize=(9, 1.2 * (1 + len(similar)) + 0.6))
    for image, ax in zip(images, axes[0], strict=True):
        picture(ax, image)
    for row, (name, cosines) in zip(axes[1:], similar.items(), strict=True):
        for ax, cosine in zip(row, cosines, strict=True):
            shown = ax.imshow(array(cosine), cmap="Blues", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[], facecolor="#bbbbbb")  # seen where there is no value
            ax.grid(visible=False)
        beside(row[0], name.replace(" ", "\n"))
    figure.colorbar(shown, ax=axes[1:], label="cosine", ticks=[0, 1], extend="min")
    means = {name: float(np.nanmean(array(cosines))) for name, cosines in similar.items()}
    headline(figure, "How well each place was guessed while it was hidden (dark: well)")
    show(figure, f"{len(images)} images, and below each, per method, a map of the cosine between guess and target, "
                 "both measured from the mean target of the place; mean cosine " + ", ".join(
                     f"{name} {mean:.2f}" for name, mean in means.items()))


def collapse(terms: Mapping[str, Sequence[float]], spectra: Mapping[str, Tensor], states: Mapping[str, str]) -> None:
    """The prediction term step by step, and the spectra of the targets at the end, with and without what holds."""
    looks = {name: (METHODS[name], DASHES.get(name, "-")) for name in terms}
    terms_and_spectra(terms, spectra, states, looks, "the targets")


@styled
def worth(probes: Mapping[str, float], neighbours: Mapping[str, float], errors: Mapping[str, Mapping[str, float]],
          guesses: Mapping[str, float | None], title: str) -> None:
    """Linear probe and k-NN, percent of test images, with their standard errors, method by method."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    named = {"linear probe": probes, "20 nearest neighbours": neighbours}
    for ax, (measure, values) in zip(axes, named.items(), strict=True):
        bars(ax, values, f"{measure}, % (± 1 standard error)", "", errors[measure],
             guesses if measure == "linear probe" else None, METHODS)
        ax.margins(x=0.2)
    axes[1].invert_yaxis()  # they share one axis, which each call of `bars` has turned over
    headline(figure, title)
    show(figure, "Bars. " + ". ".join(f"{measure}: " + ", ".join(
        f"{name} {value:.1f}" for name, value in values.items()) for measure, values in named.items()))
