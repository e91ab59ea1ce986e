"""What a recipe does first: read and check a user's cells, choose genes, prepare what a system reads. Plain functions on
AnnData.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .. import datasets
from ..core.arrays import BLOCK
from ..core.fields import Category, Counts, DataError, DataWarning, Expression, Field, near
from ..core.registry import catalogue, get
from ..datasets.foreign import one_line

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?$")
COMMON = re.compile(r"(MT-[A-Z]|RP[LS]\d|(ACTB|GAPDH|B2M|MALAT1|EEF1A1|TMSB4X|FTL|FTH1|TPT1)$)", re.I)  # in almost any table
GENOME = re.compile(r"^(hg\d\d|GRCh\d\d|mm\d+|GRCm\d\d)_+", re.I)  # before each name, where reads were mapped to two genomes
BARCODE = re.compile(r".*[ACGT]{12,}")
SYMBOLS = ("gene_symbols", "gene_symbol", "symbol", "symbols", "gene_name", "feature_name", "gene_short_name", "name")
FEWEST = 10  # genes below which nothing can be learnt
LEAST = 50  # cells below which nothing can be learnt, or judged
SCALED = ("desc",)  # read z-scored values
FEW = ("mmd_resnet", "batch_free")  # read a few principal components
PAIRS = ("saucie", "mmd_resnet", "batch_free")  # join two batches
IN_EACH = {"combat": 2, "sciber": 2, "scbatch": 2, "bbknn": 3, "seurat_cca": 6, "mnn": 20, "scanorama": 20}  # cells of a batch
MOST = {"scbatch": 4000}  # cells that a system can hold
KEPT = 30  # cells of each batch in a sample to judge on
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
    source : what ``datasets.read`` reads
    where : ``{"x": "layers/umi"}`` or ``{"x": "raw"}`` where counts are neither in ``layers["counts"]`` nor in ``X``
    batch, label : columns of obs that will be used; "" for none

    Returns
    -------
    adata (cells x genes, as read, with unique names of cells), counts (the same shape, no copy), facts ({what: found})
    """
    name = Path(source).name
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adata, values, facts = judged(name, datasets.read(source), (where or {}).get("x"), batch, label)
    notes = dict.fromkeys(one_line(w.message) for w in said if issubclass(w.category, DataWarning))  # those of anndata say less
    if not adata.obs_names.is_unique:
        notes[f"{int(adata.obs_names.duplicated().sum())} cells had the name of another; '-1', '-2' was put behind"] = None
        adata.obs_names_make_unique()
    for i, note in enumerate(notes, 1):
        warnings.warn(note, DataWarning, stacklevel=2)
        facts[f"note {i}"] = note
    return adata, values, facts


def judged(name, adata, place, batch, label):
    """The table with its counts and facts; what looks wrong comes as ``DataWarning``."""
    for check in (genes_in_rows, too_few, genes_twice):
        if fault := check(adata):
            raise DataError(one_line(f"{name} {fault}"))
    try:
        values, place = counts_of(adata, place)
        facts = {"file": name} | described(adata, values, place)
        if batch:
            facts["batches"] = levels_of(adata, batch, "batches")
            joined(values, adata, batch)
        if label:
            facts["labels"] = levels_of(adata, label, "labels")
    except DataError as e:
        raise DataError(one_line(f"{name}: {as_option(str(e))}")) from e
    genome_before(adata.var_names)
    return adata, values, facts


def as_option(said):
    """A place as a recipe takes it, where a field names it for ``fit``."""
    said = said.replace("fit(adata, where={...})", "--where x=PLACE")
    return re.sub(r"fit\(adata, where=\{'x': '([^']*)'\}\)", r"--where x=\1, in Python where={'x': '\1'}", said)


