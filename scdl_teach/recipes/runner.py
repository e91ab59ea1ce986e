"""Recipes: a short notebook for one task, run by papermill on a user's own file, all or nothing."""

import ast
import html
import json
import re
import shutil
import sys
import time
from datetime import datetime
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ..core.fields import DataError
from ..core.progress import write
from ..datasets.writing import room, size_of, staging, writable

NEEDS_BATCH = ("batch",)  # recipes that make no sense without one
STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; margin: 0 0 .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; border-bottom: 1px solid #ddd }
.facts { color: #666; font-size: .88rem; margin: 0 } .verdict { background: #eef5fa; border-left: 5px solid #0072B2;
padding: .7rem 1.2rem; margin: 1.3rem 0 } .verdict p { margin: .5rem 0 } img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: .9rem; margin: .3rem 0 1rem } th, td { border: 0; border-bottom: 1px solid #ddd;
padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top } th { white-space: nowrap }
.caption { color: #444; font-size: .9rem } .caption strong { color: #222 } code, pre { font-size: .85rem }
pre { background: #f6f6f6; padding: .6rem .8rem; overflow-x: auto }
"""
WALL = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'\">"
)


# -- the notebooks -----------------------------------------------------------------------------------------
def folder():
    """Where the recipes are: inside the installed package, or ``notebooks/recipes/`` of a checkout."""
    inside = Path(__file__).parents[1] / "_recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "notebooks" / "recipes"


def notebook(name):
    """The path of a recipe."""
    path = folder() / f"{name}.ipynb"
    if not path.is_file():
        has = list(available())
        near = get_close_matches(str(name), has, 1)
        raise DataError(
            f"there is no recipe {str(name)!r}; {f'did you mean {near[0]!r}?' if near else 'there are ' + ', '.join(has)}"
        )
    return path


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def available():
    """``{name: what it does, in one line}``: the line below the title of each notebook."""
    text = {p.stem: "".join(cells_of(p)[0]["source"]).splitlines() for p in sorted(folder().glob("*.ipynb"))}
    return {name: next((line for line in lines[1:] if line.strip()), "") for name, lines in text.items()}


def copy(name, folder):
    """Put the notebook of a recipe into a folder, to change it; nothing is overwritten. The path of the copy."""
    source, target = notebook(name), Path(folder) / f"{name}.ipynb"
    if target.exists():
        raise DataError(f"{target} is there already and is not overwritten; give another folder, or move it away")
    with staging(target) as new:
        shutil.copyfile(source, new)
    return target


def defaults(path):
    """The parameters of a recipe and their defaults: the assignments of the cell tagged ``parameters``."""
    code = next("".join(c["source"]) for c in cells_of(path) if tagged(c, "parameters"))
    return {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse(code).body if isinstance(n, ast.Assign)}


def settings(path, parameters, where):
    """All parameters of a run: those given, checked against the defaults and brought to their kind."""
    known = defaults(path)
    own = set(known) - {"source", "out", "where"}
    values = dict(parameters) | {k: str(v).removeprefix("obs/") for k, v in where.items() if k in ("batch", "label")}
    for name in values:
        if name not in own:
            near = get_close_matches(name, own, 1)
            mend = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(k for k in known if k in own)}"
            raise DataError(f"the recipe {path.stem!r} has no parameter {name!r}; {mend}")
    if strange := where.keys() - {"x", "batch", "label"}:
        raise DataError(
            f"where= names {', '.join(sorted(strange))}; a recipe reads x (the counts), batch and label: --where x=PLACE"
        )
    made = {k: brought(k, v, known[k]) for k, v in values.items()}
    return known | made | {"where": {k: v for k, v in where.items() if k == "x"}}


def brought(name, value, like):
    """A parameter as the kind of its default; a shell gives text."""
    if isinstance(like, list) and isinstance(value, str):
        return [v.strip() for v in value.split(",") if v.strip()]
    if isinstance(value, str) and not isinstance(like, str):
        try:
            value = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            value = str(value)
    kinds = {int: "a whole number, 0 or above", float: "a number", str: "a name", list: "a list of names", bool: "True or False"}
    good = isinstance(value, type(like)) or (isinstance(like, float) and isinstance(value, int))
    if not good or (type(like) is int and (value < 0 or isinstance(value, bool))):
        raise DataError(f"{name} is {value!r}, where {kinds[type(like)]} is needed, as {name}={like!r}")
    return value


# -- a run -------------------------------------------------------------------------------------------------
def run(name, source, out, parameters={}, where={}, say=write):  # noqa: B006
    """Run a recipe on a file and write its results, all of them or nothing.

    Parameters
    ----------
    name : one of ``available()``
    source : the user's ``.h5ad`` (also Cell Ranger's ``.h5``, or a folder with ``matrix.mtx``); it stays as it is
    out : a folder that is new or empty
    parameters : those of the notebook, as ``{"system": "scvi", "seed": 1}``
    where : ``{"x": "layers/umi", "batch": "obs/donor", "label": "obs/cell_type"}`` where the data are at other places
    say : a function of one line, called as the work goes on

    Returns
    -------
    {"h5ad", "notebook", "report"}: paths of what was written

    Raises
    ------
    DataError : one sentence on what was found, what is needed and how to mend it
    """
    path, source, out, start = notebook(name), Path(source).absolute(), Path(out).absolute(), time.monotonic()
    values = settings(path, parameters, where)
    ready()
    free(out)
    say(f"reading {source.name}")
    facts = check(name, source, values, out)
    say(f"found {facts['cells']} cells x {facts['genes']} genes, counts in {facts['counts from']}")
    with staging(out) as new:
        new.mkdir()
        book = execute(path, values | {"source": str(source), "out": str(new)}, say, start)
        made = publish(book, name, source, new, out, time.monotonic() - start)
        say(f"writing {out}")
    say(f"done in {time.monotonic() - start:.0f} s: open {made['report']}")
    return made


def ready():
    """Is there what runs a notebook?"""
    for package in ("papermill", "nbconvert", "ipykernel"):
        if find_spec(package) is None:
            raise DataError(f"{package} is needed to run recipes and is not installed: pip install 'scdl-teach[lab]'")


def free(out):
    """Refuse a folder that holds something, or what is no folder."""
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"the folder {out} is not empty and nothing in it is overwritten; give a new one: -o FOLDER")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file, where a folder to write to is needed; give another name: -o FOLDER")


def check(name, source, values, out):
    """Everything that can be known before a notebook starts; the facts of the data. The file first: torch is loaded for the
    rest.
    """
    from . import intake

    if name in NEEDS_BATCH and not values["batch"]:
        raise DataError(f"the recipe {name!r} needs the column of obs that tells the batches: --where batch=obs/COLUMN")
    adata, _, facts = intake.load(source, values["where"], values.get("batch", ""), values.get("label", ""))
    intake.places(adata, values.get("genes", []))
    writable(adata, source.name)
    chosen = adata.n_obs * min(adata.n_vars, values.get("n_genes", adata.n_vars))
    room(out, size_of(adata) + 12 * chosen)  # the table, and one of the chosen genes with what was made of them
    system, can = values.get("system"), intake.systems(name) if name in intake.TASKS else None
    if system and can is not None and system not in can:
        raise DataError(f"the recipe {name!r} cannot run the system {system!r}; it runs {', '.join(can)}: --system {can[0]}")
    intake.has_all(adata, system, values)
    return facts


def execute(path, values, say, start):
    """The executed notebook; an error in it becomes one sentence."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    total = sum(c["cell_type"] == "code" and not tagged(c, "parameters") for c in cells_of(path))
    done = []

    def step(cell, cell_index, **_):
        if cell.cell_type == "code" and not tagged(cell, "parameters", "injected-parameters"):
            done.append(heading(cell))
            say(f"[{len(done):2d}/{total}] {time.monotonic() - start:5.0f} s  {done[-1]}")

    how = {"kernel_name": "python3", "kernel_manager_class": this_python(), "progress_bar": False, "shutdown_kernel": "immediate"}
    try:
        return papermill.execute_notebook(str(path), None, values, on_cell_start=step, stdout_file=Lines(say), **how)
    except PapermillExecutionError as e:
        raise in_words(e.ename, e.evalue, done[-1] if done else "") from e
    except DeadKernelError as e:
        mend = "close other programs, choose fewer genes (n_genes=1000), or take a sample of the cells"
        raise DataError(f"the computation was ended from outside, most likely for want of memory; {mend}") from e


def in_words(kind, text, at):
    """The exception that an error inside a notebook becomes: a ``DataError`` as it is, others with their place."""
    if kind == "KeyboardInterrupt":
        return KeyboardInterrupt()
    first = text.strip().splitlines()[0] if text.strip() else "no message"
    return DataError(text.strip() if kind == "DataError" else f"the recipe stopped at '{at}' with {kind}: {first}")


def tagged(cell, *names):
    return bool({*names} & {*cell["metadata"].get("tags", [])})


def heading(cell):
    """The comment that begins a cell."""
    first = cell["source"].splitlines()[0] if cell["source"] else ""
    return first.lstrip("# ").strip() if first.startswith("#") else "run"


def this_python():
    """A kernel manager whose kernel is this very interpreter, whatever kernels a user has registered."""
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments=None):
            return [sys.executable, "-m", "ipykernel_launcher", "--log-level=40", "-f", self.connection_file]

    return ThisPython


