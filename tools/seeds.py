"""The claims of lessons on five seeds: ``python tools/seeds.py [--write] LESSON.ipynb ... [--seeds 0 1 2]``.

Prints value, limit and range of every claim, so that a limit can be set at about half of its margin. ``--write`` puts the range
into the claim's ``seen=`` and into the line that the lesson printed.
"""

import argparse
import ast
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def claims_of(path, seed):
    """{number of a cell: [(text, value, below, above, holds)]} of one run; a claim that fails does not stop it."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "claims.tsv"
        log.touch()

        def note(cell, cell_index, **_):
            lines = log.read_text(encoding="utf-8").splitlines()[sum(map(len, found.values())) :]
            if lines:
                found[cell_index] = [line.split("\t") for line in lines]

        env = os.environ | {"SCDL_TEACH_SEED": str(seed), "SCDL_TEACH_CLAIMS": str(log), "SCDL_TEACH_PROGRESS": "off"}
        nb, place = nbformat.read(path, as_version=4), {"metadata": {"path": str(Path(path).parent)}}
        NotebookClient(nb, timeout=600, kernel_name="python3", resources=place, on_cell_executed=note).execute(env=env)
    return found


def ranges(runs):
    """{number of a cell: [(text, lowest, highest, below, above, failures)]} over the runs."""
    out = {}
    for i, claims in runs[0].items():
        values = [[float(run[i][k][1]) for run in runs] for k in range(len(claims))]
        failed = [sum(run[i][k][4] != "True" for run in runs) for k in range(len(claims))]
        out[i] = [(c[0], min(v), max(v), c[2], c[3], f) for c, v, f in zip(claims, values, failed, strict=True)]
    return out


def sites(source):
    """The calls of ``claim`` in a cell, in the order in which they stand; magics and shell lines are skipped."""
    lines = [
        " " * (len(line) - len(line.lstrip())) + "pass" if line.lstrip()[:1] in "%!" else line for line in source.split("\n")
    ]
    calls = [n for n in ast.walk(ast.parse("\n".join(lines))) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "claim"]
    return sorted(calls, key=lambda n: (n.lineno, n.col_offset))


def at(source, line, column):
    """The place in the text of a line and a column in bytes, as ``ast`` counts."""
    lines = source.split("\n")
    return sum(len(text) + 1 for text in lines[: line - 1]) + len(lines[line - 1].encode()[:column].decode())


def in_words(low, high):
    """``0.42 to 0.431``, ``31.3 to 2,220``; one number where they are the same."""
    low, high = (f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}" for v in (low, high))
    return low if low == high else f"{low} to {high}"


WANTED = re.compile(r", wanted ([^;\n]*)(?:; five seeds gave [^\n]*)?")


def printed(outputs, found):
    """The ranges into the lines that the claims of a cell printed."""
    for out in outputs:
        if len(WANTED.findall(out.get("text", ""))) == len(found):
            each = iter(found)
            out["text"] = WANTED.sub(lambda m: f", wanted {m[1]}; five seeds gave {in_words(*next(each)[1:3])}", out["text"])


def filled(source, found):
    """The cell with every claim's range in its ``seen=``."""
    for call, (_, low, high, *_) in reversed(list(zip(sites(source), found, strict=True))):
        text = f'"{in_words(low, high)}"'
        old = next((k.value for k in call.keywords if k.arg == "seen"), None)
        if old is None:
            end = at(source, call.end_lineno, call.end_col_offset) - 1
            before = source[:end].rstrip()
            many = source[len(before) : end]  # the line break before the bracket, where there is one
            comma = "" if before.endswith(",") else ","
            room = f"\n{' ' * (call.col_offset + 4)}seen={text}," if "\n" in many else f" seen={text}"
            source = before + comma + room + many + source[end:]
        else:
            start, end = at(source, old.lineno, old.col_offset), at(source, old.end_lineno, old.end_col_offset)
            source = source[:start] + text + source[end:]
    return source


def write(path, found):
    """The ranges into the notebook; the cells whose claims stand in a loop are named."""
    nb = nbformat.read(path, as_version=4)
    for i, claims in found.items():
        if len(sites(nb.cells[i].source)) != len(claims):
            print(f"cell {i} makes {len(claims)} claims in {len(sites(nb.cells[i].source))} calls: write its ranges by hand")
        else:
            nb.cells[i].source = filled(nb.cells[i].source, claims)
            printed(nb.cells[i].outputs, claims)
    nbformat.write(nb, path)


def main(paths, seeds, writes):
    failures = 0
    for path in paths:
        found = ranges([claims_of(path, seed) for seed in seeds])
        for text, low, high, below, above, failed in (c for claims in found.values() for c in claims):
            print(f"{low:9.4g} to {high:9.4g}   below {below}, above {above}   {text}{'   FAILS' * (failed > 0)}")
            failures += failed
        print(f"{path}: {sum(map(len, found.values()))} claims on seeds {list(seeds)}", flush=True)
        if writes:
            write(path, found)
    print(f"{failures} failed")
    return int(failures > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="+")
    parser.add_argument("--seeds", nargs="*", type=int, default=range(5))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    sys.exit(main(given.lessons, given.seeds, given.write))
