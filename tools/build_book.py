"""Build the book offline and without a warning: pages of the systems, MathJax, jupyter-book, a look for outside addresses."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"""(?:src|import|href)\s*=?\s*["'(][^"')]*//[^"')]*(?:cdn|unpkg|jsdelivr|cloudflare|googleapis)[^"')]*""")


def mathjax():
    """MathJax comes from a package, so that pages of a classroom without network show formulas."""
    (found,) = [f for f in files("sphinx-mathjax-offline") if f.name == "tex-svg-full.js"]
    target = ROOT / "book/_static/mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(found.locate(), target)


def outside(html):
    """Every script, style or import that a page would ask another host for."""
    found = []
    for page in sorted(html.rglob("*.html")):
        found += [f"{page.relative_to(html)}: {m.group()}" for m in OUTSIDE.finditer(page.read_text(encoding="utf-8"))]
    return found


def main():
    sys.path.insert(0, str(ROOT / "tools"))
    from system_pages import write_pages

    mathjax()
    write_pages(ROOT / "book/systems")
    command = ["jupyter-book", "build", ".", "--config", "book/_config.yml", "--toc", "book/_toc.yml", "--path-output", "book"]
    exe = Path(sys.executable).parent / "jupyter-book"
    command[0] = str(exe) if exe.exists() else "jupyter-book"
    done = subprocess.run([*command, "-W", "--keep-going", "-q"], cwd=ROOT)
    if done.returncode:
        return done.returncode
    html = ROOT / "book/_build/html"
    if found := outside(html):
        print("\n".join(found[:10]), "\nthe book asks another host", file=sys.stderr)
        return 1
    print(f"{len(list(html.rglob('*.html')))} pages; open book/_build/html/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
