"""What a notebook claims of its run, checked against that run and printed.

`scripts/check_claims.py` collects what is printed here at other seeds.
"""

import textwrap

HOLDS, FAILS = "holds here:        ", "does NOT hold here:"
BELOW = "\n" + " " * len(HOLDS + " ")  # a long claim goes on under its beginning


def report(claims: dict[str, bool]) -> None:
    """Print each claim with whether it holds in this run, in lines that a narrow window does not break."""
    for claim, holds in claims.items():
        print(HOLDS if holds else FAILS, BELOW.join(textwrap.wrap(claim, 56, break_on_hyphens=False)))


def lines(printed: str) -> list[str]:
    """The lines of what was printed, a claim that went on below in one line again."""
    return printed.replace(BELOW, " ").splitlines()
