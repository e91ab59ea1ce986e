"""Is a stored lesson in its published state, and is it a lesson? Run as ``python tools/check_notebooks.py [notebooks...]``.

State: executed top to bottom, no traceback outside a cell tagged ``raises-exception``, no warning, no absolute path, no
widget, no timing, small. Form: the fixed headings in order, every figure with alt text and a caption, code that fits
the page, checkpoints and exercises as ``lessons`` has them. Recipes are checked for their state only, and hold no output.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_BYTES, MAX_OUTPUT = 600_000, 120_000  # a lesson, the outputs of one cell
COLUMNS, LINES, LONG = 76, 15, 27  # of code; LONG for from-scratch, checkpoint, experiment and exercise cells
LONG_TAGS = {"from-scratch", "checkpoint", "experiment", "exercise", "solution", "colab", "setup"}
PATHS = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|tmp|mnt|opt|usr|content|var)/|[A-Za-z]:\\\\?Users")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
WARNING = re.compile(r"\b\w*Warning\b:|^\s*warnings\.warn\(", re.M)
FORBIDDEN = re.compile(r"^\s*[%!]|filterwarnings|pip install|if .*\bCI\b", re.M)
HEADINGS = [
    "1. The question",
    "2. Data",
    "3. The idea",
    "4. From scratch",
    "5. The package version",
    "6. Against the classical baseline",
    "7. Where it fails",
    "8. Relatives",
    "9. Exercises",
    "10. Recipe",
    "11. Takeaways",
    "12. References",
]


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return set(cell["metadata"].get("tags", []))


def text_of(output):
    """All text of one output, images left out."""
    parts = [output.get("text", ""), output.get("traceback", [])]
    parts += [v for k, v in output.get("data", {}).items() if not k.startswith("image/")]
    return ANSI.sub("", "\n".join(p if isinstance(p, str) else "".join(map(str, p)) for p in parts))


def has_image(cell):
    return any(k.startswith("image/") for o in cell.get("outputs", []) for k in o.get("data", {}))


def state(nb, raw):
    """What keeps the notebook from being published as it is stored."""
    if len(raw.encode()) > MAX_BYTES:
        yield f"{len(raw.encode()):,} bytes, limit {MAX_BYTES:,}"
    if nb["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "kernelspec is not python3"
    if extra := set(nb["metadata"]) - {"kernelspec", "language_info", "jupytext"}:
        yield f"notebook metadata {sorted(extra)}"
    ids = [c.get("id") for c in nb["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        yield "cell ids missing or repeated"
    expected = 0
    for i, cell in enumerate(nb["cells"]):
        if bad := {"execution", "papermill", "ExecuteTime"} & set(cell["metadata"]):
            yield f"cell {i}: metadata {sorted(bad)}"
        if cell["cell_type"] == "code":
            expected += 1
            told = any("`DataWarning`" in source(c) for c in nb["cells"][i + 1 : i + 4] if c["cell_type"] == "markdown")
            yield from (f"cell {i}: {line}" for line in state_of_cell(cell, expected, told))


def state_of_cell(cell, expected, told=False):
    """What a stored cell must not hold; a ``DataWarning`` may stand if the text below speaks of it (``told``)."""
    if cell["execution_count"] != expected:
        yield f"execution_count {cell['execution_count']}, expected {expected}"
    if len(json.dumps(cell["outputs"])) > MAX_OUTPUT:
        yield f"{len(json.dumps(cell['outputs'])):,} bytes of output"
    if "nbval-check-output" in tags(cell) and not cell["outputs"]:
        yield "marked nbval-check-output but stores no output"
    errors = [o for o in cell["outputs"] if o["output_type"] == "error"]
    if errors and "raises-exception" not in tags(cell):
        yield f"stored error {errors[0]['ename']}"
    if "raises-exception" in tags(cell) and not errors:
        yield "tagged raises-exception but stores no error"
    for out in cell["outputs"]:
        text = text_of(out)
        if told and out.get("name") == "stderr" and text.startswith("DataWarning: "):
            continue
        if out.get("name") == "stderr":
            yield f"stderr output: {text[:60]!r}"
        if WARNING.search(text):
            yield "warning text"
        if PATHS.search(text):
            yield f"absolute path {PATHS.search(text).group()!r}"
        if any("widget" in k for k in out.get("data", {})):
            yield "widget output"


def form(nb):
    """What keeps it from being a lesson."""
    cells = nb["cells"]
    text = [source(c) for c in cells if c["cell_type"] == "markdown"]
    found = [line[3:] for t in text for line in t.splitlines() if line.startswith("## ")]
    if [h for h in found if re.match(r"\d+\. ", h)] and not all(f.startswith(h) for f, h in zip(found, HEADINGS, strict=False)):
        yield f"headings {found}, wanted {HEADINGS}"
    if len(found) != len(HEADINGS):
        yield f"{len(found)} headings of the second level, wanted the {len(HEADINGS)} fixed ones"
    if not re.match(r"# \d{4} ", text[0] if text else ""):
        yield "the first cell is no title box (# NNNN Title)"
    code = [c for c in cells if c["cell_type"] == "code"]
    if len(code) > 50:
        yield f"{len(code)} code cells, limit 50"
    if sum("checkpoint" in tags(c) for c in code) < 3:
        yield "fewer than three checkpoints"
    for tag in ("exercise", "check", "solution"):
        if sum(tag in tags(c) for c in code) != 3:
            yield f"{sum(tag in tags(c) for c in code)} cells tagged {tag}, wanted 3"
    yield from figures(cells)
    for i, c in enumerate(cells):
        if c["cell_type"] == "code":
            yield from (f"cell {i}: {line}" for line in form_of_code(c))


def figures(cells):
    number = 0
    for i, c in enumerate(cells):
        if c["cell_type"] != "code" or not has_image(c):
            continue
        number += 1
        if not c["metadata"].get("mystnb", {}).get("image", {}).get("alt"):
            yield f"cell {i}: figure {number} has no alt text"
        below = source(cells[i + 1]) if i + 1 < len(cells) else ""
        if not below.startswith(f"**Figure {number}.**"):
            yield f"cell {i}: no caption '**Figure {number}.** ...' below figure {number}"
    if not 6 <= number <= 14:
        yield f"{number} figures, wanted 8 to 12"


def form_of_code(cell):
    text = source(cell)
    if not text.strip():
        yield "empty code cell"
        return
    lines = text.splitlines()
    limit = LONG if tags(cell) & LONG_TAGS or "class " in text or "import " in text or "def " in text else LINES
    if len(lines) > limit:
        yield f"{len(lines)} lines, limit {limit}"
    wide = [line for line in lines if len(line) > COLUMNS]
    if wide:
        yield f"a line of {max(map(len, wide))} columns, limit {COLUMNS}"
    if FORBIDDEN.search(text) and "colab" not in tags(cell):
        yield f"{FORBIDDEN.search(text).group()!r} has no place in a lesson"


def problems(path):
    """Every reason this notebook is not publishable."""
    raw = Path(path).read_text(encoding="utf-8")
    nb = json.loads(raw)
    if "recipes" in Path(path).parts:
        return ["a recipe stores outputs"] if any(c.get("outputs") for c in nb["cells"]) else []
    return [*state(nb, raw), *form(nb)]


def main(paths):
    paths = paths or sorted(ROOT.glob("notebooks/**/*.ipynb"))
    bad = [f"{Path(p).name}: {line}" for p in paths for line in problems(p)]
    print("\n".join([*bad, f"{len(paths)} notebooks checked, {len(bad)} faults"]))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
