"""Figures of notebook 04: two springs, what each of them misses, and their weights."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from ..plots import COLORS, array, bars, count_ticks, guess, headline, plt, show, styled

BLUE, ORANGE, YELLOW, SKY = "#0072B2", "#D55E00", "#E69F00", "#56B4E9"
SPRINGS = {"no spring": COLORS["collapsed"], "variance only": YELLOW, "covariance only": SKY, "both": COLORS["VICReg"]}
FRAMES = {"complete collapse": ("#CC79A7", ":"), "scale collapse": (ORANGE, "-"),
          "dimensional collapse": ("#000000", "--")}
LIMITS = {"xlim": (-3.6, 3.6), "ylim": (-3.6, 3.6), "aspect": "equal", "xticks": (-2, 0, 2), "yticks": (-2, 0, 2)}


@styled
def penalties(stds: Tensor, values: Mapping[str, Sequence[float]], pulls: Mapping[str, Sequence[float]]) -> None:
    """Two penalties against the spread of a cloud, and the length of their gradients."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    for name, color in zip(values, (BLUE, ORANGE), strict=True):
        left.plot(stds, values[name], label=f"max(0, {name})", color=color)
        right.loglog(stds, np.maximum(pulls[name], 1e-7), color=color)
    left.set(xlabel=r"spread of the cloud, $\sigma$", ylabel="penalty", title="Both penalties agree on what is bad")
    right.set(xlabel=r"spread of the cloud, $\sigma$", ylabel="length of the gradient", ylim=(3e-6, 0.3),
              title="Only one still pulls where the cloud is narrow")
    left.legend()
    show(figure, "Left: two penalties that fall from 1 at spread 0 to 0 at spread 1. Right, on log axes: the "
               "gradient of one minus std is flat from spread 1 down to 0.01, that of one minus variance falls with "
               "the spread")


@styled
def race(tracks: Mapping[str, Sequence[float]], arrived: Mapping[str, int],
         guesses: Mapping[str, float | None]) -> None:
    """Spread of a cloud, step by step, under each penalty; the reader's guesses of the step of arrival."""
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for (name, track), color in zip(tracks.items(), (BLUE, ORANGE), strict=True):
        ax.plot(track, label=f"{name}: {arrived[name]} steps", color=color)
        guess(ax, guesses.get(name), 0.99)
    ax.set(xlabel="step of gradient descent", ylabel=r"spread of the cloud, $\sigma$",
           title="The hinge on the standard deviation opens a narrow cloud at constant speed")
    ax.legend(loc="center right", title="spread 0.99 after")
    show(figure, "Spread against step: " + ", ".join(
        f"under {name} it arrives after {arrived[name]} steps" for name in tracks)
        + "; the first curve is straight, the second rises exponentially")


@styled
def clouds(points: Mapping[str, Tensor], covariances: Mapping[str, Tensor],
           terms: Mapping[str, tuple[float, float]]) -> None:
    """Clouds in two dimensions with their covariance matrices; `terms`: variance and covariance term of each."""
    figure, axes = plt.subplots(2, len(points), figsize=(9, 4.2), layout="constrained")
    for (name, cloud), (top, bottom) in zip(points.items(), axes.T, strict=True):
        top.scatter(*array(cloud).T, s=4, alpha=0.6, color=BLUE)
        top.set(**LIMITS, xlabel="dimension 1")
        top.set_title("{}\nvariance term {:.2f}\ncovariance term {:.2f}".format(name, *terms[name]), fontsize=9)
        shown = bottom.imshow(array(covariances[name]), cmap="RdBu_r", vmin=-1.5, vmax=1.5)
        bottom.set(xticks=[], yticks=[])
        bottom.grid(visible=False)
        for (i, j), value in np.ndenumerate(array(covariances[name])):
            bottom.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9)
    axes[0, 0].set_ylabel("dimension 2")
    axes[1, 0].set_ylabel("matrix C")
    figure.colorbar(shown, ax=axes[1], shrink=0.8, ticks=[-1, 0, 1])
    headline(figure, "Blind spots: variance misses copies, covariance misses size, both miss the bend")
    show(figure, "Five clouds above their 2 by 2 covariance matrices: " + ", ".join(
        "{}, variance term {:.2f}, covariance term {:.2f}".format(name, *terms[name]) for name in points))


