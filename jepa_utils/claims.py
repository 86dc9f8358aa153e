"""What a notebook claims of its run, checked against that run and printed.

`scripts/check_claims.py` collects what is printed here at other seeds.
"""

HOLDS, FAILS = "holds here:        ", "does NOT hold here:"


def report(claims: dict[str, bool]) -> None:
    """Print each claim with whether it holds in this run."""
    for claim, holds in claims.items():
        print(HOLDS if holds else FAILS, claim)
