"""What people really have in their tables: it is read, refused with the line that mends it, or read with a warning."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdl_teach import DataError, DataWarning, get
from scdl_teach.core.arrays import tidy
from scdl_teach.core.fields import Category, Counts, Expression, Field, near
from scdl_teach.core.hyper import checked
from scdl_teach.core.model import Estimator


class Dropped(Estimator):
    """Only the hyper-parameters count here."""

    hidden: tuple = (64, 32)
    dropout: float = 0.1


def table(n=40, genes=12, seed=0):
    rng = np.random.default_rng(seed)
    a = anndata.AnnData(sp.csr_matrix(rng.poisson(3, (n, genes)).astype("f4")))
    a.obs["batch"] = np.where(np.arange(n) % 2, "a", "b")
    return a


def seen(field, adata, name="x"):
    """The values that a field reads, and the warnings on the way."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = field.read(adata)
        field.check(name, values, adata)
    return values, [str(w.message) for w in told if issubclass(w.category, DataWarning)]


# -- damaged and absurd ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.indptr.__setitem__(3, 10**6),
        lambda m: m.indptr.__setitem__(2, -1),
        lambda m: setattr(m, "indptr", m.indptr[:4]),
        lambda m: setattr(m, "indptr", m.indptr.reshape(1, -1)),
        lambda m: m.indices.__setitem__(0, 10**5),
        lambda m: m.indices.__setitem__(0, -4),
        lambda m: setattr(m, "data", m.data[:5]),
    ],
    ids=["beyond the end", "negative", "too short", "two-dimensional", "index beyond", "index negative", "data short"],
)
def test_a_damaged_sparse_matrix_is_refused(kind, damage):
    a = table()
    x = a.X.asformat(kind)
    damage(x)
    a = anndata.AnnData(obs=a.obs, var=a.var)
    a.layers._data["counts"] = x  # as a file holds it: AnnData itself does not look
    with pytest.raises(DataError, match="layers/counts is a damaged sparse matrix .* write the file again"):
        Counts().place(a).read(a)


@pytest.mark.parametrize("value,why", [(1e300, "as large as 1e\\+300"), (2.0**25, "more than one cell holds molecules")])
def test_absurd_counts(value, why):
    a = table()
    a.X = a.X.toarray().astype(float)
    a.X[3, 4] = value
    with pytest.raises(DataError, match=why):
        seen(Counts(), a)
    if value > 1e100:
        with pytest.raises(DataError, match=why):
            seen(Field(), a)


# -- ordinary types that are foreign here -----------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["f2", ">f4", ">i8", "g", "u1", "?", "u8"])
@pytest.mark.parametrize("sparse", [True, False])
def test_every_type_of_number(dtype, sparse):
    x = np.random.default_rng(0).integers(0, 2, (40, 12)).astype(dtype)
    x[:, 0] = 1
    want = np.asarray(x, "f4")
    if sparse:
        csr = sp.csr_matrix(want)
        x = sp.csr_matrix((csr.data.astype(dtype), csr.indices, csr.indptr), csr.shape)
    batch = Counts().take("x", tidy(x), np.arange(40))["x"]
    assert batch.dtype.is_floating_point and np.array_equal(batch.numpy(), want)


def test_a_data_frame_in_obsm_and_nullable_columns():
    a = table()
    z = pd.DataFrame({"UMAP1": np.arange(40.0), "UMAP2": 1.0}, index=a.obs_names)
    a.obsm["X_umap"] = z
    assert seen(Field("obsm/X_umap"), a)[0].shape == (40, 2)
    a.obsm["X_umap"] = z.astype({"UMAP2": "Float32"})
    assert seen(Field("obsm/X_umap"), a)[0].dtype.kind == "f"
    a.obs["age"] = pd.array([1, None] * 20, dtype="Int64")
    with pytest.raises(DataError, match="NaN"):
        seen(Field("obs/age"), a)


def test_a_column_twice():
    a = table()
    a.obs = pd.concat([a.obs, a.obs], axis=1)
    with pytest.raises(DataError, match="there 2 times, .*columns.duplicated"):
        Category().read(a)


@pytest.mark.parametrize("change", [dict(seed=np.int64(1)), dict(seed=np.arange(3)[1])])
def test_numpy_seeds_and_hyper_parameters(change, tmp_path):
    a = table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        model = get("pca")(latent=np.int64(3)).fit(a, **change)
        assert type(model.seed_) is int and type(model.latent) is int
        model.save(tmp_path / "m")
    assert type(model).load(tmp_path / "m").get_params() == model.get_params()
    net = get("dca")(latent=np.int64(4), hidden=np.int16(16)).fit(a, epochs=1, progress=False)
    net.save(tmp_path / "d")
    assert type(net).load(tmp_path / "d").hidden == 16


