"""Figures of notebook 02: the two lanes, feature maps, whitening, what each layer keeps, the hidden half."""

from torch import Tensor

from ..plots import COLORS, array, bars, beside, guess, headline, image_grid, picture, plt, show, styled

PROJECTORS = {"trained projector": ("o-", COLORS["VICReg"]), "random projector, same h": ("s--", COLORS["untrained"])}


@styled
def lanes(first: Tensor, second: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
    """Two views (C, H, W) on their way to the loss, with the shape of every tensor (see `shapes`' names)."""
    figure, ax = plt.subplots(figsize=(9, 4.4))
    stops = {"maps": 2.65, "h": 5.15, "z": 7.05}
    for y, view, name in [(1, first, "view 1"), (-1, second, "view 2")]:
        inset = ax.inset_axes((-0.1, y - 0.45, 0.9, 0.9), transform=ax.transData)
        picture(inset, view)
        ax.text(0.35, y + 0.52, name, ha="center", va="bottom", fontsize=10)
        for letter, x in stops.items():
            _tensor(ax, x, y, f"{letter}\n{shapes[letter]}")
        for start, end in [(0.85, 1.7), (3.6, 4.5), (5.8, 6.4)]:
            _arrow(ax, (start, y), (end, y))
    for x, module in [(1.25, "encoder"), (4.05, "mean over\npositions"), (6.1, "projector")]:
        ax.plot([x, x], [-0.85, 0.85], color="#999999", linestyle=":", linewidth=1.2, zorder=0)
        ax.text(x, 0, f"{module}\n(the same)", ha="center", va="center", fontsize=10, color=COLORS["collapsed"],
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})
    _arrow(ax, (7.7, 1), (8.65, 1))
    ax.text(8.17, 1.12, "predictor", ha="center", va="bottom", fontsize=10, color=COLORS["collapsed"])
    _tensor(ax, 9.3, 1, f"ẑ, a guess\n{shapes['predicted']}")
    _arrow(ax, (9.3, 0.62), (9.3, 0.3))
    _arrow(ax, (7.7, -0.9), (8.8, -0.28))
    ax.text(9.3, 0, "the loss\ncompares these", ha="center", va="center", fontsize=10, fontweight="bold")
    ax.annotate("the probe\nreads here", (5.15, 1.42), (5.15, 1.95), ha="center", fontsize=10,
                arrowprops={"arrowstyle": "<-", "color": COLORS["SIGReg"]}, color=COLORS["SIGReg"])
    ax.set(xlim=(-0.2, 10.1), ylim=(-1.6, 2.3), title="Two lanes, one set of weights; the loss joins their ends")
    ax.axis("off")
    show(figure, "Two lanes side by side: each view passes the same encoder, the mean over positions and the same "
                 "projector, to maps, h and z; a predictor leads from the first lane's z to a guess, which the loss "
                 "compares with the second lane's z; the probe reads h")


def _tensor(ax: plt.Axes, x: float, y: float, text: str) -> None:
    """A box with a tensor's name and shape."""
    ax.text(x, y, text, ha="center", va="center", fontsize=10,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": COLORS["VICReg"]})


def _arrow(ax: plt.Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place to another."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->"})


@styled
def feature_maps(image: Tensor, maps: dict[str, Tensor], count: int = 8) -> None:
    """An image (C, H, W), and the first channels of its maps (C, H, W), by name, each from its least to its most."""
    rows = [image[None]]
    for x in maps.values():
        x = x[:count, None].float()  # (count, 1, H, W)
        low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
        rows.append((x - low) / (high - low).clamp(min=1e-6))
    title = "Each block halves the sides: fewer places, more at each"
    figure = image_grid(rows, ["image", *maps], title=title)
    alt = "One image, then eight gray feature maps each after the stem, after block 1 and, coarser each time, block 2"
    show(figure, alt)


