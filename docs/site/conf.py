"""Settings of the web site, whose pages scripts/build_site.py gathers in one folder."""

import posixpath
import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlencode

import nbformat
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["repository"]


def commit() -> str:
    """The commit that is built, or nothing where there is no git."""
    try:
        said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return said.stdout.strip()


project, author, language = "Image JEPA", "its authors", "en"
version = release = " ".join([PROJECT["version"], commit()]).strip()
copyright = "the authors, MIT licence"
extensions = ["myst_nb"]
templates_path, html_static_path = ["_templates"], ["_static"]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "Learn Image JEPA by breaking it"
html_css_files, html_favicon = ["site.css"], "_static/icon.svg"
html_math_renderer = "mathml"
html_copy_source = False
html_sourcelink_suffix = ""
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": REPOSITORY,
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "article_footer_items": ["page-links.html"],
    "footer_content_items": ["copyright.html"],
    # The theme would put a second search field into a bar above the page.
    "navbar_start": [], "navbar_center": [], "navbar_end": [], "navbar_persistent": [],
}


def alternative_texts(app, doctree) -> None:
    """Give each figure of a notebook the text that its cell wrote for it, and a link to the figure in full size."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    texts = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    drawn = [image for image in doctree.findall(nodes.image) if "output" in image.parent.get("classes", [])
             or "jupyter_execute" in image["uri"]]
    for image, text in zip(drawn, texts, strict=True):
        image["alt"], image["scale"] = text, 100  # Sphinx links what has a scale to the file


def name_exercises(app, doctree) -> None:
    """A place to lead to for each exercise, whose number stands in bold: exercise-1."""
    for title in doctree.findall(nodes.strong):
        if number := re.match(r"(\d) · ", title.astext()):
            title["ids"].append(f"exercise-{number[1]}")


def to_sections(app, doctree, docname) -> None:
    """Links that are called what a section of another page is called, as `03 · Name it`, lead to that section."""
    for link in doctree.findall(nodes.reference):
        page = posixpath.normpath(posixpath.join(posixpath.dirname(docname), link.get("refuri", "")))
        if (contents := app.env.tocs.get(page.removesuffix(".html"))) is None:
            continue
        places = {entry.astext(): entry["anchorname"] for entry in contents.findall(nodes.reference)}
        places |= {f"exercise {number}": f"#exercise-{number}" for number in (1, 2, 3)}
        link["refuri"] += places.get(re.sub(r"^\d\db? · ", "", link.astext()), "")


def mathml(self, node, display: str = "inline") -> None:
    """Equations as MathML, which browsers set without a script."""
    tex = node.astext()
    try:
        markup = convert(tex, display=display).replace("\\_", "_")
    except Exception as error:
        logging.getLogger(__name__).warning("no MathML for %r: %s", tex, error, location=node)
        markup = self.encode(tex)
    self.body.append(markup if display == "inline" else f'<div class="math">{markup}</div>')
    raise nodes.SkipNode


def mathml_block(self, node) -> None:
    mathml(self, node, "block")


def page_links(app, pagename, templatename, context, doctree) -> None:
    """Where a page is edited, and where a reader says what is wrong with it."""
    if doctree is None:  # the search, the index
        return
    source = Path(app.env.doc2path(pagename)).relative_to(app.srcdir).as_posix()
    source = source if "/" in source else f"docs/site/{source}"
    about = {"template": "feedback.yml", "title": f"{pagename}: ", "page": pagename, "version": release}
    context["edit_url"] = f"{REPOSITORY}/edit/main/{source}"
    context["feedback_url"] = f"{REPOSITORY}/issues/new?{urlencode(about)}"


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml_block, None))
    app.connect("doctree-read", alternative_texts)
    app.connect("doctree-read", name_exercises)
    app.connect("doctree-resolved", to_sections)
    app.connect("html-page-context", page_links)
