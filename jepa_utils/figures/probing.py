"""The figures of notebook 07."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..plots import COLORS, array, bars, count_ticks, guess, headline, image_grid, plt, retrieved, show, styled

SHADES = ("#332288", "#56B4E9", "#E69F00")  # for curves that are not methods
LOOKS = {  # of ways to use labels: colour and line
    "fine-tuned": (COLORS["VICReg"], "o-"),
    "frozen, linear probe": ("#56B4E9", "^--"),
    "from scratch": (COLORS["supervised"], "D-."),
    "untrained, linear probe": (COLORS["untrained"], "v:"),
    "raw pixels, nearest neighbour": (COLORS["raw pixels"], "s--"),
}


def counts_axis(ax: Axes, counts: Sequence[int]) -> None:
    """A logarithmic axis with these counts, and no others, written on it."""
    ax.set_xscale("log")
    count_ticks(ax, counts)


def with_range(ax: Axes, x: Sequence[int], values: Tensor, style: str, color: str, label: str = "") -> None:
    """The mean over seeds of values (points, seeds), with bars from the lowest to the highest."""
    mean = values.mean(dim=1)
    reach = torch.stack([mean - values.amin(dim=1), values.amax(dim=1) - mean]).clamp(min=0)  # equal but for rounding
    ax.errorbar(x, array(mean), array(reach), fmt=style, capsize=3, color=color, label=label or None)


@styled
def probe_rates(curves: dict[float, list[float]], expected: float | None) -> None:
    """Validation accuracy after each epoch of the probe, a line for each rate."""
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for (lr, curve), style, color in zip(curves.items(), ("-", "--", ":"), SHADES, strict=True):
        ax.plot(range(1, len(curve) + 1), curve, style, color=color, label=f"rate {lr:g}")
    best = {lr: max(curve) for lr, curve in curves.items()}
    guess(ax, len(curve), expected)
    title = f"Rate {min(best):g} reaches {best[min(best)]:.1f} %, the best of the three {max(best.values()):.1f} %"
    ax.set(xlabel="epoch of the probe", ylabel="% of validation images", title=title)
    ax.legend()
    show(figure, "Validation accuracy over the probe's epochs, for three learning rates. " + title)


def lines(counts: Sequence[int], curves: dict[str, list[float]], colors: Sequence[str], styles: Sequence[str],
          **labels: str) -> tuple[Figure, Axes]:
    """A curve for each name against counts on a logarithmic axis."""
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for (name, values), color, style in zip(curves.items(), colors, styles, strict=True):
        ax.plot(counts, values, style, color=color, label=name)
    ax.set(**labels)
    counts_axis(ax, counts)
    ax.legend()
    return figure, ax


@styled
def flattery(sizes: Sequence[int], lost: dict[str, list[float]], expected: float | None) -> None:
    """Points that the winner among some candidates loses on fresh images, against the images that chose it."""
    most = next(iter(lost.values()))
    title = f"Peeking flatters: {most[0]:+.1f} points with {sizes[0]} images, {most[-1]:+.1f} with {sizes[-1]:,}"
    figure, ax = lines(sizes, lost, SHADES, ("o-", "s--", "^:"), title=title, ylabel="points of flattery",
                       xlabel="images that both choose and judge")
    guess(ax, 100, expected)
    show(figure, "Points of flattery against the number of test images, for three numbers of candidates. " + title)


@styled
def neighbours(ks: Sequence[int], by_k: dict[str, list[float]], leads: dict[str, float]) -> None:
    """Validation accuracy of the neighbours' vote against their number k; the leads go into the title."""
    said = ", ".join(f"{lead:+.1f} points {reader}" for reader, lead in leads.items())
    title = f"VICReg's lead over raw pixels: {said}"
    figure, _ = lines(ks, by_k, [COLORS[name] for name in by_k], ("s--", "^:", "o-"), title=title,
                      xlabel="neighbours that vote, k", ylabel="% of validation images")
    show(figure, "Accuracy of the neighbours' vote against k for raw pixels, untrained and VICReg features. " + title)


