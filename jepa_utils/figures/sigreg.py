"""The figures of notebooks 05 and 05b."""

import math
from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor

from ..plots import COLORS, array, count_ticks, guess, headline, plt, show, spectrum, styled

CLOUDS = {
    "collapsed": COLORS["collapsed"], "skewed": "#E69F00", "bimodal": "#56B4E9", "healthy": COLORS["SIGReg"],
    "two factors": "#CC79A7", "random length": COLORS["VICReg"], "trained": "#000000",
}
LOSSES = {"VICReg": COLORS["VICReg"], "SIGReg": COLORS["SIGReg"], "VISReg": "#E69F00", "prediction": "#000000"}
MARKERS = "osv^Dx*"


@styled
def probe_errors(angles: Tensor, error: dict[str, Tensor]) -> None:
    """A probe's error (T,) against the direction of its task, a line for each cloud."""
    best = min(error, key=lambda name: error[name].mean())
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for (name, values), style in zip(error.items(), ["-", "--", ":"], strict=True):
        ax.plot(array(angles.rad2deg()), array(values), style, label=name)
    ax.set(xlabel="direction of the task, degrees (0: the first factor)", ylabel="mean squared error", ylim=(0, None),
           title=f"Averaged over all tasks, the best cloud is: {best}")
    ax.legend(title="variance of the two factors", fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, "Error of a probe against the task's direction: " + "; ".join(
        f"{name}, from {values.min():.2f} to {values.max():.2f}" for name, values in error.items()))


@styled
def shadows(clouds: dict[str, Tensor], degrees: Sequence[float]) -> None:
    """Clouds (N, 2), and a histogram of each one's shadow at every angle under the Gaussian curve."""
    figure, axes = plt.subplots(len(clouds), 1 + len(degrees), figsize=(9, 5.6), layout="constrained")
    line = torch.linspace(-3.5, 3.5, 141)
    for (name, cloud), row in zip(clouds.items(), axes, strict=True):
        row[0].plot(*array(cloud[:800].T), ".", markersize=2)
        row[0].set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xticks=[-2, 0, 2], yticks=[-2, 0, 2], aspect="equal",
                   ylabel=name)
        for ax, angle in zip(row[1:], map(math.radians, degrees), strict=True):
            shadow = cloud @ torch.tensor([math.cos(angle), math.sin(angle)])
            ax.hist(array(shadow), bins=60, range=(-3.5, 3.5), density=True, alpha=0.6)
            ax.plot(line, torch.exp(-line.square() / 2) / math.sqrt(2 * math.pi), color="black", linewidth=1)
            ax.set(yticks=[], ylim=(0, 0.9))
    for ax, title in zip(axes[0], ["the cloud", *(f"shadow at {angle:g}°" for angle in degrees)], strict=True):
        ax.set_title(title)
    headline(figure, "The cross looks Gaussian from both axes; a slanted shadow gives it away")
    show(figure, f"Three clouds and their shadows at {', '.join(f'{angle:g}' for angle in degrees)} degrees with the "
                 "Gaussian curve: the cross matches the curve along both axes and has a spike between them")


@styled
def winding(samples: dict[str, Tensor], frequencies: Sequence[float]) -> None:
    """Samples (N,) wound around the unit circle at each frequency, with their average as an arrow."""
    figure, axes = plt.subplots(len(samples), len(frequencies), figsize=(8.4, 4.4), layout="constrained")
    for (name, x), row in zip(samples.items(), axes, strict=True):
        for ax, t in zip(row, frequencies, strict=True):
            east, north = array((t * x).cos()), array((t * x).sin())
            ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.7"))
            ax.plot(east, north, "o", markersize=5, alpha=0.4)
            ax.annotate("", (east.mean(), north.mean()), (0, 0),
                        arrowprops={"arrowstyle": "->", "color": COLORS["collapsed"], "lw": 2.5})
            ax.plot(math.exp(-(t**2) / 2), 0, "x", color="black", markersize=7)
            ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[])
            ax.grid(visible=False)
        row[0].set_ylabel(name)
    for ax, t in zip(axes[0], frequencies, strict=True):
        ax.set_title(f"t = {t:g}")
    headline(figure, "Samples that agree keep a long average arrow; spread samples cancel")
    show(figure, "Two rows of circles: samples at one place stay together and their average arrow has length one; "
                 "Gaussian samples spread as t grows and their arrow shrinks towards nothing")


