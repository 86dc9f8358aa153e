"""Execute every numbered notebook, in order, into a folder: executed notebooks and HTML, a line for each.

    python scripts/run_series.py build          leaves notebooks/ as it is
    python scripts/run_series.py --in-place     writes the outputs into notebooks/, ready to commit
"""

import argparse
import os
import random
import re
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from jepa_utils.runtime import atomic

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def execute(path: Path, times: int = 1) -> nbformat.NotebookNode:
    """The notebook run top to bottom in a fresh kernel, in its own folder, so many times; only outputs differ."""
    notebook = nbformat.read(path, as_version=4)
    quiet = ["--log-level=ERROR"]  # a local kernel need not warn that its messages are not encrypted
    client = NotebookClient(notebook, timeout=None, record_timing=False, extra_arguments=quiet,
                            resources={"metadata": {"path": path.parent}})
    with client.setup_kernel():
        for _ in range(times):
            for i, cell in enumerate(notebook.cells):
                client.execute_cell(cell, i)
    return clean(notebook)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Keep of a stream what a terminal would show in the end, and of the metadata what is the author's."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
                kept[-1].text += output.text
            else:
                kept.append(output)
        for output in kept:
            if output.output_type == "stream":
                output.text = re.sub(r"[^\n]*\r", "", output.text)
        cell.outputs = [output for output in kept if output.get("text", "shown").strip()]
    kernel, language = {"display_name": "Python 3", "language": "python", "name": "python3"}, {"name": "python"}
    notebook.metadata = {"kernelspec": kernel, "language_info": language}
    return notebook


def page(notebook: nbformat.NotebookNode) -> str:
    """As HTML, by the template that keeps the texts of figures for those who cannot see them; the default does not."""
    html, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    return html


def chosen(parser: argparse.ArgumentParser, only: str) -> list[Path]:
    """The notebooks whose names start so, in order; ends with one line if there are none."""
    paths = sorted(NOTEBOOKS.glob(f"{only}*.ipynb"))
    if not paths:
        parser.error(f"--only: {only!r} was given; accepted: the start of a name in {NOTEBOOKS}")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", default="build", type=Path)
    parser.add_argument("--in-place", action="store_true")
    parser.add_argument("--twice", action="store_true", help="run each notebook twice in one kernel")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="in a random order")
    parser.add_argument("--only", default="", help="start of the names to run, such as 03")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    paths = chosen(parser, options.only)
    if options.in_place:  # one recipe gives one row in every notebook, whatever else keeps the machine busy
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    if options.shuffle is not None:
        random.Random(options.shuffle).shuffle(paths)
    run = partial(execute, times=2) if options.twice else execute
    for path in paths:
        started = time.perf_counter()
        try:
            notebook = run(path)
        except CellExecutionError as error:
            sys.exit(f"{path.name} failed:\n{error}")
        target = path if options.in_place else options.folder / path.name
        with atomic(target) as temporary:  # the author's own file, with --in-place
            nbformat.write(notebook, temporary)
        (options.folder / path.with_suffix(".html").name).write_text(page(notebook), encoding="utf-8")
        print(f"{path.name:<40} {time.perf_counter() - started:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
