"""Tables of Cell Ranger and STARsolo: an ``.h5``, or a folder of ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv``."""

import gzip
import re
import warnings
from collections import Counter
from io import TextIOWrapper

import numpy as np
import scipy.sparse as sp

from ..core.fields import DataError, DataWarning

GENES = "Gene Expression"
OTHERS = {"Antibody Capture", "Antigen Capture", "CRISPR Guide Capture", "Custom", "Multiplexing Capture", "Peaks"}
ENTRIES = [[field, "general"] for field in ("integer", "real", "pattern", "unsigned-integer")]  # what a value may be
DEPTH = 3  # folders below the one given in which a matrix is looked for


# -- folders -----------------------------------------------------------------------------------------------
def prefix_of(path):
    """What stands before "matrix.mtx" in a name; GEO puts the sample there."""
    return re.sub(r"(matrix)?\.mtx(\.gz)?$", "", path.name, flags=re.I)


def matrices(folder):
    """The matrices of a folder, one a sample; else those of the folders below it."""
    for depth in range(DEPTH + 1):
        found = sorted(folder.glob("*/" * depth + "*matrix.mtx*"))
        found = {(p.parent, prefix_of(p)): p for p in reversed(found) if re.search(r"\.mtx(\.gz)?$", p.name)}
        if found:
            return sorted(found.values())
    return []


def beside(folder, prefix, *names):
    """The file of names that belongs to a matrix, packed or not."""
    places = [folder / f"{prefix}{name}.tsv{gz}" for name in names for gz in ("", ".gz")]
    return next((p for p in places if p.is_file()), None)


def read_mtx(path):
    """AnnData from a folder that holds one matrix (itself or below), or from the path of a matrix with its names beside it."""
    found = matrices(path) if path.is_dir() else [path]
    if len(found) > 1:
        first = shown([str(p.relative_to(path)) for p in found])
        raise DataError(f"{path.name} holds {len(found)} matrices ({first}), and one is needed; give the path of one: {found[0]}")
    folder, prefix = found[0].parent, prefix_of(found[0])
    files = [beside(folder, prefix, "barcodes"), beside(folder, prefix, "features", "genes")]
    if None in files:
        has = shown(sorted(p.name for p in folder.iterdir()))
        needed = f"{prefix}barcodes.tsv and {prefix}features.tsv"
        raise DataError(f"{folder.name} holds {found[0].name} without its names ({has}); put {needed} beside it")
    cells, genes = [first for first, *_ in rows(files[0])], rows(files[1])
    x = oriented(found[0], len(cells), len(genes))
    types = [g[2] if len(g) > 2 else GENES for g in genes]
    if not {*types} & {GENES, *OTHERS}:
        types = [GENES] * len(genes)  # a further column that tells something else
    return table(path.name, x, cells, [g[0] for g in genes], [g[1] if len(g) > 1 else g[0] for g in genes], types)


