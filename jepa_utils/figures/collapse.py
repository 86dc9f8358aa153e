"""Figures of notebook 03: clouds that shrink or flatten, spectra, and a map of what was lost."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..plots import COLORS, array, guess, headline, plt, show, styled
from ..spectra import DIMENSIONAL_RANK, SCALE_STD, CollapseReport

RUNS = COLORS | {"no projector": "#56B4E9", "variance only": "#E69F00"}
SMALLEST = 1e-12  # of a variance that is drawn on a log axis


def _dots(ax: Axes, z: Tensor, points: Tensor, centre: Sequence[float], reach: float):
    """Dots z (N, 2) in the colours of their inputs, in a square window."""
    (across, up), (x, y) = array(z).T, centre
    drawn = ax.scatter(across, up, c=array(points[:, 0]), cmap="viridis", s=6)
    ax.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach), aspect="equal")
    ax.tick_params(labelbottom=False, labelleft=False, length=0)
    return drawn


@styled
def toy_inputs(points: Tensor, views: Tensor, pairs: int = 12) -> None:
    """The toy's images, points (N, 2), with the key to their colours; beside them two views (2, N, 2) of some."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True, sharey=True)
    reach = 1.05 * points.abs().max().item()
    drawn = _dots(left, points, points, (0, 0), reach)
    shade = plt.cm.viridis(drawn.norm(array(points[:pairs, 0])))
    for pair, color in zip(array(views[:, :pairs]).transpose(1, 0, 2), shade, strict=True):
        right.plot(*pair.T, "o-", color=color, markersize=5, linewidth=1.5)
    right.tick_params(labelbottom=False, labelleft=False, length=0)
    left.set(xlabel="left-right position", ylabel="up-down position", title=f"{len(points)} images, a dot each")
    right.set(xlabel="left-right position", aspect="equal", title=f"Views of a dot stay close: {pairs} pairs")
    figure.colorbar(drawn, ax=right, label="left-right position of the dot")
    spread, nudge = points.std(dim=0), (views[0] - points).std(dim=0)
    show(figure, f"Left: {len(points)} dots in the plane, coloured from dark at the left to bright at the right; std "
                 f"{spread[0]:.1f} from left to right and {spread[1]:.1f} up and down. Right: {pairs} pairs of views, "
                 f"each pair a short line; a view lies {nudge.mean():.1f} from its dot, as a std in each direction")


@styled
def shrinking(frames: dict[int, Tensor], points: Tensor) -> None:
    """A toy's cloud over its training {step: (N, 2)}, on the same axes and magnified."""
    figure, axes = plt.subplots(2, len(frames), figsize=(9, 4.5), layout="constrained", squeeze=False)
    limit = 1.2 * max(z.abs().max().item() for z in frames.values())
    for (same, magnified), (step, z) in zip(axes.T, frames.items(), strict=True):
        centre = z.mean(dim=0)
        reach = 1.5 * (z - centre).abs().amax(dim=1).quantile(0.97).item()  # of outliers a few are left out
        _dots(same, z, points, (0, 0), limit)
        _dots(magnified, z, points, centre.tolist(), reach)
        same.set_title(f"step {step}", fontsize=11)
        magnified.set_title(f"{limit / reach:.0f} x", fontsize=11)
    axes[0, 0].set_ylabel("same axes")
    axes[1, 0].set_ylabel("magnified")
    first, last = (frames[step].std(dim=0).mean().item() for step in (min(frames), max(frames)))
    headline(figure, f"Agreement alone: the std of the cloud goes from {first:.2f} to {last:.2g}")
    show(figure, f"Clouds of dots at steps {', '.join(map(str, frames))} of a training. On the same axes the std goes "
                 f"from {first:.2f} to {last:.2g}; below, each cloud is magnified until it fills its panel")


