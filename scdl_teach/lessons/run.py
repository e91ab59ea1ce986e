"""Run a lesson cell by cell, say where it is, and write the notebook and a page that opens in a browser."""

import os
import time
from pathlib import Path


def run(source, out, say, fail):
    """Execute ``source`` into ``out``: ``<name>.ipynb`` and ``<name>.html``; nothing is written if a cell fails."""
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
        from nbconvert import HTMLExporter
    except ImportError as e:
        fail(f"{e.name} is needed to run lessons: pip install 'scdl-teach[lab,test]'")
    if not Path(source).is_file():
        fail(f"there is no {Path(source).name} here: lessons are part of a checkout of the project, not of the wheel")
    os.environ.setdefault("SCDL_TEACH_PROGRESS", "lines")
    book, start = nbformat.read(source, as_version=4), time.monotonic()
    total = sum(c.cell_type == "code" for c in book.cells)
    seen = []

    def step(cell, cell_index, **_):
        if cell.cell_type == "code":
            seen.append(cell_index)
            above = [c.source for c in book.cells[:cell_index] if c.cell_type == "markdown" and c.source.startswith("#")]
            head = above[-1].splitlines()[0].lstrip("# ") if above else ""
            say(f"[{len(seen):2d}/{total}] {time.monotonic() - start:5.1f} s  {head}")

    client = NotebookClient(
        book, timeout=600, kernel_name="python3", on_cell_start=step, resources={"metadata": {"path": str(Path(source).parent)}}
    )
    try:
        client.execute()
    except CellExecutionError as e:
        fail(f"the lesson stopped in cell {len(seen)}: {str(e).strip().splitlines()[-1]}")
    page, _ = HTMLExporter(embed_images=True).from_notebook_node(book)
    Path(out).mkdir(parents=True, exist_ok=True)
    made = [Path(out) / f"{Path(source).stem}{end}" for end in (".ipynb", ".html")]
    nbformat.write(book, made[0])
    made[1].write_text(page, encoding="utf-8")
    say(f"done in {time.monotonic() - start:.0f} s. Open {made[1]} in a browser, or {made[0]} in JupyterLab.")