@styled
def characteristic_functions(t: Tensor, curves: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Real and imaginary part (T,) of samples' characteristic functions, beside the Gaussian's."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for name, parts in curves.items():
        for ax, part in zip((left, right), parts, strict=True):
            ax.plot(t, array(part), color=CLOUDS[name], label=name)
    left.plot(t, torch.exp(-t.square() / 2), "k--", linewidth=1.2, label="Gaussian, exact")
    right.plot(t, torch.zeros_like(t), "k--", linewidth=1.2)
    left.set(xlabel="frequency t", ylabel="average", title="Cosines: collapse never leaves 1")
    right.set(xlabel="frequency t", title="Sines: large for the skewed sample alone")
    right.legend(*left.get_legend_handles_labels(), fontsize=9, loc="upper right")
    show(figure, "Real and imaginary part of four empirical characteristic functions against the Gaussian's: collapsed "
                 "is flat at one, bimodal swings below zero, skewed has a large imaginary part, healthy follows the "
                 "dashed curve")


@styled
def windowed(t: Tensor, distance: dict[str, Tensor], window: Tensor) -> None:
    """Squared distances (T,) between characteristic functions, before and after the window; the area is EP."""
    figure, axes = plt.subplots(2, len(distance), figsize=(9, 4.4), sharex=True, sharey="row", layout="constrained")
    areas = {}
    for (name, values), (above, below) in zip(distance.items(), axes.T, strict=True):
        areas[name] = torch.trapezoid(values * window, t).item()
        above.fill_between(t, window, color="0.88", linewidth=0)
        above.plot(t, array(values), color=CLOUDS[name])
        above.set_title(name)
        below.fill_between(t, array(values * window), color=CLOUDS[name], alpha=0.5)
        below.plot(t, array(values * window), color=CLOUDS[name], linewidth=1.2)
        below.text(0.5, 0.93, f"area {areas[name]:.4f}", transform=below.transAxes, ha="center", va="top", fontsize=10)
        below.set(xlabel="frequency t", xticks=[-4, 0, 4])
    axes[0, 0].set_ylabel("squared distance\n(gray: the window)", fontsize=10)
    axes[1, 0].set_ylabel("after the window", fontsize=10)
    axes[1, 0].set_ylim(0, 1.3 * max(float((values * window).max()) for values in distance.values()))
    headline(figure, "The area below is the statistic; a healthy sample leaves next to none")
    show(figure, "Squared distance between characteristic functions before and after the window; the areas are "
         + ", ".join(f"{name} {area:.4f}" for name, area in areas.items()))


@styled
def sculptor(kept: dict[int, Tensor], shapes: Sequence[str]) -> None:
    """Clouds (shapes, N, 2) after some numbers of steps of gradient descent, a row for each shape."""
    figure, axes = plt.subplots(len(shapes), len(kept), figsize=(8.6, 8.8), layout="constrained")
    for column, (step, state) in zip(axes.T, kept.items(), strict=True):
        for ax, cloud, name in zip(column, state, shapes, strict=True):
            ax.plot(*array(cloud.T), ".", markersize=2, color=COLORS["SIGReg"])
            ax.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[],
                   ylabel="" if step else name)
        column[0].set_title(f"step {step:,}" if step else "start")
    headline(figure, "Gradient descent on SIGReg alone: dot and line become blobs, threads fold")
    show(figure, f"Six point clouds over {max(kept):,} steps of gradient descent: dot and line turn into round blobs, "
                 "heaps spread and almost merge, cross and ring stay thin threads that fold")


