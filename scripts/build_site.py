"""Build the web site from the committed notebooks, without running them: build/site, and build/site.zip to carry away.

    python scripts/build_site.py        into build/, or into the folder that is named

The pages are those of docs/site, docs and notebooks, and the slides. Nothing is fetched, neither here nor by the pages.
"""

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import slides
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["repository"]


def for_the_web(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Badges become links, since their pictures lie on other servers; the cell that installs is folded; a link to the
    toy's file leads to its page."""
    for cell in notebook.cells:
        cell.source = re.sub(r"\[!\[([^]]*)\]\([^)]*\)\]", r"[\1]", cell.source)
        cell.source = cell.source.replace("](../docs/toy/collapse.html)", "](../collapse.md)")
        if "bootstrap" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata.tags, "hide-input"]
    return notebook


def linked(path: Path) -> str:
    """A Markdown file whose links to files that are neither pages nor pictures lead to the repository."""
    def moved(link: re.Match[str]) -> str:
        if re.match(r"\w+:|#", link[1]):
            return link[0]
        target = (path.parent / link[1]).resolve().relative_to(ROOT).as_posix()
        if target.startswith("docs/guide/slides/"):
            return "](/slides.md)"
        shown = re.match(r"docs/.*\.md|notebooks/.*\.ipynb|.*\.(png|gif)$", target)
        return link[0] if shown else f"]({REPOSITORY}/blob/main/{target})"

    text = re.sub(r"```mermaid\n.*?```\n", "", path.read_text(encoding="utf-8"), flags=re.S)  # a script would draw it
    return re.sub(r"\]\(([^)\s]+)\)", moved, text)


def described(module: Path) -> str:
    """Markdown of a module's docstrings, read without importing it: its own, then those of what it offers."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    parts = [f"## jepa_utils.{module.stem}", ast.get_docstring(tree) or ""]
    for node in tree.body:
        words = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
        if words and not node.name.startswith("_"):
            kind = "class " if isinstance(node, ast.ClassDef) else ""
            arguments = f"({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef) else ""
            parts += [f"### {kind}{node.name}", f"```python\n{node.name}{arguments}\n```", words]
    return "\n\n".join(parts)


def gather(source: Path) -> None:
    """All pages in one folder, at the places that they have in the repository; those of docs/site at its top."""
    for folder in ("notebooks", "docs", "assets"):
        (source / folder).mkdir(parents=True)
    for path in (ROOT / "docs" / "site").glob("*.md"):
        shutil.copy(path, source)
    with (source / "slides.md").open("a", encoding="utf-8") as page:
        for deck in sorted(slides.DECKS.glob("*.md")):
            page.write(f'- <a href="slides/{deck.stem}.html">{slides.title(deck)}</a>\n')
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        nbformat.write(for_the_web(nbformat.read(path, as_version=4)), source / "notebooks" / path.name)
    for path in [page for folder in (".", "guide", "reference") for page in (ROOT / "docs" / folder).glob("*.md")]:
        page = source / path.relative_to(ROOT)
        page.parent.mkdir(exist_ok=True)
        page.write_text(linked(path), encoding="utf-8")
    modules = map(described, sorted((ROOT / "jepa_utils").glob("[a-z]*.py")))
    (source / "api.md").write_text("\n\n".join(["# The module jepa_utils", *modules]), encoding="utf-8")
    for picture in [*(ROOT / "assets").glob("*.png"), *(ROOT / "assets").glob("*.gif")]:
        shutil.copy(picture, source / "assets")
    with Image.open(ROOT / "assets" / "collapse.gif") as moving:  # for whoever wants little motion
        moving.seek(moving.n_frames - 1)
        moving.convert("RGB").save(source / "assets" / "collapse-still.png")


def accessible(page: str) -> str:
    """What theme and reader leave out: names of buttons are what stands on them, and keys scroll what is wide."""
    for name in ("Search", "Toggle hidden content"):
        page = re.sub(rf'(<(?:button class="btn search-button-field|summary)[^>]*?) aria-label="{name}"', r"\1", page)
    return re.sub(r'<(table |div class="math")', r'<\1 tabindex="0" ', page)


def take_along(site: Path) -> None:
    """site.zip beside the site, and a copy in it for readers; the front page in the zip does not offer it again."""
    front = site / "index.html"
    whole = front.read_text(encoding="utf-8")
    front.write_text(re.sub(r'<p class="take-along">.*?</p>', "", whole, flags=re.S), encoding="utf-8")
    packed = shutil.make_archive(str(site), "zip", site.parent, site.name)
    front.write_text(whole, encoding="utf-8")
    shutil.copy(packed, site)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=ROOT / "build", type=Path)
    folder = parser.parse_args().folder.resolve()
    source, site = folder / "site-source", folder / "site"
    for old in (source, site):
        shutil.rmtree(old, ignore_errors=True)  # no page of an earlier build is left
    gather(source)
    settings = ["-c", ROOT / "docs" / "site", "-d", source / ".doctrees", "-q", "-W", "--keep-going"]
    if code := subprocess.run([sys.executable, "-m", "sphinx", *settings, source, site]).returncode:
        sys.exit(code)
    for page in site.rglob("*.html"):
        page.write_text(accessible(page.read_text(encoding="utf-8")), encoding="utf-8")
    for unused in site.rglob("*.map"):  # for debuggers of the theme: a quarter of the site
        unused.unlink()
    shutil.copytree(ROOT / "docs" / "toy", site / "toy")
    slides.write(site / "slides")
    take_along(site)
    print(f"{site / 'index.html'}\n{site}.zip")


if __name__ == "__main__":
    main()
