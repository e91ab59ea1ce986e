"""The command line, ``scdl-teach`` or ``python -m scdl_teach``: how it is called. ``commands.py`` holds what it does.

What is heavy (torch, scanpy, pandas) is imported where it is used, so that ``--help`` and completion are quick.
"""

import functools
import os
import re
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from . import commands

HELP = """Deep learning for single-cell genomics: systems, lessons, and your own cells.

Every system reads an .h5ad file (AnnData) and writes its results into a copy of it. Results go to stdout, progress and \
messages to stderr. Where no terminal reads them, tables are plain columns of full width, for grep and awk."""
CODES = """[bold]Exit codes[/]
[cyan]    0[/]  done
[cyan]    1[/]  doctor found a problem, or the program has a fault
[cyan]    2[/]  bad input: one sentence says what was found and how to mend it
[cyan]  130[/]  interrupted (Ctrl-C): nothing is left half-written
[cyan]  143[/]  ended by another program (SIGTERM; 129: the terminal was closed): nothing is left half-written"""
CALL = {"no_args_is_help": True, "context_settings": {"help_option_names": ["-h", "--help"]}}
MARKUP = {"rich_markup_mode": "rich"} | CALL
PYTHON = (  # what a DataError says for Python, and the same for a shell
    (r"fit\(adata, where=\{'(\w+)': '([^']*)'\}\)", r"--where \1=\2"),
    (r"fit\(adata, where=\{'(\w+)': \.\.\.\}\)", r"--where \1=PLACE"),
    (r"fit\(adata, where=\{\.\.\.\}\)", "--where FIELD=PLACE"),
    (r"where= names", "--where names"),
)


def examples(lines, heading="Examples"):
    return "\n".join([f"[bold]{heading}[/]", *(f"[cyan]  {line}[/]" for line in lines)])


DATA = "scdl-teach data list", "scdl-teach data show pbmc", "scdl-teach data write pbmc pbmc.h5ad"
RECIPE = "scdl-teach recipe list", "scdl-teach recipe run imputation my.h5ad -o out"
app = typer.Typer(name="scdl-teach", add_completion=True, pretty_exceptions_enable=False, **MARKUP)
data = typer.Typer(help="The data sets: list, show, download, write to a file.", epilog=examples(DATA), **MARKUP)
recipe = typer.Typer(help="Short notebooks for one task on your own file: list, copy, run.", epilog=examples(RECIPE), **MARKUP)


class Kind(StrEnum):
    deep = "deep"
    classical = "classical"
    foundation = "foundation"


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Progress(StrEnum):
    bar = "bar"
    lines = "lines"
    off = "off"


def debugging():
    return bool(os.environ.get("SCDL_TEACH_DEBUG"))


def stop(message, code=2):
    """One sentence on stderr, and the exit code."""
    if debugging() and sys.exc_info()[1]:
        raise
    text = " ".join(str(message).split())
    for python, shell in PYTHON:
        text = re.sub(python, shell, text)
    if "reference=" in text:
        text += " (here: --reference FOLDER, a model that `scdl-teach fit ... --save FOLDER` kept)"
    typer.secho(f"scdl-teach: {text}", err=True, fg="red")
    raise typer.Exit(code)


class Ended(KeyboardInterrupt):
    """A signal asked the program to end: what Ctrl-C cleans is cleaned."""


@contextmanager
def cleanly():
    """SIGTERM, and SIGHUP of a closed terminal, end as Ctrl-C does; one that this program was started to ignore stays ignored."""

    def end(number, _):
        raise Ended(number)

    names = (
        [n for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)] if threading.current_thread() is threading.main_thread() else []
    )
    before = {s: signal.getsignal(s) for s in (getattr(signal, n) for n in names)}
    caught = [s for s, handler in before.items() if handler == signal.SIG_DFL]
    for s in caught:
        signal.signal(s, end)
    try:
        yield
    finally:
        for s in caught:
            signal.signal(s, before[s])


def note(message, *place, said, **more):
    """A warning in one line, once."""
    text = " ".join(str(message).split())
    if text not in said:
        commands.say(f"note: {text}")
    said.add(text)


def told(function):
    """What goes wrong ends in one sentence and an exit code; SCDL_TEACH_DEBUG=1 shows the traceback instead."""

    @functools.wraps(function)
    def run(*args, **kw):
        try:
            with cleanly(), warnings.catch_warnings():  # those of other packages are shown, one line each
                warnings.showwarning = functools.partial(note, said=set())
                return function(*args, **kw)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt as e:
            if debugging():
                raise
            code = 128 + e.args[0] if isinstance(e, Ended) else 130
        except OSError as e:
            stop(f"{e.filename}: {e.strerror}" if e.filename and e.strerror else e)
        except (ValueError, ArithmeticError, MemoryError) as e:  # DataError is a ValueError
            stop(e if str(e) else type(e).__name__)
        except Exception as e:
            more = "SCDL_TEACH_DEBUG=1 shows where; please report it with the output of `scdl-teach doctor --json`"
            stop(f"a fault of the program, {type(e).__name__}: {e}. {more}", 1)
        typer.echo(err=True)  # out of the except, so that a bar is closed by now; below the ^C
        stop(f"{'interrupted' if code == 130 else 'ended by a signal'}; no half-written output is left", code)

    return run


