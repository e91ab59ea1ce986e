"""The doctor: what it finds, what it advises, and its exit code."""

import json
import shutil
import sys
import tempfile
import types

import pandas as pd
import pytest
from typer.testing import CliRunner

from scdl_teach.cli import commands, doctor
from scdl_teach.cli.app import app
from scdl_teach.datasets import download

runner = CliRunner()


def forbidden(**_):
    raise PermissionError(13, "Permission denied")


def test_this_installation():
    done = runner.invoke(app, ["doctor", "--json"])
    told = json.loads(done.stdout)
    status = {c["check"]: c["status"] for c in told["checks"]}
    assert list(status) == list(doctor.CHECKS) and set(status.values()) <= {"ok", "hint", "broken"}
    assert {status[c] for c in ("Python", "packages", "training", "lessons")} == {"ok"}
    assert done.exit_code == int("broken" in status.values())
    assert told["packages"]["torch"] and told["python"] == sys.version and told["cores"] >= 1


def test_the_table_and_the_advice(monkeypatch):
    checks = {
        "good": lambda: (doctor.OK, "well", ""),
        "slow": lambda: (doctor.HINT, "two threads", "export OMP_NUM_THREADS=1"),
    }
    monkeypatch.setattr(doctor, "CHECKS", checks)
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code == 0 and "hints:\n  slow:\n    export OMP_NUM_THREADS=1" in done.stdout
    checks["odd"] = lambda: {}["key"]
    checks["lost"] = lambda: __import__("no_such_package")
    done = runner.invoke(app, ["doctor"])
    assert done.exit_code == 1 and "2 broken, 1 that could be better" in done.stdout and "KeyError: 'key'" in done.stdout
    assert "no_such_package cannot be imported" in done.stdout and "pip install --force-reinstall no_such_package" in done.stdout
    monkeypatch.setattr(doctor, "CHECKS", {"good": checks["good"]})
    assert runner.invoke(app, ["doctor"]).stdout.endswith("all is well\n")


def test_packages_missing_or_old(monkeypatch):
    wanted = [
        "torch>=2.6",
        "numpy>=2",
        'jupyterlab>=4; extra == "lab"',
        'ruff>=0.1; extra == "test"',
        'scdl-teach[lab]; extra == "all"',
    ]
    has = {"torch": "2.13.0+cpu", "numpy": "1.26.4", "ruff": "0.12", "scanpy": "1.11", "anndata": "0.12"}
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(doctor, "installed", has.get)
    status, found, mend = doctor.packages()
    assert status == doctor.BROKEN and found == "numpy 1.26.4, wanted >=2" and mend.endswith('install --upgrade "numpy>=2"')
    status, found, mend = doctor.extras()
    assert status == doctor.HINT and found == "installed: test; lab: jupyterlab is missing" and mend.endswith('[lab]"')
    has |= {"numpy": "2.1", "jupyterlab": "4.4"}
    assert doctor.packages()[0] == doctor.OK and doctor.extras() == (doctor.OK, "installed: lab, test", "")


@pytest.mark.parametrize("number", ["2.6.2", "2.6.3"])
def test_a_number_of_a_malicious_release_is_told_and_changed(monkeypatch, number):
    monkeypatch.setattr(doctor, "installed", lambda name: number)
    status, found, mend = doctor.packages()
    assert status == doctor.BROKEN and f"lightning-fabric {number}" in found and "malicious" in found
    assert mend.endswith('install --upgrade "lightning-fabric!=2.6.2,!=2.6.3"')


