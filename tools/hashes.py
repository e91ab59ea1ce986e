"""``requirements-hashed.txt``: every file that an installation may use, by its sum, for wheels of Python 3.11 and later.

uv (``pip install uv``, in an environment of its own) resolves what ``pyproject.toml`` asks for at the versions of
``constraints.txt``, for all Pythons and systems at once. What the CUDA build of torch brings on Linux is left out.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "requirements-hashed.txt"
CUDA = ("nvidia-", "cuda-", "triton==")
COMMAND = (
    "uv pip compile --quiet --universal --python-version 3.11 --all-extras --constraints constraints.txt --only-binary :all: "
    "--emit-build-options --generate-hashes --no-annotate --no-header pyproject.toml"
)
HEAD = """\
# Every package of constraints.txt with the sums of its files: nothing else gets installed. For courses, on Python 3.11 to 3.13:
#   pip install torch=={torch}            on Linux first (without an NVIDIA card: with PyTorch's own index, see README.md)
#   pip install --require-hashes -r requirements-hashed.txt
#   pip install --no-deps --no-build-isolation -e .
# On Linux torch comes first and unchecked: its CPU build is another file than the sums below know, its CUDA build asks for 6 GB
# of libraries that most course rooms have no use for, and are left out here. A torch of this version that is there is kept.
# Made by `python tools/hashes.py` (uv on the path), after a change of pyproject.toml or constraints.txt.
"""


def entries(text):
    """What uv says, cut at each line that begins a requirement."""
    return [e for e in re.split(r"^(?=\S)", text, flags=re.M) if e.strip()]


def main():
    done = subprocess.run(COMMAND.split(), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    kept = [e for e in entries(done.stdout) if not e.startswith(CUDA)]
    (torch,) = re.findall(r"^torch==(\S+)", done.stdout, re.M)
    FILE.write_text(HEAD.format(torch=torch) + "".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
