"""Run a lesson cell by cell, say where it is, and write the notebook and a page that opens in a browser."""

import os
import time
from pathlib import Path


def run(source, out, say, fail):
    """Execute ``source`` into ``out``: ``<name>.ipynb`` and ``<name>.html``; nothing is written if a cell fails."""
    try:
        import nbformat
        from nbclient.exceptions import CellExecutionError
        from nbconvert import HTMLExporter
    except ImportError as e:
        fail(f"{e.name} is needed to run lessons: pip install 'scdl-teach[lab,test]'")
    if not Path(source).is_file():
        fail(f"there is no {Path(source).name} here: lessons are part of a checkout of the project, not of the wheel")
    book, start = nbformat.read(source, as_version=4), time.monotonic()
    try:
        execute(book, Path(source).parent, say, start)
    except CellExecutionError as e:
        fail(f"the lesson stopped: {str(e).strip().splitlines()[-1]}")
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(book)
    Path(out).mkdir(parents=True, exist_ok=True)
    made = [Path(out) / f"{Path(source).stem}{end}" for end in (".ipynb", ".html")]
    nbformat.write(book, made[0])
    made[1].write_text(page, encoding="utf-8")
    say(f"done in {time.monotonic() - start:.0f} s. Open {made[1]} in a browser, or {made[0]} in JupyterLab.")


def execute(book, folder, say, start):
    """Run all cells; one line before each says how far it is and which section it belongs to."""
    from nbclient import NotebookClient

    os.environ.setdefault("SCDL_TEACH_PROGRESS", "lines")
    code = [i for i, c in enumerate(book.cells) if c.cell_type == "code"]

    def step(cell, cell_index, **_):
        if cell_index in code:
            say(
                f"[{code.index(cell_index) + 1:2d}/{len(code)}] {time.monotonic() - start:5.1f} s  "
                f"{heading(book.cells[:cell_index])}"
            )

    how = {"timeout": 600, "kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}
    quiet = {"extra_arguments": ["--log-level=50"]}  # the kernel's own notices and tracebacks are nobody's business here
    NotebookClient(book, on_cell_start=step, **how, **quiet).execute()


def heading(cells):
    """The last heading above."""
    lines = [line for c in cells if c.cell_type == "markdown" for line in c.source.splitlines() if line.startswith("#")]
    return lines[-1].lstrip("# ") if lines else ""
