#!/usr/bin/env bash
# Run lessons from a clean kernel and store what they show: tools/execute.sh notebooks/00_start/0001_tour.ipynb ...
# A py:percent file of the same name beside the notebook (while authoring) is turned into it first.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONHASHSEED=0 SCDL_TEACH_PROGRESS=lines
for nb in "$@"; do
  nb=${nb%.py}; nb=${nb%.ipynb}
  [ -f "$nb.py" ] && jupytext --quiet --to ipynb --update "$nb.py"
  jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
    --ExecutePreprocessor.timeout=600 --ExecutePreprocessor.kernel_name=python3 --log-level=ERROR "$nb.ipynb"
  python tools/shrink_figures.py "$nb.ipynb"
done