@pytest.mark.parametrize(
    "how,fit,why",
    [
        (dict(batch_size=0), {}, "batch_size is 0, and must be 1 or more"),
        (dict(batch_size=1), {}, "needs two rows or more at a time: batch_size=2"),
        (dict(batch_size=2.5), {}, "batch_size is 2.5, where a whole number is needed"),
        (dict(hidden="64"), {}, "hidden is '64', where a whole number"),
        (dict(epochs=-1), {}, "epochs is -1, and must be 0 or more"),
        ({}, dict(epochs=1.5), "epochs is 1.5, where a whole number"),
        ({}, dict(seed="x"), "seed is 'x', where a whole number"),
        ({}, dict(seed=-1), "seed is -1, where a whole number from 0 on"),
        ({}, dict(seed=2**70), "seed is 1180591620717411303424, where"),
        (dict(latent=-3), {}, "latent is -3, and must be 0 or more"),
        (dict(latent=0), {}, "latent is 0, and must be 1 or more"),
        (dict(hidden=0), {}, "hidden is 0, and must be 1 or more"),
        (dict(lr=float("nan")), {}, "lr is nan, and must be 0 or more"),
        ({}, dict(validation=1.5), "validation is 1.5, where a share between 0 and 1"),
        ({}, dict(validation={"rows": 0.1}), "validation is .*, where a share between 0 and 1"),
        ({}, dict(precision="8"), "precision is '8', where one of 32-true"),
        ({}, dict(precision=8), "precision is 8, where one of 32-true"),
        ({}, dict(device="tpu9"), "device is 'tpu9', where one of auto, cpu"),
        ({}, dict(device=None), "device is None, where one of auto, cpu"),
        ({}, dict(where="X"), "where is 'X', where fields and their places"),
        ({}, dict(where={"x": 3}), "where is {'x': 3}, where fields and their places"),
    ],
)
def test_impossible_hyper_parameters(how, fit, why):
    with pytest.raises(DataError, match=why):
        get("dca")(**how).fit(table(), progress=False, **fit)


@pytest.mark.parametrize("name,at,v", [("indptr", 3, 10**6), ("indptr", 3, -1), ("indices", 0, -1), ("indices", 0, 10**8)])
def test_a_damaged_matrix_in_a_file(name, at, v, tmp_path):
    import h5py

    table().write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as f:
        f["X"][name][at] = v
    a = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(DataError, match="matrix that cannot be read from row 0 on .* write the file again"):
        get("dca")(epochs=1).fit(a, progress=False)
    a.file.close()


@pytest.mark.parametrize("v", [1, 2, 1.0, -0.1, float("nan")])
def test_a_share_of_dropped_units_is_below_one(v):
    with pytest.raises(DataError, match="dropout is .*, and must be from 0 to below 1"):
        checked(Dropped(dropout=v), 0, None)
    assert checked(Dropped(dropout=0), 0, None) == 0


@pytest.mark.parametrize("v,why", [((64, 0), "1 or more"), ((64, 2.5), "whole numbers"), (("64",), "whole numbers")])
def test_widths_in_a_tuple(v, why):
    with pytest.raises(DataError, match=f"hidden is .*, and must be {why}"):
        checked(Dropped(hidden=v), 0, None)
    assert checked(Dropped(hidden=()), 0, None) == 0


# -- sentences that mend ----------------------------------------------------------------------------------
def test_counts_but_for_rounding():
    a = table()
    a.X = np.expm1(np.log1p(a.X.toarray().astype("f8")))
    a.X[0, 0] += 2e-4
    with pytest.raises(DataError, match="fractions by rounding only; .* Round them: adata.X = np.rint\\(adata.X\\)"):
        seen(Counts(), a)
    a.X = np.rint(a.X)
    assert not seen(Counts(), a)[1]
    a.layers["counts"] = sp.csr_matrix(a.X + 1e-4)
    with pytest.raises(DataError, match="adata.layers\\['counts'\\] = np.rint"):
        seen(Counts().place(a), a)