def test_python_too_old_or_newer_than_tested(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    assert doctor.python()[0] == doctor.BROKEN
    for here in ("3.14.2", "3.15.0a1", "4.0.0"):
        monkeypatch.setattr(doctor.platform, "python_version", lambda here=here: here)
        status, found, mend = doctor.python()
        assert status == doctor.HINT and "newer" in found and found.startswith(here) and "3.13" in mend
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.13.9")
    assert doctor.python()[0] == doctor.OK


def test_packages_of_another_major_version(monkeypatch):
    has = {n: versions[-1] for n, versions in doctor.TESTED.items()}
    monkeypatch.setattr(doctor, "installed", has.get)
    status, found, mend = doctor.tested()
    assert status == doctor.OK and "pandas 2.3.3 and 3." in found and "3.13" in found and not mend
    has |= {"pandas": "3.99.0", "torch": "2.99.0+cu130", "scanpy": "1.99"}
    assert doctor.tested()[0] == doctor.OK
    has |= {"pandas": "4.0.1", "anndata": "0.14.0", "zarr": None}
    status, found, mend = doctor.tested()
    assert status == doctor.HINT and "another major" in found and "pandas 4.0.1 (tested with 2.3.3 and 3" in found
    assert mend.endswith('install "anndata==0.12.19" "pandas==2.3.3"') and "anndata 0.14.0" in found and "zarr" not in found


@pytest.mark.parametrize(
    ("used", "cores", "wanted"), [(2, 2, "hint"), (1, 2, "ok"), (8, 16, "ok"), (16, 8, "hint"), (4, 4, "hint")]
)
def test_threads(monkeypatch, used, cores, wanted):
    monkeypatch.setattr("torch.get_num_threads", lambda: used)
    monkeypatch.setattr(doctor, "cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    status, _, mend = doctor.threads()
    assert status == wanted and ("OMP_NUM_THREADS" in mend) == (wanted == "hint")


def test_numba_would_raise_the_threads_of_torch(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr(doctor, "cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    status, _, mend = doctor.threads()
    assert status == "hint" and "NUMBA_NUM_THREADS=1" in mend
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert doctor.threads()[0] == "ok"


def test_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor.device()[:2] == (doctor.OK, "cpu (enough for all lessons)")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert doctor.device()[0] == doctor.HINT
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert doctor.device()[1].startswith("mps")


def test_a_changed_or_lost_data_set_is_found(tmp_path, monkeypatch):
    sets = pd.read_csv(download.folder() / "sets.csv").set_index("name").loc[["motifs", "ligands"]]
    monkeypatch.setattr(download, "folder", lambda: tmp_path)
    assert doctor.carried_data()[0] == doctor.BROKEN
    sets.to_csv(tmp_path / "sets.csv")
    for file in sets["file"]:
        shutil.copy(commands.ROOT / "data" / file, tmp_path)
    assert doctor.carried_data()[0] == doctor.OK
    with open(tmp_path / "motifs.csv", "a") as f:
        f.write("x")
    (tmp_path / "ligands.csv").unlink()
    status, found, mend = doctor.carried_data()
    assert (
        status == doctor.BROKEN
        and "missing: ligands.csv; not the published file: motifs.csv" in found
        and "checkout -- data" in mend
    )


def test_downloads_and_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("SCDL_TEACH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SCDL_TEACH_DATA_MIRROR", raising=False)
    assert doctor.downloads()[:2] == (doctor.OK, f"0 of {len(download.registry())} files in {tmp_path / 'cache'}")
    assert not (tmp_path / "cache").exists() and doctor.mirror()[0] == doctor.OK
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", forbidden)
        assert doctor.downloads()[0] == doctor.BROKEN and "SCDL_TEACH_CACHE" in doctor.downloads()[2]
    monkeypatch.setenv("SCDL_TEACH_DATA_MIRROR", str(tmp_path / "none"))
    assert doctor.mirror()[0] == doctor.BROKEN
    monkeypatch.setenv("SCDL_TEACH_DATA_MIRROR", str(tmp_path))
    assert doctor.mirror()[0] == doctor.HINT and "lacks" in doctor.mirror()[1]
    (tmp_path / "mouse_bladder.h5").write_text("odd")
    assert doctor.mirror()[0] == doctor.BROKEN and "mouse_bladder.h5" in doctor.mirror()[1]


def test_lessons_jupyter_and_disk(monkeypatch):
    monkeypatch.setattr(commands, "lessons", dict)
    assert doctor.lessons()[0] == doctor.HINT
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "jupyterlab" else True)
    assert doctor.jupyter()[0] == doctor.HINT and "[lab,test]" in doctor.jupyter()[2]
    for free, wanted in ((5e9, doctor.OK), (5e8, doctor.HINT), (1e6, doctor.BROKEN)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, f=free: types.SimpleNamespace(free=f))
        assert doctor.disk()[0] == wanted
