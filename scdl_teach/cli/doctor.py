"""``scdl-teach doctor``: looks at the installation; each problem comes with the command that mends it.

A check is a function that returns (status, what was found, how to mend it); status is OK, HINT (works, could be better) or
BROKEN (exit code 1).
"""

import importlib.metadata as metadata
import json
import os
import platform
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from . import commands

OK, HINT, BROKEN = "ok", "hint", "broken"
NAME = "scdl-teach"
WINDOWS = os.name == "nt"
PYTHONS = ("3.11", "3.12", "3.13")
# what the tests passed with: the version of constraints.txt, and the newest at the end of November 2026
TESTED = {
    "torch": ("2.13.0", "2.14.1"),
    "anndata": ("0.12.19", "0.13.4"),
    "h5py": ("3.16.0",),
    "lightning-fabric": ("2.6.6",),
    "matplotlib": ("3.11.2",),
    "mudata": ("0.3.10", "0.4.1"),
    "numpy": ("2.4.6", "2.5.5"),
    "pandas": ("2.3.3", "3.1.1"),
    "scanpy": ("1.11.5", "1.12.4"),
    "scikit-learn": ("1.9.1",),
    "scipy": ("1.17.1", "1.18.1"),
    "zarr": ("3.1.6", "3.4.2"),
}
MALICIOUS = {"lightning-fabric": ("2.6.2", "2.6.3")}  # the releases of these numbers of its sister package lightning


def pip(what):
    """The command that installs into this very environment."""
    exe = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    with_pip = f"{exe} -m pip install" if find_spec("pip") else f"uv pip install --python {exe}"
    return f"{with_pip} {what}"


def extra(*names):
    """... with some extras, from the checkout if this is one."""
    checkout = (commands.ROOT / "pyproject.toml").is_file()
    return pip(f'-e "{commands.ROOT}[{",".join(names)}]"' if checkout else f'"{NAME}[{",".join(names)}]"')


def export(name, value):
    return f"setx {name} {value}" if WINDOWS else f"export {name}={value}"


def requirements():
    """``{"": [requirement, ...], "lab": [...], ...}``: what the package asks for, by extra."""
    from packaging.requirements import Requirement

    out = {"": []}
    for text in metadata.requires(NAME) or []:
        wanted = Requirement(text)
        under = re.search(r"extra == ['\"]([\w-]+)", str(wanted.marker or ""))
        if wanted.name != NAME:  # an extra made of the others
            out.setdefault(under[1] if under else "", []).append(wanted)
    return out