@styled
def trained_clouds(eigvals: dict[str, Tensor], shadows: dict[str, Tensor]) -> None:
    """Spectra of trained embeddings, and the mean and standard deviation of their shadows (N, K)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    spectrum(left, eigvals, "Spectrum of z")
    left.axhline(1, color="black", linestyle="--", linewidth=1)
    reach = {}
    for (name, shadow), marker in zip(shadows.items(), "ox", strict=True):
        center, spread = array(shadow.mean(dim=0)), array(shadow.std(dim=0))
        reach[name] = abs(center).max()
        right.plot(center, spread, marker, markersize=4, alpha=0.6, color=COLORS[name], label=name)
    right.plot(0, 1, "*", markersize=16, color="black", label="the goal")
    nearest = min(reach, key=lambda name: reach[name])
    right.set(xlabel="mean of a shadow", ylabel="its standard deviation",
              title=f"Shadows of z: {nearest} is centred better")
    right.legend(fontsize=9)
    show(figure, "Left: eigenvalue spectra of embeddings on a log axis, a dashed line at variance one. Right: mean "
                 "and standard deviation of their shadows; means reach "
         + " and ".join(f"{value:.2f} for {name}" for name, value in reach.items()))


def strip(ax: plt.Axes, results: dict[str, list[float]], guesses: dict[str, float | None]) -> None:
    """A row for each name: a dot for each seed, a bar at their mean, and the reader's guess."""
    for row, (name, values) in enumerate(results.items()):
        color = COLORS.get(name, "#0072B2")
        ax.plot(values, [row] * len(values), "o", color=color, markersize=8, alpha=0.5, markeredgewidth=0)
        ax.plot([mean(values)] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2.5)
        ax.text(mean(values), row - 0.36, f"{mean(values):.1f}", ha="center", fontsize=10, color=color)
        guess(ax, guesses.get(name), row)
    ax.set_yticks(range(len(results)), list(results))
    ax.set_ylim(len(results) - 0.5, -0.75)
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.1)


@styled
def probes(results: dict[str, list[float]], guesses: dict[str, float | None]) -> None:
    """Probe accuracies of several seeds for each name."""
    figure, ax = plt.subplots(figsize=(8, 0.7 * len(results) + 0.9), layout="constrained")
    strip(ax, results, guesses)
    gap = min(results["SIGReg"]) - max(results["untrained"] + results["collapsed"])
    ax.set(xlabel="linear probe, % of test images; a dot per seed, a bar at the mean",
           title=f"The worst SIGReg is {abs(gap):.0f} points {'above' if gap > 0 else 'below'} the best of the others")
    show(figure, "Linear probe accuracies by seed: " + "; ".join(
        f"{name} {', '.join(f'{value:.1f}' for value in values)} percent" for name, values in results.items()))


@styled
def roundness(panels: dict[str, dict[str, list[float]]], guesses: dict[str, float | None]) -> None:
    """Effective rank of features in percent of their width, of several seeds; a panel for each way to scale them."""
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.4), sharey=True, layout="constrained")
    for ax, (title, results) in zip(axes, panels.items(), strict=True):
        strip(ax, results, guesses if ax is axes[-1] else {})
        ax.set(xlabel="effective rank of h, % of F", title=title)
    means = {name: mean(values) for name, values in list(panels.values())[-1].items()}
    ahead = {name: means["SIGReg"] - means[name] for name in ("untrained", "collapsed")}
    said = (f"{abs(x):.0f} points {'rounder' if x > 0 else 'less round'} than {name}" for name, x in ahead.items())
    headline(figure, f"SIGReg's h, standardised: {' and '.join(said)}")
    show(figure, "Effective rank of the features by seed, in percent. " + " ".join(
        f"{title}: " + ", ".join(f"{name} {mean(values):.0f}" for name, values in results.items()) + "."
        for title, results in panels.items()))


