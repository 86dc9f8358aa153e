"""A figure in a notebook comes with words for those who cannot see it, whatever front end shows it."""

import base64
import io
import sys

import nbformat
import pytest
import torch
from PIL import Image

ALT = "A line from the lower left to the upper right: it rises."


@pytest.fixture
def plots():
    from jepa_utils import plots  # matplotlib is slow to import: only for those tests

    yield plots
    plots.plt.close("all")


@pytest.fixture
def figure(plots):
    @plots.styled
    def draw():
        figure, ax = plots.plt.subplots(figsize=(2, 1))
        ax.plot([0, 1], [0, 1])
        return figure

    return draw()


@pytest.fixture
def notebook(monkeypatch, tmp_path):
    """IPython's shell, as in a kernel; the list of what it was asked to display."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell takes its place
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from traitlets.config import Config

    InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    with capture_output() as captured:
        yield captured
    InteractiveShell.clear_instance()


def test_a_notebook_gets_a_picture_its_text_twice_and_nothing_else(notebook, plots, figure):
    plots.show(figure, ALT)
    output, words = notebook.outputs
    assert output.data.keys() == {"image/png", "text/plain"}
    assert output.data["text/plain"] == ALT
    assert output.metadata == {"image/png": {"alt": ALT}}
    assert words.data.keys() == {"text/html"}
    assert ALT in words.data["text/html"]
    assert (notebook.stdout, notebook.stderr) == ("", "")


def test_the_picture_is_a_png_on_a_white_page(notebook, plots, figure):
    plots.show(figure, ALT)
    png = base64.b64decode(notebook.outputs[0].data["image/png"], validate=True)
    picture = Image.open(io.BytesIO(png))
    picture.load()
    assert picture.format == "PNG"
    pixels = picture.convert("RGBA")
    assert pixels.getpixel((0, 0)) == (255, 255, 255, 255)  # also where the notebook is dark
    colours = {colour for _, colour in pixels.getcolors(maxcolors=1 << 16)}
    assert (0x00, 0x72, 0xB2, 255) in colours  # the line, in the first colour of the style


def test_what_is_shown_is_what_a_notebook_file_can_hold(notebook, plots, figure):
    plots.show(figure, ALT)
    bundle = notebook.outputs[0]
    output = nbformat.v4.new_output("display_data", data=bundle.data, metadata=bundle.metadata)
    cell = nbformat.v4.new_code_cell("", outputs=[output], execution_count=1)
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


def test_a_figure_is_closed_once_shown_and_others_stay(notebook, plots, figure):
    other = plots.plt.figure()
    plots.show(figure, ALT)
    assert plots.plt.get_fignums() == [other.number]


def test_the_bundle_goes_to_display_as_it_is(monkeypatch, plots, figure):
    """As old versions of IPython take it, whose Image knows no alternative text."""
    import IPython.display

    given = []
    monkeypatch.setattr(IPython.display, "display", lambda *things, **options: given.append((things, options)))
    plots.show(figure, ALT)
    ((picture,), options), ((words,), more) = given
    for bundle in (picture, words):
        assert type(bundle) is dict
        assert {type(value) for value in bundle.values()} == {str}
    assert options == {"raw": True, "metadata": {"image/png": {"alt": ALT}}}
    assert more == {"raw": True}


def test_the_folded_text_is_text_whatever_stands_in_it(plots):
    assert plots.in_words("a < b & c").endswith("<summary>This figure in words</summary>a &lt; b &amp; c</details>")


def test_a_figure_of_ours_has_our_style_and_leaves_the_reader_his(plots):
    before = dict(plots.plt.rcParams)

    @plots.styled
    def draw():
        return plots.plt.rcParams["axes.grid"], plots.plt.rcParams["figure.dpi"]

    assert draw() == (True, 110)
    assert dict(plots.plt.rcParams) == before


def test_a_guess_is_a_hollow_mark_named_once_and_none_is_nothing(plots):
    _, ax = plots.plt.subplots()
    plots.guess(ax, None, 1)
    assert not ax.lines
    plots.guess(ax, 50, 0)
    plots.guess(ax, 60, 1)
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[50, 0]], [[60, 1]]]
    assert {line.get_markerfacecolor() for line in ax.lines} == {"none"}
    assert ax.get_legend_handles_labels()[1] == ["your guess"]


def test_bars_show_the_guesses_that_were_made(plots):
    _, ax = plots.plt.subplots()
    plots.bars(ax, {"VICReg": 80.0, "SIGReg": 70.0}, "percent", guesses={"VICReg": None, "SIGReg": 90})
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[90, 1]]]
    assert ax.get_legend() is not None


def test_seeds_that_agree_have_a_range_of_nothing_whatever_their_mean_is_rounded_to(plots):
    from jepa_utils.figures import probing
    values = (torch.arange(1, 1000) / 7)[:, None].expand(-1, 3)
    assert (values.mean(dim=1) < values[:, 0]).any()
    _, ax = plots.plt.subplots()
    probing.with_range(ax, range(len(values)), values, "-", "black")
    assert len(ax.containers) == 1


def test_a_dark_picture_of_bytes_is_drawn_dark(plots):
    _, ax = plots.plt.subplots()
    plots.picture(ax, torch.ones(3, 8, 8, dtype=torch.uint8))
    assert float(ax.images[0].get_array().max()) == pytest.approx(1 / 255)
