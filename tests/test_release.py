"""What a release says of itself, in every place the same: version, licence, address."""

import re
import tomllib

from conftest import ROOT
from series import PATHS, read, tagged

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWNER = PROJECT["urls"]["repository"].removeprefix("https://github.com/")


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def cited(field):
    return re.search(rf"^{field}: (.+)$", text("CITATION.cff"), re.M)[1]


def test_citation_and_changelog_know_the_version_of_the_project():
    assert cited("version") == PROJECT["version"]
    newest = re.search(r"^## \[([\d.]+)\] - (\S+)$", text("CHANGELOG.md"), re.M)
    assert newest[1] == PROJECT["version"]
    assert re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", newest[2])


def test_versions_in_the_changelog_fall():
    versions = re.findall(r"^## \[([\d.]+)\]", text("CHANGELOG.md"), re.M)
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(set(numbers), reverse=True)


def test_licence_and_address_are_the_same_everywhere():
    assert cited("license") == PROJECT["license"] == text("LICENSE").split()[0]
    assert cited("repository-code") == PROJECT["urls"]["repository"]


def test_badges_of_the_readme_open_the_first_notebook_of_this_repository():
    first = f"{OWNER}/blob/main/notebooks/{PATHS[0].name}"
    assert f"colab.research.google.com/github/{first}" in text("README.md")
    assert f"kaggle.com/kernels/welcome?src=https://github.com/{first}" in text("README.md")


def test_install_lines_name_extras_that_exist_and_the_address_of_the_project():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    lines = "\n".join(page.read_text(encoding="utf-8") for page in pages) + text(".binder/postBuild")
    extras = re.findall(r"(?:-e|--editable) [\"']?\.\[(\w+)\]", lines)
    assert extras
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    for path in PATHS:
        (bootstrap,) = tagged(read(path), "bootstrap")
        assert f'"git+{PROJECT["urls"]["repository"]}"' in bootstrap
