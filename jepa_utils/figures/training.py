"""Figures of notebook 06: schedule, updates, a run to watch, where a step's time goes, and what long runs buy."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from ..plots import COLORS, array, bars, guess, headline, plt, show, styled
from .sigreg import LOSSES

TERMS = {"prediction": "o-", "variance": "s--", "covariance": "^:", "sigreg": "D-."}
MARKERS = {"resnet5": "^", "whitenet": "D", "resnet": "s", "vit_s": "P"}
NAMES = {"resnet5": "ResNet5", "whitenet": "WhiteNet", "resnet": "ResNet-18", "vit_s": "ViT-S"}
METHODS = {"vicreg": "VICReg", "bcs": "SIGReg", "visreg": "VISReg"}
BESIDE = {"SIGReg": 1 / 1.07, "VICReg": 1, "VISReg": 1.07}  # rows of equally many epochs stand side by side
PYTHON, DEVICE = "#999999", "#0072B2"


@styled
def schedules(rates: dict[float, Sequence[float]], steps: int) -> None:
    """Learning rates of evenly spread steps, as shares of the peak, by the share of the steps that rises."""
    figure, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for (warmup, line), style in zip(rates.items(), ("-", "--", ":"), strict=False):
        label = f"warm-up over {warmup:.0%} of the steps" if warmup else "no warm-up"
        at = [steps * i / len(line) for i in range(len(line))]
        ax.plot(at, line, style, color="black", label=label)
    ax.set(xlabel=f"step (of {steps:,})", ylabel="share of the peak rate",
           title="A short rise, a long cosine, and almost nothing at the end")
    ax.legend()
    show(figure, "Learning rate against step: a straight rise over 5 percent of the steps, then half a cosine down to "
                 "nearly zero; dashed a longer rise, dotted none")


@styled
def update_spectra(spectra: dict[str, Tensor], kernel: str, my_guess: dict[str, float | None]) -> None:
    """Singular values (descending) of a gradient and of the updates made from it, as shares of the largest."""
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    looks = {"gradient": ("gradient", "#999999", ":"), "adamw": ("AdamW", "#E69F00", "--"),
             "muon": ("Muon", "#0072B2", "-")}
    large = {name: int((values > values[0] / 2).sum()) for name, values in spectra.items()}
    for name, values in spectra.items():
        label, color, style = looks[name]
        ax.semilogy(range(1, len(values) + 1), array(values / values[0]).clip(1e-6), style, color=color, label=label)
    ax.axhline(0.5, color="black", linewidth=0.8)
    for name, count in my_guess.items():
        guess(ax, count, 0.5)
        if count is not None:
            ax.annotate(looks[name][0], (count, 0.5), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    ax.set(xlabel=f"direction of {kernel}, from the largest", ylabel="singular value / largest", ylim=(3e-3, 2),
           title=f"Over half of the largest, of {len(spectra['muon'])} directions: "
                 + ", ".join(f"{looks[name][0]} {count}" for name, count in large.items()))
    ax.legend(loc="lower left")
    show(figure, f"Singular values of one kernel's gradient and of two updates made from it, as shares of the largest, "
                 f"on a logarithmic axis. Of {len(spectra['muon'])} directions, {large['gradient']} of the gradient, "
                 f"{large['adamw']} of AdamW's update and {large['muon']} of Muon's are over one half")


@styled
def progress(history: list[dict], spectra: dict[int, Tensor], method: str, title: str) -> None:
    """The terms of the loss, the spectra (D,) by epoch, and the online probe, side by side."""
    figure, (terms, axes, score) = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    headline(figure, title)
    epochs, color = [record["epoch"] for record in history], COLORS[method]
    for term in [term for term in TERMS if history and term in history[0]]:
        terms.semilogy(epochs, [record[term] for record in history], TERMS[term], markersize=5, color=color, label=term)
    for i, (epoch, eigvals) in enumerate(spectra.items()):
        shade = plt.get_cmap("Greys")(0.3 + 0.7 * (i + 1) / len(spectra))
        axes.loglog(range(1, len(eigvals) + 1), array(eigvals).clip(1e-8), color=shade, label=f"epoch {epoch}")
    score.plot(epochs, [record["online_probe"] for record in history], marker=".", color=color)
    if history:  # before the first epoch there is nothing that a logarithm could be taken of
        terms.yaxis.set(
            major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())
    ylabels = "weighted term of the loss", "variance of z along it", "online probe, % of views"
    for ax, xlabel, ylabel in zip((terms, axes, score), ("epoch", "principal axis", "epoch"), ylabels, strict=True):
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=9, handlelength=3)
    show(figure, f"{title}. Three panels: terms of the loss, spectrum of the embeddings, online probe, over the epochs")


@styled
def step_parts(milliseconds: dict[str, float], N: int, my_guess: dict[str, float | None]) -> None:
    """Milliseconds of each part of a step; guesses are percent of their sum."""
    whole, largest = sum(milliseconds.values()), max(milliseconds, key=milliseconds.__getitem__)
    guessed = {part: None if percent is None else percent / 100 * whole for part, percent in my_guess.items()}
    figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
    bars(ax, milliseconds, "milliseconds",
         f"A step on {N} images: the {largest} takes {100 * milliseconds[largest] / whole:.0f} %", guesses=guessed)
    said = ", ".join(f"{part} {t:.1f}" for part, t in milliseconds.items())
    show(figure, f"Bar chart of the milliseconds of a step's parts: {said}")


def _rows(ax: Axes, python: list[tuple], device: list[tuple], title: str) -> None:
    """Two rows of bars (start, length): what Python does, and what the device does."""
    for row, (busy, color) in enumerate(((python, PYTHON), (device, DEVICE))):
        ax.broken_barh(busy, (0.6 - row, 0.8), facecolor=color, edgecolor="white")
    ax.set(yticks=[1, 0], yticklabels=["Python", "device"], title=title)
    ax.grid(axis="y", visible=False)


@styled
def timelines(drawn: dict[str, tuple[list, list]], what: str) -> None:
    """Assumed times of Python and device, two ways of doing the same steps."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 3.2), sharex=True, layout="constrained")
    ends = [sum(device[-1]) for _, device in drawn.values()]
    for ax, (name, (python, device)) in zip(axes, drawn.items(), strict=True):
        _rows(ax, python, device, name)
    axes[1].set_xlabel("time (arbitrary units, assumed)")
    headline(figure, f"A drawing: {what} takes {max(ends) / min(ends):.1f} times as long here")
    idle = [1 - sum(length for _, length in device) / sum(device[-1]) for _, device in drawn.values()]
    said = "; ".join(f"{name}: the device is idle for {100 * share:.0f} % of the time"
                     for name, share in zip(drawn, idle, strict=True))
    show(figure, f"Two timelines of Python and device over the same steps. {said}")