def command(to, name, *lines, panel=None):
    """Register a function: examples below its help, errors told in a sentence."""
    return lambda f: to.command(name, epilog=examples(lines), rich_help_panel=panel)(told(f))


def offer(names):
    """A completion: what begins with the letters that are there."""
    return lambda incomplete: [n for n in names() if (n if isinstance(n, str) else n[0]).startswith(incomplete)]


ALL = offer(lambda: [(r["key"], r["system"]) for r in commands.systems()])
BUILT = offer(lambda: [(r["key"], r["system"]) for r in commands.systems() if r["status"] != "planned"])
SETS = offer(commands.data_names)
RECIPES = offer(commands.recipe_names)
LESSONS = offer(lambda: [(n, p.stem) for n, p in commands.lessons().items()])
IN, TRAIN, OUT = "Your data", "Training", "Output"
FLAG = {"metavar": ""}  # no word for the type of a switch


def option(*names, **kw):
    return typer.Option(*names, show_default=kw.pop("show_default", False), **kw)


Where = Annotated[
    list[str],
    option(metavar="FIELD=PLACE", rich_help_panel=IN, help="read a field elsewhere, as x=layers/counts or batch=obs/donor"),
]
Settings = Annotated[
    list[str],
    option("--set", metavar="NAME=VALUE", rich_help_panel=TRAIN, help="a hyper-parameter, as latent=16 or hidden=[64,32]"),
]
Force = Annotated[bool, option("--force", **FLAG, rich_help_panel=OUT, help="replace an output that exists")]


BEGIN = examples(["scdl-teach doctor", "scdl-teach list --built", "scdl-teach fit dca in.h5ad out.h5ad"], "Begin with")


def print_version(wanted: bool):
    if wanted:
        typer.echo(f"scdl-teach {commands.version()}")
        raise typer.Exit


Version = Annotated[bool, option("--version", **FLAG, is_eager=True, callback=print_version, help="print the version")]


@app.callback(help=HELP, epilog=f"{BEGIN}\n\n{CODES}", **CALL)
def start(version: Version = False):
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a console without the letter é is no reason to stop


@command(
    app,
    "list",
    "scdl-teach list --built",
    "scdl-teach list --section 4.1.3 --kind deep",
    "scdl-teach list | grep autoencoder",
    panel="Your cells",
)
def list_systems(
    section: Annotated[str, option(metavar="NUMBER", help="only this section of the review, as 4.1.3.1")] = "",
    kind: Annotated[Kind | None, option(help="only this kind")] = None,
    built: Annotated[bool, option("--built", **FLAG, help="only what is built")] = False,
    as_json: Annotated[bool, option("--json", **FLAG, help="as JSON")] = False,
):
    """The catalogue: one row a system."""
    commands.list_systems(section, kind or "", built, as_json)


@command(app, "show", "scdl-teach show dca", "scdl-teach show scvi > scvi.txt", panel="Your cells")
def show(key: Annotated[str, typer.Argument(metavar="KEY", help="key of a system, as dca", autocompletion=ALL)]):
    """One system: its idea, what it reads and writes, its hyper-parameters, its paper."""
    commands.show(key)


@command(
    app,
    "fit",
    "scdl-teach fit dca in.h5ad out.h5ad",
    "scdl-teach fit dca in.h5ad out.h5ad --where x=layers/counts --set latent=16",
    "scdl-teach fit scvi in.h5ad out.h5ad --where batch=obs/donor --save model",
    "scdl-teach fit tangram both.h5mu out.h5mu 2> log.txt",
    panel="Your cells",
)
def fit(
    key: Annotated[str, typer.Argument(metavar="KEY", help="key of a system, as dca", autocompletion=BUILT)],
    source: Annotated[Path, typer.Argument(metavar="IN", help="your .h5ad (.h5mu for a system that reads two tables)")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="the copy with the results, to be written")],
    where: Where = [],  # noqa: B006
    reference: Annotated[
        Path | None, option(metavar="FOLDER", rich_help_panel=IN, help="a saved model to build on, for systems that do")
    ] = None,
    settings: Settings = [],  # noqa: B006
    epochs: Annotated[
        int | None, option(min=0, metavar="N", rich_help_panel=TRAIN, help="at most N in every phase (for more: --set epochs=N)")
    ] = None,
    seed: Annotated[
        int, option(min=0, metavar="N", rich_help_panel=TRAIN, show_default=True, help="the only source of chance")
    ] = 0,
    device: Annotated[Device, option(rich_help_panel=TRAIN, show_default=True, help="where to compute")] = Device.auto,
    progress: Annotated[Progress | None, option(rich_help_panel=OUT, help="default: a bar in a terminal, lines in a log")] = None,
    save: Annotated[Path | None, option(metavar="FOLDER", rich_help_panel=OUT, help="keep the fitted model there")] = None,
    force: Force = False,
):
    """Train a system on your cells and write its results into a copy of the file."""
    how = {"epochs": epochs, "seed": seed, "device": str(device)}
    kept = {"save": save, "reference": reference, "force": force, "progress": progress and str(progress)}
    from .fitting import fit_file

    fit_file(key, source, target, where=where, settings=settings, how=how, **kept)


