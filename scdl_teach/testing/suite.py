"""``check_model``: the promises of the contract, kept by every system or excused by name with a reason."""

from __future__ import annotations

import ast
import inspect
import random
import tempfile
import warnings
from copy import deepcopy
from pathlib import Path

import anndata
import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import clone

from ..core.data import tables_of
from ..core.engine import weights
from ..core.fields import DataError
from ..core.model import Estimator, Model
from .spoilt import MATRIX, constant, keys, picture, renamed, spoilers, twice, with_more
from .toys import toy_for

FACTORIES = {"zeros", "ones", "full", "empty", "rand", "randn", "randint", "randperm", "arange", "linspace", "eye", "tensor"}
AUTHORS = {
    "build",
    "loss",
    "outputs",
    "plan",
    "skill",
    "adopt",
    "generate",
    "learn",
    "device",
    "findings",
}  # what a subclass may override


def trains(cls):
    return issubclass(cls, Model)


def when(applies):
    """Mark a check that only some classes can be asked; the others are reported as "not asked", not as excused."""

    def mark(check):
        check.applies = applies
        return check

    return mark


class Suite:
    """All checks of one class. ``preset``: small hyper-parameters; ``how``: arguments of fit(), as ``{"reference": model}``."""

    def __init__(self, cls, preset=None, how=None, toy=None):
        self.cls, self.preset, self.how = cls, preset or {}, {"device": "cpu", "progress": False} | (how or {})
        self.toy = toy or (lambda **kw: toy_for(cls, **kw))
        self.data = self.toy()
        self.model = self.fitted()
        self.made = self.model.predict(*self.data)

    def make(self):
        return self.cls(**self.preset)

    def fitted(self, data=None, **kw):
        with warnings.catch_warnings(record=True):  # of toys that a training of two epochs says nothing about
            return self.make().fit(*(data or self.data), **self.how | {"epochs": 2} | kw)

    def same(self, a, b, exact=True):
        assert a.keys() == b.keys(), f"other keys: {sorted(a)} and {sorted(b)}"
        for k in a:
            equal = (
                np.array_equal(a[k], b[k])
                if exact or a[k].dtype.kind not in "f"
                else np.allclose(a[k], b[k], rtol=1e-4, atol=1e-5)
            )
            assert equal, f"{k} differs"

    def refused(self, change, field, what):
        data = tuple(a.copy() for a in self.data)
        table = self.cls.tables.index(field.table or self.cls.tables[0])
        data = (*data[:table], change(data[table]), *data[table + 1 :])
        self.fails(lambda: self.fitted(data), f"{what} (fit)")
        if not field.fit_only:
            self.fails(lambda: self.model.predict(*data), f"{what} (predict)")

    # -- the checks, in order ---------------------------------------------------------------------
    def check_constructs(self):
        for given in ({}, self.preset, self.cls.paper):
            model = self.cls(**given)
            assert not model._state(), "weights before fit()"
            wanted = self.cls().get_params() | given
            assert model.get_params() == wanted, "the constructor does more than store"
            assert clone(model).get_params() == self.cls().set_params(**given).get_params() == wanted, (
                "scikit-learn cannot clone it"
            )
            assert repr(model) == f"{self.cls.__name__}({', '.join(f'{k}={v!r}' for k, v in wanted.items())})", (
                f"unreadable: {model!r}"
            )
        assert clone(self.model).get_params() == self.model.get_params() and not hasattr(clone(self.model), "seed_")

    def check_deterministic(self):
        states = lambda: (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())
        before = states()
        self.same(self.made, self.fitted().predict(*self.data))
        assert states() == before, "the caller's random state moved"
        other = self.fitted(seed=1).predict(*self.data)
        equal = all(np.array_equal(other[k], v) for k, v in self.made.items())
        assert equal == self.cls.deterministic, "the seed changes nothing" if equal else "the seed changes a deterministic method"

    def check_refit(self):
        self.same(self.made, self.fitted().fit(*self.data, **self.how, epochs=2).predict(*self.data))

    @when(lambda cls: cls.skill is not None)
    def check_learns(self):
        rises = 0
        for seed in range(3):
            before = self.fitted(epochs=0, seed=seed).score(*self.data)
            after = self.fitted(epochs=None, seed=seed).score(*self.data)
            rises += after > before
        assert rises >= 2, f"skill rose on {rises} of 3 seeds only"

    @when(trains)
    def check_moves(self):
        before = dict(self.fitted(epochs=0).named_parameters())
        end = self.fitted(epochs=10)
        still = [
            k for k, v in end.named_parameters() if v.numel() and not k.startswith("reference.") and torch.equal(v, before[k])
        ]
        assert not still, f"never moved: {still}"
        assert all(p.requires_grad for p in end.parameters()), "weights left frozen after fit()"

    def check_forms(self):
        """The same numbers in another form give the same result, bit by bit."""
        forms = {
            "csr": sp.csr_matrix,
            "csc": sp.csc_matrix,
            "dense": lambda x: x.toarray() if sp.issparse(x) else np.asarray(x),
            "float64": lambda x: x.astype(np.float64),
            "int": lambda x: x.astype(np.int64),
        }
        for name, form in forms.items():
            data = tuple(a.copy() for a in self.data)
            for a in data:
                x = a.X.toarray() if sp.issparse(a.X) else a.X
                if (name == "int" and (np.isnan(x).any() or (x != np.round(x)).any())) or (
                    name[:2] == "cs" and np.isnan(x).any()
                ):
                    continue
                a.X = form(a.X)
            self.same_as(data, name)

    def same_as(self, data, name):
        try:
            self.same(self.made, self.fitted(data).predict(*data))
        except AssertionError as e:
            raise AssertionError(f"{name}: {e}") from None

    def check_view(self):
        double = tuple(anndata.concat([a, a], pairwise=True, index_unique="-", merge="same") for a in self.data)
        views = tuple(d[: a.n_obs] for d, a in zip(double, self.data, strict=True))
        self.same_as(views, "view")
        assert all(v.is_view for v in views), "a view was made real"

    def check_backed(self):
        for form in (sp.csr_matrix, lambda x: x.toarray() if sp.issparse(x) else x):
            with tempfile.TemporaryDirectory() as folder:
                opened = []
                for i, a in enumerate(self.data):
                    b = a.copy()
                    b.X = form(b.X)
                    b.write_h5ad(Path(folder) / f"{i}.h5ad")
                    opened.append(anndata.read_h5ad(Path(folder) / f"{i}.h5ad", backed="r"))
                self.same_as(tuple(opened), "backed")
                for b in opened:
                    b.file.close()

    def check_refuses(self):
        for field in self.cls.needs.values():
            for what, change in spoilers(field):
                self.refused(change, field, f"{what} in {field.where}")
        self.fails(lambda: self.make().predict(*self.data), "prediction before fit()")
        self.fails(lambda: self.fitted(self.data * 2), "too many tables")
        self.fails(lambda: self.fitted(where={"nothing": "X"}), "where= for an unknown field")

    def check_genes(self):
        """Matched by name: another order and further genes change nothing, absent ones are refused or taken as zero."""
        for field in [f for f in self.cls.needs.values() if f.by_gene and not f.fit_only]:
            t = self.cls.tables.index(field.table or self.cls.tables[0])
            change = lambda how, t=t: [*self.data[:t], how(self.data[t]), *self.data[t + 1 :]]
            self.same(self.made, self.model.predict(*change(lambda a: a[:, ::-1].copy())), exact=False)
            self.same(self.made, self.model.predict(*change(with_more)), exact=False)
            self.fails(lambda: self.model.predict(*change(twice)), "a gene named twice")
            fewer = change(lambda a: a[:, :-1].copy())
            if self.cls.missing_genes == "zero":
                self.model.predict(*fewer)
            else:
                self.fails(lambda: self.model.predict(*fewer), "absent genes")
                self.fails(lambda: self.model.predict(*change(renamed)), "renamed genes")

    def fails(self, use, what):
        try:
            use()
        except DataError as e:
            assert len(str(e)) > 20, f"the message for {what} is too short to help"
        else:
            raise AssertionError(f"accepted {what}")

    def check_untouched(self):
        data = tuple(a.copy() for a in self.data)
        before = [picture(a) for a in data]
        self.fitted(data).predict(*data)
        assert before == [picture(a) for a in data], "fit() or predict() changed its input"

    def check_writes(self):
        data = tuple(a.copy() for a in self.data)
        before = [keys(a) for a in data]
        self.model.annotate(*data)
        new = {(t, k) for t, a, b in zip(self.cls.tables, data, before, strict=True) for k in keys(a) - b}
        want = {(t, f"{s}/{k}") for t, s, k in map(self.model._place, self.cls.writes)} | {
            (t, "uns/scdl_teach") for t in self.cls.tables
        }
        assert new == want, f"wrote {new ^ want}"
        with tempfile.TemporaryDirectory() as folder:
            for a in data:
                a.write_h5ad(Path(folder) / "a.h5ad")
                assert keys(anndata.read_h5ad(Path(folder) / "a.h5ad")) == keys(a), "keys lost in h5ad"

    def check_subset(self):
        half = [np.arange(0, a.n_obs, 2) for a in self.data]
        tables = [a[h].copy() for a, h in zip(self.data, half, strict=True)]
        if self.cls.transductive:
            return self.fails(lambda: self.model.predict(*tables), "other rows than those of fit()")
        part = self.model.predict(*tables)
        rows = dict(zip(self.cls.tables, half, strict=True))
        places = {k: self.model._place(k) for k in self.made}
        want = {k: v if places[k][1].startswith("var") else v[rows[places[k][0]]] for k, v in self.made.items()}
        self.same(want, part, exact=False)

    def check_saves(self):
        with tempfile.TemporaryDirectory() as folder:
            self.model.save(folder)
            again = self.cls.load(folder)
            self.same(self.made, again.predict(*self.data))
            assert again.history_.equals(self.model.history_), "another history"
            assert again.get_params() == self.model.get_params(), "other hyper-parameters"
            assert {p.name for p in Path(folder).iterdir()} == {"model.json", "weights.safetensors"}

    def check_float32(self):
        assert all(v.dtype in (np.float32, np.int64) or v.dtype.kind in "UO" for v in self.made.values()), (
            "outputs of another type"
        )
        if not trains(self.cls):
            return
        assert {p.dtype for p in self.model.parameters()} == {torch.float32}, "weights of another type"
        found = [torch.get_default_dtype()]
        self.fitted(precision="bf16-mixed")
        assert found == [torch.get_default_dtype()], "the default type moved"

    def check_device(self):
        """No ``.cuda()``, and no tensor made without ``device=`` where a batch is at hand (``build`` and hooks may)."""
        for f in ast.walk(ast.parse(inspect.getsource(inspect.getmodule(self.cls)))):
            if isinstance(f, ast.FunctionDef) and f.name not in ("__init__", "build"):
                for call in [c for c in ast.walk(f) if isinstance(c, ast.Call) and isinstance(c.func, ast.Attribute)]:
                    made = call.func.attr in FACTORIES and getattr(call.func.value, "id", "") == "torch"
                    assert not made or any(k.arg == "device" for k in call.keywords), (
                        f"line {call.lineno}: torch.{call.func.attr} without device="
                    )
                    assert call.func.attr != "cuda", f"line {call.lineno}: .cuda()"

    @when(trains)
    def check_meta(self):
        """Every loss forward and backward on tensors without storage: whatever stays on another device shows."""
        model = self.fitted(epochs=0)
        model = deepcopy(model).to("meta")
        for k, v in vars(model).items():
            if isinstance(v, torch.Tensor):
                setattr(model, k, v.to("meta"))
        data = self.model._data(tables_of(self.data, self.cls.tables), self.model, grow=False)
        data.device = "meta"
        for phase in model.plan():
            for u in phase.updates:
                model.train()
                model(u.loss, data.take(self.first_batch(phase, data))).backward()

    @when(trains)
    def check_terms(self):
        """Each loss of the plan is the sum of the terms that the class names, and every one of them reaches a weight."""
        data = self.model._data(tables_of(self.data, self.cls.tables), self.model, grow=False)
        model = deepcopy(self.model)
        losses = [(phase, u) for phase in model.plan() for u in phase.updates]
        named = {u.loss for _, u in losses}
        assert set(self.cls.terms) == named, f"terms names {sorted(self.cls.terms)}, the plan {sorted(named)}"
        for phase, update in losses:
            total, made = summed(model, update.loss, data.take(self.first_batch(phase, data)))
            names = self.cls.terms[update.loss]
            made = made or {names[0]: total}
            assert tuple(made) == tuple(names), f"{update.loss} adds up {tuple(made)}, terms names {tuple(names)}"
            np.testing.assert_allclose(total.item(), sum(made.values()).item(), rtol=1e-5, err_msg=update.loss)
            for name, term in made.items():
                assert reaches(term, list(weights(update.of))), f"{update.loss}: {name} moves no weight"

    def first_batch(self, phase, data):
        return data.spans(phase.batch_size, np.random.default_rng(0), levels=self.levels(phase, data))[0]

    def levels(self, phase, data):
        if phase.by is None or isinstance(phase.by, str):
            return data.levels(phase.by)
        return data.levels(lambda d: np.arange(len(d.rows[self.cls.tables[0]])) % 3)

    def check_authors(self):
        """A class writes what an author writes, and leaves what everyone gets."""
        own = {k for k in vars(self.cls) if callable(getattr(self.cls, k)) and not k.startswith("__")}
        wrong = {k for k in own if hasattr(Model, k)} - AUTHORS
        assert not wrong, f"overrides {sorted(wrong)}, which belong to the contract"
        assert self.cls.__mro__[1] in (Model, Estimator), "inherits from another system; share a function in nn/ instead"

    def check_small(self):
        for n in (7, (self.model.plan()[-1].batch_size if trains(self.cls) else None) or 8):
            data = self.toy(n=n + 1)
            for f in self.cls.needs.values():
                if type(f) in MATRIX and not getattr(f, "missing", False) and f.where == "X":
                    x = data[self.cls.tables.index(f.table or self.cls.tables[0])]
                    x.X = constant(x.X)
            made = self.fitted(data).predict(*data)
            assert all(np.isfinite(v).all() for v in made.values() if v.dtype.kind == "f"), (
                f"not finite with {n + 1} rows and a constant gene"
            )

    @when(trains)
    def check_nan_loss(self):
        broken = self.make()
        name = broken_loss(broken, self.fitted(epochs=0))
        try:
            broken.fit(*self.data, **self.how, epochs=1)
        except FloatingPointError as e:
            assert name in str(e) and "phase" in str(e) and "epoch" in str(e), str(e)
        else:
            raise AssertionError("a NaN loss went unnoticed")


