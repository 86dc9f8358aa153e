"""The figures of notebook 10."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from textwrap import fill

from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from ..plots import (
    COLORS,
    array,
    bars,
    beside,
    frame,
    frames,
    guess,
    headline,
    image_grid,
    picture,
    plt,
    retrieved,
    show,
    styled,
)

LOOKS = {  # of ways to make features: colour and marker
    "raw pixels": (COLORS["raw pixels"], "s"),
    "untrained": (COLORS["untrained"], "v"),
    "shipped": ("#56B4E9", "^"),
    "yours": (COLORS["VICReg"], "o"),
    "continued": ("#009E73", "D"),
    "from scratch": (COLORS["supervised"], "P"),
    "yours, fine-tuned": (COLORS["VICReg"], "*"),
    "shipped, fine-tuned": ("#56B4E9", "X"),
}
PLANTED = "#D55E00"  # the frame around a picture


def look(name: str) -> tuple[str, str]:
    return LOOKS.get(name, ("#332288", "o"))


def wrapped(names: Iterable[str]) -> list[str]:
    """Names of recipes as labels beside a figure, the longer ones in two lines."""
    return [fill(name, 12) for name in names]


@styled
def some(images: Tensor, title: str, columns: int = 12) -> None:
    """The first pictures (N, 3, 32, 32), in rows."""
    show(image_grid(list(images.split(columns)), title=title), f"{len(images)} small pictures in rows of {columns}")


@styled
def views(images: Tensor, drawn: dict[str, Tensor]) -> None:
    """Pictures (N, 3, 32, 32), and below them a row of views under each recipe."""
    rows, names = [images, *drawn.values()], ["picture", *wrapped(drawn)]
    show(image_grid(rows, names, None, "Would you know each picture again?"),
         f"{len(images)} pictures, and below them a view of each under the recipes " + "; ".join(drawn))


@styled
def criterion(shares: dict[str, dict[str, tuple[float, float]]], choice: str) -> None:
    """For every recipe, % of views that lead back to their picture, by each reader: (share, standard error)."""
    figure, ax = plt.subplots(figsize=(8, 0.6 * len(shares) + 1.4), layout="constrained")
    readers = {"by colour alone": ("#E69F00", "s"), "by the shipped encoder": ("#56B4E9", "^"),
               "by raw pixels": (COLORS["raw pixels"], "o")}
    for i, by_reader in enumerate(shares.values()):
        values = [share for share, _ in by_reader.values()]
        ax.plot([min(values), max(values)], [i, i], color="#cccccc", linewidth=3, zorder=0)
        for reader, (share, error) in by_reader.items():
            color, marker = readers.get(reader, ("#332288", "o"))
            ax.errorbar(share, i, xerr=error, fmt=marker, color=color, capsize=3, markersize=8,
                        label=reader if i == 0 else None)
    ax.set(yticks=range(len(shares)), yticklabels=wrapped(shares), ylim=(len(shares) - 0.5, -0.5),
           xlabel="views whose own picture is the nearest, %", title=f"Closest to one half: {choice}")
    ax.axvline(50, color="#000000", linewidth=1, linestyle=":")
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, "Share of views that lead back to their picture, for each recipe: " + "; ".join(
        f"{name} " + ", ".join(f"{share:.0f} percent {reader}" for reader, (share, _) in each.items())
        for name, each in shares.items()))


@styled
def judged(found: dict[str, float], read: dict[str, list[float]], floor: dict[str, float], choice: str,
           guessed: str) -> None:
    """What labels say of each recipe, a mark for each seed, against the share of its views that are found again.

    `floor`: what they say of features that no training has made, as horizontal lines.
    """
    figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
    means = {name: sum(values) / len(values) for name, values in read.items()}
    best, *others = sorted(means, key=lambda name: -means[name])
    ax.axvline(50, color="#000000", linewidth=1, linestyle=":")
    for name, percent in floor.items():
        ax.axhline(percent, color=COLORS[name], linewidth=1, linestyle="--", label=f"{name}, {percent:.1f} %")
    for (name, values), marker in zip(read.items(), cycle("osD^vP")):
        line, = ax.plot([found[name]] * len(values), values, marker, alpha=0.7, markersize=7, label=name)
        ax.plot(found[name], means[name], "_", color=line.get_color(), markersize=18, markeredgewidth=2)
    ax.plot(found[choice], means[choice], "o", markersize=20, markerfacecolor="none", color="#000000",
            linestyle="", label="the rule's choice")
    if guessed in means:
        guess(ax, found[guessed], means[guessed])
    tied = [best, *(name for name in others if max(read[name]) >= min(read[best]))]  # their marks mingle
    title = f"Labels prefer {best}" if len(tied) == 1 else "By the labels a tie: " + "; ".join(tied)
    short = means[best] - means[choice]
    rule = f"The rule chose {choice}" + ("" if choice in tied else f", {short:.1f} points below")
    ax.set(xlabel="views found again by the reader, %", ylabel="neighbours of the same class, %",
           title=f"{title}\n{rule}")
    ax.margins(x=0.1, y=0.15)
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5), labelspacing=1.2)
    show(figure, f"{title}. {rule}. Views found and neighbours of the same class: " + "; ".join(
        f"{name} {found[name]:.0f} and {means[name]:.1f} percent" for name in means) + ". Lines: " + ", ".join(
        f"{name} {percent:.1f} percent" for name, percent in floor.items()))


@styled
def found(queries: Tensor, neighbours: dict[str, Tensor], title: str) -> None:
    """Queries (M, 3, 32, 32), and beside each its nearest pictures (M, k, 3, 32, 32) by several kinds of features."""
    figure, _ = retrieved(queries, neighbours, title)
    k = next(iter(neighbours.values())).shape[1]
    show(figure, f"{len(queries)} pictures, and beside each the {k} nearest to it by " + ", by ".join(neighbours))


@styled
def thumbnails(planes: dict[str, Tensor], images: Tensor, zoom: float = 0.8) -> None:
    """Maps: pictures (N, 3, 32, 32), each at its point (N, 2); one that would overlap an earlier one is left out."""
    figure, axes = plt.subplots(1, len(planes), figsize=(10, 5), squeeze=False, layout="constrained")
    headline(figure, "Pictures where their features are, as many as find room")
    for ax, (name, plane) in zip(axes[0], planes.items(), strict=True):
        ax.scatter(*array(plane).T, s=1, color="white")
        ax.set(xticks=[], yticks=[], title=name)
        ax.grid(visible=False)
    figure.draw_without_rendering()  # from now on it is known where in the figure a point lies
    side, said = 1.3 * 32 * zoom * figure.dpi / 72, []  # of a thumbnail and some air, in the figure's pixels
    for ax, (name, plane) in zip(axes[0], planes.items(), strict=True):
        shown: list[int] = []
        places = ax.transData.transform(array(plane))
        for i, place in enumerate(places):
            if (abs(places[shown] - place).max(axis=1) >= side).all():
                shown.append(i)
                small = OffsetImage(array(images[i]).transpose(1, 2, 0) / 255, zoom=zoom)
                ax.add_artist(AnnotationBbox(small, tuple(array(plane[i])), frameon=False, pad=0))
        said.append(f"{name}, {len(shown)} of {len(images)}")
        ax.set_title(said[-1])
    show(figure, "Thumbnails of pictures, laid out by their features: " + "; ".join(said))


@styled
def clusters(rows: list[Tensor], sizes: Sequence[int], title: str) -> None:
    """A row of members (k, 3, 32, 32) for each cluster, those nearest to its centre first."""
    figure = image_grid(rows, [f"{size} pictures" for size in sizes], None, title)
    show(figure, f"{len(rows)} rows of pictures, the most typical members of each cluster. " + title)


@styled
def pairs(one: Tensor, two: Tensor, cosine: Tensor, planted: list[bool]) -> None:
    """Pairs of pictures (P, 3, 32, 32) above each other, their cosine above; planted ones in a frame."""
    columns = min(12, len(one))
    rows = -(-len(one) // columns)
    title = f"The {len(one)} most alike pairs" + f": {sum(planted)} are planted copies" * any(planted)
    figure, axes = frames(2 * rows, [1.0] * columns, title, above=0.13)
    for i, both in enumerate(zip(one, two, strict=True)):
        for j, image in enumerate(both):
            ax = axes[2 * (i // columns) + j, i % columns]
            picture(ax, image, f"{cosine[i]:.3f}" if j == 0 else "")
            if planted[i]:
                frame(ax, PLANTED)
    show(figure, f"Pairs of pictures with cosines from {cosine[0]:.3f} to {cosine[-1]:.3f}. {title}")


@styled
def oddest(by_features: dict[str, Tensor], planted: dict[str, list[bool]]) -> None:
    """The oddest pictures (k, 3, 32, 32) by each kind of features, the oddest first; planted ones in a frame."""
    rows = list(by_features.values())
    counts = ", ".join(f"{sum(planted[name])} by {name}" for name in by_features)
    title = f"Planted among the oddest {len(rows[0])}: {counts}" if any(map(any, planted.values())) \
        else f"The oddest {len(rows[0])} pictures"
    figure, axes = frames(len(rows), [1.0] * len(rows[0]), title, 1.1)
    for row, images, name in zip(axes, rows, by_features, strict=True):
        for ax, image, is_planted in zip(row, images, planted[name], strict=True):
            picture(ax, image)
            if is_planted:
                frame(ax, PLANTED)
        beside(row[0], name)
    show(figure, "Rows of the oddest pictures. " + title)


def panels_of_bars(groups: dict[str, dict[str, tuple[float, float]]], xlabels: dict[str, str],
                   guesses: dict[str, float | None]) -> None:
    """A panel of bars for each group: (value, its error) by kind of features; the guess is about "yours"."""
    figure, axes = plt.subplots(1, len(groups), figsize=(5 * len(groups), 2.8), squeeze=False, layout="constrained")
    said = []
    for ax, (group, results) in zip(axes[0], groups.items(), strict=True):
        values, errors = ({name: pair[i] for name, pair in results.items()} for i in (0, 1))
        bars(ax, values, xlabels[group], group, errors, {"yours": guesses.get(group)},
             {name: look(name)[0] for name in values})
        ax.set_xlim(left=0)
        said.append(f"{group}: " + ", ".join(f"{name} {value:.1f} percent" for name, value in values.items()))
    show(figure, "Bars. " + "; ".join(said))


@styled
def scores(groups: dict[str, dict[str, tuple[float, float]]], guesses: dict[str, float | None]) -> None:
    """How well each kind of features finds copies and odd ones: (value, standard error)."""
    panels_of_bars(groups, {"copies": "planted among the most alike pairs, %",
                            "odd ones": "ordinary pictures they beat, % (AUROC)"}, guesses)


@styled
def few_labels(read: dict[str, list[float]], per_class: int, guessed: float | None) -> None:
    """Accuracy of each way to use a few labels: a mark for each draw of the labels, a line for the mean.

    The guess is the lead of fine-tuning "yours" over training from scratch, in points.
    """
    figure, ax = plt.subplots(figsize=(8, 0.5 * len(read) + 1.2), layout="constrained")
    means = {name: sum(values) / len(values) for name, values in read.items()}
    for i, (name, values) in enumerate(read.items()):
        color, marker = look(name.removesuffix(", linear probe"))
        ax.plot(values, [i] * len(values), marker, color=color, markersize=9, alpha=0.7, linestyle="")
        ax.plot([means[name]] * 2, [i - 0.3, i + 0.3], color="#000000")
    if guessed is not None:
        guess(ax, means["from scratch"] + guessed, list(read).index("yours, fine-tuned"))
    ax.set(yticks=range(len(read)), yticklabels=list(read), ylim=(len(read) - 0.5, -0.5),
           xlabel="% of the labelled pictures that were not drawn",
           title=f"{per_class} labels per class; highest mean: {max(means, key=lambda name: means[name])}")
    show(figure, f"Accuracies with {per_class} labels per class, a mark for each draw: " + "; ".join(
        f"{name} {means[name]:.1f} percent" for name in means))


@styled
def transfer(groups: dict[str, dict[str, tuple[float, float]]]) -> None:
    """A panel for each set of pictures: probe (value, half an interval or standard error) of every encoder."""
    panels_of_bars(groups, dict.fromkeys(groups, "linear probe, %"), {})