@styled
def held_open(rows: dict[str, dict[int, Tensor]], points: Tensor) -> None:
    """Toy clouds over training, a row each: {name: {step: (N, 2)}}."""
    figure, axes = plt.subplots(len(rows), len(next(iter(rows.values()))), figsize=(9, 2.15 * len(rows) + 0.3),
                                layout="constrained", squeeze=False)
    limit = 1.05 * max(z.abs().max().item() for frames in rows.values() for z in frames.values())
    for line, (name, frames) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for ax, (step, z) in zip(line, frames.items(), strict=True):
            _dots(ax, z, points, (0, 0), limit)
            ax.set_title(f"step {step}", fontsize=11)
    r = {name: torch.corrcoef(frames[max(frames)].T)[0, 1].abs().item() for name, frames in rows.items()}
    headline(figure, "Held open, and flat all the same")
    show(figure, "Rows of clouds over training, the dots coloured by left-right position: " + "; ".join(
        f"{name}, the two dimensions end with a correlation of {r[name]:.2f} in size" for name in rows))


@styled
def training(looks: list[dict], guesses: dict[str, float | None]) -> None:
    """Three looks at one training: loss, spectra (D,) of z, and probe on h, before the first epoch and after each."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
    epochs, color = range(len(looks)), COLORS["collapsed"]
    loss, probe = ([look[name] for look in looks] for name in ("loss", "probe"))
    fall, shrunk = loss[0] / loss[-1], (looks[0]["spectrum"].sum() / looks[-1]["spectrum"].sum()).sqrt().item()
    left.semilogy(epochs, loss, "o-", color=color)
    guess(left, epochs[-1], loss[0] / guesses["factor"] if guesses["factor"] else None)
    left.set(xlabel="epoch", ylabel="loss on test views", title=f"Loss: divided by {fall:,.0f}")
    for epoch, look in enumerate(looks):
        label = {0: "before training", epochs[-1]: f"after epoch {epochs[-1]}"}.get(epoch)
        values = array(look["spectrum"]).clip(SMALLEST)
        middle.semilogy(range(1, len(values) + 1), values, color=plt.cm.viridis(0.9 * (1 - epoch / epochs[-1])),
                        label=label)
    middle.set(xlabel="axis of z, from the longest", ylabel="variance",
               title=f"Spectrum of z: its std fell {shrunk:.0f}-fold")
    middle.legend(fontsize=9)
    right.errorbar(epochs, probe, [look["error"] for look in looks], fmt="o-", color=color, markersize=4, capsize=3)
    right.axhline(probe[0], color=COLORS["untrained"], linestyle="--", linewidth=1)
    right.text(epochs[-1], probe[0] + 1, "random weights", ha="right", va="bottom", fontsize=10)
    guess(right, epochs[-1], guesses["probe"])
    for ax in (left, right):
        ax.set_xticks(epochs[:: max(1, epochs[-1] // 4)])
    right.set(xlabel="epoch", ylabel="linear probe on h, %", ylim=(0, 1.35 * max(probe)),
              title=f"Probe: {probe[0]:.0f} to {probe[-1]:.0f} %")
    show(figure, f"Three panels over training: the loss is divided by {fall:,.0f}; every axis of the spectrum of z is "
                 f"drawn once an epoch, and the std of z is divided by {shrunk:.0f}; the probe on h moves from "
                 f"{probe[0]:.0f} to {probe[-1]:.0f} percent")


@styled
def paired(rows: list[dict]) -> None:
    """Before and after, joined, a line per seed: probe on h with its standard error, and effective rank of z."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.5 * len(rows) + 2), layout="constrained", sharey=True)
    said = []
    for ax, name, unit in zip(axes, ("probe", "rank"), ("linear probe on h, %", "effective rank of z"), strict=True):
        for i, row in enumerate(rows):
            ax.plot(row[name], [i, i], color="#999999", zorder=1)
            for j, state in enumerate(("untrained", "collapsed")):
                ax.errorbar(row[name][j], i, xerr=row["error"][j] if name == "probe" else None, fmt="o", capsize=3,
                            color=COLORS[state], label=("untrained", "trained to agree")[j] if i == 0 else None)
        difference = torch.tensor([row[name][1] - row[name][0] for row in rows], dtype=torch.float64)
        moved, error = "rises" if difference.mean() > 0 else "falls", difference.std() / len(difference) ** 0.5
        said.append(f"{moved} by {difference.mean().abs():.0f} ± {error:.0f}")
        ax.set(xlabel=unit, xlim=(0, 1.1 * max(max(row[name]) for row in rows)))
    axes[0].set(yticks=range(len(rows)), yticklabels=[f"seed {row['seed']}" for row in rows], ylim=(len(rows), -0.6),
                title=f"The probe {said[0]} points")
    axes[1].set(title=f"The rank of z {said[1]}")
    axes[0].legend(ncol=2, loc="lower left", fontsize=10)
    show(figure, f"Two dots a seed, untrained and trained to agree, joined by a line. By mean and standard error "
                 f"over {len(rows)} seeds, the probe on h {said[0]} points and the effective rank of z {said[1]}")


