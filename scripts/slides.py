"""Make one page of slides from each deck in docs/guide/slides: no network, no program but a browser.

    python scripts/slides.py build

A deck is Markdown. `---` begins a new slide, a paragraph that begins with `Note:` is for the speaker, and a link to a
cell of a notebook that stands alone, as `[03 · Name it](…collapse.ipynb#cell-22)`, becomes that cell's figure. In the
browser N shows and hides the notes, and printing gives a slide a page.
"""

import argparse
import re
from html import escape
from pathlib import Path

import mistune  # nbconvert's
import nbformat

DECKS = Path(__file__).resolve().parent.parent / "docs" / "guide" / "slides"
FIGURE = re.compile(r"^\[(.+)\]\((\S+\.ipynb)#([\w-]+)\)$", re.M)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,"><style>
@page {{ size: 320mm 180mm; margin: 0 }}
body {{ margin: 0; font: 24px/1.4 sans-serif; color: #222 }}
section {{ box-sizing: border-box; height: 100vh; padding: 4vh 6vw; overflow: hidden; break-after: page;
  display: flex; flex-direction: column; justify-content: center; scroll-snap-align: start }}
section > * {{ margin: .4em 0 }}
h1, h2 {{ color: #0072B2; line-height: 1.15 }}
figure {{ min-height: 0; text-align: center }}
figure img {{ max-width: 100%; max-height: 62vh; object-fit: contain }}
figcaption {{ font-size: 14px; color: #666 }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #ccc; padding: .2em .6em; text-align: left }}
pre {{ background: #f4f4f4; padding: .5em; font-size: 20px }}
aside {{ display: none; font-size: 18px; color: #555; border-top: 1px solid #ccc }}
.notes aside {{ display: block }} .notes figure img {{ max-height: 45vh }}
html {{ scroll-snap-type: y mandatory }}
button {{ position: fixed; right: 1vw; bottom: 1vh; font-size: 14px }}
@media (max-width: 40rem) {{  /* a phone: no slide has to fit the screen */
  html {{ scroll-snap-type: none }} body {{ font-size: 18px }}
  section {{ height: auto; overflow-x: auto; border-bottom: 1px solid #ccc }}
}}
@media print {{ button {{ display: none }} }}
</style><body><main>{slides}</main><button aria-pressed="false" title="key N">Notes</button><script>
const button = document.querySelector("button");
button.onclick = () => button.setAttribute("aria-pressed", document.body.classList.toggle("notes"));
addEventListener("keydown", event => {{
  if (event.key === "n") button.click();
  const step = {{ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}}[event.key];
  if (step) {{ event.preventDefault(); scrollBy(0, step * innerHeight); }}
}});</script></html>
"""


def figure(notebook: Path, cell_id: str, caption: str) -> str:
    """The first figure of a notebook's cell, with its alternative text; KeyError names a cell that has none."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []) if cell.id == cell_id else []:
            if png := output.get("data", {}).get("image/png"):
                alt = escape(output.metadata["image/png"]["alt"], quote=True)
                pixels = png.replace("\n", "")
                return (f'<figure><img alt="{alt}" src="data:image/png;base64,{pixels}">'
                        f"<figcaption>{escape(caption)}</figcaption></figure>")
    raise KeyError(f"{notebook.name}: no figure in the cell {cell_id}")


def slide(text: str, folder: Path) -> str:
    """One slide; links to cells lead from `folder`."""
    blocks = []
    for block in text.strip().split("\n\n"):
        if link := FIGURE.fullmatch(block):
            blocks.append(figure(folder / link[2], link[3], link[1]))
        elif block.startswith("Note: "):
            blocks.append(f"<aside>{mistune.html(block.removeprefix('Note: '))}</aside>")
        else:
            blocks.append(mistune.html(block))
    return f"<section>{''.join(blocks)}</section>"


def title(deck: Path) -> str:
    """What a deck is called on its first line."""
    return escape(deck.read_text(encoding="utf-8").splitlines()[0].strip("# "))


def page(deck: Path) -> str:
    """A deck as one page of HTML that needs nothing else."""
    slides = "\n".join(slide(part, deck.parent) for part in deck.read_text(encoding="utf-8").split("\n---\n"))
    return PAGE.format(title=title(deck), slides=slides)


def write(folder: Path) -> list[Path]:
    """The page of each deck, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {folder / f"{deck.stem}.html": page(deck) for deck in sorted(DECKS.glob("*.md"))}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="build", type=Path)
    print(*write(parser.parse_args().folder / "slides"), sep="\n")


if __name__ == "__main__":
    main()
