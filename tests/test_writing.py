"""Nothing is lost or half-written: several runs at once, killed runs, full disks, tables that cannot be written again."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdl_teach import DataError, DataWarning
from scdl_teach.datasets import writing

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals and limits")
HOLD = """
import sys, time
from scdl_teach.datasets import writing
with writing.staging(sys.argv[1]) as new:
    new.write_text("half")
    sys.stdout.write("there\\n"), sys.stdout.flush()
    time.sleep(60)
"""


def table(n=20, genes=8):
    rng = np.random.default_rng(0)
    out = AnnData(sp.csr_matrix(rng.poisson(1.0, (n, genes)).astype("f4")))
    out.obs["type"] = np.where(np.arange(n) % 2, "T", "B")
    out.obsm["X_pca"] = rng.normal(size=(n, 3))
    out.layers["logs"] = np.log1p(out.X.toarray())
    return out


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def old(folder):
    for p in folder.iterdir():
        os.utime(p, (time.time() - 100,) * 2)


# -- several runs -------------------------------------------------------------------------------------------
def test_runs_to_one_output_do_not_meet(tmp_path):
    """Four at once: one table stands there in the end, whole, and the others say where theirs is."""
    told = []

    def run():
        try:
            writing.write(table(), tmp_path / "out.h5ad")
        except DataError as e:
            told.append(Path(str(e).split("move ")[1].split(" to another")[0]))

    runs = [threading.Thread(target=run) for _ in range(4)]
    for r in runs:
        r.start()
    for r in runs:
        r.join()
    assert len(told) == 3 and all(anndata.read_h5ad(p).n_obs == 20 for p in [tmp_path / "out.h5ad", *told])


def test_an_output_that_came_in_between_stays(tmp_path):
    with (
        pytest.raises(DataError, match="out could not be written .*another run .*what was made is kept: move (.*out) to another"),
        writing.staging(tmp_path / "out") as new,
    ):
        new.write_text("mine")
        (tmp_path / "out").write_text("theirs")
    assert (tmp_path / "out").read_text() == "theirs" and new.read_text() == "mine"
    old(tmp_path)
    with writing.staging(tmp_path / "out", force=True) as other:
        other.write_text("new")
    assert (tmp_path / "out").read_text() == "new" and new.read_text() == "mine", "what is kept is not swept"


@POSIX
def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not(tmp_path):
    run = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"there\n"
    (left,) = tmp_path.iterdir()
    for other in (".out-mine.part", ".out-notes"):  # a user's own
        (tmp_path / other).mkdir()
        (tmp_path / other / "thesis.txt").write_text("")
    old(tmp_path)
    writing.sweep(tmp_path, "out")
    assert left.exists(), "its writer lives"
    run.kill()
    run.wait()
    run.stdout.close()
    old(tmp_path)
    with writing.staging(tmp_path / "out") as new:
        new.write_text("whole")
    assert names(tmp_path) == [".out-mine.part", ".out-notes", "out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), writing.staging(tmp_path / "below" / "out") as new:
        new.mkdir()
        (new / "half").write_text("")
        raise error
    assert names(tmp_path) == []


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    (tmp_path / "out").mkdir()
    with writing.staging(tmp_path / "out") as new:
        new.mkdir()
        (new / "result").write_text("here")
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "result").read_text() == "here"
    with (
        pytest.raises(DataError, match="what was made is kept: move .*late to another place"),
        writing.staging(tmp_path / "late") as new,
    ):
        new.mkdir()
        (new / "result").write_text("")
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "other").write_text("came in between")
    assert names(new) == ["result"] and names(tmp_path / "late") == ["other"]


# -- full disks ---------------------------------------------------------------------------------------------
def test_room_is_known_before_the_work(tmp_path, monkeypatch):
    writing.room(tmp_path / "out", 10_000)
    free = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    with pytest.raises(DataError, match="about 7 MB are needed in .* and 5 MB are free, .*make room, or give a place on another"):
        writing.room(tmp_path / "not" / "yet", 7_000_000)


@POSIX
def test_a_quota_is_known_before_the_work(tmp_path, monkeypatch):
    def over(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "posix_fallocate", over)
    with pytest.raises(DataError, match="or fewer by a quota"):
        writing.room(tmp_path / "out", 10)


@pytest.mark.parametrize("kind", ["csr", "dense", "csc"])
def test_the_size_is_that_of_the_file(tmp_path, kind):
    a = table(500, 300)
    a.X = {"csr": a.X, "dense": a.X.toarray(), "csc": a.X.tocsc()}[kind]
    a.raw = a.copy()
    writing.write(a, tmp_path / "a.h5ad")
    assert 0.8 < writing.size_of(a) / (tmp_path / "a.h5ad").stat().st_size < 1.25
    more = writing.size_of(a, ["layers/dca", "obsm/X_dca", "obs/dca_cluster"]) - writing.size_of(a)
    assert 500 * 300 * 4 < more < 500 * 300 * 5.5


FULL = """
import resource, sys, numpy as np, anndata
from scdl_teach.datasets import writing
a = anndata.AnnData(np.random.rand(300, 300))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
if len(sys.argv) > 2:
    writing.room = lambda *_: None
try:
    writing.write(a, sys.argv[1])
except writing.DataError as e:
    sys.stdout.write(str(e))
