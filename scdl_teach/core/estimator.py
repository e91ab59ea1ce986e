"""The contract: what every system of the package is, and what it gets for nothing."""

from __future__ import annotations

import inspect
import json
import re
import sys
import warnings
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from importlib import import_module
from importlib.metadata import version
from typing import ClassVar, dataclass_transform

import numpy as np
import pandas as pd
from torch import nn

from . import storage
from .data import Batch, Data, tables_of
from .engine import seeded
from .fields import DataError, DataWarning
from .findings import findings_of
from .hyper import checked, plain
from .progress import reporter

BASES = []  # Model, once it is imported: its words, too, are of the contract
FREE = ("epochs", "lr", "batch_size", "patience")  # words that become arguments where a class annotates them


@dataclass_transform(kw_only_default=True, eq_default=False)
class Estimator:
    """A method without gradients: ``fit``, ``predict``, ``annotate``, ``score``, ``save``, ``load``.

    Its author says what it reads (``needs``) and gives (``writes``), and writes ``learn`` and ``outputs`` on NumPy arrays;
    what is learnt stands in arrays whose names end in ``_``. The annotated attributes of a subclass are its
    hyper-parameters: ``neighbors: int = 15`` is an argument of its constructor.
    """

    key: ClassVar[str] = ""  # the name in the catalogue; by default the class name in lower case
    needs: ClassVar[dict] = {}
    writes: ClassVar[dict] = {}  # {"latent": "obsm/X_dca"}: where annotate() puts each output; "spots:obsm/..." in another table
    tables: ClassVar[tuple] = ("cells",)
    paired: ClassVar[bool] = False  # do the tables describe the same examples, row by row?
    same_genes: ClassVar[bool] = False  # are the tables compared gene by gene, so that the shared genes are used?
    missing_genes: ClassVar[str] = "refuse"  # or "zero": what to do in predict() with genes that the new data lack
    transductive: ClassVar[bool] = False  # is something learnt for every row, so that only the rows of fit() have a prediction?
    deterministic: ClassVar[bool] = False  # does the seed change nothing?
    names: ClassVar[dict] = {}  # {"label": "cell_type"}: the codes in this output stand for the categories of that field
    pruned: ClassVar[tuple] = ()  # outputs whose dimensions the training switches off on purpose
    estimates: ClassVar[dict] = {}  # {"denoised": "x"}: this output estimates that field, in its units
    terms: ClassVar[dict] = {}  # {"loss": ("nll", "kl")}: what each loss that trains is the sum of
    paper: ClassVar[dict] = {}  # the hyper-parameters of the paper: Model(**Model.paper)
    expected_failures: ClassVar[dict] = {}  # {check: reason}, read by testing.check_model
    epochs, chunk, device, skill = 0, 1024, "cpu", None

    def __init_subclass__(cls):
        """Make the subclass a keyword-only dataclass, and refuse what would then fail silently."""
        noted, own = inspect.get_annotations(cls), vars(cls)
        if cls.__module__.rpartition(".")[0] == __package__:
            BASES.append(cls)
        else:
            base = [Estimator, *BASES][-1]
            cls.key = own.get("key", cls.__name__.lower())
            wrong = {
                "is made from the annotated attributes, not written": [k for k in ("__init__", "__post_init__") if k in own],
                "belongs to the contract and takes no annotation": [
                    k for k in noted if k in nn.Module.__annotations__ or (hasattr(base, k) and k not in FREE)
                ],
                "is a hyper-parameter and needs its annotation": [
                    k for k in getattr(cls, "__dataclass_fields__", ()) if k in own and k not in noted
                ],
            }
            for why, which in wrong.items():
                if which:
                    raise TypeError(f"{cls.__name__}: {', '.join(which)} {why}")
        dataclass(cls, kw_only=True, eq=False, repr=False)

    def __post_init__(self):
        self.reference = None  # the fitted model that fit(reference=...) was given
        vars(self).update({k: plain(v) for k, v in self.get_params().items()})  # NumPy's numbers are numbers

    # -- an author writes these ---------------------------------------------------------------------
    def build(self, sizes):
        """Make what depends on the sizes; called by ``fit`` and again by ``load``."""

    def learn(self, data, rng, epochs=None, device="auto"):
        """Learn from ``arrays(data.take(data.rows))``, all rows, by the chance of ``rng``; one dict a round for ``history_``."""
        return ()

    def outputs(self, b):
        """``{"latent": array, ...}``, with the names of ``writes``, for the rows of one batch."""
        raise NotImplementedError

    def findings(self, data):
        """Further sentences on what is wrong with the fitted model, each with its mend."""
        return ()

    def adopt(self, reference):
        """Check what ``fit(reference=...)`` was given, None included; its genes and categories hold, a copy is
        ``self.reference``.
        """
        if reference is not None:
            raise TypeError(f"{type(self).__name__} builds on no other model: fit() it without reference=")

    # -- everyone gets these ------------------------------------------------------------------------
    def get_params(self, deep=True):
        """The hyper-parameters, as scikit-learn wants them; ``deep`` changes nothing."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def set_params(self, **changes):
        """Change hyper-parameters; a fitted model then has to be fitted again."""
        if strange := changes.keys() - self.get_params().keys():
            raise ValueError(f"{type(self).__name__} has no {sorted(strange)}, only {list(self.get_params())}")
        self.__dict__.update({k: plain(v) for k, v in changes.items()})
        self.__dict__.pop("seed_", None)
        return self

    def extra_repr(self):
        return ", ".join(f"{k}={v!r}" for k, v in self.get_params().items())

    def __repr__(self):
        return f"{type(self).__name__}({self.extra_repr()})"

    def fit(self, *adatas, where=None, reference=None, seed=0, device="auto", epochs=None, progress=None, **options):
        """Learn from one AnnData per table (or a MuData), which stay as they are; a ``DataError`` says how to mend what does not
        fit.

        Ends by looking at itself: what is wrong stands in ``findings_`` (sentences) and is one ``DataWarning``, unless
        ``epochs`` asked for a shorter training than the model's own.

        where : other places than ``needs`` says, as ``{"x": "layers/counts", "batch": "obs/donor"}``; kept for ``predict``
        reference : a fitted model to build on; it is copied, never changed
        seed : the only source of chance
        device : "auto", "cpu", "cuda", "mps"
        epochs : at most so many in every phase; None leaves the model's own
        progress : None (a bar where a person watches), "lines", "off", or a function of one line
        options : of a Model: ``validation`` (share of rows held out, or ``{"entries": share}`` where it estimates its input),
            ``precision`` ("32-true", "bf16-mixed") and further words of ``lightning_fabric.Fabric``, as ``devices=2``
        """
        self.__dict__.pop("seed_", None)  # not fitted until the end
        seed = checked(self, seed, epochs, device, where, options)
        self.adopt(reference)
        self.where_ = dict(where or {})
        tables = tables_of(adatas, self.tables)
        data = self._data(tables, reference, grow=True)
        if min(map(len, data.rows.values())) < 2:
            raise DataError("a table has one row; at least two are needed to learn from")
        with seeded(seed) as rng:
            self.genes_, self.categories_, self.sizes_ = data.genes, data.categories, data.sizes
            self.rows_ = {t: list(a.obs_names) for t, a in tables.items()} if self.transductive else {}
            self._built(data.sizes, deepcopy(reference))
            show, rows = reporter(progress, self._rounds(epochs)), []
            for row in self.learn(data, rng, epochs=epochs, device=device, **options):
                rows.append(row)
                show(row)
        self.history_, self.seed_ = pd.DataFrame(rows), seed  # now it counts as fitted
        data.device = self.device
        self.findings_ = findings_of(self, data, getattr(self, "skills", ())) if epochs != 0 else []
        if self.findings_ and self._rounds(epochs) >= self._rounds(None):
            warnings.warn(f"{type(self).__name__}: {'. '.join(self.findings_)}", DataWarning, stacklevel=2)
        return self

    def batch(self, *adatas, labels=False):
        """All rows as one batch, on the model's device, as ``loss`` and ``outputs`` read them; ``labels`` too where it is
        asked for.
        """
        data = self._fitted_data(adatas, labels)
        return self._read(data.take(data.rows))

    def predict(self, *adatas):
        """``{"latent": array, ...}``: the outputs named in ``writes``; nothing is written."""
        data = self._fitted_data(adatas)
        with seeded(self.seed_):
            made = [self._given(data.take(rows)) for rows in data.spans(self.chunk)]
        if made[0].keys() != self.writes.keys():
            raise TypeError(f"{type(self).__name__}: outputs() gives {sorted(made[0])}, but writes names {sorted(self.writes)}")
        return {k: self._join(k, [m[k] for m in made], data) for k in self.writes}

    def annotate(self, *adatas):
        """Write the prediction where ``writes`` says, and how it was made to ``uns["scdl_teach"]``: the only method that
        changes its arguments.
        """
        tables, made = tables_of(adatas, self.tables), self.predict(*adatas)
        for name, v in made.items():
            table, slot, key = self._place(name)
            labels = slot == "obs" and v.dtype.kind != "f"
            v = pd.Categorical(v).rename_categories(str) if labels else self._on_genes_of(tables[table], table, slot, v)
            getattr(tables[table], slot)[key] = v
        note = {"hyper": json.dumps(self.get_params()), "seed": self.seed_, "version": version("scdl-teach"), "doi": self.doi()}
        for a in tables.values():
            a.uns["scdl_teach"] = dict(a.uns.get("scdl_teach", {})) | {self.key: note}
        return adatas[0] if len(adatas) == 1 else adatas

    def score(self, *adatas):
        """Mean skill on these data (higher is better); labels, where the method learns from them, are needed."""
        data = self._fitted_data(adatas, labels=True)
        return float(self.skill(arrays(data.take(data.rows))))

    def plot_history(self):
        """A panel for every column of ``history_``."""
        return import_module("scdl_teach.plot").history(self.history_)

    @classmethod
    def doi(cls):
        """The first DOI (or arXiv number) of the class, else of its module."""
        text = f"{cls.__doc__}\n{sys.modules[cls.__module__].__doc__}"
        found = re.search(r"doi:\s*(10\.\d{4,}/[^\s),;]+)|(arXiv:\d{4}\.\d+)", text)
        return "" if found is None else found[1] or found[2]

    def save(self, folder):
        """``model.json`` and ``weights.safetensors``, each complete or as before; a reference is saved inside."""
        storage.save(self, folder)

    @classmethod
    def load(cls, folder):
        """A saved model, on the CPU. Nothing pickled is read; only classes of this package or already imported are made."""
        return storage.load(cls, folder, Estimator)

    # -- inside -------------------------------------------------------------------------------------
    def _data(self, tables, like, grow, labels=True):
        if like is not None and not hasattr(like, "seed_"):
            raise DataError(f"this {type(like).__name__} is not fitted; call fit(...) first")
        if strange := self.where_.keys() - self.needs.keys():
            raise DataError(f"where= names {sorted(strange)}; {type(self).__name__} reads {list(self.needs)}")
        needs = {k: f for k, f in self.needs.items() if labels or not f.fit_only}
        needs |= {k: replace(needs[k], where=w, optional=False, given=True) for k, w in self.where_.items() if k in needs}
        known = getattr(like, "genes_", {})
        known = dict(zip(self.tables, known.values(), strict=True)) if len(known) == len(self.tables) else known  # by any name
        absent = "refuse" if grow else self.missing_genes
        return Data(tables, needs, known, getattr(like, "categories_", {}), grow, self.paired, self.same_genes, absent)

    def _fitted_data(self, adatas, labels=False):
        tables = tables_of(adatas, self.tables)
        data = self._data(tables, self, grow=False, labels=labels)
        for t in self.rows_:
            if list(tables[t].obs_names) != self.rows_[t]:
                what = (
                    f"{type(self).__name__} learns something for every row and predicts only those of fit(); "
                    f"these {t!r} are others"
                )
                raise DataError(f"{what}. Fit it again on all of them")
        data.device = self.device
        return data

    def _built(self, sizes, reference):
        self.reference = reference
        self.build(sizes)

    def _place(self, name):
        table, _, path = self.writes[name].rpartition(":")
        slot, _, key = path.partition("/")
        return table or self.tables[0], slot, key

    def _join(self, name, made, data):
        table, slot, _ = self._place(name)
        v = made[0] if slot.startswith("var") else np.concatenate(made)[: len(data.rows[table])]  # a short table started over
        return np.array(self.categories_[self.names[name]])[v] if name in self.names else v

    def _on_genes_of(self, adata, table, slot, v):
        """An output with a value a gene, on the genes of ``adata``: NaN where fit() did not have them."""
        if slot not in ("layers", "varm") or self.genes_.get(table) in (None, list(adata.var_names)):
            return v
        rows = pd.DataFrame(v.T if slot == "layers" else v, index=self.genes_[table]).reindex(adata.var_names).to_numpy()
        return rows.T if slot == "layers" else rows

    def _rounds(self, epochs):
        return self.epochs if epochs is None else epochs

    def _read(self, b):
        return arrays(b)

    def _given(self, b):
        return self.outputs(arrays(b))

    def _state(self):
        below = self.reference._state() if self.reference is not None else {}
        return self._arrays() | {f"reference.{k}": v for k, v in below.items()}

    def _restore(self, state):
        """Take the arrays of ``_state``, if they are those of this class."""
        below = {k.removeprefix("reference."): v for k, v in state.items() if k.startswith("reference.")}
        own = {k: v for k, v in state.items() if not k.startswith("reference.")}
        wrong = self._wrong(own) or list(below if self.reference is None else ())
        if wrong:
            what = f"the saved arrays {sorted(wrong)[:3]} do not fit {type(self).__name__} of this version"
            raise DataError(f"{what}; fit the model again")
        if self.reference is not None:
            self.reference._restore(below)
        self._take(own)

    def _arrays(self):
        return {k: np.ascontiguousarray(v) for k, v in vars(self).items() if k.endswith("_") and isinstance(v, np.ndarray)}

    def _wrong(self, arrays):
        """Names that are not those of learnt arrays, and arrays that ``build`` makes and that are missing."""
        free = lambda k: k.isidentifier() and k.endswith("_") and not hasattr(type(self), k)
        mine = lambda k: isinstance(vars(self).get(k, np.empty(0)), np.ndarray)
        return [k for k in arrays if not (free(k) and mine(k))] + list(self._arrays().keys() - arrays.keys())

    def _take(self, arrays):
        vars(self).update(arrays)


def arrays(b):
    """A batch as NumPy, for methods without gradients."""
    return Batch({k: v.numpy() for k, v in b.items()})