@styled
def feature_spectra(spectra: dict[str, Tensor]) -> None:
    """Spectra (F,) of h by run: as they are, and divided by their sum."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, spectrum in spectra.items():
        values = array(spectrum).clip(SMALLEST)
        axes = range(1, len(values) + 1)
        left.semilogy(axes, values, color=RUNS[name], label=name)
        right.semilogy(axes, values / values.sum(), color=RUNS[name])
    left.set(xlabel="axis of h, from the longest", ylabel="variance", title="h as it is: scale")
    right.set(xlabel="axis of h, from the longest", ylabel="share of all variance", title="Divided by its sum: shape")
    left.legend()
    total = ", ".join(f"{name} {spectrum.sum():.2g}" for name, spectrum in spectra.items())
    first = ", ".join(f"{name} {spectrum[0] / spectrum.sum():.0%}" for name, spectrum in spectra.items())
    show(figure, f"Left: variances of h along its axes; their sums: {total}. Right: the same divided by the sum; the "
                 f"longest axis holds: {first}")


def _regions(ax: Axes, smallest: float) -> None:
    """What the collapse report calls a cloud of this std and this rank, where no image gets the others' vector."""
    ax.axvspan(smallest, SCALE_STD, color="#D55E00", alpha=0.1, linewidth=0)
    ax.axhspan(0, 100 * DIMENSIONAL_RANK, color="#E69F00", alpha=0.15, linewidth=0)
    for x, y, state in ((1.15 * smallest, 105, "scale collapse"), (0.12, 105, "healthy"),
                        (0.12, 100 * DIMENSIONAL_RANK + 2, "dimensional collapse, below")):
        ax.text(x, y, state, fontsize=10, style="italic")


@styled
def lost(reports: dict[str, CollapseReport], shares: dict[str, float], probes: dict[str, float],
         guesses: dict[str, float | None]) -> None:
    """Where runs lie by std and rank of z, with the regions of the report; beside it how well their views agree."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", width_ratios=(3, 2))
    smallest = min(3e-4, *(report.std / 4 for report in reports.values()))
    _regions(left, smallest)
    for name, report in reports.items():
        rank = 100 * report.effective_rank / report.dimensions
        asked = name != "untrained"  # no loss has touched it: no region is meant for it
        left.scatter(report.std, rank, s=60, zorder=2, edgecolor=RUNS[name], color=RUNS[name] if asked else "white")
        left.annotate(f"{name}\nprobe {probes[name]:.0f} %", (report.std, rank), xytext=(0, 7),
                      textcoords="offset points", ha="center", fontsize=9)
    D = reports["VICReg"].dimensions
    guess(left, guesses["std of z"], 100 * guesses["rank of z"] / D if guesses["rank of z"] else None)
    left.set(xscale="log", xlim=(smallest, 30), ylim=(0, 113), yticks=range(0, 101, 20), xlabel="mean std of z",
             ylabel="effective rank of z, % of D", title="Scale and rank are two questions")
    right.barh(list(shares), [100 * share for share in shares.values()], color=[RUNS[name] for name in shares])
    for i, share in enumerate(shares.values()):
        right.text(100 * share, i, f" {100 * share:.0f}", va="center")
    right.invert_yaxis()
    right.set(xlim=(0, 112), xlabel="within-image share of z, %", title="Alignment is a third")
    right.grid(axis="y", visible=False)
    said = "; ".join(f"{name} {report.std:.2g}, {report.effective_rank:.0f} of {report.dimensions}, "
                     f"{100 * shares[name]:.0f} %" for name, report in reports.items())
    show(figure, "Left: a map of runs by std and effective rank of z, with the regions of scale and dimensional "
                 f"collapse. Right: their within-image shares. In words: {said}")
