"""What a recipe does first: read and check a user's cells, choose genes, prepare what a system reads. Plain functions on AnnData."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from . import datasets
from .arrays import BLOCK, tidy, whole
from .core.fields import Counts, DataError, Expression, Field
from .registry import catalogue, get

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?$")
COMMON = re.compile(r"(MT-[A-Z]|RP[LS]\d|(ACTB|GAPDH|B2M|MALAT1|EEF1A1|TMSB4X|FTL|FTH1|TPT1)$)", re.I)  # in almost any table
BARCODE = re.compile(r".*[ACGT]{12,}")
SYMBOLS = ("gene_symbols", "gene_symbol", "symbol", "symbols", "gene_name", "feature_name", "gene_short_name", "name")
LEAST = 50  # cells below which nothing can be learnt, or judged
SCALED = ("desc",)  # read z-scored values
FEW = ("mmd_resnet", "batch_free")  # read a few principal components
TASKS = {  # sections of the review whose systems a recipe offers
    "imputation": {"4.1.3.1"},
    "embedding": {"4.1.3.1", "4.1.3.2", "4.1.3.3"},
    "batch": {"4.1.3.1", "4.1.3.2"},
}


# -- read and check ---------------------------------------------------------------------------------------
def load(source, where=None, batch="", label=""):
    """The user's table, its counts and what was found in it, or one sentence on what keeps a recipe from running.

    Parameters
    ----------
    source : ``.h5ad``, Cell Ranger's ``.h5``, or a folder with ``matrix.mtx``
    where : ``{"x": "layers/umi"}`` or ``{"x": "raw"}`` where counts are neither in ``layers["counts"]`` nor in ``X``
    batch, label : columns of obs that will be used; "" for none

    Returns
    -------
    adata (cells x genes, as read, with unique names of cells), counts (the same shape, no copy), facts ({what: found})
    """
    name = Path(source).name
    with warnings.catch_warnings(record=True):  # anndata's, on names and old files: below they are said in plain words
        adata = datasets.read(source)
    for check in (genes_in_rows, too_few, genes_twice):
        if fault := check(adata):
            raise DataError(f"{name} {fault}")
    try:
        values, place = counts_of(adata, (where or {}).get("x"))
        facts = {"file": name} | described(adata, values, place)
        for title, column in (("batches", batch), ("labels", label)):
            if column:
                facts[title] = levels_of(adata, column, title)
    except DataError as e:
        raise DataError(f"{name}: {e}") from None
    if not adata.obs_names.is_unique:
        facts["note"] = f"{int(adata.obs_names.duplicated().sum())} cells had the name of another; '-1', '-2' was put behind"
        adata.obs_names_make_unique()
    return adata, values, facts


def too_few(adata):
    if adata.n_obs and not adata.n_vars:
        mend = "a join keeps the genes that all tables share, so give them one kind of name (symbols, or Ensembl ids) first"
        return f"has no gene ({adata.n_obs} cells x 0 genes); {mend}"
    if not adata.n_obs:
        return f"is empty ({adata.n_obs} cells x {adata.n_vars} genes); {LEAST} cells or more are needed, so make it again"
    if adata.n_obs < LEAST:
        return f"has {adata.n_obs} cells; {LEAST} or more are needed to learn and to judge, so join it with other samples"


def looks_like_genes(names):
    """Half of them Ensembl ids (or gene1, gene2, ...), or three of the genes that almost every table has."""
    ids = sum(bool(ENSEMBL.match(n) or re.match(r"gene[ _-]?\d+$", n, re.I)) for n in names)
    return ids > len(names) / 2 or sum(bool(COMMON.match(n)) for n in names) >= 3


def genes_in_rows(adata):
    cells, genes = list(map(str, adata.obs_names)), list(map(str, adata.var_names))
    codes = sum(bool(BARCODE.match(n)) for n in genes) > len(genes) / 2
    if codes or (looks_like_genes(cells) and not looks_like_genes(genes)):
        found = f"its rows are named {', '.join(cells[:3])}, its columns {', '.join(genes[:3])}"
        return f"seems to have genes in rows ({found}); rows must be cells: adata.T.copy().write_h5ad('turned.h5ad')"


def genes_twice(adata):
    names = pd.Index(adata.var_names)
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        found = f"names genes more than once ({', '.join(map(str, twice[:3]))}; {len(twice)} in all)"
        return f"{found}; names must be unique: adata.var_names_make_unique(), then adata.write_h5ad('unique.h5ad')"


def counts_of(adata, given=None):
    """The raw counts (cells x genes) and their place: the one given, else ``layers["counts"]``, else ``X``."""
    place = given or ("layers/counts" if "counts" in adata.layers else "X")
    if place == "raw":
        if adata.raw is None or not adata.var_names.isin(adata.raw.var_names).all():
            raise DataError(
                "there is no .raw with all its genes, where the counts should be; name a layer: --where x=layers/NAME"
            )
        values = tidy(adata.raw[:, adata.var_names].X)
    else:
        if adata.X is None if place == "X" else place.removeprefix("layers/") not in adata.layers:
            has = f"the file has the layers {', '.join(adata.layers)}" if len(adata.layers) else "the file has no layer"
            raise DataError(
                f"there is no {place}, where the counts should be; {has}: name one with --where x=layers/NAME, or raw"
            )
        values = Counts(place, given=True).read(adata)
    fault, empty = fault_of(values)
    if fault:
        raise DataError(f"{place} {fault}; whole counts are needed, and {elsewhere(adata, place)}")
    if empty:
        mend = "remove them: sc.pp.filter_cells(adata, min_counts=1)"
        raise DataError(f"{empty} of {adata.n_obs} cells have no count at all in {place}; every cell needs some, so {mend}")
    return values, place


def fault_of(values):
    """What keeps a matrix (cells x genes) from being raw counts (None: nothing), and how many rows hold none; in blocks."""
    empty = 0
    for i in range(0, values.shape[0], BLOCK):
        block = values[i : i + BLOCK]
        stored = block.data if sp.issparse(block) else np.asarray(block)
        if stored.dtype.kind not in "biuf":
            return f"holds {stored.dtype} values", 0
        if not np.isfinite(stored).all():
            return "has NaN or infinite values", 0
        if (stored < 0).any():
            return "has negative values, as z-scored data have", 0
        if (stored % 1 != 0).any():
            return "has fractions, as normalised or logarithmic data have", 0
        empty += int((np.asarray(block.sum(1)) == 0).sum())
    return None, empty


def elsewhere(adata, place):
    """Where the counts may be instead."""
    for layer in adata.layers:
        if f"layers/{layer}" != place and whole(adata.layers[layer][:200]):
            return f"layers[{layer!r}] looks like counts: --where x=layers/{layer}, in Python where={{'x': 'layers/{layer}'}}"
    if place != "raw" and adata.raw is not None and whole(adata.raw.X[:200]):
        return "adata.raw looks like counts: --where x=raw, in Python where={'x': 'raw'}"
    if place != "X" and adata.X is not None and whole(adata.X[:200]):
        return "X looks like counts: --where x=X, in Python where={'x': 'X'}"
    return "no other layer looks like counts; take out what is at fault, or go back to the file from before normalisation"


def levels_of(adata, column, title):
    """The categories of a column of obs and their sizes, in one line."""
    if column not in adata.obs:
        has = f"obs has {', '.join(map(str, adata.obs.columns[:8]))}" if len(adata.obs.columns) else "obs has no column"
        raise DataError(f"there is no column {column!r} in obs for the {title}; {has}: name one of them, or add it")
    values = adata.obs[column]
    if values.isna().any():
        drop = f"drop these cells: adata[adata.obs[{column!r}].notna()]"
        raise DataError(f"obs[{column!r}] has {int(values.isna().sum())} missing values; every cell needs one, so {drop}")
    sizes = values.astype(str).value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if title == "batches" and len(sizes) < 2:
        raise DataError(f"obs[{column!r}] has one batch only ({sizes.index[0]}); two or more are needed: name another column")
    if len(sizes) > adata.n_obs / 5:
        raise DataError(f"obs[{column!r}] has {len(sizes)} different values in {adata.n_obs} cells; name a column of {title}")
    first = ", ".join(f"{k} ({v:,})" for k, v in sizes.head(6).items())
    return f"obs[{column!r}]: {first}" + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")


def described(adata, counts, place):
    """The facts of the data that a reader wants to see first."""
    total = np.asarray(counts.sum(1)).ravel()
    seen = np.diff(counts.indptr) if sp.issparse(counts) else (counts > 0).sum(1)
    ids = sum(bool(ENSEMBL.match(str(n))) for n in adata.var_names) > adata.n_vars / 2
    shown = next((c for c in SYMBOLS if c in adata.var), None) if ids else None
    kind = ("Ensembl ids" + (f", shown by var[{shown!r}]" if shown else "")) if ids else "symbols"
    return {
        "cells": f"{adata.n_obs:,}",
        "genes": f"{adata.n_vars:,}",
        "names of genes": f"{kind} ({', '.join(map(str, adata.var_names[:3]))}, ...)",
        "counts from": place,
        "molecules in a cell": f"{np.median(total):,.0f} (median; {total.min():,.0f} to {total.max():,.0f})",
        "genes seen in a cell": f"{np.median(seen):,.0f} (median)",
        "zeros": f"{1 - seen.mean() / adata.n_vars:.1%}",
    }


# -- choose ----------------------------------------------------------------------------------------------
def systems(task):
    """Keys of the built systems that a recipe can run on one table of counts."""
    rows = catalogue().query("status != 'planned'")
    near = rows[rows["section"].str.split(";").map(lambda s: bool({*s} & TASKS[task]))].index
    return [key for key in near if fits(get(key), task)]


def fits(cls, task):
    """Does a class read what a recipe has, and give what the task is after?"""
    needed = {k for k, f in cls.needs.items() if not f.optional}
    has = {"imputation": {"x", "batch"}, "embedding": {"x", "label", "programmes"}, "batch": {"x", "batch"}}[task]
    plain = type(cls.needs.get("x")) in (Counts, Expression, Field) and needed <= has and len(cls.tables) == 1
    wanted = {"imputation": ["layers/{}"], "embedding": ["obsm/X_{}"], "batch": ["obsm/X_{}", "layers/{}", "obsm/{}_neighbours"]}
    given = {w.format(cls.key) for w in wanted[task]} & set(cls.writes.values())
    about = "4.1.3.2" in catalogue().loc[cls.key, "section"].split(";")  # also without being told the batch
    return plain and bool(given) and alone(cls) and (task != "batch" or about or "batch" in cls.needs)


def alone(cls):
    """Does it work without another fitted model?"""
    try:
        cls().adopt(None)
    except (TypeError, ValueError):
        return False
    return True


def symbols(adata):
    """What to call the genes in a figure: their symbols where the names are Ensembl ids and var has symbols."""
    shown = next((c for c in SYMBOLS if c in adata.var), None) if ENSEMBL.match(str(adata.var_names[0])) else None
    return adata.var[shown].astype(str).to_numpy(object) if shown else adata.var_names.to_numpy(object)


def places(adata, genes):
    """Column numbers of genes, by their name or symbol."""
    shown = symbols(adata)
    found = [np.flatnonzero((adata.var_names == g) | (shown == g))[:1] for g in genes]
    if lost := [g for g, at in zip(genes, found, strict=True) if not len(at)]:
        raise DataError(
            f"genes= names {', '.join(map(str, lost))}, absent here; the file has {', '.join(map(str, shown[:3]))}, ..."
        )
    return [int(at[0]) for at in found]


def choose(adata, counts, n_genes=2000, genes=(), batch="", label=""):
    """The cells with their most variable genes: counts as float32 CSR, ``obs["batch"]`` and ``obs["label"]`` where asked for.

    Variable is what varies more than molecules drawn at random would. ``genes`` are kept in any case, and so is a gene for
    every cell that would else be without counts. All genes if there are no more than ``n_genes``. Never dense.
    """
    asked = places(adata, genes)
    at = np.arange(adata.n_vars)
    if adata.n_vars > n_genes:
        at = variable(counts, n_genes, asked)
    from anndata import AnnData

    out = AnnData(sp.csr_matrix(counts[:, at]).astype(np.float32), obs=pd.DataFrame(index=adata.obs_names))
    out.var_names = adata.var_names[at]
    out.var["symbol"] = symbols(adata)[at]
    for name, column in (("batch", batch), ("label", label)):
        if column:
            out.obs[name] = pd.Categorical(adata.obs[column].astype(str))
    return out


def variable(counts, n, must=()):
    """Places of the ``n`` genes whose depth-normalised variance exceeds the Poisson's most, given their mean; read in blocks."""
    rows, genes = counts.shape
    total = np.asarray(counts.sum(1)).ravel()
    scale, seen, first, second = np.median(total) / total, np.zeros(genes), np.zeros(genes), np.zeros(genes)
    for i in range(0, rows, BLOCK):
        block = sp.csr_matrix(counts[i : i + BLOCK])
        w = block.data * np.repeat(scale[i : i + BLOCK], np.diff(block.indptr))
        seen += np.bincount(block.indices, minlength=genes)
        first += np.bincount(block.indices, w, minlength=genes)
        second += np.bincount(block.indices, w * w, minlength=genes)
    mean = first / rows
    excess = np.where(seen >= 10, (second / rows - mean**2) / np.maximum(mean, 1e-9), -1)
    excess[list(must)] = np.inf
    chosen = np.sort(np.argsort(-excess)[:n])
    while len(bare := np.flatnonzero(np.asarray(counts[:, chosen].sum(1)).ravel() == 0)):
        more = np.argmax(np.asarray(counts[bare].sum(0)).ravel())  # the gene that most of the bare cells have
        chosen = np.sort(np.append(chosen, more))
    return chosen