def too_few(adata):
    if not adata.n_obs:
        return f"is empty ({adata.n_obs} cells x {adata.n_vars} genes); {LEAST} cells or more are needed, so make it again"
    if adata.n_vars < FEWEST:
        has = f"{adata.n_vars} gene{'s' * (adata.n_vars > 1)}" if adata.n_vars else "no gene"
        mend = "a join keeps the genes that all tables share, so give them one kind of name (symbols, or Ensembl ids) first"
        return f"has {has} ({adata.n_obs} cells x {adata.n_vars} genes), and {FEWEST} or more are needed; {mend}"
    if adata.n_obs < LEAST:
        return f"has {adata.n_obs} cells; {LEAST} or more are needed to learn and to judge, so join it with other samples"


def looks_like_genes(names):
    """Half of them Ensembl ids (or gene1, gene2, ...), or three of the genes that almost every table has."""
    names = [GENOME.sub("", n) for n in names]
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


def genome_before(names):
    """Say that the names of genes begin with a genome's, so that no symbol is found among them."""
    found = names[names.astype(str).str.match(GENOME.pattern, case=False)]
    if len(found) > len(names) / 2:
        line = f"adata.var_names = adata.var_names.str.replace({GENOME.pattern!r}, '', regex=True, case=False)"
        warnings.warn(
            f"the names of genes begin with a genome's ({found[0]}), so symbols do not match them: {line}", DataWarning, 2
        )


def counts_of(adata, given=None):
    """The raw counts (cells x genes), judged by the field with which a system reads them, and their place."""
    field = Counts(given or "X", given=bool(given)).place(adata)
    if not (field.by_gene and field.by_row):
        raise DataError(f"{given} holds no table of cells x genes, where the counts should be; name X, raw or layers/NAME")
    values = field.read(adata)
    field.check("x", values, adata)
    return values, field.where


def levels_of(adata, column, title):
    """The categories of a column of obs and their sizes, in one line."""
    if column not in adata.obs:
        has = f"obs has {', '.join(map(str, adata.obs.columns[:8]))}" if len(adata.obs.columns) else "obs has no column"
        mend = near(column, adata.obs.columns) or ": name one of them, or add it"
        raise DataError(f"there is no column {column!r} in obs for the {title}; {has}{mend}")
    values = names_in(adata, column)
    Category(f"obs/{column}").check(title, values, adata)
    sizes = pd.Series(values).value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if title == "batches" and len(sizes) < 2:
        raise DataError(f"obs[{column!r}] has one batch only ({sizes.index[0]}); two or more are needed: name another column")
    if len(sizes) > adata.n_obs / 5:
        raise DataError(f"obs[{column!r}] has {len(sizes)} different values in {adata.n_obs} cells; name a column of {title}")
    first = ", ".join(f"{k} ({v:,})" for k, v in sizes.head(6).items())
    return f"obs[{column!r}]: {first}" + (f" and {len(sizes) - 6} more" if len(sizes) > 6 else "")


def names_in(adata, column):
    """The categories of the cells, with the names that a system gives them."""
    return Category(f"obs/{column}").read(adata)


def joined(counts, adata, column):
    """Say that two batches have hardly a gene in common, as tables have that were joined under two kinds of names."""
    batch = names_in(adata, column)
    names = sorted(set(batch))
    seen = np.stack([np.asarray((counts[np.flatnonzero(batch == b)] > 0).sum(0)).ravel() > 0 for b in names]).astype(float)
    common = seen @ seen.T
    share = common / np.minimum.outer(seen.sum(1), seen.sum(1))
    i, j = np.unravel_index(share.argmin(), share.shape)
    if share[i, j] < 0.2:
        found = f"the batches {names[i]!r} and {names[j]!r} have {int(common[i, j])} of {adata.n_vars} genes in common"
        mend = "give the genes of all tables one kind of name (symbols, or Ensembl ids) before you join them"
        warnings.warn(f"{found}; nothing can be matched between them: {mend}", DataWarning, 2)


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
    names = adata.var_names.to_numpy(object)
    shown = next((c for c in SYMBOLS if c in adata.var), None) if ENSEMBL.match(str(adata.var_names[0])) else None
    if shown is None:
        return names
    given = adata.var[shown].astype(object)
    return np.where(given.isna() | (given == ""), names, given.astype(str))


