"""Figures from arrays, in one style for the whole series; `figures` has those of single notebooks."""

import base64
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from .pixels import SIZE, to_float

WIDTH = 8  # inches of a grid of images
P = ParamSpec("P")
R = TypeVar("R")
# Okabe-Ito colours: told apart by colour-blind readers and by their lightness in print.
COLORS = {
    "raw pixels": "#999999",
    "untrained": "#000000",
    "collapsed": "#D55E00",
    "VICReg": "#0072B2",
    "SIGReg": "#009E73",
    "supervised": "#CC79A7",
}
STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "figure.facecolor": "white",  # a page of its own, also where the notebook is dark
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "axes.prop_cycle": plt.cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]),
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """The function, drawing in the series' style; the reader's own figures keep theirs."""
    @wraps(draw)
    def inside(*args: P.args, **options: P.kwargs) -> R:
        with plt.rc_context(STYLE):
            return draw(*args, **options)
    return inside


def array(x) -> np.ndarray:
    """A tensor or array as NumPy, on the CPU."""
    return x.detach().float().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


@styled
def show(figure: Figure, alt: str) -> None:
    """Show a figure in a notebook with a text for readers who cannot see it, and close it.

    A plain bundle, since IPython's `Image` takes no alternative text where IPython is old, as in Colab. And the text
    once more, folded, since JupyterLab takes no alternative text from any bundle.
    """
    from IPython.display import display  # a notebook has it; a shell need not

    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    smaller = {"compress_level": 9, "compress_type": zlib.Z_DEFAULT_STRATEGY}  # the same pixels in a tenth less
    Image.open(drawn).convert("RGB").save(png, "PNG", **smaller)
    bundle = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
    display({"text/html": in_words(alt)}, raw=True)


def in_words(alt: str) -> str:
    """A line of HTML that unfolds to the text."""
    return f"<details><summary>This figure in words</summary>{escape(alt)}</details>"


def picture(ax: plt.Axes, image: Tensor, title: str = "") -> None:
    """Show one image (C, H, W), uint8 or float in [0, 1], without axes."""
    pixels = array(to_float(image)).transpose(1, 2, 0).clip(0, 1)
    ax.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title, fontsize=9, loc="center")
    ax.axis("off")


def frame(ax: plt.Axes, color: str) -> None:
    """A coloured frame around the picture, SIZE pixels a side, that an axis shows."""
    ax.add_patch(plt.Rectangle((-0.5, -0.5), SIZE, SIZE, fill=False, color=color, linewidth=5))


