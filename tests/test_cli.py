"""The command line: what it prints, and how it ends."""

import anndata
import numpy as np
from typer.testing import CliRunner

from scdl_teach import datasets
from scdl_teach.__main__ import app

runner = CliRunner()


def test_list_and_show():
    listed = runner.invoke(app, ["list", "--section", "4.1.3.1", "--built"])
    assert listed.exit_code == 0 and "dca" in listed.stdout and "sedr" not in listed.stdout
    shown = runner.invoke(app, ["show", "dca"])
    assert shown.exit_code == 0 and "reads   x: raw counts in X" in shown.stdout and "layers/dca" in shown.stdout
    wrong = runner.invoke(app, ["show", "dcaa"])
    assert wrong.exit_code == 2 and "did you mean 'dca'?" in wrong.output


def test_fit_writes_all_or_nothing(tmp_path):
    a = datasets.pbmc()[:60, :40].copy()
    a = a[np.asarray(a.X.sum(1)).ravel() > 0].copy()
    del a.layers["counts"]
    a.layers["umi"], a.X = a.X.copy(), np.log1p(a.X)
    source, target = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    a.write_h5ad(source)
    refused = runner.invoke(app, ["fit", "dca", str(source), str(target), "--epochs", "1"])
    assert refused.exit_code == 2 and "where={'x': 'layers/umi'}" in refused.output.replace("\n", "")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]
    done = runner.invoke(app, ["fit", "dca", str(source), str(target), "--where", "x=layers/umi", "--epochs", "1"])
    assert done.exit_code == 0, done.output
    assert anndata.read_h5ad(target).layers["dca"].shape == a.shape
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]


def test_what_cannot_be_done():
    assert runner.invoke(app, ["fit", "tangram", "a.h5ad", "b.h5ad"]).exit_code == 2
    assert runner.invoke(app, ["fit", "dca", "a.h5ad", "b.h5ad", "--where", "counts"]).exit_code == 2
    assert runner.invoke(app, ["lesson", "9999"]).exit_code == 2
