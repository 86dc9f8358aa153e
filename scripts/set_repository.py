"""Put the address of this repository, or of your fork, where readers' tools look for it.

    python scripts/set_repository.py OWNER/NAME

The address is kept in pyproject.toml; badges, links and the bootstrap cells of the notebooks follow it.
"""

import argparse
import re
import tomllib
from pathlib import Path

from jepa_utils.runtime import atomic

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "docs/*.md", "CITATION.cff", ".github/ISSUE_TEMPLATE/config.yml", "notebooks/*.ipynb",
         "pyproject.toml")  # last: while it holds the old address, an interrupted call can be made again


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("repository", metavar="OWNER/NAME")
    new = parser.parse_args().repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        parser.error(f"OWNER/NAME: {new!r} was given; accepted: such as octocat/image-jepa")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    old = project["urls"]["repository"].removeprefix("https://github.com/")
    for path in [path for pattern in FILES for path in sorted(ROOT.glob(pattern))]:
        text = path.read_text(encoding="utf-8")
        changed = text.replace(f"github.com/{old}", f"github.com/{new}").replace(f"/github/{old}/", f"/github/{new}/")
        changed = changed.replace(f'"{old}"', f'"{new}"')
        if changed != text:
            with atomic(path) as temporary:
                temporary.write_text(changed, encoding="utf-8", newline="\n")
            print(f"{path.relative_to(ROOT)}: {old} -> {new}")


if __name__ == "__main__":
    main()