@command(app, "lesson", "scdl-teach lesson", "scdl-teach lesson 0201", "scdl-teach lesson 0201 --open", panel="The course")
def lesson(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="as 0201; none lists all", autocompletion=LESSONS)] = "",
    open_it: Annotated[bool, option("--open", **FLAG, help="open it in JupyterLab instead of running it")] = False,
    out: Annotated[Path, option(metavar="FOLDER", show_default=True, help="where the run is written")] = Path("out/lesson"),
):
    """List the lessons; run one (writes the executed notebook and a page); or open one."""
    commands.lesson(number, out, open_it)


@command(app, "tour", "scdl-teach tour", "scdl-teach tour > tour.log", panel="The course")
def tour():
    """Run lesson 0001 on real blood cells; writes the executed notebook and a page under out/tour/."""
    commands.lesson("0001", Path("out/tour"), open_it=False)


Name = Annotated[str, typer.Argument(metavar="NAME", help="name of a data set", autocompletion=SETS)]


@command(data, "list", "scdl-teach data list", "scdl-teach data list | grep download")
def data_list():
    """Name, kind, size, licence, content of every set."""
    commands.data_list()


@command(data, "show", "scdl-teach data show pbmc", "scdl-teach data show immune_raw")
def data_show(name: Name):
    """Shape, keys, licence and citation of one set."""
    commands.data_show(name)


@command(
    data,
    "fetch",
    "scdl-teach data fetch mouse_bladder pbmc_cite",
    "scdl-teach data fetch --all 2> log.txt",
    "SCDL_TEACH_CACHE=usb scdl-teach data fetch --all",
    "SCDL_TEACH_DATA_MIRROR=usb scdl-teach data show mouse_bladder",
)
def data_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="sets or files", autocompletion=SETS)] = [],  # noqa: B006
    everything: Annotated[bool, option("--all", **FLAG, help="all sets that can be downloaded")] = False,
):
    """Download sets into the cache; what is there is checked, what broke off goes on."""
    commands.data_fetch(names, everything)


@command(data, "write", "scdl-teach data write pbmc pbmc.h5ad", "scdl-teach data write motifs motifs.csv --force")
def data_write(
    name: Name,
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".h5ad, .h5mu or .csv")],
    force: Force = False,
):
    """Write one set to a file."""
    commands.data_write(name, target, force)


Recipe = Annotated[str, typer.Argument(metavar="NAME", help="name of a recipe", autocompletion=RECIPES)]


@command(recipe, "list", "scdl-teach recipe list", "scdl-teach recipe list > recipes.txt")
def recipe_list():
    """The recipes and what each does."""
    commands.recipe_list()


@command(recipe, "copy", "scdl-teach recipe copy imputation .", "scdl-teach recipe copy batch my_project")
def recipe_copy(
    name: Recipe, folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to put it; made if it is not there")]
):
    """Put the notebook of a recipe into a folder of yours, to change it."""
    commands.recipe_copy(name, folder)


@command(
    recipe,
    "run",
    "scdl-teach recipe run imputation my.h5ad -o out",
    "scdl-teach recipe run imputation my.h5ad -o out --where x=layers/counts",
    "scdl-teach recipe run batch my.h5ad -o out --where batch=obs/donor",
    "scdl-teach recipe run embedding my.h5ad -o out --system scvi --set seed=1",
)
def recipe_run(
    name: Recipe,
    source: Annotated[Path, typer.Argument(metavar="IN", help="your .h5ad")],
    out: Annotated[
        Path, option("-o", "--out", metavar="FOLDER", rich_help_panel=OUT, show_default=True, help="folder to write to")
    ] = Path("out"),
    where: Where = [],  # noqa: B006
    system: Annotated[str, option(metavar="KEY", rich_help_panel=TRAIN, help="with this system", autocompletion=BUILT)] = "",
    settings: Annotated[
        list[str], option("--set", metavar="NAME=VALUE", rich_help_panel=TRAIN, help="a parameter of the recipe")
    ] = [],  # noqa: B006
):
    """Run a recipe on your file; prints what it wrote."""
    commands.recipe_run(name, source, out, where, system, settings)


@command(app, "doctor", "scdl-teach doctor", "scdl-teach doctor --json > report.json", panel="The installation")
def doctor(as_json: Annotated[bool, option("--json", **FLAG, help="as JSON, for a report")] = False):
    """Look at the installation: versions, device, threads, data; prints the command that mends each problem."""
    from .doctor import report

    raise typer.Exit(report(as_json))


app.add_typer(data, name="data", rich_help_panel="The course")
app.add_typer(recipe, name="recipe", rich_help_panel="Your cells")
