"""The claims of a lesson on five seeds: ``python tools/seeds.py notebooks/00_start/0001_tour.ipynb [seed ...]``.

Prints value, limit and range of every claim, so that a limit can be set at about half of its margin.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def claims_of(path, seed):
    """[(text, value, below, above, holds)] of one run; a claim that fails does not stop it."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "claims.tsv"
        env = os.environ | {"SCDL_TEACH_SEED": str(seed), "SCDL_TEACH_CLAIMS": str(log), "SCDL_TEACH_PROGRESS": "off"}
        nb = nbformat.read(path, as_version=4)
        client = NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(Path(path).parent)}})
        client.execute(env=env)
        return [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]


def main(path, *seeds):
    runs = {seed: claims_of(path, seed) for seed in map(int, seeds or range(5))}
    first = next(iter(runs.values()))
    failed = 0
    for i, (text, _, below, above, _) in enumerate(first):
        values = [float(run[i][1]) for run in runs.values()]
        failed += sum(run[i][4] != "True" for run in runs.values())
        print(f"{min(values):9.4g} to {max(values):9.4g}   below {below}, above {above}   {text}")
    print(f"{len(first)} claims on seeds {list(runs)}: {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
