"""The student edition: every lesson without its solutions and without what the solved cells showed, in ``out/student/``."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def stripped(nb):
    """The notebook without solution cells; exercise and check cells keep their code and lose their outputs."""
    cells = []
    for cell in nb["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        if "solution" in tags:
            continue
        if tags & {"exercise", "check"}:
            cell = cell | {"outputs": [], "execution_count": None}
        cells.append(cell)
    return nb | {"cells": cells}


def main(target=ROOT / "out/student"):
    lessons = sorted(ROOT.glob("notebooks/[0-9]*/*.ipynb"))
    for path in lessons:
        new = Path(target) / path.relative_to(ROOT / "notebooks")
        new.parent.mkdir(parents=True, exist_ok=True)
        nb = stripped(json.loads(path.read_text(encoding="utf-8")))
        new.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(lessons)} lessons in {Path(target).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
