"""Draw the pictures in assets/: the architecture (SVG and PNG) and the spectrum that collapses and recovers (GIF).

    python scripts/make_assets.py
"""

from pathlib import Path

import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from jepa_utils import augment, data, pixels, plots
from jepa_utils.models import build_model, embeddings
from jepa_utils.recipes import recipe
from jepa_utils.runtime import atomic, generator, grad_scaler, pick_device
from jepa_utils.spectra import collapse_report, eigenvalues
from jepa_utils.train import build_loss, build_optimizer, draw_views, train_step

ASSETS = Path(__file__).resolve().parent.parent / "assets"
INK, BLUE, GREEN, ORANGE, RED = "#222222", "#0072B2", "#009E73", "#E69F00", "#D55E00"


def box(ax, x, y, width, text, color) -> None:
    rounded = "round,pad=0.02,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch((x, y - 0.32), width, 0.64, boxstyle=rounded, fc=color, ec="none"))
    ax.text(x + width / 2, y, text, ha="center", va="center", color="white", fontsize=11)


def arrow(ax, start, end, text="", color=INK, style="-") -> None:
    ax.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=13, color=color, lw=1.6, linestyle=style, shrinkA=2, shrinkB=2))
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    ax.text(x, y + 0.13, text, ha="center", va="bottom", color=color, fontsize=11)


@plots.styled
def architecture(images: data.Dataset) -> None:
    """Views, encoder, projector, predictor, losses; the probe on the side."""
    figure, ax = plots.plt.subplots(figsize=(10, 3.8))
    ax.set(xlim=(0, 12.5), ylim=(0, 4.4), aspect="equal")
    ax.axis("off")
    image = images.train_images[8]
    views = augment.make_views(image[None], augment.DIGITS, 2, generator(3))
    pictures = [(pixels.to_float(image), 0.1, 2.1, "image x"),
                (views[0, 0], 2.0, 3.2, "view"), (views[1, 0], 2.0, 1.0, "view")]
    for picture, x, y, name in pictures:
        ax.imshow(plots.array(picture).transpose(1, 2, 0).clip(0, 1), extent=(x, x + 1, y, y + 1), zorder=2)
        ax.text(x + 0.5, y - 0.12, name, ha="center", va="top", fontsize=10)
    arrow(ax, (1.15, 2.75), (1.95, 3.6))
    arrow(ax, (1.15, 2.45), (1.95, 1.6))
    for y in (3.7, 1.5):
        arrow(ax, (3.05, y), (3.7, y))
        box(ax, 3.7, y, 1.6, "encoder", BLUE)
        arrow(ax, (5.3, y), (6.2, y), "h")
        box(ax, 6.2, y, 1.6, "projector", BLUE)
    ax.text(4.5, 2.6, "same weights", ha="center", va="center", fontsize=9, color=BLUE)
    arrow(ax, (7.8, 3.7), (8.7, 3.7), "z")
    box(ax, 8.7, 3.7, 1.6, "predictor", GREEN)
    arrow(ax, (9.5, 3.35), (9.5, 2.95))
    box(ax, 8.4, 2.6, 2.2, "prediction term", ORANGE)
    arrow(ax, (7.8, 1.5), (8.7, 2.25), "z")
    box(ax, 10.2, 1.3, 2.1, "regularizer", RED)
    arrow(ax, (7.85, 1.35), (10.2, 1.3))
    ax.text(11.25, 0.75, "VICReg or SIGReg:\nkeeps the z of both\nviews from collapsing", ha="center", va="top",
            fontsize=9, color=RED)
    box(ax, 4.9, 0.42, 1.8, "linear probe", "#666666")
    arrow(ax, (5.8, 1.45), (5.8, 0.78), color="#666666", style="--")
    ax.text(6.85, 0.42, "after training, encoder frozen", va="center", fontsize=9, color="#666666")
    for ending in ("svg", "png"):
        with atomic(ASSETS / f"architecture.{ending}") as temporary:
            figure.savefig(temporary, format=ending, dpi=130)
    plots.plt.close(figure)


def recorded_spectra(images: data.Dataset, steps: int, every: int = 5) -> list[tuple[int, str, torch.Tensor]]:
    """Train with VICReg, go on without its regularizer, then with it again: every few steps the step, what is done
    and, after the first part, what became of z, and the spectrum of z."""
    config = recipe("laptop-vicreg", projector="256-256-64")
    model, frames = build_model(config, *images.statistics()).to(images.train_images.device), []
    g = generator(0)
    for phase, loss_type in (("VICReg", "vicreg"), ("regularizer off", "none"), ("regularizer on again", "vicreg")):
        phase_config = recipe(f"laptop-{loss_type}", projector="256-256-64")
        loss, optimizer = build_loss(phase_config), build_optimizer(phase_config, model)
        scaler = grad_scaler(images.train_images.device)
        for step in range(steps):
            if step % every == 0:
                z = embeddings(model, images.test_images)
                state = "" if phase == "VICReg" else f": {collapse_report(z).state}"  # narrow at first: not yet opened
                named = f"{phase}{state}" if frames else "untrained"
                frames.append((len(frames) * every, named, eigenvalues(z)))
            model.train()
            pick = torch.randint(len(images.train_images), (256,), generator=g)
            views = draw_views(model, images.train_images[pick], augment.DIGITS, 2, g)
            train_step(model, loss, optimizer, scaler, views, step, 2e-3)
    return frames


@plots.styled
def spectrum_gif(images: data.Dataset, steps: int = 100) -> None:
    frames = recorded_spectra(images, steps)
    figure, ax = plots.plt.subplots(figsize=(7, 3.6), dpi=80)

    def draw(i):
        step, named, eigvals = frames[i]
        ax.clear()
        names = {"untrained": "untrained", "regularizer off": "collapsed"}
        color = plots.COLORS[names.get(named.partition(":")[0], "VICReg")]
        ax.semilogy(range(1, len(eigvals) + 1), plots.array(eigvals).clip(1e-12), color=color)
        ax.set(xlim=(1, len(eigvals)), ylim=(1e-7, 30), xlabel="principal axis of the embeddings z, from the widest",
               ylabel="variance along it", title=f"step {step}, {named}")

    figure.subplots_adjust(left=0.13, bottom=0.16, right=0.97, top=0.9)
    order = list(range(len(frames))) + [len(frames) - 1] * 12  # rest at the end
    with atomic(ASSETS / "collapse.gif") as temporary:
        FuncAnimation(figure, draw, order).save(temporary.with_suffix(".gif"), PillowWriter(fps=9))
        temporary.with_suffix(".gif").replace(temporary)
    plots.plt.close(figure)


def main() -> None:
    ASSETS.mkdir(exist_ok=True)
    images = data.digits().limited(10_000, 1_000).to(pick_device())
    architecture(images)
    spectrum_gif(images)


if __name__ == "__main__":
    main()