@styled
def ends(points: Mapping[str, Tensor], spreads: Mapping[str, float], correlations: Mapping[str, float],
         guesses: Mapping[str, float | None]) -> None:
    """The start and what gradient descent makes of it under each term; the guessed spread in the title."""
    figure, axes = plt.subplots(1, len(points), figsize=(9, 3.4), layout="constrained", sharey=True)
    for ax, (name, cloud) in zip(axes, points.items(), strict=True):
        ax.scatter(*array(cloud).T, s=4, alpha=0.6, color=BLUE)
        ax.set(**LIMITS, xlabel="dimension 1")
        guessed = f"\nyour guess: {guesses[name]:.2f}" if guesses.get(name) is not None else ""
        ax.set_title(f"{name}\nspread {spreads[name]:.2f}, |r| {correlations[name]:.2f}{guessed}", fontsize=10)
    axes[0].set_ylabel("dimension 2")
    headline(figure, "Only with both terms does the cloud end round and wide")
    show(figure, "Four clouds: " + ", ".join(
        f"{name}, spread {spreads[name]:.2f}, correlation {correlations[name]:.2f}" for name in points))


@styled
def ablation(spectra: Mapping[str, Tensor], axes_needed: Mapping[str, int], probes: Mapping[str, float],
             errors: Mapping[str, float], untrained: float, guesses: Mapping[str, float | None]) -> None:
    """Spectra of z (D,) and probes of h of the runs with and without springs; the untrained encoder's probe."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained", width_ratios=(3, 2))
    for name, style in zip(spectra, ("-", "-", "--", "-"), strict=True):
        values = array(spectra[name]).clip(1e-12)
        left.semilogy(np.arange(1, len(values) + 1), values, style, label=name, color=SPRINGS[name])
    bars(right, probes, "linear probe on h, % of test images (± 1 standard error)",
         f"\nBest features: {max(probes, key=lambda name: probes[name])}", errors, guesses, SPRINGS)
    right.axvline(untrained, color=COLORS["untrained"], linestyle="--", linewidth=1)
    right.text(untrained, -0.62, f" untrained {untrained:.1f}", va="center", fontsize=9)
    left.set(xlabel="principal axis of z, from the widest", ylabel="variance along it",
             title="Axes that hold 99 % of the variance:\n"
                   f"{axes_needed['variance only']} with variance only, {axes_needed['both']} with both")
    left.legend(fontsize=9)
    right.xaxis.label.set_size(9)
    right.set_ylim(len(probes) - 0.5, -0.9)
    show(figure, f"Left: spectra of z. Right: linear probes, untrained {untrained:.1f} %. " + ", ".join(
        f"{name}: 99 % of the variance on {axes_needed[name]} axes, probe {probes[name]:.1f} %" for name in spectra))


@styled
def matrices(covariances: Mapping[str, Tensor], correlations: Mapping[str, Tensor], rms: Mapping[str, float],
             chance: float) -> None:
    """Covariance and correlation of the first dimensions of z, (D, D), run by run; `rms` over all pairs."""
    figure, axes = plt.subplots(2, len(rms), figsize=(9, 4.9), layout="constrained")
    for row, (label, panels) in enumerate((("covariance", covariances), ("correlation", correlations))):
        for ax, (name, matrix) in zip(axes[row], panels.items(), strict=True):
            shown = ax.imshow(array(matrix), cmap="RdBu_r", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.set_title(f"RMS r: {rms[name]:.2f}" if row else name, fontsize=10 if row else 11)
        axes[row, 0].set_ylabel(f"{label} of z")
        figure.colorbar(shown, ax=axes[row], label=label, ticks=[-1, 0, 1], extend="neither" if row else "both")
    most = max(rms, key=lambda name: rms[name])
    headline(figure, f"RMS correlation is highest with {most} (chance: {chance:.2f})")
    show(figure, f"Covariance matrices above, correlation matrices below, of the first {len(matrix)} dimensions "
               "of z; RMS correlation: " + ", ".join(f"{name} {value:.2f}" for name, value in rms.items()))


@styled
def weight_grid(panels: Mapping[str, Sequence[Sequence[float]]], states: Sequence[Sequence[str]],
                var_weights: Sequence[float], cov_weights: Sequence[float]) -> None:
    """A heat map per measurement over the two weights; frames mark what is not healthy."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 7.2), layout="constrained", sharex=True, sharey=True)
    for ax, (title, values) in zip(axes.flat, panels.items(), strict=True):
        figure.colorbar(ax.imshow(values, cmap="Blues", aspect="auto", origin="lower"), ax=ax)
        ax.set_title(title)
        ax.set_xticks(range(len(cov_weights)), [f"{weight:g}" for weight in cov_weights])
        ax.set_yticks(range(len(var_weights)), [f"{weight:g}" for weight in var_weights])
        ax.grid(visible=False)
        for (i, j), value in np.ndenumerate(np.asarray(values)):
            ax.text(j, i, f"{value:.1f}" if value > 1.5 else f"{value:.2g}", ha="center", va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2})
            frame(ax, i, j, states[i][j])
    for ax in axes[1]:
        ax.set_xlabel(r"covariance weight $\nu$")
    for ax in axes[:, 0]:
        ax.set_ylabel(r"variance weight $\mu$")
    counts = {state: sum(line.count(state) for line in states) for state in FRAMES}
    named = {state: Rectangle((0, 0), 1, 1, fill=False, edgecolor=color, linestyle=style, linewidth=2.5)
             for state, (color, style) in FRAMES.items() if counts[state]}
    probes = np.asarray(list(panels.values())[-1])
    i, j = divmod(int(probes.argmax()), len(cov_weights))
    title = (rf"Best probe at $\mu$ = {var_weights[i]:g}, $\nu$ = {cov_weights[j]:g}; "
             f"not healthy: {sum(counts.values())} of {probes.size} settings")
    figure.legend(named.values(), [f"{state}: {counts[state]}" for state in named], ncols=3, fontsize=10,
                  loc="outside upper left", title=title, title_fontsize=12, alignment="left")
    show(figure, "Heat maps over the two weights. " + ". ".join(
        f"{title}, rows from the lowest variance weight up: "
        + "; ".join(" ".join(f"{value:.3g}" for value in line) for line in values)
        for title, values in panels.items()))


