"""The command line: ``scdl-teach`` or ``python -m scdl_teach``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=True, no_args_is_help=True, help="Deep learning for single-cell genomics: systems, lessons, your own cells."
)
ROOT = Path(__file__).parents[1]


def fail(message):
    """One clear sentence on stderr, exit code 2."""
    typer.secho(f"scdl-teach: {message}", err=True, fg="red")
    raise typer.Exit(2)


@app.command("list")
def list_systems(
    section: Annotated[str, typer.Option(help="only this section of the review, as 4.1.3.1")] = "",
    built: Annotated[bool, typer.Option("--built", help="only what is built")] = False,
):
    """The catalogue: one line a system."""
    from .registry import catalogue

    rows = catalogue()
    rows = rows[rows["section"].str.split(";").map(lambda s: any(p.startswith(section) for p in s))] if section else rows
    rows = rows[rows["status"] != "planned"] if built else rows
    for key, row in rows.iterrows():
        typer.echo(f"{key:22s} {row['status']:8s} {row['section']:16s} {row['system']} ({row['year']}), {row['family']}")


@app.command()
def show(key: Annotated[str, typer.Argument(help="key of a system, as dca")]):
    """One system: idea, what it reads and writes, hyper-parameters, paper."""
    import inspect

    from .core.fields import DataError
    from .registry import catalogue, get

    try:
        cls = get(key)
    except DataError as e:
        fail(e)
    module = inspect.getmodule(cls)
    typer.echo(inspect.cleandoc(module.__doc__) + "\n")
    for name, field in cls.needs.items():
        typer.echo(f"reads   {name}: {field.describe()}")
    for name, place in cls.writes.items():
        typer.echo(f"writes  {name}: {place}")
    typer.echo(f"defaults {cls()!r}\nlesson  {catalogue().loc[key, 'lesson']}")


@app.command()
def fit(
    key: Annotated[str, typer.Argument(help="key of a system, as dca")],
    source: Annotated[Path, typer.Argument(help="your .h5ad")],
    target: Annotated[Path, typer.Argument(help="the annotated .h5ad to write")],
    where: Annotated[list[str], typer.Option(help="FIELD=PLACE, as x=layers/counts or batch=obs/donor")] = [],  # noqa: B006
    epochs: Annotated[int | None, typer.Option(help="at most so many in every phase")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps")] = "auto",
):
    """Train a system on your cells and write its results into a copy of the file."""
    from .core.fields import DataError
    from .registry import get

    if any("=" not in w for w in where):
        fail(f"--where needs FIELD=PLACE, as --where x=layers/counts, not {where}")
    how = {"where": dict(w.split("=", 1) for w in where), "epochs": epochs, "seed": seed, "device": device}
    try:
        cls = get(key)
        if len(cls.tables) > 1:
            fail(f"{cls.__name__} reads {len(cls.tables)} tables ({', '.join(cls.tables)}): use it from Python")
        typer.echo(f"{target}: {', '.join(fit_file(cls(), source, target, how).writes.values())}")
    except (DataError, FloatingPointError, OSError) as e:
        fail(e)


def fit_file(model, source, target, how):
    """Read, fit, annotate, write under another name, move."""
    import os

    from .datasets import read

    adata = read(source)
    model.fit(adata, **how).annotate(adata)
    new = target.with_name(target.name + ".part")
    adata.write_h5ad(new)
    os.replace(new, target)
    return model


@app.command()
def tour():
    """Run lesson 0001 on real blood cells; writes the executed notebook and a page under out/tour/."""
    from .lessons.run import run

    run(ROOT / "notebooks/00_start/0001_tour.ipynb", Path("out/tour"), say=typer.echo, fail=fail)


@app.command()
def lesson(
    number: Annotated[str, typer.Argument(help="as 0201")],
    out: Annotated[Path, typer.Option(help="folder to write to")] = Path("out/lesson"),
):
    """Run one lesson; writes the executed notebook and a page."""
    from .lessons.run import run

    found = sorted((ROOT / "notebooks").glob(f"*/{number}_*.ipynb"))
    if not found:
        fail(f"there is no lesson {number}; the lessons are in notebooks/ of a checkout of the project")
    run(found[0], out, say=typer.echo, fail=fail)


if __name__ == "__main__":
    app()