@styled
def payoff(counts: dict[str, list[int]], curves: dict[str, Tensor], lead: Tensor,
           expected: dict[str, float | None]) -> None:
    """Accuracies (counts, seeds) of each way to use labels; beside them the lead (counts, seeds) of fine-tuning."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained", width_ratios=(3, 2))
    for name, values in curves.items():
        color, style = LOOKS[name]
        with_range(left, counts[name], values, style, color, name)
    few = counts["fine-tuned"]
    counts_axis(left, counts["frozen, linear probe"])
    left.set(xlabel="labelled images per class", ylabel="% of test images", title="Bars: lowest and highest seed")
    figure.legend(fontsize=9, loc="outside lower center", ncols=3)
    right.axhline(0, color="black", linewidth=1)
    with_range(right, few, lead, "o-", LOOKS["fine-tuned"][0])
    for n, value in zip((few[0], few[-1]), expected.values(), strict=True):
        guess(right, n, value)
    counts_axis(right, few)
    right.set(xlabel="labelled images per class", ylabel="points", title="Fine-tuned minus from scratch")
    right.set_xlim(few[0] / 1.6, few[-1] * 1.6)
    means = [f"{value:+.1f}" for value in lead.mean(dim=1)]
    title = f"What pretraining adds to {', '.join(f'{n:,}' for n in few)} labels per class: {', '.join(means)} points"
    headline(figure, title)
    show(figure, "Left: test accuracy against labels per class, for fine-tuning, linear probe, training from scratch "
                 "and two baselines. Right: fine-tuned minus from scratch. " + title)


@styled
def transfer(groups: dict[str, dict[str, dict]], expected: float | None) -> None:
    """The scoreboard's rows of several encoders, a panel for each set of images."""
    figure, axes = plt.subplots(len(groups), 1, figsize=(8, 0.3 + 2.3 * len(groups)), squeeze=False,
                                layout="constrained")
    said = []
    for ax, (target, rows) in zip(axes[:, 0], groups.items(), strict=True):
        values, errors = ({name: row[field] for name, row in rows.items()} for field in ("probe", "error"))
        best = max(values, key=lambda name: values[name])
        shown = {"trained on CIFAR-10": expected} if target == "digits" else None
        title = f"Images of {target}; best: {best}"
        bars(ax, values, "linear probe, % of test images", title, errors, shown)
        said.append(title + "; " + ", ".join(f"{name} {value:.1f} percent" for name, value in values.items()))
    show(figure, "Bars of linear probes. " + ". ".join(said))


@styled
def two_tasks(present: Tensor, digits: Tensor, answers: list[str]) -> None:
    """The same pictures in both tasks: in the binary one, some without their ink; in the other, ink in all."""
    empty = f"{answers.count('absent')} of these {len(answers)}"
    figure = image_grid([present, digits], ["binary task", "ten classes"], answers,
                        f"The same pictures; in the binary task {empty} have lost their ink")
    show(figure, f"Pictures of the binary task, {empty} empty, above the same pictures with a digit in each")


@styled
def binary(counts: Sequence[int], values: dict[str, Tensor]) -> None:
    """Accuracies (counts, seeds) on the binary task."""
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for (name, each), style in zip(values.items(), ("^:", "o-"), strict=True):
        with_range(ax, counts, each, style, COLORS[name], name)
    ax.axhline(50, color="#999999", linewidth=1)
    ax.text(counts[-1], 50.5, "chance", ha="right", fontsize=9, color="#666666")
    first, last = ({name: each[i].mean().item() for name, each in values.items()} for i in (0, -1))
    title = (f"Untrained and VICReg: {first['untrained']:.0f} and {first['VICReg']:.0f} % with {counts[0]} labels "
             f"a kind, {last['untrained']:.0f} and {last['VICReg']:.0f} % with {counts[-1]:,}")
    counts_axis(ax, counts)
    ax.set(xlabel="labelled images of each kind", ylabel="% of test images")
    ax.set_title(title, fontsize=11)
    ax.legend()
    show(figure, "Accuracy on the binary task against the number of labels for untrained and VICReg features. " + title)


@styled
def confusion(table: Tensor, classes: Sequence[str], pair: tuple[int, int]) -> None:
    """The confusion matrix (classes, classes), its mistakes shaded; `pair` are the two most often confused."""
    figure, ax = plt.subplots(figsize=(6, 5), layout="constrained")
    errors = table.clone().fill_diagonal_(0)
    ax.imshow(errors, cmap="Blues", vmin=0, vmax=max(1, 1.3 * errors.max().item()))
    for i, row in enumerate(table.tolist()):
        for j, count in enumerate(row):
            ax.text(j, i, count, ha="center", va="center", fontsize=9, color="#666666" if i == j else "black")
    ax.set_xticks(range(len(classes)), classes, rotation=60 if max(map(len, classes)) > 2 else 0)
    ax.set_yticks(range(len(classes)), classes)
    ax.grid(visible=False)
    one, two = pair
    title = f"Most confused: {classes[one]} and {classes[two]}, {table[one, two] + table[two, one]} times"
    ax.set(xlabel="guess", ylabel="truth", title=title)
    show(figure, "Confusion matrix of the linear probe on the test images, mistakes shaded. " + title)


