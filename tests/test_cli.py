"""The command line: what it prints, what it refuses and when, and how it ends."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import anndata
import mudata
import numpy as np
import pytest
from typer.testing import CliRunner

from scdl_teach import datasets, simulate
from scdl_teach.cli import app as cli
from scdl_teach.cli import commands, fitting
from scdl_teach.core import words
from scdl_teach.core.arrays import tables_apart
from scdl_teach.core.fields import DataError
from scdl_teach.datasets import download

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:anndata")  # which Python itself keeps from users
runner = CliRunner()
ALL = [["list"], ["show"], ["fit"], ["lesson"], ["tour"], ["doctor"], ["data"], ["recipe"]]
ALL += [["data", c] for c in ("list", "show", "fetch", "write")] + [["recipe", c] for c in ("list", "copy", "run")]


def call(*args):
    """The result, and its words without the line breaks of a narrow window."""
    done = runner.invoke(cli.app, [str(a) for a in args])
    return done, " ".join(done.output.split())


def refused(*args):
    """Bad input: exit code 2, one sentence, no traceback."""
    done, text = call(*args)
    assert done.exit_code == 2 and text.startswith("scdl-teach: ") and "Traceback" not in text, text
    assert len(done.stderr.strip().splitlines()) == 1
    return text


@pytest.fixture
def cells(tmp_path):
    """A file of 60 cells with its counts in layers/umi, and logarithms in X."""
    a = simulate.counts(n=60, genes=30)
    del a.layers["truth"], a.layers["dropped"]
    a.layers["umi"], a.X = a.X, np.log1p(a.X)
    a.write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


@pytest.fixture
def planned(monkeypatch):
    """A system that is not built, whatever the catalogue says."""
    rows = [r | {"status": "planned"} if r["key"] == "late" else r for r in commands.systems()]
    monkeypatch.setattr(commands, "systems", lambda: rows)
    return "late"


def forbidden(**_):
    raise PermissionError(13, "Permission denied")


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


# -- help ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_shows_examples(command):
    done, _ = call(*command, "--help")
    examples = [s for s in done.output.split("Examples")[1].splitlines() if s.strip().startswith("scdl-teach ")]
    assert done.exit_code == 0 and len(examples) >= (1 if command == ["doctor"] else 2)


def test_top_help_and_version():
    done, text = call("--help")
    assert done.exit_code == 0 and all(f" {code} " in text for code in (0, 1, 2, 130, 143)) and "Exit codes" in text
    assert call("--version")[1].startswith("scdl-teach 0.") and call("--version")[0].exit_code == 0
    assert call("lst")[0].exit_code == 2


def test_help_and_completion_import_nothing_heavy():
    code = "import sys; from scdl_teach.cli.app import app, ALL, SETS, LESSONS; ALL('d'), SETS('m'), LESSONS('0')\n"
    code += "try: app(['--help'])\nexcept SystemExit: print({'torch', 'numpy', 'pandas', 'scanpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_completion(planned):
    assert ("dca", "DCA") in cli.ALL("dc") and "late" in dict(cli.ALL("la"))
    assert {k for k, _ in cli.BUILT("")} == {r["key"] for r in commands.chosen("", "", built=True)} and "late" not in dict(
        cli.BUILT("")
    )
    assert cli.SETS("pb") == ["pbmc", "pbmc_cite"] and commands.data_names() == list(datasets.list().index)
    assert dict(cli.LESSONS("0001")) == {"0001": "0001_tour"} and cli.RECIPES("imp") == ["imputation"]


# -- the catalogue -------------------------------------------------------------------------------------
def test_list():
    done, _ = call("list", "--section", "4.1.3.1", "--built")
    rows = done.stdout.splitlines()
    assert done.exit_code == 0 and rows[0].split() == ["key", "system", "year", "section", "kind", "family", "status", "lesson"]
    assert "dca" in done.stdout and "sedr" not in done.stdout and all(len(r.split("  ")) >= 8 for r in rows)
    assert not set(done.stdout) & set("─│…") and "notebooks/03_imputation/0303_count_models.ipynb" in done.stdout
    kinds = {r["kind"] for r in json.loads(call("list", "--kind", "classical", "--json")[0].stdout)}
    assert kinds == {"classical"}
    assert "there are 2, 2.1, " in refused("list", "--section", "9")
    assert "4.10" not in {r["section"] for r in commands.chosen("4.1", "", False)}


def test_tables_are_drawn_for_a_terminal(capsys):
    commands.drawn(["key", "status"], [["dca", "built"], ["[red]", "planned"]])
    assert "─" in (text := capsys.readouterr().out) and "dca" in text and "[red]" in text


def test_show(planned):
    done, text = call("show", "dca")
    assert done.exit_code == 0 and "Idea" in done.stdout and "**" not in done.stdout and "doi:10.1038/s41467-018-07931-2" in text
    assert "x X cells raw counts" in text and "denoised layers/dca" in text and "epochs 60 300" in text
    assert "notebooks/03_imputation/0303_count_models.ipynb" in text and max(map(len, done.stdout.splitlines())) > 100
    assert "Left out\n" in call("show", "perceptron")[0].stdout
    done, text = call("show", planned)
    assert done.exit_code == 0 and "planned: not built yet" in text and "notebooks/03_imputation/" in text
    assert "did you mean 'dca'?" in refused("show", "dcaa") and "did you mean 'scvi'?" in refused("show", "scVI")
    assert "list` shows all" in refused("show", "zzzzzz")


def test_docstrings_are_shown_as_plain_words():
    """All built systems: no mark of Markdown is left, and what stood in them is there."""
    for row in commands.systems():
        if row["status"] != "planned":
            text = call("show", row["key"])[0].stdout
            left = re.findall(r"`|\*\*[A-Z]|(?<![\w*)])\*(?=\w)[^*]*\w\*", text)
            assert not left, (row["key"], left)
    assert "\nTrap\n" in call("show", "vasc")[0].stdout and "(R/g)**2 mistakes" in call("show", "perceptron")[1]
    assert (
        commands.unmarked("``x`` of *all two*, **most** of a * b, c**2 and d**3") == "x of all two, most of a * b, c**2 and d**3"
    )


def test_meanings_of_hyper_parameters():
    class Said:
        """A.

        Parameters
        ----------
        a, b : two
            lines
        c : one

        Reads
        -----
        x : no
        """

    class Silent:
        pass

    assert words.meanings(Said) == {"a": "two lines", "b": "two lines", "c": "one"} and words.meanings(Silent) == {}


# -- fit -----------------------------------------------------------------------------------------------
def test_fit(cells, tmp_path):
    out, model = tmp_path / "out.h5ad", tmp_path / "model"
    assert "--where x=layers/umi" in runner.invoke(cli.app, ["fit", "dca", str(cells), str(out)]).output.replace("\n", " ")
    assert names(tmp_path) == ["in.h5ad"]
    how = ["--where", "x=layers/umi", "--epochs", "2", "--set", "latent=3", "--set", "hidden=8", "--save", model]
    done, _ = call("fit", "dca", cells, out, *how)
    assert done.exit_code == 0 and done.stdout == f"{out}: obsm/X_dca, layers/dca\n"
    log = done.stderr.splitlines()
    assert "latent=3" in log[0] and "60 x 30" in log[0] and [s.split()[0] for s in log[1:3]] == ["1/2", "2/2"]
    assert "\r" not in done.stderr and "fitted in" in log[3] and names(tmp_path) == ["in.h5ad", "model", "out.h5ad"]
    made = anndata.read_h5ad(out)
    assert made.obsm["X_dca"].shape == (60, 3) and made.layers["dca"].shape == (60, 30)
    assert "exists; give another name, or --force" in refused("fit", "dca", cells, out, *how)
    assert "already holds a model" in refused("fit", "dca", cells, tmp_path / "b.h5ad", *how)
    again, _ = call("fit", "dca", cells, out, *how, "--force", "--progress", "off", "--seed", "1")
    assert again.exit_code == 0 and len(again.stderr.splitlines()) == 3
    assert not np.allclose(anndata.read_h5ad(out).obsm["X_dca"], made.obsm["X_dca"])


def test_fit_on_a_reference(tmp_path):
    old, new = (simulate.counts(n=60, genes=30, seed=s) for s in (0, 1))
    old.obs["batch"], new.obs["batch"] = "a", "b"
    old.write_h5ad(tmp_path / "old.h5ad")
    new.write_h5ad(tmp_path / "new.h5ad")
    kept = ["--set", "encode_batch=true", "--set", "norm=layer", "--epochs", "1", "--save", tmp_path / "ref"]
    assert call("fit", "scvi", tmp_path / "old.h5ad", tmp_path / "a.h5ad", *kept)[0].exit_code == 0
    done, _ = call(
        "fit", "scarches", tmp_path / "new.h5ad", tmp_path / "b.h5ad", "--reference", tmp_path / "ref", "--epochs", "1"
    )
    assert done.exit_code == 0 and "X_scarches" in anndata.read_h5ad(tmp_path / "b.h5ad").obsm, done.output
    text = runner.invoke(cli.app, ["fit", "scarches", str(tmp_path / "new.h5ad"), str(tmp_path / "c.h5ad")]).output
    assert "--reference FOLDER" in text
    assert "builds on no other" in refused(
        "fit", "dca", tmp_path / "new.h5ad", tmp_path / "c.h5ad", "--reference", tmp_path / "ref"
    )
    assert "holds no readable model" in refused(
        "fit", "scarches", tmp_path / "new.h5ad", tmp_path / "c.h5ad", "--reference", tmp_path
    )


def test_two_tables(tmp_path):
    a, b = simulate.counts(n=40, genes=20), simulate.counts(n=30, genes=20, seed=1)
    a.write_h5ad(tmp_path / "one.h5ad")
    with tables_apart():
        mudata.MuData({"cells": a, "spots": b}).write(tmp_path / "both.h5mu")
    assert "mudata.MuData({'cells': ..., 'spots': ...})" in refused("fit", "tangram", tmp_path / "one.h5ad", tmp_path / "o.h5ad")
    assert "call it o.h5mu" in refused("fit", "tangram", tmp_path / "both.h5mu", tmp_path / "o.h5ad")
    done, _ = call("fit", "tangram", tmp_path / "both.h5mu", tmp_path / "o.h5mu", "--epochs", "2")
    assert done.exit_code == 0 and "FutureWarning" not in done.output
    with tables_apart():
        assert "tangram" in mudata.read_h5mu(tmp_path / "o.h5mu")["spots"].layers


def test_what_is_refused_before_anything_is_read(cells, planned, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "read", lambda *_: pytest.fail("the file was read"))
    out = tmp_path / "out.h5ad"
    (tmp_path / "link.h5ad").symlink_to(cells)
    fit = lambda key="dca", source=cells, target=out, *more: refused("fit", key, source, target, *more)
    assert "did you mean 'dca'?" in fit("dcaa")
    assert "list --built` shows what is" in fit(planned)
    assert "did you mean 'in.h5ad'?" in fit("dca", tmp_path / "inn.h5ad")
    assert "is the input itself" in fit("dca", cells, cells, "--force")
    assert "is the input itself" in fit("dca", cells, tmp_path / "link.h5ad", "--force")
    assert "mkdir -p" in fit("dca", cells, tmp_path / "no" / "out.h5ad")
    assert "is a folder" in fit("dca", cells, tmp_path)
    assert "call it out.h5ad" in fit("dca", cells, tmp_path / "out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", forbidden)
        assert f"nothing can be written into {tmp_path} (Permission denied)" in fit("dca", cells, out)
    assert "needs FIELD=PLACE" in fit("dca", cells, out, "--where", "counts")
    assert "needs NAME=VALUE" in fit("dca", cells, out, "--set", "latent")
    assert "is the output itself" in fit("dca", cells, out, "--save", out)
    assert names(tmp_path) == ["in.h5ad", "link.h5ad"]


def test_what_is_refused_before_the_training(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "learn", lambda *_, **__: pytest.fail("the training began"))
    out = tmp_path / "out.h5ad"
    fit = lambda key, source, target, *more: refused("fit", key, source, target, *more)
    with monkeypatch.context() as patch:
        free = shutil.disk_usage(tmp_path)._replace(free=1000)
        patch.setattr(shutil, "disk_usage", lambda place: free)
        assert "make room, or give a place on another disk" in fit("dca", cells, out)
        assert "make room, or give a place on another disk" in refused("data", "write", "two_sources", out)
    assert "it has likelihood=nb-conddisp, hidden=64" in fit("dca", cells, out, "--set", "latnt=3")
    assert "needs a whole number, as latent=32, not 'abc'" in fit("dca", cells, out, "--set", "latent=abc")
    assert "needs a whole number" in fit("dca", cells, out, "--set", "latent=true")
    assert "needs true or false" in fit("scvi", cells, out, "--set", "encode_batch=1")
    assert "there is no mps device" in fit("dca", cells, out, "--device", "mps")
    assert names(tmp_path) == ["in.h5ad"]


QUICK = """
import sys
from scdl_teach.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as e:
    sys.stdout.write(f"{e.code} {sorted({'torch', 'scanpy', 'sklearn', 'numba', 'matplotlib'} & set(sys.modules))}")