@styled
def many_dimensions(sizes: Sequence[int], curves: dict[str, list[float]], ranks: Sequence[int],
                    by_rank: list[float]) -> None:
    """SIGReg over the score of a Gaussian sample, against the number of dimensions and against the rank."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for (name, values), marker in zip(curves.items(), MARKERS, strict=False):
        left.loglog(sizes, values, marker=marker, markersize=5, label=name, color=CLOUDS[name])
    right.loglog(ranks, by_rank, "s-", markersize=5, color=CLOUDS["two factors"])
    for ax, ticks in ((left, sizes), (right, ranks)):
        ax.axhline(1, color="black", linestyle="--", linewidth=1)
        count_ticks(ax, ticks)
    left.set(xlabel="dimensions D (N = 1,024)", ylabel="SIGReg / (1.06 / N)", ylim=(0.5, 3000),
             title="Many dimensions hide one kind of shape")
    left.legend(fontsize=9, loc="upper right", ncols=2)
    right.set(xlabel="rank of the cloud, of D = 64 (N = 256)",
              title=f"The last half of the axes: {by_rank[-2]:.1f} to {by_rank[-1]:.1f}")
    show(figure, f"Left: SIGReg in units of a Gaussian sample's score, at {sizes[0]} and {sizes[-1]} dimensions: "
         + ", ".join(f"{name} {values[0]:.1f} and {values[-1]:.1f}" for name, values in curves.items())
         + f". Right: it falls from {by_rank[0]:.0f} to {by_rank[-1]:.1f} as the rank grows")


@styled
def slices(counts: Sequence[int], spread: dict[str, list[float]], batch: dict[str, float],
           agreement: dict[str, list[float]], enough: dict[str, float | None]) -> None:
    """Spread of the estimate over fresh slices beside that over batches, and the gradient's cosine with the exact."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for (name, values), marker in zip(spread.items(), MARKERS, strict=False):
        left.loglog(counts, values, marker=marker, color=CLOUDS[name], label=f"{name}: fresh slices")
        left.axhline(batch[name], color=CLOUDS[name], linestyle="--", linewidth=1.2, label=f"{name}: fresh batches")
        right.semilogx(counts, agreement[name], marker=marker, color=CLOUDS[name], label=name)
    for value in enough.values():
        guess(right, value, 0.7)
    for ax in (left, right):
        count_ticks(ax, counts)
        ax.legend(fontsize=9)
    left.set(xlabel="slices K", ylabel="standard deviation of SIGReg", title="Four times the slices, half the spread")
    middle = counts.index(256)
    right.set(xlabel="slices K", ylabel="cosine with the gradient of 16,384", ylim=(0, 1.05),
              title="At K = 256: " + ", ".join(f"{name} {values[middle]:.2f}" for name, values in agreement.items()))
    show(figure, "Left: spread of SIGReg against the number of slices, the spread between batches as dashed lines. "
                 "Right: how well the gradient on K slices agrees with that on very many: " + ", ".join(
                     f"{name} {values[0]:.2f} to {values[-1]:.2f}" for name, values in agreement.items()))


@styled
def collapse_forces(scales: Tensor, forces: dict[str, list[float]], paths: dict[str, list[float]]) -> None:
    """Length of the gradient against the scale of z, and the scale over steps of plain gradient descent."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for ax, lines in ((left, forces), (right, paths)):
        for name, values in lines.items():
            x = array(scales) if ax is left else range(len(values))
            style = "--" if "alone" in name else ":" if name == "prediction" else "-"
            alive = [value if value > 0 else math.nan for value in values]
            ax.plot(x, alive, style, color=LOSSES[name.split(",")[0]], label=name)
            ax.set_yscale("log")
    left.set(xscale="log", xlabel="standard deviation of z", ylabel="length of the gradient",
             title="Which forces fade towards 0?")
    right.axhline(1, color="black", linewidth=0.8)
    right.set(xlabel="step of plain gradient descent", ylabel="standard deviation of z",
              title=f"Climbing out from {paths['SIGReg'][0]:g}")
    left.legend(fontsize=9)
    show(figure, f"Left: length of the gradient at a standard deviation of {scales[0]:.0e} and of 0.1: "
         + ", ".join(f"{name} {values[0]:.1g} and {values[nearest(scales, 0.1)]:.1g}"
                     for name, values in forces.items())
         + ". Right: the scale over steps; largest on the way: "
         + ", ".join(f"{name} {max(values):.2g}" for name, values in paths.items()))


def nearest(values: Tensor, wanted: float) -> int:
    """Index of the entry of values (M,) that is nearest to the one wanted."""
    return int((values - wanted).abs().argmin())


@styled
def rescue(stds: dict[tuple[str, str], list[float]], percent: dict[tuple[str, str], float], lost: float,
           guesses: dict[str, float | None]) -> None:
    """Scale of z by epoch and the probe in the end, by (start, loss): a collapsed encoder beside a fresh one.

    `lost`: the probe of the collapsed encoder, before it was rescued.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    names = list(dict.fromkeys(loss for _, loss in stds))
    for (start, loss), values in stds.items():
        rescued, row = start == "collapsed", names.index(loss)
        style = "-o" if rescued else ":^"
        left.semilogy(values, style, color=LOSSES[loss], markersize=5, label=f"{loss}, {start}")
        right.plot(percent[start, loss], row, style[-1], markersize=10, color=LOSSES[loss],
                   markerfacecolor=LOSSES[loss] if rescued else "white")
        right.text(percent[start, loss], row + (-0.17 if rescued else 0.3), "rescued" if rescued else "fresh",
                   ha="center", fontsize=9)
    right.axvline(lost, color=COLORS["collapsed"], linestyle="--", linewidth=1)
    right.text(lost, -0.47, " collapsed", color=COLORS["collapsed"], va="center", fontsize=9)
    for loss, value in guesses.items():
        guess(right, value, names.index(loss))
    left.set(xlabel="epochs with a regularizer", ylabel="standard deviation of z", title="z comes back")
    left.set_xticks(range(max(map(len, stds.values()))))
    left.legend(fontsize=9)
    behind = mean(percent["fresh", loss] - percent["collapsed", loss] for loss in names)
    right.set(xlabel="linear probe, % of test images", yticks=range(len(names)), yticklabels=names,
              ylim=(len(names) - 0.5, -0.7), title=f"Features: on average {abs(behind):.0f} points\n"
              f"{'behind' if behind > 0 else 'ahead of'} a fresh start")
    right.margins(x=0.15)
    show(figure, f"Scale of z over epochs, and the probe in the end; collapsed, it had {lost:.1f}: " + "; ".join(
        f"{loss} from {start}, {values[0]:.2g} to {values[-1]:.2g}, {percent[start, loss]:.1f} percent"
        for (start, loss), values in stds.items()))


