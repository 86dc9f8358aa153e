"""The contract that every notebook keeps, read from the committed files."""

import re
import tomllib

import nbformat
import pytest
from series import PATHS, ROOT, namespace, read, solutions, tagged

from jepa_utils.claims import HOLDS, lines
from jepa_utils.plots import in_words

REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["repository"]
SECTIONS = ("## The scoreboard", "## Exercises", "## What you have learned", "**References.**")

SERIES = ("01_data_augmentation", "02_encoder_and_predictor", "03_collapse", "04_vicreg", "05_sigreg",
          "05b_sigreg_in_depth", "06_training_at_full_scale", "07_linear_probe_and_beyond", "08_the_family",
          "09_masks", "10_your_own_pictures", "11_from_images_to_video")

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def test_the_series_is_complete():
    assert tuple(path.stem for path in PATHS) == SERIES


@every_notebook
def test_it_is_valid_small_and_free_of_tool_metadata(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1.5e6
    assert set(notebook.metadata) == {"kernelspec", "language_info"}  # no widgets, no time limit of its own
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}


@every_notebook
def test_it_was_executed_in_order_from_a_fresh_kernel_without_errors_or_warnings(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            assert "\r" not in output.get("text", "")


@every_notebook
def test_it_opens_with_title_reason_badge_objectives_and_times(path):
    cells = read(path).cells
    first = "\n".join(cell.source for cell in cells[: cells.index(code_cells(read(path))[0])])
    assert first.startswith(f"# {path.stem.split('_')[0]} · ")
    owner = REPOSITORY.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/{path.name}" in first
    assert f"https://kaggle.com/kernels/welcome?src={REPOSITORY}/blob/main/notebooks/{path.name}" in first
    for part in ("**You will be able to**", "**You should know**", "**Time:**"):
        assert part in first


@every_notebook
def test_it_has_every_section(path):
    prose = "\n".join(cell.source for cell in prose_cells(read(path)))
    positions = [prose.find(section) for section in SECTIONS]
    assert -1 not in positions
    assert positions == sorted(positions)


@every_notebook
def test_the_reader_predicts_before_the_cell_that_decides(path):
    cells = read(path).cells
    asked = [i for i, cell in enumerate(cells)
             if cell.cell_type == "markdown" and "**Predict, then run.**" in cell.source]
    assert asked
    assert {cells[i + 1].cell_type for i in asked} == {"code"}


@every_notebook
def test_cells_are_short_and_fit_the_page(path):
    notebook = read(path)
    for cell in code_cells(notebook):
        tags = set(cell.metadata.get("tags", []))
        lines = cell.source.splitlines()
        assert max(map(len, lines)) <= 100, cell.source
        if not tags & {"bootstrap", "imports"}:
            assert len(lines) <= (20 if tags & {"taught", "exercise", "check"} else 15), cell.source
    for cell in prose_cells(notebook):
        words = re.sub(r"```.*?```|\$\$.*?\$\$|\(https?://[^)]*\)", "", cell.source, flags=re.S).split()
        assert len(words) <= 150, (len(words), cell.source)


@every_notebook
def test_figures_are_drawn_by_named_functions(path):
    for cell in code_cells(read(path)):
        assert not re.search(r"\bplt\b|\.subplots\(|matplotlib", cell.source), cell.source


@every_notebook
def test_guesses_are_left_to_the_reader_and_reach_a_figure_or_a_line(path):
    notebook = read(path)
    guesses = tagged(notebook, "guess")
    assert guesses
    rest = "\n".join(cell.source for cell in code_cells(notebook) if "guess" not in cell.metadata.get("tags", []))
    for source in guesses:
        names = {}
        exec(source, names)
        (name, value), = ((n, v) for n, v in names.items() if n.startswith("my_guess"))
        assert all(not each for each in (value.values() if isinstance(value, dict) else [value]))
        assert re.search(rf"\b{name}\b", rest), name


@every_notebook
def test_its_claims_are_checked_on_its_own_run(path):
    (cell,) = [cell for cell in code_cells(read(path)) if "claims" in cell.metadata.get("tags", [])]
    said = lines("".join(output.get("text", "") for output in cell.outputs))
    assert len(said) >= 3
    assert all(line.startswith(HOLDS) for line in said)


@every_notebook
def test_questions_at_the_end_have_folded_answers(path):
    (cell,) = [cell for cell in prose_cells(read(path)) if "**Ask yourself.**" in cell.source]
    assert "<details><summary>Answer" in cell.source


@every_notebook
def test_every_figure_has_a_text_for_those_who_cannot_see_it_and_words_after_it(path):
    cells = read(path).cells
    for i, cell in enumerate(cells):
        outputs = cell.get("outputs", [])
        pictures = [j for j, output in enumerate(outputs) if "image/png" in output.get("data", {})]
        for j in pictures:
            alt = outputs[j].metadata["image/png"]["alt"]
            assert len(alt) > 20
            assert outputs[j].data["text/plain"] == alt  # what front ends without pictures show
            assert outputs[j + 1].data["text/html"] == in_words(alt)  # what JupyterLab reads aloud
        if pictures:
            rest = [other for other in cells[i + 1 : i + 3] if other.cell_type == "markdown"]
            assert rest, cell.source


@every_notebook
def test_no_long_run_starts_by_itself(path):
    """Levels of `quick` share out the work; what takes hours hangs on a switch that is off."""
    notebook = read(path)
    assert not [cell.source for cell in code_cells(notebook) if "work.name" in cell.source and "full" in cell.source]
    switches = [line for cell in code_cells(notebook) for line in cell.source.splitlines() if line.startswith("RUN = ")]
    assert all(line.startswith('RUN = ""') for line in switches)
    assert len(switches) == (path.stem == "06_training_at_full_scale")


def test_all_were_executed_at_one_level():
    said = {output.text.split(" (")[0] for path in PATHS for cell in code_cells(read(path))
            for output in cell.outputs if output.get("text", "").startswith("budget ")}
    assert len(said) == 1
    assert re.fullmatch(r"budget quick-\d+", said.pop())


@every_notebook
def test_links_to_notebooks_lead_somewhere(path):
    for cell in prose_cells(read(path)):
        for target in re.findall(r"\]\((\w+)\.ipynb\)", cell.source):
            assert target in SERIES


def test_the_bootstrap_cell_is_the_same_everywhere_and_names_this_repository():
    cells = {source for path in PATHS for source in tagged(read(path), "bootstrap")}
    assert len(cells) == 1
    assert all(len(tagged(read(path), "bootstrap")) == 1 for path in PATHS)
    assert f"git+{REPOSITORY}" in cells.pop()


@every_notebook
def test_exercises_stay_quiet_untouched_and_their_solutions_pass(path):
    notebook = read(path)
    stubs, checks, answers = tagged(notebook, "exercise"), tagged(notebook, "check"), solutions(notebook)
    assert len(stubs) == len(checks) == len(answers) >= 2
    for stub, check, answer in zip(stubs, checks, answers, strict=True):
        names = namespace(notebook, "taught")
        name = re.search(r"exercises\.run\((\w+)\)", check).group(1)
        exec(stub + "\n" + check, names)
        with pytest.raises(NotImplementedError):
            names[name]()
        exec(answer, names)
        names[name]()


@every_notebook
def test_untouched_checks_say_that_they_were_not_attempted(path):
    notebook = read(path)
    for cell in code_cells(notebook):
        if "check" in cell.metadata.get("tags", []):
            assert [output.text for output in cell.outputs] == ["not attempted yet\n"]


@every_notebook
def test_nothing_is_left_to_be_written(path):
    for cell in read(path).cells:
        assert not re.search(r"\b(TODO|FIXME|XXX|READING)\b", cell.source), cell.source
