"""Build the web site from the committed notebooks, which are not executed: build/site, and build/site.zip to carry away.

    python scripts/build_site.py

The pages are those of docs/site, docs and notebooks. Nothing is fetched, neither here nor by the pages.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["repository"]


def for_the_web(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Badges become links, since their pictures lie on other servers; the cell that installs is folded."""
    for cell in notebook.cells:
        cell.source = re.sub(r"\[!\[([^]]*)\]\([^)]*\)\]", r"[\1]", cell.source)
        if "bootstrap" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata.tags, "hide-input"]
    return notebook


def linked(text: str) -> str:
    """Markdown whose links to files that are no pages lead to the repository."""
    def moved(link: re.Match[str]) -> str:
        return f"]({REPOSITORY}/blob/main/{link[1]})"

    return re.sub(r"(?<!\.png)\]\((?!\w+:|#)((?!docs/\w+\.md|notebooks/)[^)]*\.(?!png|gif)\w+|[A-Z]+)\)", moved, text)


def gather(source: Path) -> None:
    """All pages in one folder, at the places that they have in the repository; those of docs/site at its top."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "site", source)
    for folder in ("notebooks", "docs", "assets"):
        (source / folder).mkdir()
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        nbformat.write(for_the_web(nbformat.read(path, as_version=4)), source / "notebooks" / path.name)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        target = source / path.relative_to(ROOT)
        target.write_text(linked(path.read_text(encoding="utf-8")), encoding="utf-8")
    for picture in [*(ROOT / "assets").glob("*.png"), *(ROOT / "assets").glob("*.gif")]:
        shutil.copy(picture, source / "assets")


def main() -> None:
    source, site = ROOT / "build" / "site-source", ROOT / "build" / "site"
    gather(source)
    shutil.rmtree(site, ignore_errors=True)  # no page of an earlier build is left
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", source / ".doctrees"]
    if code := subprocess.run([*command, source, site], cwd=ROOT).returncode:
        sys.exit(code)
    shutil.copytree(ROOT / "docs" / "toy", site / "toy")
    shutil.make_archive(str(site), "zip", site.parent, site.name)
    print(f"{site / 'index.html'}\n{site}.zip")


if __name__ == "__main__":
    main()