@styled
def recorded(milliseconds: dict[str, dict[str, float]], hardware: str) -> None:
    """Milliseconds of a whole step, by recipe and by how it is launched."""
    figure, axes = plt.subplots(1, len(milliseconds), figsize=(9, 2.4), layout="constrained", squeeze=False)
    for ax, (name, ways) in zip(axes[0], milliseconds.items(), strict=True):
        bars(ax, ways, "milliseconds a step", name)
        if ax is not axes[0, 0]:
            ax.set_yticklabels([])
    alone, both = ([f"{ways['plain'] / ways[way]:.1f}" for ways in milliseconds.values()]
                   for way in ("compiled", "compiled and recorded"))
    headline(figure, f"{hardware}: compiled, {' and '.join(alone)} times the plain speed; "
                    f"compiled and recorded, {' and '.join(both)} times")
    said = "; ".join(f"{name} " + ", ".join(f"{way} {t:.1f}" for way, t in ways.items())
                     for name, ways in milliseconds.items())
    show(figure, f"Bar charts of the milliseconds of a training step on an {hardware}: {said}")


@styled
def staircase(std: Tensor, term: dict[str, Tensor], slope: dict[str, Tensor]) -> None:
    """The variance term of dimensions with standard deviations `std`, and the length of its gradient, by precision."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharex=True)
    looks = {"bfloat16": ("black", "-"), "float32": (COLORS["VICReg"], "--")}
    lost = {name: 100 * (values == 0).float().mean().item() for name, values in slope.items()}
    for ax, values, ylabel in zip(axes, (term, slope), ("variance term", "length of its gradient"), strict=True):
        for name, (color, style) in looks.items():
            ax.plot(array(std), array(values[name]), style, color=color, label=f"computed in {name}")
        ax.set(xlabel="standard deviation of a dimension", ylabel=ylabel)
        ax.locator_params(axis="x", nbins=4)  # labels of three decimals touch else
    axes[0].legend()
    axes[0].set_title("In bfloat16 the term is a staircase")
    axes[1].set_title(f"{lost['bfloat16']:.1f} % of its gradients vanish")
    show(figure, "Left: the variance term against the standard deviation, a straight line in float32, a staircase in "
                 f"bfloat16 that reaches zero too early. Right: the gradient's length; it is zero for "
                 f"{lost['bfloat16']:.1f} % of the dimensions in bfloat16 and {lost['float32']:.1f} % in float32")


@styled
def resumed(histories: dict[str, tuple[list[dict], int]], stopped: int) -> None:
    """The loss of runs by epoch; each comes with the epochs that passed before its first record."""
    last = {name: records[-1]["loss"] for name, (records, _) in histories.items()}
    title = "Last loss: " + ", ".join(f"{loss:.2f} {name}" for name, loss in last.items())
    looks = ("-", COLORS["VICReg"]), ("o", "black"), ("x--", COLORS["collapsed"])
    figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
    for (name, (records, before)), (style, color) in zip(histories.items(), looks, strict=True):
        epochs = [before + record["epoch"] for record in records]
        ax.plot(epochs, [record["loss"] for record in records], style, color=color, label=name)
    ax.axvline(stopped, color="#999999", linewidth=1)
    ax.set(xlabel="epoch", ylabel="loss, mean over the epoch", title=title)
    ax.set_xticks(range(1, max(epochs) + 1))
    ax.legend()
    show(figure, f"Loss by epoch of three runs; a line marks the stop after epoch {stopped}. {title}")


@styled
def encoder_costs(costs: dict[str, tuple[float, float]]) -> None:
    """Parameters and multiply-adds for one image of encoders, on logarithmic axes."""
    figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    colors = {"ResNet": "#0072B2", "ViT-S": "#009E73", "ViT-B": "#CC79A7"}
    for name, (parameters, multiply_adds) in costs.items():
        color = next(color for start, color in colors.items() if name.startswith(start))
        ax.loglog(parameters, multiply_adds, "o", color=color)
        ax.annotate(name, (parameters, multiply_adds), (7, -4), textcoords="offset points", fontsize=9)
    work = costs["ViT-S/2"][1] / costs["ViT-S/8"][1]
    ax.set(xlabel="parameters", ylabel="multiply-adds for one image",
           title=f"Weights are not work: ViT-S/2 does {work:.0f} times the work of ViT-S/8 with as many weights")
    ax.set_xlim(right=1e9)
    show(figure, "Multiply-adds against parameters on logarithmic axes: ResNet5 is lowest in both, the ViTs stand in "
                 "two columns of three patch sizes each")


@styled
def results(published: dict[str, list[tuple[int, float]]], ours: list[dict]) -> None:
    """Linear probes on CIFAR-10 by epochs: published points, and rows of our own results with their spread."""
    figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    for method, points in published.items():
        ax.plot(*zip(*points, strict=True), "o-", color=COLORS[method], markerfacecolor="white", zorder=3,
                label=f"others', {method}, ResNet-18")
    for row in ours:
        scores = torch.tensor(row["linear_probe"])
        spread, method = scores.std().item() if len(scores) > 1 else None, METHODS[row["loss"]]
        label = f"ours, {method}, {NAMES[row['encoder']]}"
        known = label in ax.get_legend_handles_labels()[1]
        ax.errorbar(row["epochs"] * BESIDE[method], scores.mean(), spread, fmt=MARKERS[row["encoder"]], markersize=8,
                    capsize=3, color=LOSSES[method], label=None if known else label)
    title = "Others' VICReg: " + ", ".join(f"{score:.0f} % after {n}" for n, score in published["VICReg"][:3])
    if ours:
        best = max(ours, key=lambda row: sum(row["linear_probe"]) / len(row["linear_probe"]))
        mean = sum(best["linear_probe"]) / len(best["linear_probe"])
        title += f"; our {METHODS[best['loss']]} {mean:.1f} after {best['epochs']}"
    ax.set(xscale="log", xlabel="epochs (SIGReg drawn to the left, VISReg to the right)",
           ylabel="linear probe, % of test images", ylim=(66, 95), title=title)
    ax.legend(loc="lower right", fontsize=9)
    said = "; ".join(f"{row['name']} {sum(row['linear_probe']) / len(row['linear_probe']):.1f} after {row['epochs']}"
                     for row in ours)
    others = "; ".join(f"{method} " + ", ".join(f"{score} after {n}" for n, score in points)
                       for method, points in published.items())
    show(figure, f"Linear probe in percent against epochs, on a logarithmic axis. Published: {others}. Ours: {said}")
