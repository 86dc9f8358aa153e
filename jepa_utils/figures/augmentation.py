"""The figures of notebook 01: grids of images, crop boxes, accuracies and nearest neighbours."""

from torch import Tensor

from ..plots import (
    COLORS,
    WIDTH,
    array,
    bars,
    beside,
    frame,
    frames,
    guess,
    image_grid,
    picture,
    plt,
    retrieved,
    show,
    styled,
)

BOXES = "#E69F00", "#56B4E9"  # of the first and the second view
AGREES, DIFFERS = "#0072B2", "#D55E00"  # a neighbour of the same label, and of another
MARKS = "#0072B2", "#E69F00", "#009E73"  # of the seeds
RECIPES = {"untrained": COLORS["untrained"], "no augmentation": "#E69F00", "CIFAR-10's recipe": "#56B4E9",
           "digits' recipe": COLORS["VICReg"]}


@styled
def grid(rows: list[Tensor], title: str, alt: str, row_titles: list[str] | None = None,
         column_titles: list[str] | None = None) -> None:
    """Rows of images, each (N, C, H, W), with a title for every row or column."""
    show(image_grid(rows, row_titles, column_titles, title), alt)


@styled
def labelled(images: Tensor, labels: list[str], columns: int = 8) -> None:
    """Images (N, C, H, W), each under its label."""
    rows = -(-len(images) // columns)
    figure, axes = frames(rows, [1.0] * columns, f"{len(images)} images and their labels", above=0.3)
    for ax, image, label in zip(axes.flat, images, labels, strict=False):
        picture(ax, image)
        ax.set_title(label, fontsize=10, loc="center")
    show(figure, f"{len(images)} small pictures in rows of {columns}; their labels are " + ", ".join(labels))


@styled
def pairs(images: Tensor, boxes: list[dict[str, Tensor]], views: list[Tensor]) -> None:
    """Images with the boxes of their two views drawn in, and below each image the views themselves."""
    figure, axes = frames(3, [1.0] * len(images), "Where the two views of a positive pair come from", 0.6)
    for j, image in enumerate(images):
        picture(axes[0, j], image)
        for i, (box, color) in enumerate(zip(boxes, BOXES, strict=True)):
            left, top, width, height = (array(box[name])[j] for name in ("left", "top", "width", "height"))
            for edge, line in (("white", 4.5), (color, 2.5)):  # a white rim, to be seen on any background
                axes[0, j].add_patch(plt.Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=edge,
                                                   linewidth=line, clip_on=False))
            picture(axes[1 + i, j], views[i][j])
            frame(axes[1 + i, j], color)
    for ax, text in zip(axes[:, 0], ("image", "view 1", "view 2"), strict=True):
        beside(ax, text)
    show(figure, f"{len(images)} images, each with an orange and a blue crop box; below each the view from the orange "
                 "box and the view from the blue box, enlarged and recoloured")


@styled
def luck(shares: Tensor, percent: float, error: float, n: int, guessed: float | None) -> None:
    """How often each accuracy of `shares` (T,) comes out, with two standard errors to each side of the true one."""
    values = array(shares)
    inside = 100 * (abs(values - percent) <= 2 * error).mean()
    figure, ax = plt.subplots(figsize=(WIDTH, 3), layout="constrained")
    ax.hist(values, bins=20, color=COLORS["VICReg"], alpha=0.8)
    top = ax.get_ylim()[1]
    ax.axvspan(percent - 2 * error, percent + 2 * error, color="#999999", alpha=0.25, zorder=0,
               label=f"{percent:.0f} ± 2 x {error:.2f} %")
    guess(ax, None if guessed is None else percent + guessed, top / 2)
    ax.set(xlabel=f"accuracy on {n:,} test images, %", ylabel="test sets",
           title=f"One classifier, {len(values):,} test sets: {inside:.0f} % of them within two standard errors")
    ax.legend(loc="upper left")
    show(figure, f"A bell-shaped histogram of {len(values)} accuracies around {percent:.0f} percent, from "
                 f"{values.min():.1f} to {values.max():.1f}; {inside:.0f} percent lie in a band of two standard errors")


@styled
def accuracies(results: dict[str, float], errors: dict[str, float], guesses: dict[str, float | None]) -> None:
    """A bar per recipe with its standard error and the reader's guess."""
    best = max(results, key=results.__getitem__)
    figure, ax = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    bars(ax, results, "linear probe, % of test images", f"Same images, same network; best: {best}",
         errors, guesses, RECIPES)
    if ax.get_legend():
        ax.legend(loc="upper right")
    show(figure, "Bars of linear probe accuracy: " + ", ".join(
        f"{name} {value:.1f} plus or minus {errors[name]:.1f} percent" for name, value in results.items()))


@styled
def effects(differences: dict[str, list[float]], seeds: tuple[int, ...], guesses: dict[str, float | None]) -> None:
    """A row per change of the recipe: what it did to the accuracy at each seed, and the mean.

    The last two rows are all changes at once, and the sum of each alone.
    """
    means = {name: sum(values) / len(values) for name, values in differences.items()}
    *_, together, added = means.values()
    figure, ax = plt.subplots(figsize=(WIDTH, 3), layout="constrained")
    ax.axvline(0, color="#000000", linewidth=1)
    for i, name in enumerate(differences):
        ax.plot([means[name]] * 2, [i - 0.3, i + 0.3], color="#999999", label="mean" if i == 0 else None)
        for seed, value, marker, color in zip(seeds, differences[name], "os^", MARKS, strict=False):
            ax.plot(value, i, marker, color=color, markersize=8, label=f"seed {seed}" if i == 0 else None, linestyle="")
        guess(ax, guesses.get(name), i)
    ax.set(yticks=range(len(means)), yticklabels=list(means), ylim=(len(means) - 0.5, -0.5),
           xlabel="change of the linear probe's accuracy, percentage points",
           title=f"Both changes at once: {together:+.1f} points; one by one they add up to {added:+.1f}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, "Changes of accuracy, seed by seed: " + "; ".join(
        f"{name} " + ", ".join(f"{value:+.1f}" for value in values) for name, values in differences.items()))


@styled
def neighbours(queries: Tensor, found: dict[str, Tensor], same: dict[str, Tensor]) -> None:
    """Queries (N, C, H, W), and beside each its nearest images (N, k, C, H, W) under two recipes.

    A blue frame: same (N, k) says that it has the query's label; an orange one: another label.
    """
    N, k = next(iter(same.values())).shape
    counts = {name: f"{int(values.sum())} of {values.numel()}" for name, values in same.items()}
    title = "Same label among the neighbours: " + ", ".join(f"{counts[name]} ({name})" for name in found)
    figure, shown = retrieved(queries, found, title)
    for name, block in shown.items():
        for ax, agrees in zip(block.flat, same[name].flatten(), strict=True):
            frame(ax, AGREES if agrees else DIFFERS)
    show(figure, f"{N} images and their {k} nearest training images under {len(found)} recipes; neighbours "
                 "with the image's own label: " + ", ".join(f"{counts[name]} under {name}" for name in found))
