"""The teacher's guide and the reference: every link leads somewhere, every section they name is in its notebook."""

import importlib
import re
from pathlib import Path

import pytest
from conftest import ROOT
from series import PATHS, read

PAGES = sorted([*(ROOT / "docs" / "guide").rglob("*.md"), *(ROOT / "docs" / "reference").rglob("*.md")])
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))


def links(text):
    """Texts and targets of all links and images of a page, without its code."""
    return re.findall(r"\[([^\[\]]*)\]\(([^()\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S))


def sections(notebook):
    """Titles and headings of a notebook, and its exercises as `exercise 1`."""
    prose = "\n".join(cell.source for cell in read(notebook).cells if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {*headings, *(f"exercise {number}" for number in re.findall(r"^\*\*(\d) · ", prose, re.M))}


def number(path):
    return path.stem.split("_")[0]


NAMED = {number(path): sections(path) for path in PATHS}


@every_page
def test_every_link_leads_to_a_file_and_every_named_section_is_there(page):
    wrong = []
    for text, target in links(page.read_text(encoding="utf-8")):
        if target.startswith(("http", "#")):
            continue
        file = (page.parent / target.partition("#")[0]).resolve()
        named = re.fullmatch(r"(\d\db?) · (.+)", text)
        if not file.exists() or (named and (named[1] != number(file) or not {named[2], text} & NAMED[named[1]])):
            wrong.append((text, target))
    assert not wrong


@every_page
def test_section_names_in_links_point_at_notebooks(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for name, target in links(text):
        if target.endswith(".ipynb"):
            assert re.match(r"\d\db? · ", name), f"say which section: {name}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_pages_lead_to_every_notebook_of_the_main_line(path):
    if int(path.stem[:2]) > 7:
        pytest.skip("the guide ends with 07")
    assert path.name in "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_every_paper_on_the_reading_list_is_one_that_the_series_cites():
    cited = "\n".join(cell.source for path in PATHS for cell in read(path).cells)
    cited += (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\b\d{4}\.\d{5}\b", (ROOT / "docs/reference/reading.md").read_text(encoding="utf-8"))
    assert len(listed) > 30
    assert not [paper for paper in listed if paper not in cited]


def test_the_pages_are_plain_text_that_git_and_every_reader_can_take():
    for page in map(Path, PAGES):
        text = page.read_text(encoding="utf-8")
        assert text.startswith("# "), page
        assert "\t" not in text
        assert text.endswith("\n")


def plans():
    """Each timetable: its heading, and the rows (minutes, what)."""
    found, heading = {}, ""
    for line in (ROOT / "docs" / "guide" / "timetables.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("##"):
            heading = line.strip("# ")
        elif heading and (row := re.match(r"\| (\d+) \| ([^|]+) \|", line)):
            found.setdefault(heading, []).append((int(row[1]), row[2]))
    return found


def test_the_minutes_of_each_timetable_add_up():
    assert {heading: sum(minutes for minutes, _ in rows) for heading, rows in plans().items()} == {
        "Ninety minutes": 90, "Half a day": 240, "Day one": 420, "Day two": 420}


def test_nobody_sits_for_more_than_two_hours_without_a_break():
    for rows in plans().values():
        sitting = 0
        for minutes, what in rows:
            sitting = 0 if what in ("Break", "Lunch") else sitting + minutes
            assert sitting <= 120, what


def test_minutes_of_computing_are_those_of_the_readme():
    row = r"^\| \[?(\d\db?)[^|]*\| ([\d.]+) \|"
    readme, guide = (dict(re.findall(row, (ROOT / name).read_text(encoding="utf-8"), re.M))
                     for name in ("README.md", "docs/guide/timetables.md"))
    assert guide
    assert guide.items() <= readme.items()


def test_figures_of_the_guide_are_those_that_the_committed_notebooks_print():
    sections = re.split(r"^## (\d\db?) ", (ROOT / "docs/guide/notebooks.md").read_text(encoding="utf-8"), flags=re.M)
    said = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert len(said) >= 8
    for number, text in said.items():
        text = re.sub(r"^(\|[^|\n]*\|)[^|\n]*\|", r"\1", text, flags=re.M)  # the second column has wrong guesses
        (path,) = (path for path in PATHS if path.stem.startswith(f"{number}_"))
        shown = "\n".join(str(output) for cell in read(path).cells for output in cell.get("outputs", []))
        source = "\n".join(cell.source for cell in read(path).cells)
        figures = set(re.findall(r"(?<![\w.])\d+\.\d+", re.sub(r"arXiv \S+", "", text)))
        assert not {figure for figure in figures if figure not in shown + source}, number


DECKS = sorted((ROOT / "docs" / "guide" / "slides").glob("*.md"))


@pytest.fixture
def slides(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("slides")


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_a_deck_is_one_page_with_notes_and_figures_that_needs_nothing_else(deck, slides):
    text, page = deck.read_text(encoding="utf-8"), slides.page(deck)
    assert page.count("<section>") == page.count("<aside>") == text.count("\n---\n") + 1 >= 6
    assert page.count("<figure>") == text.count(".ipynb#") >= 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing is fetched, and no link leads out of the page
    assert re.fullmatch(r"\d\db?", deck.stem)


def test_a_figure_that_is_not_there_is_named(slides):
    with pytest.raises(KeyError, match="no figure in the cell cell-01"):
        slides.figure(PATHS[0], "cell-01", "")
