"""The student's and the teacher's edition, made from the committed notebooks."""

import importlib
import re
import sys

import nbformat
import pytest
from conftest import ROOT
from series import PATHS, dead_links, namespace, read, solutions, tagged

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@pytest.fixture
def editions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("editions")


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@every_notebook
def test_both_editions_are_valid_and_keep_every_cell_and_the_original(path, editions):
    notebook = read(path)
    for edition in (editions.student(notebook), editions.teacher(notebook)):
        nbformat.validate(edition)
        assert [(cell.id, cell.cell_type) for cell in edition.cells] == [
            (cell.id, cell.cell_type) for cell in notebook.cells]
        assert "Open in Colab" not in prose(edition)  # the badge leads to the solutions
    assert notebook == read(path)


@every_notebook
def test_students_get_no_outputs_solutions_or_answers(path, editions):
    notebook = read(path)
    edition = editions.student(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in edition.cells)
    text, folded = prose(edition), dict.fromkeys(re.findall(r"<summary>(.*?)</summary>", prose(edition)))
    assert all(summary.startswith(("How", "Hint")) for summary in folded)
    hidden = [body for summary, body in re.findall(r"<summary>(.*?)</summary>(.*?)</details>", prose(notebook), re.S)
              if not summary.startswith(("How", "Hint"))]
    lines = [line for body in hidden for line in body.splitlines() if len(line) > 30]
    assert len(lines) > 5
    assert not [line for line in lines if line in text]


@every_notebook
def test_students_keep_stubs_checks_and_room_for_guesses(path, editions):
    notebook = read(path)
    edition = editions.student(notebook)
    for tag in ("bootstrap", "imports", "taught", "guess", "exercise", "check", "claims"):
        assert tagged(edition, tag) == tagged(notebook, tag)


def test_no_relative_link_of_an_edition_is_dead(editions, monkeypatch, tmp_path):
    monkeypatch.setattr(editions, "run", lambda notebook, everything: notebook)
    monkeypatch.setattr(sys, "argv", ["editions.py", str(tmp_path)])
    editions.main()
    made = list(tmp_path.glob("*/*.ipynb"))
    assert len(made) == 2 * len(PATHS)
    for path in made:
        assert not dead_links(path), path
        assert "](.." not in prose(read(path))  # each folder can be handed on alone


@pytest.mark.slow
@every_notebook
def test_in_the_students_edition_a_check_waits_and_a_solution_passes(path, editions, capsys):
    notebook = read(path)
    edition = editions.student(notebook)
    names = namespace(edition, "taught", "exercise", "check")
    checks = tagged(edition, "check")
    assert capsys.readouterr().out == "not attempted yet\n" * len(checks)
    for answer in solutions(notebook):
        exec(answer, names)
    for check in checks:
        exec(check, names)
    assert capsys.readouterr().out == "passed\n" * len(checks)


@every_notebook
def test_teachers_find_the_solutions_in_the_place_of_the_stubs_and_nothing_folded(path, editions):
    notebook = read(path)
    edition = editions.teacher(notebook)
    assert [source + "\n" for source in tagged(edition, "exercise")] == solutions(notebook)
    assert "<details>" not in prose(edition)
    assert not [source for source in solutions(notebook) if source in prose(edition)]


@pytest.mark.slow
def test_checks_of_the_teachers_edition_pass_and_the_other_outputs_stay(editions):
    notebook = read(PATHS[2])
    edition = editions.run(editions.teacher(notebook))
    nbformat.validate(edition)
    for before, after in zip(notebook.cells, edition.cells, strict=True):
        if "check" in before.metadata.get("tags", []):
            assert [output.text for output in after.outputs] == ["passed\n"]
        else:
            assert after.get("outputs") == before.get("outputs")
        assert after.get("execution_count") == before.get("execution_count")


@pytest.mark.slow
def test_the_teachers_edition_runs_from_top_to_bottom(editions, monkeypatch):
    monkeypatch.setenv("JEPA_BUDGET", "smoke")
    edition = editions.run(editions.teacher(read(PATHS[2])), everything=True)
    assert not [output for cell in edition.cells for output in cell.get("outputs", [])
                if output.output_type == "error"]
