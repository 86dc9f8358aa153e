"""Figures of notebook 08: six methods side by side, and each without the part that holds it open."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ..plots import COLORS, array, count_ticks, guess, headline, plt, show, styled

METHODS = {  # colour and marker of each, so that print tells them apart too
    "SimCLR": ("#E69F00", "s"), "SimSiam": ("#56B4E9", "v"), "BYOL": ("#8C510A", "^"),
    "VICReg": (COLORS["VICReg"], "o"), "SIGReg": (COLORS["SIGReg"], "D"), "VISReg": ("#7FBC41", "P"),
}
REMOVED = ((COLORS["collapsed"], "--"), ("#000000", ":"))  # a first and a second removal


@styled
def cosines(matrices: Mapping[str, Tensor], title: str) -> None:
    """Cosines between all views of some images, (2n, 2n), the n first views before the n second ones.

    A view's cosine with itself is left blank, that with its partner is framed by the picture itself: a diagonal.
    """
    figure, axes = plt.subplots(1, len(matrices), figsize=(9, 3.3), layout="constrained", squeeze=False)
    said = []
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        values = np.array(array(matrix), dtype=float)
        n = len(values) // 2
        same = np.abs(np.subtract.outer(np.arange(2 * n), np.arange(2 * n))) == n
        partners, others = values[same].mean(), values[~same & ~np.eye(2 * n, dtype=bool)].mean()
        np.fill_diagonal(values, np.nan)
        shown = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        ax.axhline(n - 0.5, color="black", linewidth=0.8)
        ax.axvline(n - 0.5, color="black", linewidth=0.8)
        ax.set(xticks=[(n - 1) / 2, n + (n - 1) / 2], xticklabels=["first views", "second views"],
               yticks=[(n - 1) / 2, n + (n - 1) / 2], yticklabels=["first", "second"])
        ax.tick_params(length=0)
        ax.grid(visible=False)
        ax.set_title(f"{name}\npartners {partners:.2f}, others {others:.2f}", fontsize=10)
        said.append(f"{name}: partners {partners:.2f}, others {others:.2f}")
    figure.colorbar(shown, ax=axes[0], label="cosine", ticks=[-1, 0, 1], shrink=0.8)
    headline(figure, title)
    show(figure, "Matrices of cosines between views. Mean cosines: " + "; ".join(said))


@styled
def standing(probes: Mapping[str, Sequence[float]], untrained: float, guesses: Mapping[str, float | None]) -> None:
    """Probe accuracies by method: a mark for each seed, a line at the mean."""
    figure, ax = plt.subplots(figsize=(8, 4.2), layout="constrained")
    means = {name: float(np.mean(values)) for name, values in probes.items()}
    for i, (name, values) in enumerate(probes.items()):
        color, marker = METHODS[name]
        ax.plot([means[name]] * 2, [i - 0.32, i + 0.32], color=color, linewidth=3)
        ax.plot(values, i + np.linspace(-0.15, 0.15, len(values)), marker, color=color, markersize=7,
                markeredgecolor="white")
        ax.text(means[name], i - 0.34, f"{means[name]:.1f}", ha="center", va="bottom", fontsize=9)
        guess(ax, guesses.get(name), i)
    ax.axvline(untrained, color=COLORS["untrained"], linestyle="--", linewidth=1.5)
    ax.text(untrained, -0.75, f"  untrained {untrained:.1f}", va="center", fontsize=9)  # beside the line
    best, last = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
    ax.set_yticks(range(len(probes)), list(probes))
    ax.set(xlabel="linear probe on h, % of test images", ylim=(len(probes) - 0.4, -1),
           title=f"Highest mean: {best}; lowest: {last} (a mark for each seed, a bar at their mean)")
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.1)
    show(figure, f"Linear probes, untrained {untrained:.1f} %. Means over the seeds: " + ", ".join(
        f"{name} {value:.1f}" for name, value in means.items()))


@styled
def taken_out(panels: Mapping[str, Mapping[str, Tensor]], states: Mapping[str, Mapping[str, str]]) -> None:
    """Spectra of z (D,) as the loss reads it: a panel for each method, whole and with a part removed."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.4), layout="constrained", sharex=True, sharey=True)
    for ax, (method, spectra) in zip(axes.flat, panels.items(), strict=True):
        looks = [(METHODS[method][0], "-"), *REMOVED]
        for (name, eigvals), (color, style) in zip(spectra.items(), looks, strict=False):
            values = array(eigvals).clip(1e-12)
            ax.semilogy(np.arange(1, len(values) + 1), values, style, color=color,
                        label=f"{name}: {states[method][name]}")
        ax.set(title=method, ylim=(1e-6, 1e3))
        ax.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.03 if ax in axes[0] else -0.22))
    for ax in axes[1]:
        ax.set_xlabel("principal axis of z, from the widest")
    for ax in axes[:, 0]:
        ax.set_ylabel("variance along it")
    parts = [(m, n) for m in states for n in states[m] if n != "whole"]
    fallen = sum("collapse" in states[m][n] for m, n in parts)
    headline(figure, f"Of {len(parts)} removals, {fallen} end beyond the threshold of a collapse")
    show(figure, "Spectra of z, a panel for each method. " + "; ".join(
        f"{method}, " + ", ".join(f"{name}: {state}" for name, state in line.items())
        for method, line in states.items()))


