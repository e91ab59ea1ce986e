"""Real cells, and files as users bring them."""

import numpy as np
import pytest

from scdl_teach import DataError, datasets


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
    with pytest.raises(DataError, match=r"a.csv is a .csv, and an .h5ad file is needed; read it with scanpy"):
        datasets.read(tmp_path / "a.csv")


def test_added_and_variable_genes():
    a = datasets.pbmc()
    more = datasets.add_genes(a, np.ones((700, 2)), ["one", "two"])
    assert more.shape == (700, 767) and more.var["decoy"].sum() == 2 and list(more.var_names[-2:]) == ["one", "two"]
    few = datasets.variable_genes(a, n=50)
    assert few.shape == (700, 50) and {"LYZ", "NKG7"} <= set(few.var_names)