"""


@pytest.mark.parametrize("what", [["fit", "dca"], ["recipe", "run", "imputation"]], ids=["fit", "recipe"])
@pytest.mark.parametrize("kind", ["text", "cut"])
def test_a_bad_file_is_refused_before_torch_is_loaded(cells, tmp_path, what, kind):
    bad, out = tmp_path / "bad.h5ad", tmp_path / "out.h5ad"
    bad.write_bytes(cells.read_bytes()[:5000] if kind == "cut" else b"a,b\n1,2\n")
    to = [str(out)] if what[0] == "fit" else ["-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", QUICK, *what, str(bad), *to], capture_output=True, text=True)
    assert done.stdout == "2 []" and "bad.h5ad" in done.stderr, done.stderr


def test_a_table_that_cannot_be_written_is_known_before_the_training(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "learn", lambda *_, **__: pytest.fail("the training began"))
    a = anndata.read_h5ad(cells)
    a.uns["mine"] = object()
    monkeypatch.setattr(datasets, "read", lambda path: a)
    assert "in.h5ad can be read, but no result could be written with it: uns['mine']" in refused(
        "fit", "dca", cells, tmp_path / "out.h5ad"
    )


@pytest.mark.parametrize("name", ["table.csv", "text.h5ad", "cut.h5ad"])
def test_files_of_another_kind(cells, tmp_path, name):
    (tmp_path / name).write_bytes(cells.read_bytes()[:5000] if name == "cut.h5ad" else b"a,b\n1,2\n")
    text = refused("fit", "dca", tmp_path / name, tmp_path / "out.h5ad")
    assert ".h5ad" in text and name in text


def test_what_fit_refuses(cells, tmp_path):
    out = tmp_path / "out.h5ad"
    where = ["--where", "x=layers/umi", "--epochs", "2"]
    for more, wanted in {
        ("--set", "latent=-3"): "latent is -3, and must be 0 or more",
        ("--set", "likelihood=odd"): "is not one of",
        ("--set", "lr=1e30"): "is not finite in phase 'train'",
        ("--where", "y=obs/a"): "--where names ['y']; DCA reads ['x']",
        ("--where", "x=layers/z"): "layers has ['umi']. Name another place: --where FIELD=PLACE",
    }.items():
        done, text = call("fit", "dca", cells, out, *where, *more)
        assert done.exit_code == 2 and wanted in text and "Traceback" not in text, text
    assert names(tmp_path) == ["in.h5ad"]


def test_values_become_what_the_class_asks_for():
    scvis = types.SimpleNamespace(get_params=lambda: {"a": 1, "b": 0.5, "c": (1,), "d": "x", "e": None})
    cls = type(
        "S", (), {"__annotations__": {"a": int, "b": float, "c": tuple, "d": str, "e": int | None}, "__new__": lambda _: scvis}
    )
    given = {"a": "3", "b": "2", "c": "[4,[5]]", "d": "7", "e": "null"}
    assert fitting.values(cls, given) == {"a": 3, "b": 2, "c": (4, (5,)), "d": "7", "e": None}
    with pytest.raises(ValueError, match="needs a whole number or null, as e=null, not 'x'"):
        fitting.values(cls, {"e": "x"})


def test_full_memory_is_told(cells, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("scdl_teach.imputation.dca.DCA.fit", full)
    done, text = call("fit", "dca", cells, tmp_path / "out.h5ad")
    assert done.exit_code == 2 and "take fewer genes" in text


def test_interrupted_while_writing(cells, tmp_path, monkeypatch):
    def half(self, path):
        Path(path).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", half)
    done, text = call("fit", "dca", cells, tmp_path / "out.h5ad", "--where", "x=layers/umi", "--epochs", "1")
    assert done.exit_code == 130 and "interrupted; no half-written output is left" in text and "Traceback" not in text
    assert names(tmp_path) == ["in.h5ad"]


def hear():
    """In the child: signals as a terminal gives them; a background job of a script is started to ignore Ctrl-C."""
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for one process")
@pytest.mark.parametrize("sent,code,word", [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "ended by a signal")])
def test_ctrl_c_and_the_log_of_a_real_run(cells, tmp_path, sent, code, word):
    log, out = tmp_path / "log.txt", tmp_path / "out.h5ad"
    how = ["--where", "x=layers/umi", "--set", "epochs=100000"]
    command = [sys.executable, "-m", "scdl_teach", "fit", "dca", str(cells), str(out), *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear) as run:
        seen = [run.stderr.readline(), run.stderr.readline()]
        run.send_signal(getattr(signal, sent))
        stdout, rest = run.communicate(timeout=60)
    log.write_text("".join(seen) + rest)
    assert run.returncode == code and stdout == ""
    assert "epochs=100000" in seen[0] and seen[1].split()[0] == "1/100000" and "loss=" in seen[1]
    assert rest.strip() == f"scdl-teach: {word}; no half-written output is left"
    assert names(tmp_path) == ["in.h5ad", "log.txt"]


def test_faults_of_the_program(monkeypatch):
    def fault(key):
        raise KeyError("odd")

    monkeypatch.setattr(commands, "show", fault)
    done, text = call("show", "dca")
    assert done.exit_code == 1 and "a fault of the program, KeyError: 'odd'" in text and "doctor --json" in text
    monkeypatch.setenv("SCDL_TEACH_DEBUG", "1")
    assert isinstance(call("show", "dca")[0].exception, KeyError)


# -- lessons -------------------------------------------------------------------------------------------
def test_lessons(tmp_path, monkeypatch):
    done, _ = call("lesson")
    assert done.exit_code == 0 and "0001    A tour" in done.stdout and "minutes" in done.stdout
    assert "lesson` lists all" in refused("lesson", "9999")
    ran = []
    monkeypatch.setattr("scdl_teach.lessons.run.run", lambda path, out, say, fail: ran.append((path.name, str(out))))
    assert call("lesson", "0201", "--out", tmp_path)[0].exit_code == call("tour")[0].exit_code == 0
    assert ran == [("0201_omics_and_anndata.ipynb", str(tmp_path)), ("0001_tour.ipynb", str(Path("out/tour")))]
    kind = type("DeadKernelError", (RuntimeError,), {})
    for fault, code in ((AssertionError, 130), (KeyboardInterrupt, 130), (kind, 2), (KeyError, 1)):

        def stopped(*_, fault=fault, **__):
            raise fault

        monkeypatch.setattr("scdl_teach.lessons.run.run", stopped)
        assert call("lesson", "0201")[0].exit_code == code
    monkeypatch.setattr(commands, "lessons", dict)
    assert "part of a checkout" in refused("lesson")


def test_lessons_open_in_jupyterlab(monkeypatch):
    started = []
    lab = types.SimpleNamespace(wait=lambda: 0)
    monkeypatch.setattr(subprocess, "Popen", lambda command: started.append(command) or lab)
    monkeypatch.setattr(commands, "find_spec", lambda name: True)
    assert call("lesson", "0001", "--open")[0].exit_code == 0
    assert started[0][1:3] == ["-m", "jupyterlab"] and started[0][3].endswith("0001_tour.ipynb")
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    assert "pip install jupyterlab" in refused("lesson", "0001", "--open")


# -- data sets -----------------------------------------------------------------------------------------
def test_data_list_and_show(monkeypatch, tmp_path):
    monkeypatch.setenv("SCDL_TEACH_CACHE", str(tmp_path))
    monkeypatch.delenv("SCDL_TEACH_DATA_MIRROR", raising=False)
    done, _ = call("data", "list")
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 1 + len(datasets.list()) and "to download" in done.stdout
    _, text = call("data", "show", "two_sources")
    assert "1259 rows x 764 columns, csr_matrix" in text and "layers counts" in text and "Zheng et al. 2017" in text
    assert "columns motif" in call("data", "show", "motifs")[1]
    assert "not downloaded yet: scdl-teach data fetch mouse_bladder" in call("data", "show", "mouse_bladder")[1]
    assert "did you mean 'pbmc'?" in refused("data", "show", "pbcm")


def test_data_write(tmp_path):
    out = tmp_path / "two.h5ad"
    done, text = call("data", "write", "two_sources", out)
    assert done.exit_code == 0 and "1259 rows x 764 columns" in text and anndata.read_h5ad(out).shape == (1259, 764)
    assert "--force" in refused("data", "write", "two_sources", out)
    assert "is written as .csv: call it m.csv" in refused("data", "write", "motifs", tmp_path / "m.h5ad")
    assert call("data", "write", "motifs", tmp_path / "m.csv")[0].exit_code == 0
    assert (tmp_path / "m.csv").read_text().startswith("motif,")


def test_data_fetch(tmp_path, monkeypatch):
    def fetched(file, progress):
        progress(5, 10)
        progress(10, 10)
        return tmp_path / file

    monkeypatch.setattr("scdl_teach.datasets.download.fetch", fetched)
    done, _ = call("data", "fetch", "pbmc_cite", "mouse_bladder.h5", "pbmc")
    assert [s.split(":")[0] for s in done.stdout.splitlines()] == ["pbmc_cite_10k.h5ad", "pbmc_cite_5k.h5ad", "mouse_bladder.h5"]
    assert done.exit_code == 0 and done.stderr.count("100 %") == 3 and "nothing to fetch" in done.stderr
    assert len(call("data", "fetch", "--all")[0].stdout.splitlines()) == len(download.registry())
    assert "or --all" in refused("data", "fetch") and "no data set 'odd'" in refused("data", "fetch", "odd")


def test_data_fetch_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SCDL_TEACH_DATA_MIRROR", str(tmp_path))
    assert "does not hold mouse_bladder.h5" in refused("data", "fetch", "mouse_bladder")


# -- recipes -------------------------------------------------------------------------------------------
def test_recipes(tmp_path, monkeypatch):
    asked = []

    def run(name, source, out, parameters, where, say):
        asked.append((name, source, out, parameters, where))
        say("cell 1 of 2")
        return {"page": tmp_path / "page.html"}

    def copy(name, folder):
        if name != "imputation":
            raise DataError(f"there is no recipe {name!r}")
        return folder / f"{name}.ipynb"

    fake = types.SimpleNamespace(available=lambda: {"imputation": "fills zeros"}, copy=copy, run=run)
    monkeypatch.setitem(sys.modules, "scdl_teach.recipes", fake)
    monkeypatch.setattr("scdl_teach.recipes", fake, raising=False)
    assert "imputation fills zeros" in call("recipe", "list")[1]
    assert call("recipe", "copy", "imputation", tmp_path)[0].stdout == f"{tmp_path / 'imputation.ipynb'}\n"
    assert "no recipe 'odd'" in refused("recipe", "copy", "odd", tmp_path)
    how = ["--where", "x=layers/umi", "--system", "dca", "--set", "seed=1", "--set", "label=a b", "--set", 'genes=["a"]']
    done, _ = call("recipe", "run", "imputation", "my.h5ad", "-o", tmp_path, *how)
    assert done.exit_code == 0 and done.stdout == f"page: {tmp_path / 'page.html'}\n" and done.stderr == "cell 1 of 2\n"
    parameters = {"seed": "1", "label": "a b", "genes": ["a"], "system": "dca"}
    assert asked == [("imputation", Path("my.h5ad"), tmp_path, parameters, {"x": "layers/umi"})]
    assert "did you mean 'dca'?" in refused("recipe", "run", "imputation", "my.h5ad", "--system", "dcaa")


def test_a_doubt_is_said_once(cells, tmp_path):
    """The training and the writing both look at the table."""
    done, text = call("fit", "pca", cells, tmp_path / "out.h5ad", "--where", "x=layers/umi")
    assert done.exit_code == 0 and text.count("looks like raw counts") == 1


def test_what_a_setting_breaks_inside_torch_is_told_as_such():
    class Odd:
        def fit(self, data, **how):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(ValueError, match=r"Odd cannot be fitted with --set hidden=7 \(mat1 and mat2 shapes"):
        fitting.learn(Odd(), None, {"hidden": 7})
    with pytest.raises(RuntimeError):
        fitting.learn(Odd(), None, {})
