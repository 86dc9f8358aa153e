"""The notebooks as the tests read them."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag):
    """Sources of the code cells with a tag."""
    return [cell.source for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def dead_links(path):
    """What a notebook links to in its own neighbourhood, and what is not there."""
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!\w+:|#)([^()\s#]+)", prose)
    return [link for link in links if not (path.parent / link).is_file()]


def solutions(notebook):
    """Code blocks of the folded solutions, one per exercise with a stub."""
    folded = [cell.source for cell in notebook.cells
              if cell.cell_type == "markdown" and "<details><summary>Solution" in cell.source]
    return [re.search(r"```python\n(.*?)```", source, re.S).group(1) for source in folded]


def namespace(notebook, *tags):
    """What the imports cell and the cells of further tags define, without running the rest."""
    names = {}
    for tag in ("imports", *tags):
        for source in tagged(notebook, tag):
            exec(compile(source, tag, "exec"), names)
    return names