@styled
def delayed(tracks: Mapping[str, Sequence[float]], guessed: float | None) -> None:
    """Std of the directions of z against the step, run by run; the reader's guess of the second one's end."""
    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    colors = (COLORS["collapsed"], "#E69F00", "#999999", METHODS["BYOL"][0])
    for (name, track), color, style in zip(tracks.items(), colors, ("-", "--", ":", "-"), strict=True):
        ax.semilogy(np.arange(1, len(track) + 1), np.maximum(track, 1e-5), style, color=color, label=name)
    second = list(tracks.values())[1]
    guess(ax, len(second) if guessed is not None else None, guessed)
    ends = {name: track[-1] for name, track in tracks.items()}
    ax.set(xlabel="training step", ylabel="std of the directions of z", ylim=(1e-4, 2),
           title=f"At the end the std is {min(ends.values()):.3f} to {max(ends.values()):.3f}")
    ax.legend(fontsize=9, ncols=2, loc="lower left")
    show(figure, "Std of the directions of z over training, at the end: " + ", ".join(
        f"{name} {end:.3f}" for name, end in ends.items()))


@styled
def curves(looks: Mapping[str, Mapping[int, float]], longer: tuple[str, Mapping[int, float]]) -> None:
    """k-NN accuracy against the step, {step: percent} by method; and one of the methods once more, for longer."""
    figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, look in looks.items():
        color, marker = METHODS[name]
        ax.plot(list(look), list(look.values()), marker=marker, color=color, label=name)
    name, look = longer
    color, marker = METHODS[name]
    ax.plot(list(look), list(look.values()), "--", marker=marker, color=color, markerfacecolor="white",
            label=f"{name}, longer")
    ends = {other: list(look.values())[-1] for other, look in looks.items()}
    last, end = max(look), list(look.values())[-1]
    passed = sum(end > value for other, value in ends.items() if other != name)
    ax.set(xlabel="training step", ylabel="k-NN on h, % of test images",
           title=f"After {last} steps {name} is above {passed} of the other {len(ends) - 1} after "
                 f"{max(next(iter(looks.values())))}")
    ax.legend(fontsize=9, ncols=2)
    show(figure, "k-NN accuracy against training step. At the end: " + ", ".join(
        f"{other} {value:.1f}" for other, value in ends.items()) + f"; {name} after {last} steps {end:.1f}")


@styled
def seen_at_once(counts: Sequence[int], probes: Mapping[str, Sequence[float]],
                 ranks: Mapping[str, Sequence[float]]) -> None:
    """Probe of h and effective rank of z against the number of images that the loss sees at once."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, lines in ((left, probes), (right, ranks)):
        for name, values in lines.items():
            color, marker = METHODS[name]
            ax.semilogx(counts, values, marker=marker, color=color, label=name)
        ax.set_xlabel("images that the loss sees at once")
        count_ticks(ax, counts)
    drops = {name: values[-1] - values[0] for name, values in probes.items()}
    most = max(drops, key=lambda name: drops[name])
    left.set(ylabel="linear probe on h, %", title=f"From {counts[-1]} to {counts[0]}, {most} loses most")
    right.set(ylabel="effective rank of z", title="Directions in use")
    left.legend(fontsize=9)
    show(figure, f"Probe and rank against the images seen at once. Points lost from {counts[-1]} to {counts[0]}: "
               + ", ".join(f"{name} {drop:.1f}" for name, drop in drops.items()))