class Lines:
    """What the notebook prints, passed on line by line."""

    def __init__(self, say):
        self.say = say

    def write(self, text):
        for line in filter(str.strip, text.splitlines()):
            self.say(f"                {line.rstrip()}")

    def flush(self):
        """Nothing is held back."""


# -- the page ----------------------------------------------------------------------------------------------
def publish(book, name, source, new, out, seconds):
    """Write the executed notebook and the report into ``new``; the paths that they will have in ``out``."""
    import nbformat

    text = nbformat.writes(book)
    for here, there in zip(spelled(new), spelled(out), strict=True):
        text = text.replace(here, there)
    book = nbformat.reads(text, as_version=4)
    # half a pair of a name that is no Unicode (Linux has such) stands as its code, which JSON reads as what it was
    (new / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    (new / f"{name}.html").write_text(page(book, source.name, seconds), encoding="utf-8", errors="backslashreplace")
    return {"h5ad": out / f"{source.stem}_{name}.h5ad", "notebook": out / f"{name}.ipynb", "report": out / f"{name}.html"}


def spelled(path):
    """A path as an executed notebook may spell it: as text, in JSON, and in JSON as a line of Python."""
    python = str(path).encode("unicode_escape").decode().replace('"', '\\"')
    return [json.dumps(python, ensure_ascii=False)[1:-1], json.dumps(str(path), ensure_ascii=False)[1:-1], str(path)]


def page(book, source, seconds):
    """One self-contained HTML page: title, verdict, then tables and figures with their captions; no code.

    What stands in a cell's outputs is escaped where it is made (``report.plain``); a browser is told, besides, to run and load
    nothing (``WALL``).
    """
    from ..plot import printable

    title = html.escape(f"{book.cells[0].source.splitlines()[0].lstrip('# ')}: {printable(source)}")
    versions = ", ".join(f"{p} {version(p).split('+')[0]}" for p in ("scdl-teach", "torch", "scanpy", "anndata", "numpy"))
    facts = f"{datetime.now():%d %B %Y, %H:%M} · {seconds:.0f} s · Python {sys.version.split()[0]}, {versions}"
    code = [c for c in book.cells if c.cell_type == "code"]
    first = [c for c in code if tagged(c, "verdict")]
    verdict = "".join(as_html(c.outputs) for c in first)
    parts = [
        f"<h2>{html.escape(heading(c).capitalize())}</h2>{as_html(c.outputs)}"
        for c in code
        if c not in first and shown(c.outputs)
    ]
    given = next((c.source for c in code if tagged(c, "injected-parameters")), "")
    body = "".join(parts) + f"<h2>Parameters</h2><pre>{html.escape(given.replace('# Parameters', '').strip())}</pre>"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta '
        f'charset="utf-8">{WALL}<title>{title}</title><style>{STYLE}</style></head><body>'
        f'<h1>{title}</h1><p class="facts">{facts}</p><div class="verdict">{verdict}</div>{numbered(body)}</body></html>\n'
    )


def shown(outputs):
    """The outputs that belong into a report: tables, figures and text, not what was printed."""
    return [o for o in outputs if o.output_type in ("display_data", "execute_result")]


def as_html(outputs):
    """Outputs as HTML, by nbconvert."""
    from nbconvert import HTMLExporter
    from nbformat.v4 import new_code_cell, new_notebook

    book = new_notebook(cells=[new_code_cell(outputs=shown(outputs))])
    how = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True, "template_name": "basic"}
    return HTMLExporter(**how).from_notebook_node(book)[0]


def numbered(body):
    """Captions with their numbers: the first "Figure." becomes "Figure 1."."""
    for word in ("Figure", "Table"):
        count = iter(range(1, 1000))
        body = re.sub(
            rf"<p><strong>{word}\.</strong>", lambda m: f'<p class="caption"><strong>{word} {next(count)}.</strong>', body
        )
    return body
