"""The GPU run itself, rehearsed on the CPU; on a machine with a GPU it is ``python tests/gpu/run.py``."""

import csv
import subprocess
import sys
from pathlib import Path

import torch

RUN = Path(__file__).with_name("run.py")


def rehearsed(*more):
    """Without scanpy and umap, which a machine with a GPU may lack."""
    code = f"import sys, runpy; sys.modules.update(scanpy=None, umap=None); sys.argv = ['run.py', *{list(more)!r}]; "
    code += f"runpy.run_path({str(RUN)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_without_a_gpu_nothing_is_done(tmp_path):
    if torch.cuda.is_available():
        return
    done = rehearsed("--out", str(tmp_path / "gpu.csv"))
    assert done.returncode == 0 and "no CUDA device" in done.stdout and not list(tmp_path.iterdir())


def test_rehearsal_compares_and_names_what_fails(tmp_path):
    done = rehearsed("--device", "cpu", "--out", str(tmp_path / "gpu.csv"), "--only", "ffnn", "translate", "magan", "nothing")
    rows = {r["key"]: r for r in csv.DictReader((tmp_path / "gpu.csv").read_text().splitlines())}
    assert [rows[k]["verdict"] for k in ("ffnn", "translate", "magan")] == ["same"] * 3, done.stdout
    assert rows["nothing"]["verdict"].startswith("FAILED: DataError") and done.returncode == 1
