"""What the commands of ``scdl-teach`` do. ``app.py`` says how they are called, ``doctor.py`` looks at the installation."""

import csv
import difflib
import inspect
import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import typer

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
MADE = ("pbmc",)  # the data sets that no file lists; a test holds this equal to datasets.list()


# -- what is said, and where ---------------------------------------------------------------------------
def say(line):
    """A line of the log: to stderr, at once, so that it stands in a file too."""
    typer.echo(line, err=True)
    sys.stderr.flush()


def refuse(message):
    raise ValueError(message)


def table(columns, rows):
    """A rich table where a person watches; elsewhere plain columns of full width, at least two spaces apart."""
    rows = [[str(c) for c in row] for row in rows]
    if sys.stdout.isatty():
        return drawn(columns, rows)
    widths = [max(len(r[i]) for r in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip())


def drawn(columns, rows):
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "built": "green", "taught": "green", "planned": "dim", "hint": "yellow", "broken": "bold red"}
    out = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(columns):
        out.add_column(name, overflow="fold", no_wrap=i == 0, style="bold cyan" if i == 0 else "")
    for row in rows:
        out.add_row(*(Text(c, style=styles.get(c, "")) for c in row))
    Console(highlight=False).print(out)


def prose(heading, text):
    """A paragraph under its heading, wrapped to the window, or to 100 columns in a file."""
    width = min(100, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 100
    typer.secho(heading, bold=True)
    for line in textwrap.wrap(" ".join(text.replace("``", "").split()), width - 2):
        typer.echo(f"  {line}")


def nearest(name, known, otherwise):
    near = difflib.get_close_matches(str(name).lower(), [k.lower() for k in known], 1)
    return f"did you mean {next(k for k in known if k.lower() == near[0])!r}?" if near else otherwise


# -- the catalogue -------------------------------------------------------------------------------------
@cache
def systems():
    """The rows of the catalogue as dicts, read without pandas: completion has to be fast."""
    with open(PACKAGE / "catalogue.csv", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def find(key):
    """The row of a system."""
    for row in systems():
        if row["key"] == key:
            return row
    by_name = {name: r["key"] for r in systems() for name in (r["system"].lower(), r["class"].lower(), r["key"])}
    near = difflib.get_close_matches(key.lower(), by_name, 1)
    hint = f"did you mean {by_name[near[0]]!r}?" if near else "`scdl-teach list` shows all"
    raise ValueError(f"there is no system {key!r}; {hint}")


def chosen(section, kind, built):
    """The rows that are asked for."""
    places = sorted({s for r in systems() for s in r["section"].split(";")})
    within = lambda s: s == section or s.startswith(f"{section}.")
    if section and not any(map(within, places)):
        raise ValueError(f"there is no section {section!r} in the catalogue; there are {', '.join(places)}")
    rows = [r for r in systems() if not section or any(map(within, r["section"].split(";")))]
    return [r for r in rows if kind in ("", r["kind"]) and not (built and r["status"] == "planned")]


def list_systems(section, kind, built, as_json):
    rows = chosen(section, kind, built)
    if as_json:
        return typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    columns = ["key", "system", "year", "section", "kind", "family", "status", "lesson"]
    if sys.stdout.isatty():  # short enough for a window
        rows = [r | {"lesson": Path(r["lesson"]).stem[:4], "section": r["section"].replace(";", "; ")} for r in rows]
    table(columns, [[r[c] for c in columns] for r in rows])
    built = sum(r["status"] != "planned" for r in rows)
    say(f"{len(rows)} systems, {built} of them built; `scdl-teach show KEY` says more about one")


def show(key):
    """Title, idea, what is read and written, hyper-parameters, paper."""
    row = find(key)
    if row["status"] == "planned":
        prose(f"{row['system']} ({row['year']})", "")
        return facts(row, row["doi"])
    from ..core import words
    from ..core.registry import get

    cls = get(key)
    title = (inspect.getmodule(cls).__doc__ or "").split("\n\n")[0]
    prose(" ".join(unmarked(title).split()), unmarked(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]))
    facts(row, cls.doi())
    for heading, text in words.paragraphs(cls).items():
        if heading != "Lesson":
            prose(heading, unmarked(text))
    formula, letters = words.formula_of(cls)
    if formula:
        prose("Objective", letters)
        typer.echo("\n".join(f"  {line}" for line in formula.splitlines()))
    interface(key, cls)


def unmarked(text):
    """A docstring's words without the marks of Markdown: backticks, and stars around a word or more."""
    return re.sub(r"(?<![\w*)])(\*{1,2})(?=\S)([^*]+)(?<=\S)\1(?![\w*])", r"\2", text.replace("`", ""))


def interface(key, cls):
    """What is read, what is written, what can be set."""
    from ..core.words import meanings

    needs = [[k, f.where, f.table or cls.tables[0], kind_of(f)] for k, f in cls.needs.items()]
    given, means = cls().get_params(), meanings(cls)
    hyper = [[k, plain(v), plain(cls.paper[k]) if k in cls.paper else "", means.get(k, "")] for k, v in given.items()]
    for columns, rows in (
        (["reads", "place", "table", "what"], needs),
        (["writes", "place"], cls.writes.items()),
        (["hyper-parameter", "default", "paper", "meaning"], hyper),
    ):
        if rows:
            typer.echo()
            table(columns, rows)
    end = "h5ad" if len(cls.tables) == 1 else "h5mu"
    typer.echo(f"\nscdl-teach fit {key} in.{end} out.{end}")


def facts(row, doi):
    status = "planned: not built yet, so it has no class and cannot be fitted" if row["status"] == "planned" else row["status"]
    link = "none" if not doi else doi if ":" in doi else f"doi:{doi}"
    lines = {"key": row["key"], "kind": f"{row['kind']}, {row['family']}", "section": row["section"], "status": status}
    for name, value in (lines | {"beside": row["baseline"], "lesson": row["lesson"], "paper": link}).items():
        typer.echo(f"  {name:8s} {value}")
    typer.echo()


def kind_of(field):
    return field.kind + ", optional" * field.optional + ", to fit only" * field.fit_only


def plain(value):
    """A value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


# -- words and files ---------------------------------------------------------------------------
def version():
    from importlib.metadata import version

    return version("scdl-teach")


def pairs(given, option, form):
    """``["x=layers/counts"]`` -> ``{"x": "layers/counts"}``."""
    for text in given:
        if not re.fullmatch(r"\w+=.+", text, re.S):
            raise ValueError(f"{option} needs {form}, not {text!r}")
    return dict(text.split("=", 1) for text in given)


def value(text):
    """JSON if it is JSON, else the word itself; lists become tuples."""
    from ..core.storage import tuples

    try:
        return tuples(json.loads(text))
    except ValueError:
        return text


def free_to_write(source, target, save=None, force=False):
    """Refuse, before the work, an output that exists, that is the input, or whose folder cannot be written."""
    if source and source.exists() and target.exists() and source.samefile(target):
        raise ValueError(f"{target} is the input itself, which is never overwritten; give the output another name")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; give the name of the file to write")
    if target.exists() and not force:
        raise ValueError(f"{target} exists; give another name, or --force to replace it")
    wanted = source.suffix.lower() if source and source.suffix.lower() in (".h5ad", ".h5mu") else target.suffix.lower()
    if target.suffix.lower() != (wanted or ".h5ad"):
        raise ValueError(f"the output is an {wanted} file: call it {target.with_suffix(wanted).name}, not {target.name}")
    if not target.parent.is_dir():
        raise ValueError(f"the folder {target.parent} does not exist; make it first: mkdir -p {target.parent}")
    probe(target.parent)
    if save and save.absolute() == target.absolute():
        raise ValueError(f"--save {save} is the output itself; give the model a folder of its own")
    if save and (save / "model.json").exists() and not force:
        raise ValueError(f"{save} already holds a model; give --save another folder, or --force to replace it")
    if save:
        probe(next(p for p in (save, *save.absolute().parents) if p.exists()))


def probe(folder):
    """Write a file without a name there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as e:
        raise ValueError(f"nothing can be written into {folder} ({e.strerror}); choose another folder") from e


def described(data):
    return ", ".join(f"{t} {a.n_obs} x {a.n_vars}".strip() for t, a in tables_of(data).items())


def tables_of(data):
    """The tables of a MuData by name; of anything else, itself."""
    return data.mod if hasattr(data, "n_mod") else {"": data}


# -- lessons -------------------------------------------------------------------------------------------
def lessons():
    """``{"0201": path}``, from the checkout that this package stands in, else from the one we are in."""
    for place in (ROOT / "notebooks", Path("notebooks")):
        if found := sorted(place.glob("[0-9]*/[0-9][0-9][0-9][0-9]_*.ipynb")):
            return {p.stem[:4]: p for p in found}
    return {}


def lesson(number, out, open_it):
    """List them, open one, or run one."""
    found = lessons()
    if not found:
        raise ValueError("no lessons here: they are part of a checkout of the project (its folder notebooks/), not of the wheel")
    if not number:
        return table(["lesson", "title", "time"], [[n, *title_and_time(p)] for n, p in found.items()])
    if number not in found:
        hint = nearest(number, list(found), "")
        raise ValueError(f"there is no lesson {number!r}; {hint} `scdl-teach lesson` lists all".replace("  ", " "))
    if open_it:
        return open_in_lab(found[number])
    execute(found[number], out)


def execute(path, out):
    """Run a lesson; a kernel that is gone is told apart: Ctrl-C, or ended from outside."""
    from asyncio import CancelledError

    from ..lessons.run import run

    try:
        run(path, out, say=typer.echo, fail=refuse)
    except (AssertionError, CancelledError) as e:  # nbclient answers Ctrl-C by ending the kernel, then stumbles over that
        raise KeyboardInterrupt from e
    except Exception as e:
        if type(e).__name__ == "DeadKernelError":
            raise ValueError("the lesson's kernel was ended from outside, most likely for want of memory") from e
        raise


def title_and_time(path):
    """What the first cell says."""
    cell = next(c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown")
    text = "".join(cell["source"])
    took = re.search(r"\*\*Time\*\*\s*\|\s*([^|\n]+)", text)
    return text.splitlines()[0].lstrip("# ").removeprefix(path.stem[:4]).strip(), took[1].strip() if took else ""


def open_in_lab(path):
    """JupyterLab on one notebook, until it ends; Ctrl-C is JupyterLab's."""
    import subprocess

    if find_spec("jupyterlab") is None:
        mend = f"{sys.executable} -m pip install jupyterlab"
        raise ValueError(f"JupyterLab is not installed: {mend}, then {sys.executable} -m jupyterlab {path}")
    say(f"opening {path} in JupyterLab; Ctrl-C ends it")
    lab = subprocess.Popen([sys.executable, "-m", "jupyterlab", str(path)])
    while True:
        try:
            raise typer.Exit(lab.wait())
        except KeyboardInterrupt:
            continue


# -- data sets -----------------------------------------------------------------------------------------
@cache
def data_names():
    """For completion: without pandas and torch."""
    inside = PACKAGE / "_data"
    folder = inside if inside.is_dir() else ROOT / "data"
    found = list(MADE)
    for file, column in (("sets.csv", "name"), ("remote.csv", "set")):
        with open(folder / file, encoding="utf-8") as f:
            found += [row[column] for row in csv.DictReader(f)]
    return list(dict.fromkeys(found))


def parts_of(name):
    """``{file: where it should stand}`` of a set that is downloaded."""
    from ..datasets import download

    remote = download.registry()
    place = Path(os.environ.get(download.MIRROR) or download.cache_folder())
    return {f: place / f for f in remote.index[remote["set"] == name]}


def here(name):
    return all(p.is_file() for p in parts_of(name).values())


def data_list():
    from .. import datasets

    kinds = lambda n, k: k if k != "download" else "downloaded" if here(n) else "to download"
    rows = [[n, kinds(n, r["kind"]), f"{r['MB']:.2f}", r["licence"], r["content"]] for n, r in datasets.list().iterrows()]
    table(["name", "kind", "MB", "licence", "content"], rows)


def about(name):
    """The row of a set in ``datasets.list()``."""
    from .. import datasets

    known = datasets.list()
    if name not in known.index:
        hint = nearest(name, list(known.index), "`scdl-teach data list` shows all")
        raise ValueError(f"there is no data set {name!r}; {hint}")
    return known.loc[name]


def data_show(name):
    """Size, keys, licence, citation; what is not downloaded yet is not downloaded for this."""
    row = about(name)
    prose(name, row["content"])
    for word in ("kind", "licence", "citation"):
        typer.echo(f"  {word:9s} {row[word]}")
    if not here(name):
        return typer.echo(f"  {'size':9s} {row['MB']} MB, not downloaded yet: scdl-teach data fetch {name}")
    from .. import datasets

    data = datasets.load(name)
    for part, a in tables_of(data).items():
        for word, text in inside(a):
            typer.echo(f"  {f'{part} {word}'.strip():9s} {text}")


def inside(a):
    """Shape and keys of an AnnData, or the columns of a table."""
    if not hasattr(a, "obsm"):
        return [("shape", f"{a.shape[0]} rows x {a.shape[1]} columns"), ("columns", ", ".join(map(str, a.columns)))]
    kind = type(a.X).__name__
    slots = ("obs", "var", "layers", "obsm", "obsp", "varm", "uns")
    slots = [(s, ", ".join(str(k) for k in getattr(a, s) if k is not None)) for s in slots]  # newer AnnData names X None
    return [("shape", f"{a.n_obs} rows x {a.n_vars} columns, {kind}"), *((s, keys) for s, keys in slots if keys)]


def data_fetch(names, everything):
    """Download what is asked for; what is there already is only checked."""
    from ..datasets import download

    remote = download.registry()
    if everything:
        names = list(dict.fromkeys(remote["set"]))
    if not names:
        raise ValueError(f"name what to fetch, or --all; there are {', '.join(dict.fromkeys(remote['set']))}")
    wanted = [f for n in names for f in ([n] if n in remote.index else parts_of(n) if about(n)["kind"] == "download" else [])]
    for n in names:
        if n not in remote.index and not parts_of(n):
            say(f"{n} comes with the package: there is nothing to fetch")
    for file in wanted:
        typer.echo(f"{file}: {download.fetch(file, progress=loaded(file))}")


def loaded(file, every=2.0):
    """A line every two seconds."""
    last = [time.monotonic()]

    def line(done, total):
        if time.monotonic() - last[0] >= every or done == total:
            last[0] = time.monotonic()
            say(f"{file}  {done / 1e6:7.2f} of {total / 1e6:.2f} MB  {100 * done / total:3.0f} %")

    return line


def data_write(name, target, force):
    """One set as a file that other programs read."""
    about(name)
    free_to_write(None, target, force=force)
    from .. import datasets
    from ..datasets import writing

    data = datasets.load(name)
    ending = ".h5mu" if hasattr(data, "n_mod") else ".h5ad" if hasattr(data, "obsm") else ".csv"
    if target.suffix.lower() != ending:
        raise ValueError(f"{name} is written as {ending}: call it {target.with_suffix(ending).name}")
    if ending == ".csv":
        with writing.staging(target, force) as new:
            data.to_csv(new, index=False)
    else:
        writing.write(data, target, force)
    typer.echo(f"{target}: {'; '.join(f'{k} {v}' for k, v in inside(data)[:1]) if ending != '.h5mu' else described(data)}")


# -- recipes -------------------------------------------------------------------------------------------
@cache
def recipe_names():
    """For completion: the notebooks, unread."""
    inside = PACKAGE / "_recipes"
    return sorted(p.stem for p in (inside if inside.is_dir() else ROOT / "notebooks" / "recipes").glob("*.ipynb"))


def recipe_list():
    from .. import recipes

    table(["recipe", "what it does"], recipes.available().items())


def recipe_copy(name, folder):
    from .. import recipes

    typer.echo(recipes.copy(name, folder))


def recipe_run(name, source, out, where, system, settings):
    """The recipe on the user's file; the paths of what it wrote."""
    where = pairs(where, "--where", "FIELD=PLACE, as --where x=layers/counts")
    parameters = {k: told(v) for k, v in pairs(settings, "--set", "NAME=VALUE, as --set seed=1").items()}
    if system:
        parameters["system"] = find(system)["key"]
    from .. import recipes

    for what, path in recipes.run(name, source, out, parameters, where, say).items():
        typer.echo(f"{what}: {path}")


def told(text):
    """Lists, true, false and null as JSON; the rest as text, of which the recipe makes what it needs."""
    made = value(text)
    return list(made) if isinstance(made, tuple) else made if made is None or isinstance(made, bool) else text