@styled
def whitening(filters: Tensor, before: Tensor, after: Tensor) -> None:
    """Filters (count, C, 4, 4), and the covariance of patches before and after them, on one scale of colours."""
    figure = plt.figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.45], squeeze=False)[0]
    axes = left.subplots(4, 6)
    for ax, weight in zip(axes.flat, filters, strict=False):
        picture(ax, 0.5 + 0.5 * weight / weight.abs().max())
    for ax in axes.flat[len(filters):]:
        ax.axis("off")
    left.suptitle(f"The first {len(filters)} filters", x=0.03, ha="left", fontsize=11)
    panels = right.subplots(1, 2)
    for ax, matrix, name in zip(panels, [before, after], ["pixels of a patch", "outputs of the filters"], strict=True):
        shown = ax.imshow(array(matrix), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_title(name, fontsize=11)
        ax.set_xlabel(f"1 to {len(matrix)}", fontsize=10)
        ax.set(xticks=[], yticks=[])
    right.colorbar(shown, ax=panels, label="covariance", shrink=0.8)
    off = _off_diagonal(after)
    title = f"Mean size off / on the diagonal: {_off_diagonal(before):.2f} before, {off:.2f} after"
    headline(right, title)
    show(figure, f"Small colour patterns, coarse ones first; beside them two covariance matrices: that of a patch's "
                 f"pixels, coloured everywhere, and that of the filters' outputs, {off:.2f} in size off its diagonal")


def _off_diagonal(matrix: Tensor) -> float:
    """Mean size of the entries of a matrix (D, D) off its diagonal, in units of the mean on it."""
    D = len(matrix)
    size, diagonal = matrix.abs().sum(), matrix.diagonal().abs().sum()
    return ((size - diagonal) / (D * (D - 1)) / (diagonal / D)).item()


@styled
def shape_costs(shapes: dict[str, float], last: dict[str, float]) -> None:
    """Milliseconds of convolutions of equally many multiplications, and of the last layer without and with a norm."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), width_ratios=[1.4, 1], layout="constrained")
    fastest, slowest = min(shapes, key=shapes.__getitem__), max(shapes, key=shapes.__getitem__)
    without, with_norm = last.values()
    titles = (f"{slowest} takes {shapes[slowest] / shapes[fastest]:.1f} times as long as {fastest}",
              f"Last layer: with a norm {with_norm / without:.1f} times as long")
    for ax, values, title in zip(axes, (shapes, last), titles, strict=True):
        bars(ax, values, "ms, forward and backward")
        ax.set_title(title, fontsize=10)
    of_shapes, of_last = (", ".join(f"{name} {value:.1f}" for name, value in values.items())
                          for values in (shapes, last))
    show(figure, "Milliseconds of four convolutions with equally many multiplications, channels on positions: "
                 f"{of_shapes}. The last layer: {of_last}")


@styled
def along_the_way(results: dict[str, Tensor], ylabel: str, title: str, guesses: dict[str, float | None]) -> None:
    """Mean and standard deviation over seeds of results (seeds, layers), layer by layer, and the reader's guesses."""
    figure, ax = plt.subplots(figsize=(8, 3.6))
    names = list(guesses)
    for name, values in results.items():
        marker, color = PROJECTORS[name]
        ax.errorbar(names, values.mean(dim=0), values.std(dim=0), fmt=marker, color=color, capsize=4, label=name)
    for i, value in enumerate(guesses.values()):
        guess(ax, i, value)
    ax.set(ylabel=ylabel, title=title)
    ax.legend()
    means = results["trained projector"].mean(dim=0)
    trained = ", ".join(f"{name} {mean:.0f} percent" for name, mean in zip(names, means, strict=True))
    show(figure, f"{ylabel.rstrip(', %')}, layer by layer, for a trained and a random projector, with error bars over "
                 f"seeds. Trained: {trained}")


@styled
def partial(whole: Tensor, hidden: Tensor) -> None:
    """Images (N, C, H, W), and the same in other colours with half of their squares hidden."""
    title = "The context has other colours, and half of its squares are hidden"
    figure = image_grid([whole, hidden], ["target", "context"], title=title)
    show(figure, f"{len(whole)} images, and the same in other colours, half of their squares behind a flat one")


@styled
def error_maps(whole: Tensor, hidden: Tensor, error: Tensor, title: str) -> None:
    """Images (N, C, H, W), their partial views, and the error of the guess at each position (N, H', W')."""
    figure, axes = plt.subplots(3, len(whole), figsize=(9, 3.8), layout="constrained")
    for i, (top, middle, bottom) in enumerate(axes.T):
        picture(top, whole[i])
        picture(middle, hidden[i])
        shown = bottom.imshow(array(error[i]), cmap="magma", vmin=0, vmax=2)
        bottom.axis("off")
    for ax, name in zip(axes[:, 0], ["target", "context", "error"], strict=True):
        beside(ax, name)
    figure.colorbar(shown, ax=axes[2], ticks=[0, 1, 2], fraction=0.05, extend="max")
    headline(figure, title)
    show(figure, f"{len(whole)} images, their half-hidden versions, and for each a map of the guess's error, black for "
                 f"none and bright where it is twice that of always guessing the position's mean. {title}")


@styled
def places(errors: dict[str, float], guesses: dict[str, float | None], title: str) -> None:
    """The mean error of the guess at each kind of place, against always guessing the position's mean."""
    figure, ax = plt.subplots(figsize=(8, 2.8))
    ax.barh(list(errors), list(errors.values()), color=[_shade(name) for name in errors])
    for i, (name, value) in enumerate(errors.items()):
        ax.text(value, i, f" {value:.2f}", va="center")
        guess(ax, guesses.get(name), i)
    ax.axvline(1, color="gray", linestyle=":")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="error; dotted: always guessing the position's mean", title=title)
    show(figure, "Bar chart of the mean error: " + ", ".join(f"{name} {value:.2f}" for name, value in errors.items()))


def _shade(name: str) -> str:
    """Dark for a whole kind of place, light for a part of it."""
    return "#56B4E9" if "," in name else "#0072B2"
