"""Put the address of this repository, or of your fork, where readers' tools look for it.

    python scripts/set_repository.py OWNER/NAME

The address is kept in pyproject.toml; badges and bootstrap cells of the notebooks and the README follow it.
"""

import argparse
import re
import tomllib
from pathlib import Path

from jepa_utils.runtime import atomic

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", metavar="OWNER/NAME")
    new = parser.parse_args().repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        parser.error(f"OWNER/NAME: {new!r} was given; accepted: such as octocat/image-jepa")
    project = ROOT / "pyproject.toml"
    old = tomllib.loads(project.read_text())["project"]["urls"]["repository"].removeprefix("https://github.com/")
    for path in [project, ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        text = path.read_text()
        changed = text.replace(f"github.com/{old}", f"github.com/{new}").replace(f"/github/{old}/", f"/github/{new}/")
        if changed != text:
            with atomic(path) as temporary:
                temporary.write_text(changed)
            print(f"{path.relative_to(ROOT)}: {old} -> {new}")


if __name__ == "__main__":
    main()
