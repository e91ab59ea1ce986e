"""What a model may read: kinds of arrays in an AnnData, each with its check and its tensors.

torch is imported where a batch is made, so that a file can be judged before it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .arrays import BLOCK, dense, layer_names, stored_of, tidy, whole
from .errors import DataError, DataWarning, near, noted  # noqa: F401 (what everyone imports from here)

EXACT = 2**24  # above it float32 skips whole numbers
SLOTS = ("X", "raw", "layers", "obs", "obsm", "obsp", "var", "varm")


@dataclass(frozen=True)
class Field:
    """Finite numbers in ``where`` of one table: ``X``, ``raw``, or a key in layers, obs, obsm, obsp, varm (``"obsm/X_pca"``)."""

    where: str = "X"
    table: str = ""  # "" is the first table of the model
    fit_only: bool = False  # a label: needed to learn, not to predict
    optional: bool = False  # if absent, the batch does not hold it
    given: bool = False  # did the user name this place?
    shape: tuple = (None,)  # of one example in the toy data; None stands for the number of genes
    kind = "finite numbers"
    encode = None  # encode(values, known, grow) -> values, names: for fields whose entries or columns have names

    @property
    def by_row(self):
        return not self.where.startswith("var")

    @property
    def by_gene(self):
        return self.where in ("X", "raw") or self.where.startswith(("layers/", "var"))

    def place(self, adata):
        """Where to look when the user has not said it."""
        return self

    def describe(self):
        """The line of the documentation: ``raw counts in X (cells), needed to fit only``."""
        extra = ["optional"] * self.optional + ["to fit only"] * self.fit_only
        return f"{self.kind} in {self.where}" + (f" of {self.table}" if self.table else "") + "".join(f", {e}" for e in extra)

    def read(self, adata):
        slot, _, key = self.where.partition("/")
        if slot not in SLOTS or (slot not in ("X", "raw") and not key):
            raise DataError(f"{self.where!r} is no place in an AnnData; write X, raw, layers/..., obs/..., obsm/... or varm/...")
        box = self.raw(adata) if slot == "raw" else getattr(adata, slot)
        if box is not None and (not key or key in box):
            return self.tidied(box[key] if key else box)
        if self.optional:
            return None
        has = [] if box is None or not key else layer_names(adata) if slot == "layers" else sorted(map(str, box.keys()))
        held = f"; {slot} has {has}{near(key, has)}" if key else ""
        raise DataError(
            f"{self.where} is missing, where {self.kind} are needed{held}. Name another place: fit(adata, where={{...}})"
        )

    def raw(self, adata):
        """The table that ``adata.raw`` keeps, with the genes of ``adata``."""
        lost = [] if adata.raw is None else list(adata.var_names.difference(adata.raw.var_names))
        if adata.raw is None or lost:
            what = f"lacks {len(lost)} genes of the table ({lost[:3]})" if lost else "is not there"
            raise DataError(f"adata.raw {what}, where {self.kind} are needed; name a layer: fit(adata, where={{...}})")
        self.tidied(adata.raw.X)  # before columns are cut: a pointer past the end would end the program
        return adata.raw[:, adata.var_names].X

    def tidied(self, values):
        try:
            return tidy(values)
        except ValueError as e:
            raise DataError(f"{self.where} is a damaged sparse matrix ({e}); write the file again from its source") from e

    def check(self, name, values, adata):
        """``DataError`` for values that can not be used, ``DataWarning`` for those that look wrong."""
        if np.dtype(values.dtype).kind not in "biuf":
            raise DataError(f"{self.where} holds {values.dtype} values, not {self.kind}. {Field.mend(self, name, adata)}")
        for i in range(0, values.shape[0], BLOCK):
            block = values[i : i + BLOCK]
            stored = stored_of(block)
            fault = self.fault(block, stored) or self.absurd(stored)
            if fault:
                raise DataError(f"{self.where} has {fault[0]}; {self.kind} are needed. {fault[1] or self.mend(name, adata)}")
        noted(*(f"{self.where} {doubt}" for doubt in self.doubts(values)))

    def fault(self, block, stored):
        """(what is wrong with these rows, how to mend it), or None."""
        if not np.isfinite(stored).all():
            return "NaN or infinite values", "Remove or impute them first"

    def absurd(self, stored):
        """Numbers that float32 can not hold."""
        if stored.size and float(np.abs(stored).max()) > np.finfo(np.float32).max:
            return f"values as large as {float(np.abs(stored).max()):.3g}", "Look for a damaged file, or divide by a constant"

    def doubts(self, values):
        """What can be used, but looks wrong: log values that are whole numbers."""
        if self.by_gene and self.by_row and type(self) in (Field, Expression) and values.shape[0]:
            stored = stored_of(values[:BLOCK])
            if stored.size and whole(stored) and stored.max() > 2:
                mend = "sc.pp.normalize_total(adata); sc.pp.log1p(adata)"
                yield f"looks like raw counts (whole numbers up to {stored.max():g}), where log values are read: {mend}"

    def mend(self, name, adata):
        return f"Name another place: fit(adata, where={{{name!r}: ...}})"

    def size(self, values):
        shape = values.shape[1:]
        return shape if len(shape) > 1 else int(shape[0]) if shape else 1

    def take(self, name, values, rows):
        return {name: dense(values[rows] if self.by_row else values)[0]}


@dataclass(frozen=True)
class Expression(Field):
    """Normalised, usually logarithmic, expression: finite and not negative."""

    kind = "normalised expression values"

    def fault(self, block, stored):
        if (stored < 0).any():
            return "negative values", "Use log-normalised, not z-scored, data: sc.pp.normalize_total(adata); sc.pp.log1p(adata)"
        return super().fault(block, stored)


@dataclass(frozen=True)
class Counts(Field):
    """Raw counts: ``layers["counts"]`` if there, else ``X``. ``nonzeros``: the batch also holds ``<name>_nz``, their places."""

    nonzeros: bool = False
    empty: bool = False  # may a row be without any count? Not where a size factor divides by its total
    kind = "raw counts"

    def place(self, adata):
        here = self.where == "X" and not self.given and "counts" in layer_names(adata)
        return Counts(**vars(self) | {"where": "layers/counts"}) if here else self

    def fault(self, block, stored):
        if not np.isfinite(stored).all():
            return "NaN or infinite values", None
        if (stored < 0).any():
            return "negative values", None
        if stored.size and stored.max() > EXACT:
            return f"values as large as {float(stored.max()):.3g}, more than one cell holds molecules", None
        if (stored % 1 != 0).any():
            if np.abs(stored - np.rint(stored)).max() < 1e-3:
                return "fractions by rounding only", f"Round them: {self.rounded()}"
            return "fractions", None
        none = int((np.asarray(block.sum(1)) == 0).sum())
        if none and not self.empty:
            return f"{none} rows without any count", "Remove them: sc.pp.filter_cells(adata, min_counts=1)"

    def rounded(self):
        slot, _, key = self.where.partition("/")
        place = f"adata.{slot}[{key!r}]" if key else f"adata.{slot}"
        return f"{place} = np.rint({place})" if slot != "raw" else "adata = adata.raw.to_adata(); adata.X = np.rint(adata.X)"

    def doubts(self, values):
        """Whole numbers that are no molecules: all rows have one large total, but for rounding."""
        total = np.concatenate(
            [np.asarray(values[i : i + BLOCK].sum(1), float).ravel() for i in range(0, values.shape[0], BLOCK)]
        )
        if len(total) > 9 and total.mean() > 5e4 and total.std() < 1e-3 * total.mean():
            found = f"has the same total in every row ({total.mean():,.0f}), as rounded TPM or CPM have"
            yield f"{found}: these are no molecules, and a count model misjudges their noise; read the raw counts instead"

    def mend(self, name, adata):
        """The exact call, if another place looks like counts."""
        for layer in layer_names(adata):
            if f"layers/{layer}" != self.where and whole(adata.layers[layer][:200]):
                return f"layers[{layer!r}] looks like counts: fit(adata, where={{{name!r}: 'layers/{layer}'}})"
        if self.where != "raw" and adata.raw is not None and whole(adata.raw.X[:200]):
            return f"adata.raw looks like counts: fit(adata, where={{{name!r}: 'raw'}})"
        if self.where != "X" and adata.X is not None and whole(adata.X[:200]):
            return f"X looks like counts: fit(adata, where={{{name!r}: 'X'}})"
        return f"If they are in a layer: fit(adata, where={{{name!r}: 'layers/...'}})"

    def take(self, name, values, rows):
        x, flat = dense(values[rows])
        if not self.nonzeros:
            return {name: x}
        return {name: x, f"{name}_nz": x.view(-1).nonzero().squeeze(1) if flat is None else flat}


@dataclass(frozen=True)
class Binary(Field):
    """Zeros and ones; with ``missing`` also NaN, for what was not observed."""

    missing: bool = False
    kind = "zeros and ones"

    def fault(self, block, stored):
        known = stored[~np.isnan(stored)] if self.missing else stored
        if not np.isfinite(known).all():
            return super().fault(block, known)
        if not np.isin(known, (0, 1)).all():
            return "values other than 0 and 1", "Make them so, for example (adata.X > 0).astype(float)"


@dataclass(frozen=True)
class Mask(Binary):
    """Named sets of genes (genes x sets, a DataFrame names them), matched by name; ``start`` reads ``data.values[name]``."""

    where: str = "varm/programmes"
    fit_only: bool = True
    kind = "zeros and ones (genes x sets)"

    def read(self, adata):
        key = self.where.partition("/")[2]
        if self.optional and key not in adata.varm:
            return pd.DataFrame(index=adata.var_names)
        if key not in adata.varm:
            return super().read(adata)
        table = adata.varm[key]
        return table if isinstance(table, pd.DataFrame) else pd.DataFrame(table.toarray() if sp.issparse(table) else table)

    def check(self, name, values, adata):
        super().check(name, values.to_numpy(), adata)
        if not values.columns.is_unique:
            twice = list(values.columns[values.columns.duplicated()][:3])
            raise DataError(f"{self.where} names a set twice: {twice}; every set needs a name of its own. Rename one of them")

    def encode(self, values, known, grow):
        """New sets are appended while fitting on a reference, and refused while predicting."""
        named = values.rename(columns=str)
        new = [c for c in named.columns if c not in set(known)]
        if new and not grow:
            raise DataError(
                f"{self.where} has sets unseen by fit(): {new[:5]}. Fit again, or map with fit(query, reference=model)"
            )
        return named.reindex(columns=[*known, *new], fill_value=0).to_numpy(np.float32), [*known, *new]

    def take(self, name, values, rows):
        return {}


@dataclass(frozen=True)
class Category(Field):
    """A column of names, read as codes; ``optional``: one if absent; ``missing``: NaN becomes -1; ``levels``: how many."""

    where: str = "obs/batch"
    missing: bool = False
    levels: int | None = None
    kind = "categories"

    def read(self, adata):
        key = self.where.partition("/")[2]
        if key not in adata.obs:
            return np.full(adata.n_obs, "all", object) if self.optional else super().read(adata)
        column = adata.obs[key]
        if column.ndim > 1:
            mend = "adata.obs = adata.obs.loc[:, ~adata.obs.columns.duplicated()]"
            raise DataError(f"{self.where} is there {column.shape[1]} times, and one column is needed: {mend}")
        if column.dtype.kind == "f" and (column.dropna() % 1 == 0).all():
            column = column.astype("Int64")  # 1.0, as a missing value elsewhere makes of 1
        return np.where(column.isna(), None, column.astype(str).to_numpy(object))

    def check(self, name, values, adata):
        lost = sum(v is None for v in values)
        if lost and not self.missing:
            drop = f"Drop these rows: adata[adata.obs[{self.where[4:]!r}].notna()].copy()"
            raise DataError(f"{self.where} has {lost} missing values; every row needs a category. {drop}")
        noted(*(f"{self.where} {doubt}" for doubt in self.doubts({v for v in values if v is not None})))

    def doubts(self, names):
        """Names that say that something is missing, and names equal but for case and blanks."""
        if empty := sorted(v for v in names if v.strip().lower() in ("nan", "none", "na", "<na>", "nat", "null", "")):
            column = f"adata.obs[{self.where[4:]!r}]"
            mend = f"{column} = {column}.replace({empty[0]!r}, None)"
            yield f"has a category called {empty[0]!r}, most likely missing values made text: {mend}"
        folded = {}
        for v in sorted(names):
            folded.setdefault(v.strip().lower(), []).append(v)
        if alike := [same for same in folded.values() if len(same) > 1]:
            yield f"has categories that differ in case or blanks only ({alike[0]}): give them one name if they are one"

    def encode(self, values, known, grow):
        """Codes and the list of categories; new ones are appended while fitting and refused while predicting."""
        new = sorted({v for v in values if v is not None} - set(known))
        if new and not grow:
            what = f"{self.where} has categories unseen by fit(): {new[:5]}; known are {known[:5]}"
            raise DataError(f"{what}. Fit again, or map them with ScArches")
        if self.levels and len(known) + len(new) != self.levels:
            what = f"{self.where} has {len(known) + len(new)} categories ({[*known, *new][:5]}), where {self.levels} are needed"
            raise DataError(f"{what}. Keep {self.levels} of them, or join the others: adata.obs[...] == 'B cell'")
        place = {c: i for i, c in enumerate([*known, *new])}
        return np.array([place.get(v, -1) for v in values], np.int64), [*known, *new]

    def take(self, name, values, rows):
        import torch

        return {name: torch.from_numpy(values[rows])}


@dataclass(frozen=True)
class Graph(Field):
    """Weights between examples (obsp); a batch holds the subgraph of its rows as a sparse COO tensor."""

    where: str = "obsp/connectivities"
    kind = "edge weights"

    def read(self, adata):
        values = super().read(adata)
        return None if values is None else tidy(sp.csr_matrix(values))

    def take(self, name, values, rows):
        import torch

        a = values[rows][:, rows].tocoo()
        places = torch.from_numpy(np.stack([a.row, a.col]).astype(np.int64))
        weights = torch.as_tensor(a.data, dtype=torch.float32)
        return {name: torch.sparse_coo_tensor(places, weights, a.shape, is_coalesced=True, check_invariants=False)}


@dataclass(frozen=True)
class Sequence(Field):
    """DNA of one length, coded 0-3 for ACGT and 4 for N; a batch holds it one-hot (rows x 4 x length)."""

    where: str = "obsm/dna"
    shape: tuple = (41,)
    kind = "base codes 0 to 4"

    def fault(self, block, stored):
        if not np.isin(stored, range(5)).all():
            return "values other than 0 to 4", "Code the bases A, C, G, T, N as 0, 1, 2, 3, 4"

    def take(self, name, values, rows):
        import torch

        codes = dense(values[rows])[0].long()
        return {name: torch.nn.functional.one_hot(codes, 5)[..., :4].transpose(1, 2).float()}
