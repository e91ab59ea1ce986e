"""What a model may read: kinds of arrays in an AnnData, each with its check and its tensors.

torch is imported where a batch is made, so that a file can be judged before it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..arrays import BLOCK, dense, tidy, whole


class DataError(ValueError):
    """The data do not fit the model; the message says what was found, what is needed and how to mend it."""


class DataWarning(UserWarning):
    """The data, or what was learnt from them, can be used but look wrong; the message says what was found and how to mend it."""


@dataclass(frozen=True)
class Field:
    """Finite numbers in ``where`` of one table: ``X`` or a key in layers, obs, obsm, obsp, varm (``"obsm/X_pca"``)."""

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
        return self.where == "X" or self.where.startswith(("layers/", "var"))

    def place(self, adata):
        """Where to look when the user has not said it."""
        return self

    def describe(self):
        """The line of the documentation: ``raw counts in X (cells), needed to fit only``."""
        extra = ["optional"] * self.optional + ["to fit only"] * self.fit_only
        return f"{self.kind} in {self.where}" + (f" of {self.table}" if self.table else "") + "".join(f", {e}" for e in extra)

    def read(self, adata):
        slot, _, key = self.where.partition("/")
        if slot not in ("X", "layers", "obs", "obsm", "obsp", "var", "varm") or (slot != "X" and not key):
            raise DataError(f"{self.where!r} is no place in an AnnData; write X, layers/..., obs/..., obsm/... or varm/...")
        box = getattr(adata, slot)
        if box is not None and (not key or key in box):
            return tidy(box[key] if key else box)
        if self.optional:
            return None
        has = "" if box is None else f"; {slot} has {sorted(map(str, box.keys()))}"
        raise DataError(
            f"{self.where} is missing, where {self.kind} are needed{has}. Name another place: fit(adata, where={{...}})"
        )

    def check(self, name, values, adata):
        if np.dtype(values.dtype).kind not in "biuf":
            raise DataError(f"{self.where} holds {values.dtype} values, not {self.kind}. {Field.mend(self, name, adata)}")
        for i in range(0, values.shape[0], BLOCK):
            block = values[i : i + BLOCK]
            fault = self.fault(block, block.data if sp.issparse(block) else np.asarray(block))
            if fault:
                raise DataError(f"{self.where} has {fault[0]}; {self.kind} are needed. {fault[1] or self.mend(name, adata)}")

    def fault(self, block, stored):
        """(what is wrong with these rows, how to mend it), or None."""
        if not np.isfinite(stored).all():
            return "NaN or infinite values", "Remove or impute them first"

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
    """Raw counts: ``layers["counts"]`` if there, else ``X``. With ``nonzeros`` the batch also holds ``<name>_nz``, their flat places."""

    nonzeros: bool = False
    empty: bool = False  # may a row be without any count? Not where a size factor divides by its total
    kind = "raw counts"

    def place(self, adata):
        here = self.where == "X" and not self.given and "counts" in adata.layers
        return Counts(**vars(self) | {"where": "layers/counts"}) if here else self

    def fault(self, block, stored):
        if not np.isfinite(stored).all():
            return "NaN or infinite values", None
        if (stored < 0).any() or (stored % 1 != 0).any():
            return ("negative values" if (stored < 0).any() else "fractions"), None
        none = int((np.asarray(block.sum(1)) == 0).sum())
        if none and not self.empty:
            return f"{none} rows without any count", "Remove them: sc.pp.filter_cells(adata, min_counts=1)"

    def mend(self, name, adata):
        """The exact call, if a layer looks like counts."""
        for layer in adata.layers:
            if whole(adata.layers[layer][:200]):
                return f"layers[{layer!r}] looks like counts: fit(adata, where={{{name!r}: 'layers/{layer}'}})"
        if adata.raw is not None and whole(adata.raw.X[:200]):
            return "adata.raw looks like counts: adata.layers['counts'] = adata.raw[:, adata.var_names].X"
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
    """Named sets of genes (genes x sets, a DataFrame names them), matched by name; a ``start`` hook reads ``data.values[name]``."""

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
    """A column of names, read as codes; ``optional``: one category if absent; ``missing``: NaN becomes code -1; ``levels``: how many there must be."""

    where: str = "obs/batch"
    missing: bool = False
    levels: int | None = None
    kind = "categories"

    def read(self, adata):
        key = self.where.partition("/")[2]
        if key not in adata.obs:
            return np.full(adata.n_obs, "all", object) if self.optional else super().read(adata)
        column = adata.obs[key]
        return np.where(column.isna(), None, column.astype(str).to_numpy(object))

    def check(self, name, values, adata):
        lost = sum(v is None for v in values)
        if lost and not self.missing:
            drop = f"Drop these rows: adata[adata.obs[{self.where[4:]!r}].notna()].copy()"
            raise DataError(f"{self.where} has {lost} missing values; every row needs a category. {drop}")

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

        codes = torch.as_tensor(np.asarray(values[rows]), dtype=torch.int64)
        return {name: torch.nn.functional.one_hot(codes, 5)[..., :4].transpose(1, 2).float()}
