"""Write the names that `segdistill list` prints, read off the code, to a file that needs no torch to be read."""

import json

from segdistill.run.listing import KINDS, NAMES, rows


def text() -> str:
    """What the file holds: the rows of each kind."""
    return json.dumps({kind: rows(kind) for kind in KINDS}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NAMES.write_text(text(), "utf-8")