def headline(figure: Figure | SubFigure, title: str) -> None:
    """The finding, above all panels of a figure."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)


def count_ticks(ax: plt.Axes, counts: Sequence[int]) -> None:
    """These counts, and no others, written on the x axis."""
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()


def frames(rows: int, widths: list[float], title: str, margin: float = 0.0,
           above: float = 0.0) -> tuple[Figure, np.ndarray]:
    """A figure with rows of frames for images: their relative widths, inches to the left of them, and above each row.

    WIDTH inches wide, so that its smallest text stays legible on a page of 800 pixels.
    """
    height = rows * ((WIDTH - margin) / sum(widths) + above)
    figure, axes = plt.subplots(rows, len(widths), figsize=(WIDTH, height + 0.5), squeeze=False, width_ratios=widths)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    headline(figure, title)
    for ax in axes.flat:
        ax.axis("off")
    return figure, axes


def beside(ax: plt.Axes, text: str) -> None:
    """A label to the left of a frame."""
    ax.text(-0.1, 0.5, text, transform=ax.transAxes, ha="right", va="center", fontsize=10)


def retrieved(queries: Tensor, found: Mapping[str, Tensor], title: str) -> tuple[Figure, dict[str, np.ndarray]]:
    """Queries (M, C, H, W), and beside each its nearest images (M, k, C, H, W) by name; their axes (M, k) by name."""
    k = next(iter(found.values())).shape[1]
    figure, axes = frames(len(queries), [1.0, *([0.25] + [1.0] * k) * len(found)], title, above=0.05)  # gaps between
    shown = {name: axes[:, 2 + r * (k + 1) :][:, :k] for r, name in enumerate(found)}
    for i, query in enumerate(queries):
        picture(axes[i, 0], query, "query" if i == 0 else "")
        for name, images in found.items():
            for ax, image in zip(shown[name][i], images[i], strict=True):
                picture(ax, image)
    for name, block in shown.items():
        block[0, 0].set_title(f"nearest, {name}", fontsize=10, loc="left")
    return figure, shown


@styled
def image_grid(rows: list[Tensor], row_titles: list[str] | None = None, column_titles: list[str] | None = None,
               title: str = "") -> Figure:
    """Rows of images, each (N, C, H, W), with a title for every row or column."""
    widths = [1.0] * max(map(len, rows))
    figure, axes = frames(len(rows), widths, title, 1.1 if row_titles else 0, 0.2 if column_titles else 0)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            picture(axes[i, j], image, column_titles[j] if column_titles and i == 0 else "")
        if row_titles:
            beside(axes[i, 0], row_titles[i])
    return figure


@styled
def spectrum(ax: plt.Axes, spectra: dict[str, Tensor], title: str = "") -> None:
    """Eigenvalues (D,) of one or more clouds, descending, on a log axis."""
    for name, eigvals in spectra.items():
        values = array(eigvals)
        ax.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-12), label=name, color=COLORS.get(name))
    ax.set(xlabel="principal axis, from the widest", ylabel="variance along it", title=title)
    ax.legend()


@styled
def terms_and_spectra(terms: Mapping[str, Sequence[float]], spectra: Mapping[str, Tensor], states: Mapping[str, str],
                      looks: Mapping[str, tuple[str, str]], cloud: str) -> None:
    """The prediction term of each run, step by step, and the spectrum (D,) of its cloud at the end, on log axes.

    `states`: what `collapse_report` calls each cloud; `looks`: a colour and a line style; `cloud`: what it is made of.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
    for name, values in terms.items():
        color, style = looks[name]
        left.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-9), style, color=color)
        eigvals = array(spectra[name]).clip(1e-12)
        right.semilogy(np.arange(1, len(eigvals) + 1), eigvals, style, color=color, label=f"{name}: {states[name]}")
    seen = np.concatenate([array(eigvals) for eigvals in spectra.values()])
    if (seen > 1e-10).any():  # an axis that a normalisation has emptied would flatten all others
        right.set_ylim(bottom=seen[seen > 1e-10].min() / 3)
    lowest = min(terms, key=lambda name: terms[name][-1])
    emptiest = min(spectra, key=lambda name: float(spectra[name].sum()))
    left.set(xlabel="step", ylabel="prediction term", title=f"Lowest prediction term: {lowest}")
    right.set(xlabel=f"principal axis of {cloud}, from the widest", ylabel="variance along it",
              title=f"Least variance of {cloud}: {emptiest}")
    figure.legend(fontsize=9, loc="outside lower center", ncols=2)
    show(figure, f"Left: the prediction term over training. Right: spectra of {cloud}. Both on log axes. " + "; ".join(
        f"{name}: last term {values[-1]:.2g}, variance {float(spectra[name].sum()):.2g} in all, {states[name]}"
        for name, values in terms.items()))


def guess(ax: plt.Axes, x: float | None, y: float | None) -> None:
    """The reader's guess as a hollow diamond, with a legend that says so; None for either: no guess was made."""
    if x is not None and y is not None:
        label = "your guess" if "your guess" not in ax.get_legend_handles_labels()[1] else None
        ax.plot(x, y, "D", markersize=9, markerfacecolor="none", markeredgecolor="#000000", linestyle="",
                zorder=5, label=label)
        ax.legend(fontsize=9)


@styled
def bars(ax: plt.Axes, values: Mapping[str, float], xlabel: str, title: str = "",
         errors: Mapping[str, float] | None = None, guesses: Mapping[str, float | None] | None = None,
         colors: Mapping[str, str] = COLORS) -> None:
    """One horizontal bar per name, in the name's colour, its value at its end and the reader's guess, if any, on it."""
    names = list(values)
    error = [errors.get(name, 0) for name in names] if errors else None
    shades = [colors.get(name, colors.get(name.partition(",")[0], "#0072B2")) for name in names]  # "untrained, wider"
    drawn = ax.barh(names, [values[n] for n in names], xerr=error, color=shades)
    for line in drawn.errorbar.lines[2] if drawn.errorbar else ():
        line.set_path_effects([withStroke(linewidth=3.5, foreground="white")])  # seen on black bars, too
    for i, name in enumerate(names):
        ax.text(values[name] + (errors or {}).get(name, 0), i, f" {values[name]:.1f}", va="center",
                path_effects=[withStroke(linewidth=3.5, foreground="white")])  # a line may pass below
        guess(ax, (guesses or {}).get(name), i)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.12)
    ax.set(xlabel=xlabel, title=title)


@styled
def board(rows: list[dict], spectra: dict[str, Tensor]) -> Figure:
    """The scoreboard of `scoreboard.make`: spectra of the embeddings, and probes with their standard errors."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    spectrum(left, spectra, "Without a regularizer the embeddings shrink")
    values, errors = ({row["name"]: row[field] for row in rows} for field in ("probe", "error"))
    bars(right, values, "linear probe, % of test images", "What the features are worth", errors)
    return figure
