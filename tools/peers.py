"""Equality with other packages, in an environment of its own (``.venv-peers``), so that theirs never meets ours."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".venv-peers"
PACKAGES = ["scvi-tools==1.4.2", "tangram-sc==1.0.4", "pytest"]


def main():
    python = HOME / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (HOME / ".ready").exists():
        venv.create(HOME, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "torch==2.13.0"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-e", str(ROOT), *PACKAGES], check=True)
        (HOME / ".ready").touch()
    return subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/peers"], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
