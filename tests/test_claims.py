"""What a notebook claims of its run is printed with the answer, and collected from there at other seeds."""

import json
import sys

import nbformat
import pytest
from series import ROOT

from jepa_utils import claims

sys.path.insert(0, str(ROOT / "scripts"))
import check_claims
import run_series

LONG = "with ten labels per class, fine-tuning is above training from scratch at every seed of a well-chosen few"
CLAIMS = {"VICReg is above untrained": True, "SIGReg is above VICReg": False, LONG: True}


def test_each_claim_is_a_line_that_says_whether_it_holds(capsys):
    claims.report(CLAIMS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{claims.HOLDS} VICReg is above untrained", f"{claims.FAILS} SIGReg is above VICReg"]
    assert " ".join(line.strip() for line in lines[2:]) == f"{claims.HOLDS} {LONG}"
    assert max(map(len, lines)) <= 76


@pytest.mark.slow
def test_claims_are_read_back_from_an_executed_notebook(tmp_path):
    source = f"from jepa_utils import claims\nprint('a line')\nclaims.report({CLAIMS})"
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    assert check_claims.claims(run_series.execute(path)) == CLAIMS


@pytest.fixture
def count(tmp_path, monkeypatch):
    """Counts the claims of a notebook at some seeds, on a machine, without running it; returns what is kept."""
    kept = tmp_path / "claims.json"
    monkeypatch.setattr(check_claims, "KEPT", kept)
    monkeypatch.setattr(check_claims, "execute", lambda path: path)
    monkeypatch.setenv("JEPA_SEED", "0")

    def at(seeds, answers, hardware="one kind", dataset=""):
        monkeypatch.setenv("JEPA_DATASET", dataset)
        monkeypatch.setattr(check_claims, "claims", lambda notebook: answers)
        monkeypatch.setattr(check_claims, "environment", lambda: {"hardware": hardware})
        monkeypatch.setattr(sys, "argv", ["check_claims.py", "--only", "03", "--seeds", *map(str, seeds)])
        check_claims.main()
        return {name: of_data["03_collapse"] for name, of_data in json.loads(kept.read_text()).items()}
    return at


def test_a_later_seed_joins_the_earlier_ones_and_a_claim_no_longer_made_goes(count):
    count([1], {"a": True, "old": True})
    assert count([2, 3], {"a": False})["digits"]["claims"] == {"a": {"1": True, "2": False, "3": False}}


def test_answers_of_another_machine_are_not_mixed(count):
    count([1], {"a": True})
    assert count([2], {"a": True}, "another")["digits"] == {"claims": {"a": {"2": True}}, "hardware": "another"}


def test_answers_on_other_pictures_stand_apart(count):
    count([1], {"a": True})
    kept = count([1], {"a": False}, dataset="cifar10")
    assert {data: of_data["claims"] for data, of_data in kept.items()} == {
        "digits": {"a": {"1": True}}, "cifar10": {"a": {"1": False}}}