@styled
def knobs(results: dict[str, dict[float, float]], untrained: float, guesses: dict[str, float | None]) -> None:
    """Probe accuracy against each weight as a multiple of its recipe's value, and the untrained encoder's."""
    figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
    for (name, values), marker, style in zip(results.items(), "os^D", ["-", ":", "--", "-."], strict=True):
        color = COLORS["SIGReg" if name == "lmbd" else "VICReg"]
        label = f"{'SIGReg' if name == 'lmbd' else 'VICReg'}, {name}"
        ax.semilogx(list(values), list(values.values()), style, marker=marker, label=label, color=color)
    _, best = max((percent, factor) for factor, percent in results["lmbd"].items())
    guess(ax, best, guesses.get("lmbd"))
    ax.axhline(untrained, color=COLORS["untrained"], linewidth=1, label="untrained encoder")
    common = {name: [value for f, value in values.items() if 0.099 < f < 10.1] for name, values in results.items()}
    swing = {name: max(values) - min(values) for name, values in common.items()}
    widest = max(swing.values())
    most = [name for name, points in swing.items() if widest - points < 3]  # less is noise
    moves = f"{' and '.join(most)} {'moves' if len(most) == 1 else 'move'}"
    ax.set(xlabel="weight, as a multiple of the recipe's", ylabel="linear probe, %",
           title=f"From a tenth to ten times, {moves} the probe most: up to {widest:.0f} points")
    ax.set_xticks(list(results["lmbd"]), [f"{f:.2g}" if f < 1 else f"{f:g}" for f in results["lmbd"]])
    ax.minorticks_off()
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, "Probe accuracy against each weight as a multiple of its recipe value: " + ", ".join(
        f"{name} moves it by {value:.0f} points" for name, value in swing.items()))


@styled
def cost(widths: Sequence[int], milliseconds: dict[str, list[float]], guesses: dict[str, float | None]) -> None:
    """Milliseconds of a loss and its gradient against the dimensions of z."""
    figure, ax = plt.subplots(figsize=(8.4, 3.8), layout="constrained")
    styles = {"covariance, D x D": "-", "covariance, jepa_utils": "--"}
    for name, values in milliseconds.items():
        color = LOSSES["VICReg" if name in styles else name]
        ax.loglog(widths, values, styles.get(name, "-"), marker="o", color=color, label=name)
        guess(ax, widths[-1], guesses.get(name))
    times = milliseconds["covariance, D x D"][-1] / milliseconds["SIGReg"][-1]
    ax.set(xlabel="dimensions D of z", ylabel="milliseconds, loss and gradient",
           title=f"At D = {widths[-1]:,} the D x D matrix takes {times:.1f} times as long as SIGReg")
    count_ticks(ax, widths)
    ax.legend(fontsize=9, handlelength=3.5)
    show(figure, f"Milliseconds at {widths[0]} and {widths[-1]:,} dimensions: " + ", ".join(
        f"{name} {values[0]:.1f} and {values[-1]:.1f}" for name, values in milliseconds.items()))
