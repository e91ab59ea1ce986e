"""One page a system for the book, from the catalogue and the class: what is written once is shown everywhere."""

import inspect
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd

from scdl_teach import catalogue, get
from scdl_teach.core.model import Model
from scdl_teach.core.words import HEADINGS, formula_of, meanings, paragraphs
from scdl_teach.lessons import results
from scdl_teach.plot.diagram import diagram
from scdl_teach.testing import toy_for

ROOT = Path(__file__).parents[1]
BUDGETS = {"-": "no published schedule", "default": "the defaults", "paper": "the paper's"}
PARTS = {
    "2": "Foundations",
    "4.1.3.1": "Imputation",
    "4.1.3.2": "Batch effects",
    "4.1.3.3": "Embeddings",
    "4.1.3.4": "Generation",
    "4.1.4.1": "Clustering and annotation",
    "4.1.4.2": "Communication",
    "4.1.4.3": "Velocity",
    "4.2": "Genomics beyond expression",
    "4.3": "Spatial",
    "4.4": "Deconvolution",
    "4.5": "Multi-omics",
}


def part_of(section):
    first = section.split(";")[0]
    return PARTS[max((p for p in PARTS if first.startswith(p)), key=len)]


def doi_link(doi):
    if not doi:
        return "not verified"
    return (
        f"[{doi}](https://arxiv.org/abs/{doi.removeprefix('arXiv:')})"
        if doi.startswith("arXiv")
        else f"[{doi}](https://doi.org/{doi})"
    )


def told(cls):
    """The paragraphs of the docstring, as Markdown."""
    return {k: v.replace("``", "`") for k, v in paragraphs(cls).items()}


def objective(cls):
    """The formula, and what its letters stand for."""
    formula, letters = formula_of(cls)
    return ["**Objective**", "", formula, "", letters.replace("``", "`"), ""] if formula else []


def settings(cls):
    """Every hyper-parameter: its kind, the default, the paper's value, and what it is."""
    means, lines = meanings(cls), ["| | kind | default | paper | |", "|---|---|---|---|---|"]
    for f in fields(cls):
        paper = f"`{cls.paper[f.name]!r}`" if f.name in cls.paper else ""
        kind = getattr(f.type, "__name__", str(f.type)).replace("|", "or")
        lines += [f"| `{f.name}` | {kind} | `{f.default!r}` | {paper} | {means.get(f.name, '')} |".replace("$", "\\$")]
    return ["**Hyper-parameters**", "", *lines, ""] if len(lines) > 2 else []


def lesson_link(path):
    path = path.split("#")[0]
    return f"[{Path(path).stem}](/{path})" if (ROOT / path).is_file() else f"`{Path(path).stem}` (planned)"


def measured(key):
    """The claims of a system on all seeds and at both budgets, as `make study` found them."""
    ends, lines = ["floor", "classical", "deep", "oracle"], []
    cell = lambda v: f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})"
    for what, rows in results.table("claims").query("key == @key").groupby("claim", sort=False):
        lines += [f"**Measured** {what}; {rows['better'].iloc[0]} is better. Mean and range over the seeds:", ""]
        lines += ["| budget | " + " | ".join(ends) + " | bar, set on other seeds | passed |", "|---" * (len(ends) + 3) + "|"]
        for budget, found in rows.groupby("budget", sort=False):
            bar, passed = found["bar"].iloc[0], f"{found['holds'].astype(float).sum():.0f} of {len(found)}"
            last = ["not yet", ""] if pd.isna(bar) else [f"{bar:g}", passed]
            lines += ["| " + " | ".join([BUDGETS.get(budget, budget), *(cell(found[e]) for e in ends), *last]) + " |"]
        lines += [""]
    return lines


def drawing(key, cls, folder):
    """The network as SVG beside the page; nothing for a method without one, or one that needs another model first."""
    try:
        drawn = diagram(cls().fit(*toy_for(cls), epochs=0, progress=False, device="cpu"))
    except (AttributeError, ValueError):
        return []
    (folder / f"{key}.svg").write_text(drawn.svg, encoding="utf-8")
    note = "Drawn from the model itself, on a toy of 24 features: grey is read, blue computed, orange given."
    return [f"```{{image}} {key}.svg", f":alt: {drawn.alt}", "```", "", note, ""]


def page(key, row, folder):
    cls, base, said = get(key), row["baseline"], told(get(key))
    lines = [f"(system-{key})=", f"# {row['system']}", "", said.get("Idea", ""), ""]
    lines += [
        "| | |",
        "|---|---|",
        f"| Paper | {row['year']}, {doi_link(row['doi'])} |",
        f"| Section of the review | {row['section']} |",
    ]
    lines += [f"| Family | {row['family']} |", f"| Classical rival | {base} |", f"| Lesson | {lesson_link(row['lesson'])} |"]
    lines += [f"| Import | `from scdl_teach.{row['module']} import {row['class']}` |", ""]
    lines += drawing(key, cls, folder) if issubclass(cls, Model) else []
    lines += ["**Reads**", ""] + [f"- `{k}`: {f.describe()}" for k, f in cls.needs.items()] + [""]
    lines += ["**Writes**", ""] + [f"- `{k}`: `{p}`" for k, p in cls.writes.items()] + [""]
    lines += objective(cls)
    lines += [f"**{h}** {said[h]}\n" for h in HEADINGS if h in said and h not in ("Idea", "Lesson")]
    lines += measured(key)
    lines += settings(cls)
    if cls.paper:
        lines += [f"As in the paper: `{cls.__name__}(**{cls.__name__}.paper)`.", ""]
    lines += [
        "**Source**",
        "",
        f"```{{literalinclude}} /{Path(inspect.getsourcefile(cls)).relative_to(ROOT)}",
        ":language: python",
        "```",
        "",
    ]
    return "\n".join(lines)


def write_pages(folder):
    """Pages of the built systems and their index; returns their keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.md"), *folder.glob("*.svg")):
        old.unlink()
    rows = catalogue()
    built = [k for k in rows.index if rows.loc[k, "status"] != "planned"]
    for key in built:
        (folder / f"{key}.md").write_text(page(key, rows.loc[key], folder), encoding="utf-8")
    table = ["| system | for | family | classical rival | state |", "|---|---|---|---|---|"]
    for key, row in rows.iterrows():
        name = f"[{row['system']}](systems/{key}.md)" if key in built else row["system"]
        table.append(f"| {name} | {part_of(row['section'])} | {row['family']} | {row['baseline']} | {row['status']} |")
    head = ["# All systems", "", f"{len(built)} of {len(rows)} are built. Each page is made from the class itself.", ""]
    (folder.parent / "all_systems.md").write_text("\n".join([*head, *table, ""]), encoding="utf-8")
    return built


if __name__ == "__main__":
    sys.exit(print(write_pages(ROOT / "book/systems")))