def frame(ax: Axes, i: int, j: int, state: str) -> None:
    """A frame around cell (i, j) that names its state; none if it is healthy."""
    if state in FRAMES:
        color, style = FRAMES[state]
        ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False,
                               edgecolor=color, linestyle=style, linewidth=3))


@styled
def cost_of_correlation(dimensions: Sequence[int], costs: Mapping[float, Sequence[float]], N: int) -> None:
    """The covariance term against D, for clouds whose dimensions correlate by r, and what chance makes of N samples."""
    figure, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
    for (r, values), color in zip(costs.items(), (ORANGE, YELLOW, BLUE), strict=True):
        label = f"every pair correlates by {r:g}" if r else "independent"
        ax.loglog(dimensions, values, "o-", color=color, label=label)
    ax.plot(dimensions, [(D - 1) / (N - 1) for D in dimensions], ":", color="black", label="(D - 1) / (N - 1)")
    ax.set(xlabel="dimensions D", ylabel="covariance term",
           title=f"The same correlation costs more in more dimensions (N = {N})")
    count_ticks(ax, dimensions)
    ax.legend(fontsize=9)
    show(figure, "The covariance term against D on log axes: parallel lines, at the largest D " + ", ".join(
        f"{values[-1]:.3g} for correlation {r:g}" for r, values in costs.items())
        + "; that of independent dimensions lies on the dotted line D minus 1 over N minus 1")
