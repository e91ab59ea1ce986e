"""AnnData tables and the fields a model declares -> sizes, and batches of tensors."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from .arrays import BLOCK, KEPT, OnDisk, choose
from .fields import DataError, noted


class Batch(dict):
    """A dict whose entries also read as attributes: ``b.x`` is ``b["x"]``."""

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the batch has no {key!r}, only {sorted(self)}") from None


def tables_of(adatas, names):
    """The AnnData of every table by name, from AnnData or one MuData (by its names, else in its order)."""
    if len(adatas) == 1 and hasattr(adatas[0], "mod"):
        mod = adatas[0].mod
        adatas = [mod[n] for n in names] if set(names) <= set(mod) else list(mod.values())
    for a in adatas:
        if not hasattr(a, "obs_names") or not hasattr(a, "layers"):
            raise DataError(f"an AnnData is needed, not {type(a).__name__}; read a file with scdl_teach.datasets.read(path)")
    if len(adatas) != len(names):
        raise DataError(f"{len(adatas)} AnnData given, where {len(names)} are needed, in this order: {', '.join(names)}")
    return dict(zip(names, adatas, strict=True))


def shared(names):
    """The genes that all tables have (``names``: a list a table), in the order of the first."""
    sets = [set(has) for has in names.values()]
    found = [g for g in next(iter(names.values())) if all(g in has for has in sets)]
    if not found:
        ends = ", ".join(f"{t}: {has[:2]}" for t, has in names.items())
        raise DataError(f"the tables share no gene ({ends}); set var_names to one kind of name (symbols, or Ensembl ids)")
    fewest = min(map(len, names.values()))
    if 2 * len(found) < fewest:
        what = f"the tables share only {len(found)} of the {fewest} genes of the smaller one"
        noted(f"{what}; check that their names are of one kind")
    return found


class Data:
    """Tables and fields, checked -> sizes, and batches of rows.

    ``known`` are the genes of the fit by table and ``categories`` its categories by field; new ones are
    appended where ``grow``. ``same_genes``: use the genes that all tables share. ``absent``: "refuse" or "zero".
    """

    def __init__(self, tables, needs, known=None, categories=None, grow=True, paired=False, same_genes=False, absent="refuse"):
        first = next(iter(tables))
        places = {k: f.place(tables[f.table or first]) for k, f in needs.items()}
        self.needs = {k: replace(f, table=f.table or first) for k, f in places.items()}
        self.paired, self.device, self.whole = paired, "cpu", None
        self.rows = {t: np.arange(a.n_obs) for t, a in tables.items()}
        self.check_rows(tables)
        self.match_genes(tables, known or {}, same_genes, absent)
        self.values, self.categories = {}, {}
        for k, f in list(self.needs.items()):
            values = f.read(tables[f.table])
            if values is None:
                del self.needs[k]
                continue
            f.check(k, values, tables[f.table])
            at = self.columns.get(f.table) if f.by_gene else None
            if at is not None:
                rows = isinstance(values, pd.DataFrame)  # a table of genes x sets
                values = values.iloc[at[at >= 0]] if rows else choose(values, at)
            if f.encode:
                values, self.categories[k] = f.encode(values, (categories or {}).get(k, []), grow)
            self.values[k] = values
        sizes = {k: len(self.categories.get(k, ())) or self.needs[k].size(v) for k, v in self.values.items()}
        self.sizes = Batch(sizes | {f"n_{t}": len(r) for t, r in self.rows.items()})

    def check_rows(self, tables):
        for t, a in tables.items():
            if a.n_obs == 0 or (a.n_vars == 0 and any(f.table == t and f.by_gene for f in self.needs.values())):
                join = "a join keeps what all tables share: give their genes one kind of name (symbols, or Ensembl ids) first"
                mend = "at least two rows are needed" if a.n_vars else join
                raise DataError(f"the table {t!r} is empty: {a.n_obs} rows x {a.n_vars} genes; {mend}")
        names = [list(a.obs_names) for a in tables.values()]
        if self.paired and any(n != names[0] for n in names):
            mend = "keep the common ones, b = b[a.obs_names].copy()"
            raise DataError(f"the tables {list(tables)} must describe the same examples in the same order; {mend}")

    def match_genes(self, tables, known, same_genes, absent):
        """By name: another order and further genes are no matter, genes absent from the table are."""
        names = {f.table: list(tables[f.table].var_names) for f in self.needs.values() if f.by_gene}
        for t, has in names.items():
            if len(set(has)) < len(has):
                twice = pd.Index(has)[pd.Index(has).duplicated()].unique()
                what = f"table {t!r} names {len(twice)} genes more than once ({list(twice[:3])}); names must be unique"
                raise DataError(f"{what}: adata.var_names_make_unique()")
        if same_genes and not known:
            known = dict.fromkeys(names, shared(names))
        self.genes, self.columns = {t: known.get(t, has) for t, has in names.items()}, {}
        for t, has in names.items():
            if self.genes[t] != has:
                self.columns[t] = pd.Index(has).get_indexer(self.genes[t])
                self.check_lost(t, has, absent)

    def check_lost(self, t, has, absent):
        """Genes of the fit that a table lacks."""
        at = self.columns[t]
        lost = [g for g, i in zip(self.genes[t], at, strict=True) if i < 0]
        if lost and absent != "zero":
            what = f"table {t!r} lacks {len(lost)} of the {len(at)} genes of the fit ({lost[:3]}); it has {has[:3]}"
            raise DataError(f"{what}. Give all of them, or fit again on the genes that both have")
        if 2 * len(lost) > len(at):
            what = f"table {t!r} lacks {len(lost)} of the {len(at)} genes of the fit, which count as 0"
            noted(f"{what}; check that the names are of one kind")

    def split(self, fraction, rng):
        """Two Data over the same tables: rows to learn from, and rows held out."""
        parts = copy(self), copy(self)
        order = {t: rng.permutation(r) for t, r in self.rows.items()}
        if self.paired:
            order = dict.fromkeys(order, next(iter(order.values())))
        for part, side in zip(parts, (slice(None, -1), slice(-1, None)), strict=True):
            cut = {t: np.split(o, [int(np.ceil(len(o) * (1 - fraction)))])[side] for t, o in order.items()}
            part.rows = {t: np.sort(np.concatenate(o)) for t, o in cut.items()}
        return parts

    def levels(self, by):
        """Row numbers of each level of ``by`` (a Category's name, or a function of these data giving codes); -1 takes no part."""
        if by is None:
            return None
        if len(self.rows) > 1 and not self.paired:
            raise ValueError("by= needs one table, or tables that are paired")
        rows = next(iter(self.rows.values()))
        codes = np.asarray(by(self)) if callable(by) else self.values[by][rows]
        return [rows[codes == c] for c in np.unique(codes[codes >= 0])]

    def stratified(self, size, rng, levels):
        """Batches (levels x size rows) with as many rows of every level; the largest is walked once, the others start over."""
        steps = -(-max(map(len, levels)) // size)
        return np.stack([np.resize(rng.permutation(r), (steps, size)) for r in levels], 1)

    def spans(self, size, rng=None, rank=0, world=1, levels=None):
        """This process's rows of every batch; each table is permuted by itself, and a short one starts over."""
        if size is None:
            return [self.rows]
        if levels is not None:
            return [dict.fromkeys(self.rows, b[:, rank::world].ravel()) for b in self.stratified(size, rng, levels)]
        longest = max(map(len, self.rows.values()))
        order = {}
        for t, r in self.rows.items():
            if rng is None or not (self.paired and order):
                mixed = np.arange(len(r)) if rng is None else self.shuffled(len(r), rng)
            order[t] = np.resize(r[mixed], longest)
        cuts = [*range(0, longest, size), longest]
        if len(cuts) > 2 and size > 1 and cuts[-1] - cuts[-2] < 2 * world:
            del cuts[-2]  # BatchNorm cannot learn from one row: it joins the batch before
        return [{t: o[a:b][rank::world] for t, o in order.items()} for a, b in pairwise(cuts)]

    def shuffled(self, n, rng):
        """A random order; of rows in a large file one in which near rows stay near, so that blocks are read once."""
        if n <= BLOCK * KEPT or not any(isinstance(v, OnDisk) for v in self.values.values()):
            return rng.permutation(n)
        blocks = np.array_split(np.arange(n), -(-n // BLOCK))
        groups = np.array_split(rng.permutation(len(blocks)), -(-len(blocks) // (KEPT // 2)))
        return np.concatenate([rng.permutation(np.concatenate([blocks[i] for i in g])) for g in groups])

    def take(self, rows):
        """One batch; ``b.rows`` are its row numbers in the first table, ``b.rows_<table>`` those in the others."""
        if rows is self.rows and self.whole is not None:
            return self.whole
        first = next(iter(rows))
        out = Batch({"rows" if t == first else f"rows_{t}": torch.from_numpy(r) for t, r in rows.items()})
        for k, f in self.needs.items():
            out |= f.take(k, self.values[k], rows[f.table])
        out = Batch({k: v.to(self.device, non_blocking=True) for k, v in out.items()})
        if rows is self.rows:
            self.whole = out  # a phase without batches meets the same data every epoch
        return out

    def map(self, function, size=1024):
        """``function(batch)`` over all rows in order, joined: how a hook sees the data without holding them all."""
        return torch.cat([function(self.take(rows)) for rows in self.spans(size)])