def sample(cells, n, seed=0):
    """``n`` of the cells by chance, in their order; all of them if there are no more."""
    rows = np.random.default_rng(seed).permutation(cells.n_obs)[:n]
    return cells[np.sort(rows)].copy()


def logs(cells):
    """log1p of counts at the median depth (cells x genes, CSR): zeros stay zeros."""
    x = sp.csr_matrix(cells.X, dtype=np.float32, copy=True)
    total = np.asarray(x.sum(1)).ravel()
    x.data *= np.repeat(np.median(total) / total, np.diff(x.indptr)).astype(np.float32)
    return x.log1p()


def inputs(cells, system, programmes=""):
    """``where=`` for ``fit``: a system that reads no counts gets log-normalised (some: z-scored) values in a layer, or components.

    ``programmes``: a .gmt file of gene sets for a system that reads some; "" takes the blood modules that come with the package
    """
    needs = get(system).needs
    if "programmes" in needs:
        cells.varm["programmes"] = sets_of(cells, programmes)
    if isinstance(needs["x"], Counts):
        return {}
    if system in FEW:
        cells.obsm["X_recipe_pca"] = pca(cells, 20)
        return {"x": "obsm/X_recipe_pca"}
    cells.layers["logs"] = logs(cells)
    if "log2" in getattr(get(system), "imputes", {}).get("scale", ""):
        cells.layers["logs"] = cells.layers["logs"] * np.float32(1 / np.log(2))
    if system in SCALED:
        x = cells.layers["logs"].toarray()
        cells.layers["logs"] = np.clip((x - x.mean(0)) / np.maximum(x.std(0), 1e-6), -10, 10)
    return {"x": "layers/logs"}