def places(adata, genes):
    """Column numbers of genes, by their name or symbol."""
    shown = symbols(adata)
    found = [np.flatnonzero((adata.var_names == g) | (shown == g))[:1] for g in genes]
    if lost := [g for g, at in zip(genes, found, strict=True) if not len(at)]:
        bare = {GENOME.sub("", str(n)).lower(): n for n in shown}
        meant = bare.get(str(lost[0]).lower())
        mend = f"; did you mean {meant!r}?" if meant else near(lost[0], shown)
        has = f"the file has {', '.join(map(str, shown[:3]))}, ..."
        raise DataError(f"genes= names {', '.join(map(str, lost))}, absent here; {has}{mend}")
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
            out.obs[name] = pd.Categorical(names_in(adata, column))
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
    bare = without(counts, chosen)
    while len(bare):
        more = np.argmax(np.asarray(counts[bare].sum(0)).ravel())  # the gene that most of the bare cells have
        chosen = np.sort(np.append(chosen, more))
        bare = without(counts, chosen)
    return chosen


def without(counts, genes):
    """The cells that show none of these genes."""
    return np.flatnonzero(np.asarray(counts[:, genes].sum(1)).ravel() == 0)


def sample(cells, n, seed=0):
    """``n`` of the cells by chance, in their order, and a few more where a batch would be left with too few to compare; or
    all.
    """
    rows = np.random.default_rng(seed).permutation(cells.n_obs)
    chosen = [rows[:n]]
    if "batch" in cells.obs:
        batch = cells.obs["batch"].to_numpy()[rows]
        chosen += [rows[batch == b][:KEPT] for b in cells.obs["batch"].unique()]
    return cells[np.unique(np.concatenate(chosen))].copy()


def logs(cells):
    """log1p of counts at the median depth (cells x genes, CSR): zeros stay zeros."""
    x = sp.csr_matrix(cells.X, dtype=np.float32, copy=True)
    total = np.asarray(x.sum(1)).ravel()
    x.data *= np.repeat(np.median(total) / total, np.diff(x.indptr)).astype(np.float32)
    return x.log1p()


def inputs(cells, system, programmes=""):
    """``where=`` for ``fit``: a system that reads no counts gets log-normalised (some: z-scored) values in a layer, or
    components.

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
    """Refuse a system that learns from what is not there: labels, gene sets that the table knows, batches that it can join."""
    needs = get(system).needs if system else {}
    if "label" in needs and not needs["label"].optional and not values["label"]:
        raise DataError(f"{system!r} learns from labels of the cells and none is named: --where label=obs/COLUMN")
    if "programmes" in needs:
        sets_of(adata, values["programmes"])
    if adata.n_obs > MOST.get(system, np.inf):
        mend = "take a sample of them, or another system: --system combat"
        raise DataError(
            f"{system!r} holds all pairs of cells and these are {adata.n_obs:,}, where {MOST[system]:,} can be; {mend}"
        )
    if "batch" in needs and values.get("batch"):
        can_be_joined(adata, system, values["batch"])


def can_be_joined(adata, system, column):
    """Refuse more batches than a system joins, or one with fewer cells than it compares."""
    sizes = pd.Series(names_in(adata, column)).value_counts()
    if system in PAIRS and len(sizes) > 2:
        keep = f"adata[adata.obs[{column!r}].isin({sorted(sizes.index[:2])})].copy()"
        raise DataError(f"{system!r} joins two batches, and obs[{column!r}] has {len(sizes)}; keep two: {keep}")
    if sizes.iloc[-1] < (least := IN_EACH.get(system, 1)):
        small, n = sizes.index[-1], int(sizes.iloc[-1])
        found = f"the batch {small!r} of obs[{column!r}] has {n} cell{'s' * (n > 1)}, and {system!r} needs {least} in each"
        raise DataError(f"{found}; leave it out: adata[adata.obs[{column!r}].astype(str) != {small!r}].copy()")


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
