"""Equality with other packages, in an environment of its own (``.venv-peers``), so that theirs never meets ours.

``python tools/peers.py`` makes the environment if needed and runs ``tests/peers`` in it; ``--record`` writes the fixtures anew.
"""

import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".venv-peers"
TORCH = os.environ.get("TORCH", "torch==2.13.0")  # first and alone: the others would choose a build with gigabytes of CUDA
PACKAGES = ["scvi-tools==1.4.2", "tangram-sc==1.0.4", "scib-metrics==0.5.10", "pytest"]


def environment():
    """The Python of the peers; their environment is made when it is not there, or was made for other packages."""
    python, ready = HOME / ("Scripts" if sys.platform == "win32" else "bin") / "python", HOME / ".ready"
    wanted = "\n".join([TORCH, *PACKAGES])
    if not ready.exists() or ready.read_text(encoding="utf-8") != wanted:
        start = time.perf_counter()
        venv.create(HOME, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, "-e", str(ROOT), *PACKAGES], check=True)
        ready.write_text(wanted, encoding="utf-8")
        print(f".venv-peers made in {time.perf_counter() - start:.0f} s", flush=True)
    return python


def main():
    python = environment()
    if "--record" in sys.argv:
        return subprocess.run([python, "tests/peers/record.py"], cwd=ROOT).returncode
    return subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/peers"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
