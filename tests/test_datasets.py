"""Real cells, and files as users bring them."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from scdl_teach import DataError, datasets
from scdl_teach.datasets import download


def test_pbmc_counts_are_whole_and_go_back_to_the_file():
    import scanpy as sc

    a = datasets.pbmc()
    x = a.X.toarray()
    assert a.shape == (700, 765) and (x == np.rint(x)).all() and a.X.nnz == 174_400 and x.max() == 259
    logs = sc.datasets.pbmc68k_reduced().raw.X.toarray()
    again = np.log1p(x / a.obs["n_counts"].to_numpy()[:, None] * 1e4)
    assert np.abs(again - logs).max() < 1e-3
    assert a.obs["cell_type"].nunique() == 10 and (a.layers["counts"] != a.X).nnz == 0


def test_read(tmp_path):
    a = datasets.pbmc()[:20].copy()
    path = tmp_path / "a.h5ad"
    a.write_h5ad(path)
    assert datasets.read(path).shape == (20, 765)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"a.h5ad cannot be read as .h5ad .*copy or download it again"):
        datasets.read(path)
    with pytest.raises(DataError, match="there is no file"):
        datasets.read(tmp_path / "none.h5ad")
    (tmp_path / "a.csv").write_text("gene,cell\n")
    with pytest.raises(DataError, match=r"a.csv is a table of text \(.csv\), and an .h5ad file is needed: import anndata"):
        datasets.read(tmp_path / "a.csv")


def test_added_and_variable_genes():
    a = datasets.pbmc()
    more = datasets.add_genes(a, np.ones((700, 2)), ["one", "two"])
    assert more.shape == (700, 767) and more.var["decoy"].sum() == 2 and list(more.var_names[-2:]) == ["one", "two"]
    few = datasets.variable_genes(a, n=50)
    assert few.shape == (700, 50) and {"LYZ", "NKG7"} <= set(few.var_names)


CARRIED = pd.read_csv(download.folder() / "sets.csv").set_index("name")


def test_the_folder_is_small_and_complete():
    files = [p for p in download.folder().iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 20e6
    made = {p.stem for p in files if p.suffix in (".h5ad", ".csv")} - {"sets", "remote"}
    assert made == set(CARRIED.index) and {p.stem for p in files if p.suffix == ".md"} - {"README"} == made


@pytest.mark.parametrize("name", CARRIED.index)
def test_carried_sets(name):
    row = CARRIED.loc[name]
    content = (download.folder() / row["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == row["sha256"] and len(content) == row["bytes"]
    card = (download.folder() / f"{name}.md").read_text(encoding="utf-8")
    assert row["sha256"] in card and row["citation"] in card and row["package"] in card
    a = datasets.load(name)
    assert len(a) and row["licence"] in datasets.list().loc[name, "licence"]
    if "counts" in getattr(a, "layers", {}):
        assert (a.layers["counts"].data % 1 == 0).all() and (a.layers["counts"] != a.X).nnz == 0


def test_what_the_sets_hold():
    immune = datasets.load("immune_raw")
    assert immune.shape == (559, 9810) and immune.var_names.str.startswith("MT-").sum() >= 10
    both = datasets.load("two_sources")
    assert both.shape == (1259, 764) and dict(both.obs["source"].value_counts()) == {"pbmc68k": 700, "immune_raw": 559}
    sites = datasets.load("splice_sites")
    assert sites.shape[0] == 10_227 and (sites.obsm["dna"][:, 3] == 2).all() and sites.obs["occurrences"].max() == 3729
    colony = datasets.load("ecoli")
    assert colony.obsm["image"].shape == colony.obsm["mask"].shape == (20, 400, 400) and colony.X[[0, -1], 0].tolist() == [2, 17]
    motifs = datasets.load("motifs")
    assert motifs["motif"].nunique() == 20 and (motifs.groupby(["motif", "position"])["A"].count() == 1).all()


def test_programmes():
    a = datasets.pbmc()
    table = datasets.programmes(a)
    assert table.shape == (765, 49) and (table.index == a.var_names).all() and (table.sum() >= 5).all()
    a.var_names = [f"ENSG{i:011d}" for i in range(a.n_vars)]
    with pytest.raises(DataError, match="no set has 5 genes among ENSG00000000000, .*gene symbols are needed"):
        datasets.programmes(a)