"""


@POSIX
@pytest.mark.parametrize("how", [[], ["unseen"]])
def test_a_disk_that_fills_while_writing_ends_in_a_sentence(tmp_path, how):
    """Seen before HDF5 begins, and where it is not: HDF5's own failure (at times it ended in a segmentation fault)."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "a.h5ad"), *how], capture_output=True, text=True)
    assert done.returncode == 0 and "a.h5ad could not be written (" in done.stdout, done.stderr[-500:]
    assert "nothing was kept; give a place on another disk" in done.stdout and names(tmp_path) == []


def test_a_result_is_rescued_to_another_place(tmp_path, monkeypatch):
    put, (home, spare) = writing.put, (tmp_path / "home", tmp_path / "spare")
    home.mkdir()
    spare.mkdir()

    def full(data, path):
        if home in Path(path).parents:
            Path(path).write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
        put(data, path)

    monkeypatch.setattr(writing, "put", full)
    monkeypatch.setattr(tempfile, "tempdir", str(spare))
    with pytest.raises(DataError, match="No space left on device\\); the result is kept in .*out.h5ad: move it") as e:
        writing.write(table(), home / "out.h5ad")
    kept = str(e.value).split("kept in ")[1].split(": move")[0]
    assert anndata.read_h5ad(kept).n_obs == 20 and names(home) == []


# -- what can be read can be written ------------------------------------------------------------------------
def written_again(a, tmp_path):
    before = {k: a.obs[k].tolist() for k in a.obs}
    writing.writable(a, "my.h5ad")
    writing.write(a, tmp_path / "again.h5ad", force=True)
    out = anndata.read_h5ad(tmp_path / "again.h5ad")
    assert (out.X != a.X).nnz == 0 and list(out.obs_names) == list(a.obs_names)
    assert all(
        out.obs[k].astype(object).where(out.obs[k].notna(), None).tolist() == before[k] for k in set(out.obs) & set(before)
    )
    return out


def test_nullable_strings_are_written(tmp_path):
    a = table()
    a.obs["donor"] = pd.array(["x", "y"] * 10, dtype="string")
    a.obs.index, a.var.index = a.obs.index.astype("string"), a.var.index.astype("string")
    with anndata.settings.override(allow_write_nullable_strings=False):
        assert written_again(a, tmp_path).obs["donor"].tolist() == ["x", "y"] * 10
        assert not anndata.settings.allow_write_nullable_strings, "the user's setting stays"


@pytest.mark.parametrize("frame", ["obs", "var", "raw.var"])
@pytest.mark.parametrize("same", [True, False])
def test_reserved_names_of_seuratdisk(tmp_path, frame, same):
    a = table()
    a.raw = a.copy()
    part = {"obs": a.obs, "var": a.var, "raw.var": a.raw.var}[frame]
    part["_index"] = part.index.to_numpy() if same else [f"n{i}" for i in range(len(part))]
    with pytest.warns(DataWarning, match=f"{frame} has a column '_index', .*{'repeats the names' if same else 'called .index.'}"):
        out = written_again(a, tmp_path)
    now = {"obs": out.obs, "var": out.var, "raw.var": out.raw.var}[frame]
    assert "_index" not in now and ("index" in now) != same
    assert same or now["index"].tolist()[:2] == ["n0", "n1"]


def test_names_of_the_names(tmp_path):
    a = table()
    a.obs.index.name = "type"  # which is a column, too
    assert written_again(a, tmp_path).obs["type"].tolist() == ["B", "T"] * 10
    a.obs.index.name = "_index"
    written_again(a, tmp_path)


def test_ordinary_tables_pass_in_silence(tmp_path, recwarn):
    a = table()
    a.raw = a.copy()
    a.obs["some"] = pd.Series(["x", None] * 10, index=a.obs_names)
    a.obs["n"], a.obs["yes"], a.obs["few"] = pd.array([1, None] * 10, dtype="Int64"), True, 0.5
    a.obsm["frame"] = pd.DataFrame({"u": np.arange(20.0), "v": ["w"] * 20}, index=a.obs_names)
    a.obsp["d"], a.varm["PCs"], a.varp["c"] = sp.csr_matrix((20, 20)), np.ones((8, 2)), sp.csc_matrix((8, 8))
    a.uns |= {"colors": np.array(["#fff", "#000"]), "deep": {"er": [1, 2], "none": None}, "log1p": {"base": None}}
    kinds = a.obs.dtypes.copy()
    writing.writable(a, "my.h5ad")
    assert (a.obs.dtypes == kinds).all(), "only looked at"
    assert not [w for w in recwarn if w.category is DataWarning]
    writing.write(a, tmp_path / "again.h5ad")
    assert anndata.read_h5ad(tmp_path / "again.h5ad").uns["deep"]["er"].tolist() == [1, 2]


def mixed(a):
    a.obs["mixed"] = [1, "two"] * 10


def strange(a):
    a.uns["mine"] = {"deep": object()}


def complex_frame(a):
    a.obsm["frame"] = pd.DataFrame({"ok": np.ones(20), "odd": [[1], "x"] * 10}, index=a.obs_names)


@pytest.mark.parametrize(
    "break_it,said", [(mixed, "obs\\['mixed'\\]"), (strange, "uns\\['mine'\\]"), (complex_frame, "obsm\\['frame'\\]")]
)
def test_what_cannot_be_written_is_named_before_the_work(break_it, said):
    a = table()
    break_it(a)
    with pytest.raises(DataError, match=f"my.h5ad can be read, but no result could be written with it: {said} \\(.+\\); ") as e:
        writing.writable(a, "my.h5ad")
    assert "\n" not in str(e.value) and len(str(e.value)) < 400