def opened(path):
    """Bytes of a file, unpacked if it is packed, whatever its ending says."""
    with open(path, "rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else open(path, "rb")


def rows(path):
    """The fields of each line of a table separated by tabs."""
    with opened(path) as f:
        lines = [line.rstrip("\r\n").split("\t") for line in TextIOWrapper(f, "utf-8") if line.strip()]
    return [[field.strip('"') for field in line] for line in lines]


def oriented(path, cells, genes):
    """The matrix as cells x genes; some programs write it turned. Its sizes are compared with the names before it is read."""
    with opened(path) as f:
        head = f.readline().decode().lower().split()
        if head[:3] != ["%%matrixmarket", "matrix", "coordinate"] or head[3:] not in ENTRIES:
            what = f"{path.name} begins {' '.join(head)[:60]!r}, and the sparse matrix of Cell Ranger is needed"
            raise DataError(f"{what}: scipy.io.mmwrite('matrix.mtx', scipy.sparse.coo_matrix(x))")
        height, width, stored = map(int, next(line for line in f if line.strip() and not line.startswith(b"%")).split())
        if (cells, genes) not in ((width, height), (height, width)):
            mend = "each needs one line a name and no other; take away a title line, or give the files of one run"
            raise DataError(f"{path.name} is {height} x {width}, and beside it are {genes} genes and {cells} barcodes; {mend}")
        x = entries(f, height, width, stored, "pattern" in head)
    return x.T.tocsr() if (cells, genes) == (width, height) else x.tocsr()


def entries(f, height, width, stored, pattern):
    """Rows, columns and values below the head, by pandas: the reader of scipy can end the whole process on an open file."""
    import pandas as pd

    kinds = {0: np.int64, 1: np.int64} | ({} if pattern else {2: np.float64})
    found = pd.read_csv(f, sep=r"\s+", header=None, names=[*kinds], dtype=kinds, index_col=False) if stored else pd.DataFrame()
    if len(found) != stored:
        raise ValueError(f"{len(found)} of its {stored} values are there")
    if not stored:
        return sp.coo_matrix((height, width))
    values = np.ones(stored) if pattern else found[2].to_numpy()
    return sp.coo_matrix((values, (found[0].to_numpy() - 1, found[1].to_numpy() - 1)), shape=(height, width))


# -- .h5 -----------------------------------------------------------------------------------------------------
def genomes(root):
    """The genomes of a file of Cell Ranger 2: groups that each hold a table."""
    groups = [k for k in root if hasattr(root[k], "keys")]
    return [k for k in groups if {"barcodes", "data", "gene_names", "indices", "indptr"} <= {*root[k]}]


def is_table(root):
    """Is an HDF5 file one of Cell Ranger?"""
    box = root.get("matrix")
    return {"barcodes", "features"} <= {*box} if hasattr(box, "keys") else bool(genomes(root))


def read_h5(path, genome=None):
    """AnnData from Cell Ranger's ``.h5``, of one genome if it is named."""
    import h5py

    with h5py.File(path, "r") as f:
        if "matrix" in f:
            box = f["matrix"]
            about = {k: text(box[f"features/{k}"]) for k in ("id", "name", "feature_type")}
            about["genome"] = text(box["features/genome"]) if "genome" in box["features"] else None
        else:
            box = f[one_of(path, genomes(f), genome)]
            about, genome = {"id": text(box["genes"]), "name": text(box["gene_names"])}, None
        shape = tuple(int(n) for n in box["shape"][:])[::-1]
        x = sp.csr_matrix((box["data"][:], box["indices"][:], box["indptr"][:]), shape=shape)
        cells = text(box["barcodes"])
    x.check_format(full_check=True)
    out = table(path.name, x, cells, about["id"], about["name"], about.get("feature_type"))
    return of_genome(path, out, about, genome)


def text(array):
    return array.asstr()[:].tolist()


def one_of(path, has, genome):
    """The genome that is asked for, or the only one."""
    if genome is None and len(has) == 1:
        return has[0]
    if genome in has:
        return genome
    line = f"scdl_teach.datasets.read('{path.name}', genome='{has[0]}').write_h5ad('{has[0]}.h5ad')"
    what = "and one is needed" if genome is None else f"and {genome!r} is none of them"
    raise DataError(f"{path.name} holds the genomes {shown(has)}, {what}: {line}")


def of_genome(path, out, about, genome):
    """The genes of one genome; where there are several and none is named, all stay, and that is said."""
    if not about.get("genome"):
        return out
    of = dict(zip(about["id"], about["genome"], strict=True))
    out.var["genome"] = [of[i] for i in out.var["gene_ids"]]
    has = sorted(set(out.var["genome"]))
    if genome is not None:
        return out[:, out.var["genome"] == one_of(path, has, genome)].copy()
    if len(has) > 1:
        mend = f"scdl_teach.datasets.read('{path.name}', genome={has[0]!r}) reads one"
        warnings.warn(f"{path.name} holds genes of {len(has)} genomes ({shown(has)}), read as one table; {mend}", DataWarning, 3)
    return out


# -- both ----------------------------------------------------------------------------------------------------
def table(name, x, cells, ids, symbols, types=None):
    """AnnData of the rows that are genes; antibodies and others are left out, and that is said."""
    kinds = np.array(types if types is not None else [GENES] * len(ids), object)
    if len(cells) != x.shape[0] or not len(ids) == len(symbols) == len(kinds) == x.shape[1]:
        raise DataError(
            f"{name} has {len(cells)} barcodes and {len(ids)} genes for {x.shape[0]} x {x.shape[1]} counts; copy it again"
        )
    others = Counter(kinds[kinds != GENES].tolist())
    listed = shown([f"{n} of {k}" for k, n in others.items()])
    if others.total() == len(ids):
        raise DataError(f"{name} holds no gene expression, but {listed or 'nothing'}; give the table of the genes")
    if others:
        mend = "they are no genes; scanpy reads them with gex_only=False"
        warnings.warn(f"{name} has rows that are left out: {listed}; {mend}", DataWarning, 3)
    from anndata import AnnData

    out = AnnData(x.astype(np.float32))
    out.obs_names, out.var_names = cells, symbols
    out.var["gene_ids"], out.var["feature_types"] = ids, kinds
    out = out[:, kinds == GENES].copy() if others else out
    out.var_names_make_unique()
    return out


def shown(names, n=4):
    """The first of some names, and how many more."""
    names = list(map(str, names))
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