def installed(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def unmet(wanted):
    """The requirements that are missing or too old, as sentences and as words for pip."""
    has = {w: installed(w.name) for w in wanted}
    bad = {w: v for w, v in has.items() if v is None or not w.specifier.contains(v, prereleases=True)}
    said = [f"{w.name} is missing" if v is None else f"{w.name} {v}, wanted {w.specifier}" for w, v in bad.items()]
    return said, " ".join(f'"{w.name}{w.specifier}"' for w in bad)


# -- the checks ----------------------------------------------------------------------------------------
def python():
    needs = metadata.metadata(NAME).get("Requires-Python") or ">=3.11"
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    if not SpecifierSet(needs).contains(here, prereleases=True):
        return BROKEN, f"{here}, wanted {needs}", f"make a new environment with Python {needs}, and install there"
    if tuple(map(int, here.split(".")[:2])) > tuple(map(int, PYTHONS[-1].split("."))):
        found = f"{here} is newer than the Pythons that were tested ({', '.join(PYTHONS)}): it may work"
        return HINT, found, f"if something fails, make a new environment with Python {PYTHONS[-1]}"
    return OK, f"{here} ({sys.executable})", ""


def packages():
    for name, numbers in MALICIOUS.items():
        if installed(name) in numbers:
            found = f"{name} {installed(name)}: this is the number of a malicious release (of its sister package); use another"
            return BROKEN, found, pip(f'--upgrade "{name}!={",!=".join(numbers)}"')
    wanted = requirements()[""]
    said, words = unmet(wanted)
    if said:
        return BROKEN, "; ".join(said), pip(f"--upgrade {words}")
    shown = ", ".join(f"{n} {installed(n)}" for n in ("torch", "scanpy", "anndata", "numpy"))
    return OK, f"all {len(wanted)} as wanted: {shown}", ""


def generation(version):
    """The part of a version that changes when meanings do: the first number, of 0.x the first two."""
    numbers = version.split(".")
    return numbers[: 2 if numbers[0] == "0" else 1]


def tested():
    """Are the packages of the major versions that the tests passed with?"""
    has = {n: installed(n) for n in TESTED}
    known = {n: " and ".join(versions) for n, versions in TESTED.items()}
    odd = [n for n, v in has.items() if v and generation(v) not in map(generation, TESTED[n])]
    if not odd:
        return OK, f"tested with Python {', '.join(PYTHONS)}; {', '.join(f'{n} {v}' for n, v in known.items())}", ""
    said = ", ".join(f"{n} {has[n]} (tested with {known[n]})" for n in odd)
    found = f"of another major version than was tested: {said}; if something fails, take the tested one"
    return HINT, found, pip(" ".join(f'"{n}=={TESTED[n][0]}"' for n in odd))


def extras():
    """What the lessons, the tests and the book need beside."""
    lacking = {name: unmet(wanted)[0] for name, wanted in requirements().items() if name not in ("", "all")}
    missing = {n: said for n, said in lacking.items() if said}
    there = ", ".join(n for n in lacking if n not in missing) or "none"
    if not missing:
        return OK, f"installed: {there}", ""
    return HINT, f"installed: {there}; " + "; ".join(f"{n}: {', '.join(s)}" for n, s in missing.items()), extra(*missing)


def device():
    try:
        import torch
    except Exception as e:  # a broken torch raises what it likes
        return BROKEN, f"torch cannot be imported ({type(e).__name__}: {e})", pip("--force-reinstall torch")
    if torch.cuda.is_available():
        return OK, f"cuda: {torch.cuda.get_device_name()}", ""
    if torch.backends.mps.is_available():
        return OK, "mps (Apple)", ""
    if shutil.which("nvidia-smi"):
        what = f"cpu; there is an NVIDIA driver, but torch {torch.__version__} cannot use it"
        return HINT, what, "install the CUDA build of torch that fits your driver: https://pytorch.org/get-started/locally/"
    return OK, "cpu (enough for all lessons)", ""


def cores():
    """Those we may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads():
    import torch

    used, has, word = torch.get_num_threads(), cores(), os.environ.get("OMP_NUM_THREADS", "not set")
    found = f"torch uses {used} on {has} cores; OMP_NUM_THREADS is {word}"
    if used > 1 and (has <= 4 or used > has):
        return HINT, f"{found}: small networks run many times slower when threads fight", export("OMP_NUM_THREADS", 1)
    if word != "not set" and has > used and "NUMBA_NUM_THREADS" not in os.environ:
        why = f"{found}, but scanpy's numba sets torch back to all cores"
        return HINT, why, export("NUMBA_NUM_THREADS", used)
    return OK, found, ""


def training():
    """A small network on simulated cells, on the device that ``fit`` would choose."""
    from ..core.registry import get
    from ..simulate import counts

    cells = counts(n=60, genes=30)
    model = get("dca")(epochs=2).fit(cells, progress=False)
    model.annotate(cells)
    return OK, f"DCA learns from 60 simulated cells on {model.device}", ""


def restored():
    inside = (commands.ROOT / "pyproject.toml").is_file()
    return f'git -C "{commands.ROOT}" checkout -- data' if inside else pip(f"--force-reinstall --no-deps {NAME}")


def carried_data():
    """Every file of ``sets.csv``, byte for byte."""
    import pandas as pd
    import pooch

    from ..datasets.download import folder

    place = folder()
    if not (place / "sets.csv").is_file():
        return BROKEN, f"{place} holds no sets.csv", restored()
    sets = pd.read_csv(place / "sets.csv")
    lost = [f for f in sets["file"] if not (place / f).is_file()]
    other = [f for f, s in zip(sets["file"], sets["sha256"]) if f not in lost and pooch.file_hash(str(place / f)) != s]
    if lost or other:
        said = [f"missing: {', '.join(lost)}"] * bool(lost) + [f"not the published file: {', '.join(other)}"] * bool(other)
        return BROKEN, f"{place}: {'; '.join(said)}", restored()
    return OK, f"{len(sets)} sets in {place}, checksums right", ""


def downloads():
    """Can the cache be written, and what does it hold?"""
    from ..datasets.download import cache_folder, registry

    place = cache_folder()
    try:
        commands.probe(next(p for p in (place, *place.absolute().parents) if p.exists()))
    except ValueError as e:
        return BROKEN, f"{place}: {e}", export("SCDL_TEACH_CACHE", "A_FOLDER_OF_YOURS")
    files = registry().index
    return OK, f"{sum((place / f).is_file() for f in files)} of {len(files)} files in {place}", ""


def mirror():
    """The folder that replaces the network, complete and byte for byte."""
    import pooch

    from ..datasets.download import MIRROR, registry

    if not os.environ.get(MIRROR):
        return OK, f"not set ({MIRROR}): downloads come from the network", ""
    place, files = Path(os.environ[MIRROR]), registry()["sha256"]
    mend = f"with a network: SCDL_TEACH_CACHE={place} {MIRROR}= {NAME} data fetch --all"
    if not place.is_dir():
        return BROKEN, f"{MIRROR} names {place}, which is no folder", mend
    lost = [f for f in files.index if not (place / f).is_file()]
    wrong = [f for f, s in files.items() if f not in lost and pooch.file_hash(str(place / f)) != s]
    if wrong:
        return BROKEN, f"{place}: not the published file: {', '.join(wrong)}", mend
    if lost:
        return HINT, f"{place} lacks {len(lost)} of {len(files)} files: {', '.join(lost[:3])} ...", mend
    return OK, f"{place}, all {len(files)} files, checksums right", ""


def lessons():
    found = commands.lessons()
    if not found:
        mend = f"run {NAME} in a checkout of the project (a git clone): its folder notebooks/ holds them"
        return HINT, "none: they are not part of the wheel", mend
    return OK, f"{len(found)} in {Path(*next(iter(found.values())).parts[:-2])}", ""


def jupyter():
    """What opens and what runs the lessons."""
    needed = {"jupyterlab": "lab", "nbconvert": "test", "ipykernel": "test"}
    missing = [n for n in needed if find_spec(n) is None]
    if missing:
        return HINT, f"{', '.join(missing)} missing: lessons cannot be opened or run", extra("lab", "test")
    return OK, ", ".join(f"{n} {installed(n)}" for n in needed), ""


def disk():
    """Room where results and downloads go."""
    from ..datasets.download import cache_folder

    cache = next(p for p in (cache_folder(), *cache_folder().absolute().parents) if p.exists())
    free = {p: shutil.disk_usage(p).free // 1e8 / 10 for p in (Path.cwd(), cache)}
    least = min(free, key=free.get)
    found = f"{free[least]} GB in {least}"
    if free[least] < 1:
        return (
            BROKEN if free[least] < 0.1 else HINT,
            found,
            f"make room, or move the cache: {export('SCDL_TEACH_CACHE', 'FOLDER')}",
        )
    return OK, found, ""


CHECKS = {
    "Python": python,
    "packages": packages,
    "versions": tested,
    "extras": extras,
    "device": device,
    "threads": threads,
    "training": training,
    "data sets": carried_data,
    "downloads": downloads,
    "mirror": mirror,
    "lessons": lessons,
    "Jupyter": jupyter,
    "free disk": disk,
}


# -- the report ----------------------------------------------------------------------------------------
def examine():
    """All checks; one that fails itself is a finding like the others."""
    out = []
    for name, check in CHECKS.items():
        try:
            status, found, mend = check()
        except ImportError as e:
            status, found, mend = BROKEN, f"{e.name or e} cannot be imported", pip(f"--force-reinstall {e.name or NAME}")
        except Exception as e:
            status, found = BROKEN, f"{type(e).__name__}: {e}"
            mend = f"{NAME} doctor --json > report.json, and report it"
        out.append({"check": name, "status": status, "found": " ".join(found.split()), "mend": mend})
    return out


def report(as_json=False):
    """Print what was found; the exit code."""
    from rich.console import Console

    with Console(stderr=True).status("looking at the installation"):
        found = examine()
    if as_json:
        typer.echo(json.dumps(surroundings() | {"checks": found}, indent=1))
    else:
        commands.table(["check", "status", "found"], [[c["check"], c["status"], c["found"]] for c in found])
        advise([c for c in found if c["mend"]])
    return int(any(c["status"] == BROKEN for c in found))


def surroundings():
    """What a report needs beside the checks."""
    wanted = sorted({w.name for group in requirements().values() for w in group})
    words = {k: v for k, v in os.environ.items() if k.startswith(("SCDL_TEACH_", "OMP_", "MKL_", "CUDA_VISIBLE"))}
    versions = {n: installed(n) for n in wanted}
    about = {"scdl-teach": commands.version(), "python": sys.version, "platform": platform.platform(), "cores": cores()}
    return about | {"environment": words, "packages": versions}


def advise(problems):
    """The commands, each on a line of its own so that it can be copied."""
    if not problems:
        return typer.echo("\nall is well")
    broken = sum(c["status"] == BROKEN for c in problems)
    typer.echo(f"\n{broken} broken, {len(problems) - broken} that could be better. What mends it:" if broken else "\nhints:")
    for c in problems:
        typer.echo(f"  {c['check']}:\n    {c['mend']}")