def summed(model, loss, batch):
    """The loss as at the end of a phase, and what ``sum_of`` added up for it."""
    made = {}
    model.train()
    model.at = 1.0
    model.sum_of = lambda **terms: made.update(terms) or sum(terms.values())
    return model(loss, batch), made


def reaches(term, moved):
    """Does a gradient of the term come to one of the weights?"""
    if not (torch.is_tensor(term) and term.requires_grad):
        return False
    found = torch.autograd.grad(term, moved, retain_graph=True, allow_unused=True)
    return any(g is not None and g.abs().max() > 0 for g in found)


def broken_loss(model, fitted):
    """Spoil the first loss of the plan, which a fitted model shows; its name."""
    name = fitted.plan()[0].updates[0].loss
    good = getattr(type(model), name)
    setattr(model, name, lambda b: good(model, b) * float("nan"))
    return name


CHECKS = tuple(n.removeprefix("check_") for n in vars(Suite) if n.startswith("check_"))


def check_model(cls, preset=None, how=None, toy=None, only=None):
    """Run the suite; ``{check: "ok" | "not asked" | "excused: why" | "FAILED: why"}``. A stale excuse fails."""
    suite, results = Suite(cls, preset, how, toy), {}
    for short in CHECKS if only is None else only:
        check = getattr(suite, f"check_{short}")
        if not getattr(check, "applies", lambda cls: True)(cls):
            results[short] = "not asked"
            continue
        excuse = cls.expected_failures.get(short)
        try:
            check()
            results[short] = "FAILED: the excuse is stale" if excuse else "ok"
        except Exception as e:  # a broken model may raise anything; the table must go on
            results[short] = f"excused: {excuse}" if excuse else f"FAILED: {type(e).__name__}: {str(e)[:240]}"
    return results


def failures(cls, **kw):
    """What ``check_model`` holds against a class; an empty dict is what a test asks for."""
    return {k: v for k, v in check_model(cls, **kw).items() if v.startswith("FAILED")}
