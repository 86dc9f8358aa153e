"""Make a student's and a teacher's edition of every notebook.

    python scripts/editions.py build                       into build/student and build/teacher
    python scripts/editions.py build --only 03 --execute   run the teacher's 03 from top to bottom as well

Students get no outputs, no solutions and no answers; stubs, checks, guesses and folded hints stay. Teachers get the
solutions in the place of the stubs, with what the checks say of them, and the answers unfolded. Cells keep their ids.
The page to play with, collapse.html, lies beside the notebooks of both, so that either folder can be handed on alone.
"""

import argparse
import re
import shutil
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert.preprocessors import ClearOutputPreprocessor
from nbformat import NotebookNode
from run_series import NOTEBOOKS, chosen, clean

FOLDED = re.compile(r"<details><summary>(.*?)</summary>\s*(.*?)\s*</details>", re.S)
CODE = re.compile(r"```python\n(.*?)\n```\s*", re.S)
BADGES = re.compile(r"^\[!\[Open in .*\n+", re.M)  # they open the committed notebook, which has the solutions
TOY = "../docs/toy/collapse.html"  # as the notebooks link to it
NEEDED = {"imports", "taught", "exercise", "check"}  # cells that suffice to run the checks
AWAY = "*The {} is in the teacher's edition.*"


def student(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs, solutions and answers. Folded hints, which begin with How or Hint, stay."""
    copy, _ = ClearOutputPreprocessor().preprocess(deepcopy(notebook), {})
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = alone(FOLDED.sub(_taken_away, cell.source))
    return copy


def alone(source: str) -> str:
    """Markdown without what leads out of an edition's folder: no badges, and the toy beside it."""
    return BADGES.sub("", source).replace(TOY, Path(TOY).name)


def _taken_away(folded: re.Match) -> str:
    summary = folded[1].lower()
    return folded[0] if summary.startswith(("how", "hint")) else AWAY.format("solution" if "solution" in summary
                                                                             else "answer")


def teacher(notebook: NotebookNode) -> NotebookNode:
    """A copy with every solution in the cell of its stub, the one before it, and nothing folded."""
    copy, stub = deepcopy(notebook), None
    for cell in copy.cells:
        if "exercise" in cell.metadata.get("tags", []):
            stub = cell
        elif cell.cell_type == "markdown":
            if stub and "<details><summary>Solution" in cell.source and (code := CODE.search(cell.source)):
                stub.source, stub = code[1], None
                cell.source = cell.source.replace(code[0], "")
            cell.source = alone(FOLDED.sub(r"**\1.** \2", cell.source))
    return copy


def run(notebook: NotebookNode, everything: bool = False) -> NotebookNode:
    """The notebook with what its checks print; with `everything` all cells are run, as long as JEPA_BUDGET says."""
    cells = [cell for cell in notebook.cells if everything or NEEDED & set(cell.metadata.get("tags", []))]
    counts = [cell.get("execution_count") for cell in cells]
    part = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    NotebookClient(part, timeout=None, record_timing=False, extra_arguments=["--log-level=ERROR"],
                   resources={"metadata": {"path": NOTEBOOKS}}).execute()
    for cell, count in zip(cells, counts, strict=True):
        if cell.cell_type == "code":
            cell.execution_count = count
    return clean(notebook)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="build", type=Path)
    parser.add_argument("--only", default="", help="start of the names to make, such as 03")
    parser.add_argument("--execute", action="store_true", help="run the teacher's edition from top to bottom")
    options = parser.parse_args()
    for path in chosen(parser, options.only):
        notebook = nbformat.read(path, as_version=4)
        editions = {"student": student(notebook), "teacher": run(teacher(notebook), options.execute)}
        for name, edition in editions.items():
            (options.folder / name).mkdir(parents=True, exist_ok=True)
            nbformat.write(edition, options.folder / name / path.name)
            shutil.copy(NOTEBOOKS / TOY, options.folder / name)
        print(f"{path.stem}: {' and '.join(editions)} in {options.folder}", flush=True)


if __name__ == "__main__":
    main()
