"""The teacher's guide and the reference: every link leads somewhere, every section they name is in its notebook."""

import importlib
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT
from series import PATHS, read

PAGES = sorted([*(ROOT / "docs" / "guide").rglob("*.md"), *(ROOT / "docs" / "reference").rglob("*.md")])
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
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


@every_notebook
def test_guide_and_reference_lead_to_every_notebook(path):
    for page in ("guide/notebooks.md", "reference/glossary.md", "reference/ideas.md", "reference/faq.md"):
        if (number(path), page) != ("05b", "reference/ideas.md"):
            assert path.name in (ROOT / "docs" / page).read_text(encoding="utf-8"), page


def test_the_reading_list_has_the_papers_that_the_series_cites_and_no_others():
    paper = r"\b\d{4}\.\d{5}\b"
    cited = {name for path in PATHS for cell in read(path).cells for name in re.findall(paper, cell.source)}
    readme = re.findall(paper, (ROOT / "README.md").read_text(encoding="utf-8"))
    listed = re.findall(paper, (ROOT / "docs/reference/reading.md").read_text(encoding="utf-8"))
    assert len(listed) == len(set(listed)) > 40
    assert cited <= set(listed) <= {*cited, *readme}


def test_the_glossary_is_in_order_and_says_where_each_word_is_first_used():
    entries = [entry for entry in (ROOT / "docs/reference/glossary.md").read_text(encoding="utf-8").split("\n\n")
               if entry.startswith("**")]
    words = [re.match(r"\*\*(.+?)\*\* — ", entry)[1] for entry in entries]
    assert words == sorted(words, key=str.casefold)
    assert len(words) == len(set(words)) > 70
    for entry in entries:
        seen = re.search(r"see ([\w' -]+)\.$", entry.strip())
        assert "ipynb" in entry or seen[1] in words, entry


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
        "Ninety minutes": 90, "Half a day": 240, "Day one": 420, "Day two": 420, "Half a day more": 240,
        "An hour, after the workshop": 60}


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
    assert guide == readme
    assert [*guide] == [number(path) for path in PATHS]


def guided():
    """What the guide says of each notebook, by its number."""
    parts = re.split(r"^## (\d\db?) ", (ROOT / "docs/guide/notebooks.md").read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text, first):
    """Rows of the table whose first heading is `first`, as lists of cells."""
    table = re.search(rf"^\| {first} \|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table[1].splitlines()]


def test_the_guide_has_a_section_for_every_notebook_in_order():
    assert [*guided()] == [number(path) for path in PATHS]


@every_notebook
def test_a_section_of_the_guide_says_what_every_section_says(path):
    text = guided()[number(path)]
    for part in ("Aims", "Where people get stuck", "Exercises"):
        assert f"\n**{part}.** " in text
    beliefs = rows(text, "usual belief")
    assert len(beliefs) >= 5
    for _, question, met in beliefs:
        assert question.endswith(("?", ".")), question
        assert path.name in met


@every_notebook
def test_the_guide_has_an_answer_to_every_prediction(path):
    guesses = [cell for cell in read(path).cells if "guess" in cell.metadata.get("tags", [])]
    answered = rows(guided()[number(path)], "prediction")
    assert all(len(row) == 3 and all(row) for row in answered)
    assert len(answered) >= len(guesses) > 0


def shown(path):
    """All that a reader of the committed notebook can read: prose, code, printed lines, and figures in words."""
    cells = read(path).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join([*(cell.source for cell in cells), *(output.get("text", "") for output in outputs),
                      *(output.get("data", {}).get("text/plain", "") for output in outputs)])


@every_notebook
def test_figures_of_guide_and_slides_are_those_of_the_committed_notebook(path):
    deck = (ROOT / f"docs/guide/slides/{number(path)}.md").read_text(encoding="utf-8")
    text = re.sub(r"^(\|[^|\n]*\|)[^|\n]*\|", r"\1", guided()[number(path)], flags=re.M) + deck  # no wrong guesses
    answers = "\n".join(row[2] for row in rows(guided()[number(path)], "prediction")) + deck
    figures = {*re.findall(r"(?<![\w.])\d+\.\d+", text),
               *re.findall(r"(?<![\w.,])\d+(?= ?%| percent)", answers)}
    there = shown(path)
    assert not {figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", there)}


@pytest.mark.parametrize("page", ["notebooks/05_sigreg.ipynb", "docs/trials.md"])
def test_the_distance_to_vicreg_is_quoted_whole_from_the_log_of_the_search(page):
    log = [json.loads(line) for line in (ROOT / "assets/search.jsonl").read_text(encoding="utf-8").splitlines()]
    text = shown(ROOT / page) if page.endswith("ipynb") else (ROOT / page).read_text(encoding="utf-8")
    quoted = re.findall(r"^\| (AdamW|Muon), (?:lr )?([\d.]+) \| ([\d., ]+) \| ([\d., ]+) \|$", text, re.M)
    assert len(quoted) == 4
    for optimizer, lr, *cells in quoted:
        trial = {"optimizer": optimizer.lower(), "lr": float(lr), "batch_size": 128, "epochs": 4}
        for loss, cell in zip(("bcs", "vicreg"), cells, strict=True):
            tried = [row["validation_probe"] for row in log
                     if (row["dataset"], row["loss"], row["changes"]) == ("digits", loss, trial)]
            assert [float(value) for value in cell.split(", ")] == tried


def test_what_a_wide_z_brought_is_quoted_from_the_log_of_the_search():
    log = [json.loads(line) for line in (ROOT / "assets/search.jsonl").read_text(encoding="utf-8").splitlines()]
    narrow, wide = {"projector": "512-512-64"}, {"projector": "512-512-256"}
    changes = {"64": [("bcs", {}), None, ("vicreg", narrow)],  # SIGReg's recipe of that day had 64 dimensions
               "256": [("bcs", wide), ("bcs", wide | {"slices": 1024}), ("vicreg", {})]}
    quoted = re.findall(r"^\| (64|256) \| ([\d., ]*) \| ([\d., ]*)\| ([\d., ]*) \|$", shown(PATHS[4]), re.M)
    assert [D for D, *_ in quoted] == ["64", "256"]
    for D, *cells in quoted:
        for cell, trial in zip(cells, changes[D], strict=True):
            tried = {row["seed"]: row["validation_probe"] for row in log if trial and "note" not in row
                     and (row["dataset"], row["loss"], row["changes"]) == ("digits", *trial)}
            assert cell.strip() == ", ".join(f"{tried[seed]}" for seed in sorted(tried))


DECKS = sorted((ROOT / "docs" / "guide" / "slides").glob("*.md"))


def test_every_notebook_has_a_deck():
    assert [deck.stem for deck in DECKS] == [number(path) for path in PATHS]


@pytest.mark.parametrize("deck", DECKS, ids=lambda deck: deck.stem)
def test_a_figure_on_a_slide_stands_in_the_section_that_its_caption_names(deck):
    for _, section, name, cell_id in re.findall(r"^\[(\d\db?) · (.+)\]\(\S+/(\S+\.ipynb)#([\w-]+)\)$",
                                                deck.read_text(encoding="utf-8"), re.M):
        heading = ""
        for cell in read(ROOT / "notebooks" / name).cells:
            if cell.id == cell_id:
                break
            if cell.cell_type == "markdown":
                heading = [heading, *re.findall(r"^#+ (.+)$", cell.source, re.M)][-1]
        assert heading == section, cell_id


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
