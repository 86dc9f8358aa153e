"""What a notebook claims of its run is printed with the answer, and collected from there at other seeds."""

import sys

import nbformat
import pytest
from series import ROOT

from jepa_utils import claims

sys.path.insert(0, str(ROOT / "scripts"))
import check_claims
import run_series

CLAIMS = {"VICReg is above untrained": True, "SIGReg is above VICReg": False}


def test_each_claim_is_a_line_that_says_whether_it_holds(capsys):
    claims.report(CLAIMS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(claim) for line, claim in zip(lines, CLAIMS, strict=True)] == [True, True]
    assert lines[0].startswith("holds here")
    assert lines[1].startswith("does NOT hold here")


@pytest.mark.slow
def test_claims_are_read_back_from_an_executed_notebook(tmp_path):
    source = f"from jepa_utils import claims\nprint('a line')\nclaims.report({CLAIMS})"
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    assert check_claims.claims(run_series.execute(path)) == CLAIMS
