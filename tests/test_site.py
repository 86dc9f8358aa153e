"""The web site as its readers meet it: every page, on a wide screen and on a phone, with no network."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Thread
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from conftest import ROOT
from filelock import FileLock
from series import PATHS, read

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("myst_nb"), reason='no Sphinx: install ".[site]"')]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
FRONT = ["index.html", "collapse.html", "toy/collapse.html", "search.html?q=effective+rank"]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site: one for all processes that test it."""
    folder = tmp_path_factory.getbasetemp().parent / f"site-of-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            built = subprocess.run([sys.executable, ROOT / "scripts" / "build_site.py", folder], capture_output=True,
                                   text=True, timeout=300)
            assert built.returncode == 0, built.stderr
    return folder / "site"


@contextmanager
def served(folder):
    """The address of a server on this machine that gives the files of a folder."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason='no playwright: install ".[dev]"')
    with sync.sync_playwright() as play:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            chromium = play.chromium.launch(executable_path=path, channel=None if path else "chrome")
        except sync.Error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no browser: none of {', '.join(BROWSERS)}")
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, **options):
    """A page that writes down what goes wrong: complaints of the console, and what it asks of others."""
    with browser.new_context(**options) as context:
        page, wrong, asked = context.new_page(), [], []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield SimpleNamespace(page=page, wrong=wrong, asked=asked)


class Elements(HTMLParser):
    """All elements of a page, in order: (tag, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def elements(path, tag=None):
    return [(name, about) for name, about in Elements(path.read_text(encoding="utf-8")).found if tag in (None, name)]


def test_every_notebook_has_its_page_in_the_contents(site):
    listed = [about.get("href", "") for _, about in elements(site / "index.html", "a")]
    for path in PATHS:
        assert f"notebooks/{path.stem}.html" in listed


def assert_no_dead_links(site):
    names = {path: {about.get("id") for _, about in elements(path)} for path in site.rglob("*.html")}
    for path in names:
        for _, about in elements(path, "a"):
            address, fragment = urldefrag(about.get("href", ""))
            if urlsplit(address).scheme:
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve() if address else path
            assert target.is_file(), (path, address)
            assert not fragment or target not in names or unquote(fragment) in names[target], (path, address, fragment)


def test_no_link_within_the_site_leads_nowhere(site):
    assert_no_dead_links(site)


def test_no_link_within_the_zip_leads_nowhere(site, tmp_path):
    shutil.unpack_archive(site / "site.zip", tmp_path)
    assert_no_dead_links(tmp_path / "site")
    assert not list(tmp_path.rglob("*.zip"))


def test_links_that_name_a_section_of_a_page_lead_to_it(site):
    link = re.compile(r'<a class="reference internal" href="([^"#]+\.html)(#[^"]*)?">'
                      r'<span class="std std-doc">(?:\d\db? · )?(.*?)</span></a>')
    heading = re.compile(r'<h[23]>(.*?)<a class="headerlink" href="(#[^"]*)"')
    checked = 0
    for path in site.rglob("*.html"):
        for file, fragment, name in link.findall(path.read_text(encoding="utf-8")):
            page = (path.parent / unquote(file)).read_text(encoding="utf-8")
            places = dict(heading.findall(page)) | {f"exercise {i}": f"#exercise-{i}" for i in (1, 2, 3)}
            assert fragment == places.get(name, fragment), (path, name)
            checked += name in places
    assert checked > 100


def test_every_deck_of_slides_is_on_the_site(site):
    decks = sorted((ROOT / "docs" / "guide" / "slides").glob("*.md"))
    listed = [about.get("href", "") for _, about in elements(site / "slides.html", "a")]
    assert [link for link in listed if link.startswith("slides/")] == [f"slides/{deck.stem}.html" for deck in decks]
    assert "../../slides.html" in [about.get("href") for _, about in elements(site / "docs/guide/index.html", "a")]


def test_next_and_previous_lead_through_all_pages_and_the_notebooks_in_their_order(site):
    def beside(page, side):
        links = [about["href"] for _, about in elements(page, "a") if side in about.get("class", "").split()]
        return (page.parent / links[0]).resolve() if links else None

    walked, page = [], (site / "index.html").resolve()
    while page:
        assert beside(page, "left-prev") == (walked[-1] if walked else None)
        walked.append(page)
        page = beside(page, "right-next")
    assert [page.stem for page in walked if page.parent.name == "notebooks"] == [path.stem for path in PATHS]
    alone = {site / "genindex.html", site / "search.html", *site.glob("toy/*"), *site.glob("slides/*")}
    assert set(walked) == {page.resolve() for page in site.rglob("*.html") if "_static" not in page.parts} - alone


def test_pages_load_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for tag, about in elements(path):
            loaded = about.get("src") or (about.get("href") if tag == "link" else "") or ""
            assert not urlsplit(loaded).netloc, (path, tag, loaded)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_figures_keep_their_texts_and_lead_to_their_full_size(site, path):
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", [])]
    texts = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    found = elements(site / "notebooks" / f"{path.stem}.html")
    shown = [i for i, (tag, about) in enumerate(found) if tag == "img" and "_images" in about["src"]]
    assert [found[i][1]["alt"] for i in shown] == texts
    for i in shown:
        assert found[i - 1][0] == "a"
        assert found[i - 1][1]["href"] == found[i][1]["src"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_page_can_be_run_edited_and_answered_and_keeps_solutions_folded(site, path):
    found = elements(site / "notebooks" / f"{path.stem}.html")
    links = [about.get("href", "") for tag, about in found if tag == "a"]
    for part in ("https://colab.research.google.com/github/", "https://kaggle.com/kernels/welcome?src="):
        assert any(link.startswith(part) and link.endswith(path.name) for link in links), part
    assert any(f"/edit/main/notebooks/{path.name}" in link for link in links)
    (feedback,) = [link for link in links if "template=feedback.yml" in link]
    assert f"page=notebooks%2F{path.stem}" in feedback
    assert "version=0" in feedback
    folded = sum(cell.source.count("<details>") for cell in read(path).cells if cell.cell_type == "markdown")
    details = [about for tag, about in found if tag == "details"]
    assert len(details) >= folded > 0
    assert not [about for about in details if "open" in about and "hide" in about.get("class", "")]


@pytest.mark.parametrize("screen", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_is_quiet_asks_nobody_and_fits_the_screen(site, browser, screen):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)
    with served(site) as address, opened(browser, viewport=screen) as reader:
        for name in [*pages, FRONT[-1]]:
            reader.page.goto(address + name)
            width = reader.page.evaluate("document.documentElement.scrollWidth")
            assert width <= screen["width"], name
            assert reader.page.locator("img:not([alt])").count() == 0, name
            assert not reader.wrong, (name, reader.wrong)
        assert not [url for url in reader.asked if not url.startswith((address, "data:"))]


def test_one_search_finds_what_is_in_the_notebooks(site, browser):
    with served(site) as address, opened(browser, viewport=WIDE) as reader:
        reader.page.goto(address + "index.html")
        assert reader.page.locator("button:has-text('Search'):visible").count() == 1
        reader.page.goto(address + FRONT[-1])
        reader.page.wait_for_selector("#search-results a[href*='03_collapse']")


def test_from_a_folder_without_a_server_the_pages_read_as_well(site, browser):
    with opened(browser, viewport=WIDE) as reader:
        for name in FRONT[:3]:
            reader.page.goto((site / name).as_uri())
        assert not reader.wrong
        assert all(url.startswith(("file:", "data:")) for url in reader.asked)


# Collapse in your hands


@pytest.fixture
def toy(site, browser):
    with opened(browser, viewport=PHONE) as reader:
        reader.page.goto((site / "toy" / "collapse.html").as_uri())
        yield reader.page
        assert not reader.wrong


@pytest.mark.parametrize(("preset", "state"), [
    ("no regularizer", "complete collapse"), ("variance only", "dimensional collapse"), ("VICReg", "healthy"),
    ("SIGReg", "healthy")])
def test_each_preset_ends_as_its_notebook_says(toy, preset, state):
    toy.get_by_role("button", name=preset).click()
    toy.get_by_role("button", name="Pause").click()
    toy.evaluate("advance(500)")
    assert toy.locator("#state b").inner_text() == state


def test_without_a_regularizer_it_passes_through_a_collapse_of_scale(toy):
    toy.evaluate("while (['not trained yet', 'healthy'].includes(told)) advance()")
    assert toy.locator("#state[aria-live=polite] b").inner_text() == "scale collapse"


def test_where_no_script_may_run_as_in_jupyterlab_the_toy_says_what_to_press(site, browser):
    with opened(browser, viewport=PHONE, java_script_enabled=False) as reader:
        reader.page.goto((site / "toy" / "collapse.html").as_uri())
        assert reader.page.locator("noscript p").is_visible()


def test_the_toy_is_played_with_keys_alone(toy):
    toy.get_by_role("button", name="One step").focus()
    toy.keyboard.press("Enter")
    toy.keyboard.press("Space")
    assert "Step 2:" in toy.locator("#numbers").inner_text()
    toy.get_by_role("slider", name="variance", exact=True).focus()
    toy.keyboard.press("ArrowRight")
    assert toy.evaluate("weights.variance") == 0.5
    assert toy.locator("button[aria-pressed=true]").count() == 0  # it is none of the presets any longer
    toy.get_by_role("button", name="Start again").focus()
    toy.keyboard.press("Enter")
    assert "Step 0:" in toy.locator("#numbers").inner_text()


def test_the_toy_stops_when_its_panel_is_full_and_goes_on_when_asked(toy):
    for steps in (400, 800):
        toy.evaluate(f"advance({steps} - 5 - net.steps)")
        toy.get_by_role("button", name="Run").focus()
        toy.keyboard.press("Enter")
        toy.wait_for_function("!running")
        assert f"Step {steps}:" in toy.locator("#numbers").inner_text()
        assert toy.get_by_role("button", name="Run").is_visible()


def test_whoever_wants_little_motion_sees_few_pictures_of_as_many_steps(site, browser):
    with opened(browser, viewport=PHONE, reduced_motion="reduce") as reader:
        reader.page.goto((site / "toy" / "collapse.html").as_uri())
        reader.page.evaluate("drawn = 0; paint = (painted => (...all) => { drawn += 1; painted(...all); })(paint); 0")
        reader.page.get_by_role("button", name="no regularizer").click()
        reader.page.wait_for_function("net.steps === 400 && !running")
        assert reader.page.evaluate("[drawn / 2, history.length]") == [9, 400]  # two panels: the start, and 8 more
        assert not reader.wrong


@pytest.mark.parametrize(("motion", "shown"), [("reduce", "collapse-still.png"), ("no-preference", "collapse.gif")])
def test_the_front_page_moves_only_for_those_who_want_it(site, browser, motion, shown):
    with opened(browser, viewport=PHONE, reduced_motion=motion) as reader:
        reader.page.goto((site / "index.html").as_uri())
        pictures = [each for each in reader.page.locator("img[src*='collapse']").all() if each.is_visible()]
        assert [each.get_attribute("src").rpartition("/")[2] for each in pictures] == [shown]


def test_a_step_with_every_term_takes_less_than_a_frame(toy):
    toy.evaluate("Object.assign(weights, {variance: 5, covariance: 5, sigreg: 10})")
    times = toy.evaluate("Array.from({length: 60}, () => { const t = performance.now(); advance(); "
                         "return performance.now() - t; })")
    assert min(times) < 16  # milliseconds; other tests run beside it