def has_all(adata, system, values):
    """Refuse a system that learns from labels without a label, or from gene sets that the table does not know."""
    needs = get(system).needs if system else {}
    if "label" in needs and not needs["label"].optional and not values["label"]:
        raise DataError(f"{system!r} learns from labels of the cells and none is named: --where label=obs/COLUMN")
    if "programmes" in needs:
        sets_of(adata, values["programmes"])


def sets_of(cells, programmes=""):
    """Gene sets (genes x sets, 0 and 1) of a .gmt file, or the blood modules; symbols are matched."""
    from anndata import AnnData

    named = AnnData(var=pd.DataFrame(index=symbols(cells).astype(str)))
    if named.var_names.has_duplicates:
        named.var_names_make_unique()
    if not programmes:
        return datasets.programmes(named).set_axis(cells.var_names)
    try:
        lines = [line.split("\t") for line in Path(programmes).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{programmes} cannot be read as text ({e}); give a .gmt file of gene sets: programmes=PATH") from e
    if not lines or min(map(len, lines)) < 3:
        raise DataError(f"{programmes} is no .gmt file; each line needs a name, a description and genes, separated by tabs")
    table = pd.DataFrame([(name, gene) for name, _, *genes in lines for gene in genes if gene], columns=["module", "gene"])
    return datasets.programmes(named, table).set_axis(cells.var_names)


def space(model, cells, seed=0):
    """What a model wrote about the cells (cells x d): its embedding, else components of its corrected table, or of its graph."""
    key = model.key
    if f"obsm/X_{key}" in model.writes.values():
        return cells.obsm[f"X_{key}"]
    if f"layers/{key}" in model.writes.values():
        from sklearn.decomposition import PCA

        return PCA(min(30, cells.n_vars - 1), random_state=seed).fit_transform(cells.layers[key]).astype(np.float32)
    from scipy.sparse.linalg import eigsh

    w = sp.csr_matrix(model.graph())  # diffusion coordinates: where a walk along the ties goes
    root = sp.diags(np.asarray(w.sum(1)).ravel() ** -0.5)
    values, vectors = eigsh(root @ w @ root, min(20, cells.n_obs - 2), v0=np.ones(cells.n_obs))
    return (root @ vectors * values).astype(np.float32)


def rounds(system, n, wanted=0):
    """Epochs for ``fit``: those wanted, else the system's own, fewer from 5,000 cells on, so that the number of steps stays."""
    own = getattr(get(system)(), "epochs", 0)
    return wanted or (max(5, round(own * 5000 / n)) if own and n > 5000 else None)


def pca(cells, n=30, seed=0):
    """Principal components of the log-normalised counts (cells x n), from the sparse matrix."""
    from sklearn.decomposition import PCA

    n = min(n, cells.n_vars - 1, cells.n_obs - 1)
    return PCA(n, svd_solver="arpack", random_state=seed).fit_transform(logs(cells)).astype(np.float32)


def centred(z, batch):
    """An embedding (cells x d) with the mean of every batch moved to 0: the simplest correction there is."""
    out, batch = np.array(z), np.asarray(batch).astype(str)
    for b in np.unique(batch):
        out[batch == b] -= out[batch == b].mean(0)
    return out


def flat(z, seed=0):
    """A map (cells x 2) of an embedding, by UMAP; an embedding of two dimensions is its own."""
    if z.shape[1] == 2:
        return z
    from umap import UMAP

    return UMAP(n_neighbors=min(15, len(z) - 1), random_state=seed, n_jobs=1).fit_transform(z)