@styled
def mistakes(pictures: Tensor, names: list[str]) -> None:
    """Test images with what they are and what the probe took them for."""
    figure = image_grid([pictures], column_titles=names, title="Would you have known?")
    show(figure, "Test images of the two most confused classes that the probe took for the other: " + "; ".join(names))


@styled
def nearest(queries: Tensor, in_h: Tensor, in_pixels: Tensor, shares: tuple[float, float]) -> None:
    """Each query (N, C, H, W) beside its nearest training images (N, k, C, H, W), in `h` and in pixels."""
    title = (f"Nearest in h (left) and in pixels (right): "
             f"over all test images, {shares[0]:.0f} and {shares[1]:.0f} % share the class")
    figure, _ = retrieved(queries, {"h": in_h, "pixels": in_pixels}, title)
    show(figure, f"{len(queries)} rows: a test image, its nearest training images in feature space, and in pixel "
                 f"space. {title}")


@styled
def maps(planes: dict[str, Tensor], label: Tensor, border: Tensor) -> None:
    """Points (N, 2) of several maps, above by class (N,), below by the colour (N, 3) of the image's edge."""
    figure, axes = plt.subplots(2, len(planes), figsize=(9, 6.6), layout="constrained")
    for (above, below), (name, plane) in zip(axes.T, planes.items(), strict=True):
        for i in label.unique().tolist():  # every third: digits that can be read need room
            above.scatter(*array(plane[::3][label[::3] == i].T), marker=f"${i}$", s=52, linewidths=0,
                          color=plt.get_cmap("tab10")(i % 10))
        below.scatter(*array(plane.T), c=array(border), s=12, linewidths=0)
        above.set_title(name, fontsize=10)
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("class of every third", fontsize=10)
    axes[1, 0].set_ylabel("the image's own edge colour", fontsize=10)
    headline(figure, "One cloud of features, three maps, coloured by class and by background")
    show(figure, "Scatter plots of the same features by PCA and t-SNE with two perplexities; above the class of every "
                 "third image, below the edge colour of each")


@styled
def choosers(runs: list[dict], chosen: dict[str, dict]) -> None:
    """A sweep's probes against each thing that could choose without labels; a ring around what it chooses."""
    figure, axes = plt.subplots(1, len(chosen), figsize=(9, 3.4), sharey=True, layout="constrained")
    best, regrets = max(run["probe"] for run in runs), []
    for ax, (name, choice) in zip(axes, chosen.items(), strict=True):
        ax.errorbar([run[name] for run in runs], [run["probe"] for run in runs], [run["error"] for run in runs],
                    fmt="o", markersize=7, color=COLORS["SIGReg"], capsize=3)
        for i, run in enumerate(sorted(runs, key=lambda run: run[name])):
            rate, offset = run["name"].removeprefix("rate "), (0, -18 if i % 2 else 18)  # neighbours keep apart
            ax.annotate(rate, (run[name], run["probe"]), offset, textcoords="offset points", ha="center", va="center",
                        fontsize=9)
        ax.plot(choice[name], choice["probe"], "o", markersize=15, markerfacecolor="none", color=COLORS["collapsed"])
        regrets.append(f"{name} {best - choice['probe']:.1f}")
        ax.set(xlabel=name)
        ax.margins(x=0.25, y=0.15)
    axes[0].set_ylabel("linear probe, % of test images")
    axes[0].set_title("numbers at the points: learning rate", fontsize=9)
    title = f"Points lost by choosing without labels: {', '.join(regrets)}"
    headline(figure, title)
    show(figure, "Linear probe of the runs of one sweep against rank and loss; a ring marks the run each of them "
                 "chooses. " + title)


@styled
def board(rows: list[dict]) -> None:
    """The scoreboard's probes with their standard errors."""
    figure, ax = plt.subplots(figsize=(8, 0.5 * len(rows) + 1), layout="constrained")
    values, errors = ({row["name"]: row[field] for row in rows} for field in ("probe", "error"))
    label_free = {name: value for name, value in values.items() if name != "supervised"}
    best = max(label_free, key=lambda name: label_free[name])
    gap = values["supervised"] - label_free[best]
    title = f"Best without labels: {best}, {abs(gap):.1f} points {'below' if gap > 0 else 'above'} supervised"
    bars(ax, values, "linear probe, % of test images", title, errors)
    show(figure, "Bar chart of the scoreboard: " + ", ".join(f"{name} {value:.1f} percent"
                                                             for name, value in values.items()) + ". " + title)