def test_where_the_counts_may_be_instead():
    a = table()
    counts = a.X.copy()
    a.layers["umi"] = counts
    a.X = np.log1p(a.X)
    with pytest.raises(DataError, match="where=\\{'x': 'layers/umi'\\}"):
        seen(Counts(), a)
    del a.layers["umi"]
    a.raw = anndata.AnnData(counts, var=a.var)
    with pytest.raises(DataError, match="where=\\{'x': 'raw'\\}"):
        seen(Counts(), a)
    a.layers["counts"] = a.X
    a.X, a.raw = counts, None
    with pytest.raises(DataError, match="X looks like counts: fit\\(adata, where=\\{'x': 'X'\\}"):
        seen(Counts().place(a), a)


def test_raw_is_a_place():
    a = table()
    counts = a.X.copy()
    a.raw = anndata.AnnData(counts, var=a.var)
    a.X = np.log1p(a.X)
    model = get("dca")().fit(a, where={"x": "raw"}, epochs=1, progress=False)
    assert model.predict(a)["denoised"].shape == a.shape
    part = a[:, ::2].copy()
    assert np.array_equal(Counts("raw").read(part).toarray(), counts[:, ::2].toarray())
    a.raw = None
    with pytest.raises(DataError, match="adata.raw is not there"):
        model.predict(a)


@pytest.mark.parametrize(
    "asked,has,said", [("batch", ["Batch"], "'Batch'"), ("BATCH", ["donor", "batch "], "'batch '"), ("x", ["y"], "")]
)
def test_did_you_mean(asked, has, said):
    assert (said in near(asked, has)) and bool(said) == bool(near(asked, has))


def test_a_name_in_another_case():
    a = table()
    a.obs = a.obs.rename(columns={"batch": "Batch"})
    with pytest.raises(DataError, match="did you mean 'Batch'"):
        Category().read(a)


# -- what would pass in silence ----------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["desc", "pca", "combat", "mnn"])
def test_raw_counts_where_logs_are_read(key):
    with pytest.warns(DataWarning, match="looks like raw counts .* sc.pp.normalize_total\\(adata\\); sc.pp.log1p\\(adata\\)"):
        get(key)().fit(table(60, 40), progress=False, **({"epochs": 1} if key == "desc" else {}))


def test_logs_and_components_raise_no_doubt():
    a = table()
    a.X = np.log1p(a.X)
    a.obsm["X_pca"] = np.rint(np.random.default_rng(0).normal(0, 9, (40, 3)))
    for field in (Field(), Expression(), Field("obsm/X_pca")):
        assert not seen(field, a)[1]


def test_rounded_tpm():
    a = table()
    x = a.X.toarray()
    a.X = np.round(x / x.sum(1, keepdims=True) * 1e6).astype("f4")
    assert "same total in every row (1,000,000), as rounded TPM" in seen(Counts(), a)[1][0]
    assert not seen(Counts(), table())[1]


@pytest.mark.parametrize("word", ["nan", "None", "NA", "<NA>", ""])
def test_a_batch_that_is_a_missing_value_made_text(word):
    a = table()
    a.obs["batch"] = [word, *["a", "b"] * 19, "a"]
    assert f"a category called {word!r}, most likely missing values" in seen(Category(), a)[1][0]


def test_batches_equal_but_for_case():
    a = table()
    a.obs["batch"] = ["Donor 1", "donor 1 ", *["b"] * 38]
    assert "differ in case or blanks only" in seen(Category(), a)[1][0]


def test_whole_numbers_keep_their_name_whatever_their_type():
    a = table()
    a.obs["batch"] = np.tile([1, 2], 20)
    ints = Category().read(a)
    a.obs["batch"] = a.obs["batch"].astype(float)
    assert list(Category().read(a)) == list(ints) and set(ints) == {"1", "2"}
    a.obs["batch"] = a.obs["batch"] + 0.5
    assert set(Category().read(a)) == {"1.5", "2.5"}


def test_tables_that_share_few_genes():
    from scdl_teach.core.data import Data

    a, b = table(genes=60), table(genes=60, seed=1)
    b.var_names = [*a.var_names[:2], *(f"other{i}" for i in range(58))]
    needs = {"s": Expression(), "g": Expression(table="spots")}
    a.X, b.X = np.log1p(a.X), np.log1p(b.X)
    with pytest.warns(DataWarning, match="share only 2 of the 60 genes"):
        Data({"cells": a, "spots": b}, needs, same_genes=True)


def test_a_damaged_raw_table():
    a = table()
    a.raw = a.copy()
    a.raw.X.indptr[3] = 10**6
    with pytest.raises(DataError, match="raw is a damaged sparse matrix"):
        Counts("raw").read(a)
