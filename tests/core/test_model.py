"""The contract: hyper-parameters, places, genes, references, saving, and that the common suite bites."""

import json

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from torch import nn

from scdl_teach import datasets
from scdl_teach.core.arrays import tables_apart
from scdl_teach.core.fields import Binary, Category, Counts, DataError, Expression, Field, Mask
from scdl_teach.core.model import Estimator, Model
from scdl_teach.testing import check_model, failures, toy_for

from .small import CPU, CountLine, Label, Line, Mean


def test_suite_passes_the_small_ones():
    for cls in (Line, CountLine, Label, Mean):
        found = failures(cls)
        if cls is CountLine:
            assert "inherits from another system" in found.pop("authors")
        assert not found, cls
    assert check_model(Mean, only=("moves", "meta", "nan_loss")) == dict.fromkeys(("moves", "meta", "nan_loss"), "not asked")


# -- hyper-parameters --------------------------------------------------------------------------------
def test_hyper_parameters():
    m = Line(lr=0.5)
    assert repr(m) == "Line(epochs=5, lr=0.5, batch_size=32, patience=None)" and repr(Mean()) == "Mean(power=2.0)"
    assert Line(**clone(m).get_params()).lr == 0.5 and m != Line(lr=0.5)
    with pytest.raises(TypeError, match="hidden"):
        Line(hidden=3)
    with pytest.raises(TypeError):
        Line(3)
    with pytest.raises(ValueError, match="no \\['hidden'\\], only \\['epochs'"):
        m.set_params(hidden=3)
    m.fit(*toy_for(Line), **CPU).set_params(lr=0.1)
    with pytest.raises(DataError, match="not fitted"):
        m.predict(*toy_for(Line))


@pytest.mark.parametrize(
    "body,why",
    [
        ({"__init__": lambda self: None}, "__init__ is made"),
        ({"__post_init__": lambda self: None}, "__post_init__ is made"),
        ({"__annotations__": {"writes": dict}, "writes": {}}, "writes belongs"),
        ({"__annotations__": {"score": float}, "score": 1.0}, "score belongs"),
        ({"__annotations__": {"training": bool}, "training": True}, "training belongs"),
        ({"epochs": 7}, "epochs is a hyper-parameter"),
    ],
)
def test_what_a_class_may_not_say(body, why):
    with pytest.raises(TypeError, match=why):
        type("Wrong", (Line,), body)


def test_layer_named_like_a_hyper_parameter():
    class Twice(Line):
        net: int = 2

    with pytest.raises(TypeError, match="'net'.*rename the layer"):
        Twice().fit(*toy_for(Twice), **CPU)


def test_outputs_and_writes_agree():
    class More(Line):
        writes = {"latent": "obsm/X_line", "loss": "obs/loss"}

    m = More().fit(*toy_for(More), **CPU)
    with pytest.raises(TypeError, match=r"outputs.. gives .'latent'., but writes names .'latent', 'loss'."):
        m.predict(*toy_for(More))


def test_codes_are_ordered_as_numbers():
    class Codes(Line):
        writes = {"cluster": "obs/codes_cluster"}

        def outputs(self, b):
            return {"cluster": b.rows % 12}

    (a,) = toy_for(Codes)
    Codes().fit(a, epochs=0, **CPU).annotate(a)
    assert list(a.obs["codes_cluster"].cat.categories) == [str(i) for i in range(12)]


# -- places and genes ----------------------------------------------------------------------------------
def logged():
    """A file as users have it: log values in X, counts in a layer, the batch under another name."""

    class Both(CountLine):
        needs = {"x": Counts(), "batch": Category(optional=True)}

    (a,) = toy_for(Both)
    b = a.copy()
    b.layers["umi"], b.X = sp.csr_matrix(a.X), np.log1p(a.X)
    b.obs["donor"] = b.obs.pop("batch")
    return Both, a, b


def test_where(tmp_path):
    Both, a, b = logged()
    b.write_h5ad(tmp_path / "mine.h5ad")
    b = datasets.read(tmp_path / "mine.h5ad")
    with pytest.raises(
        DataError,
        match=r"X has fractions; raw counts are needed. layers\['umi'\] looks like counts: fit\(adata, "
        r"where=\{'x': 'layers/umi'\}\)",
    ):
        Both().fit(b, **CPU)
    where = {"x": "layers/umi", "batch": "obs/donor"}
    m = Both().fit(b, where=where, **CPU)
    assert np.array_equal(m.predict(b)["latent"], Both().fit(a, **CPU).predict(a)["latent"])  # kept for predict
    m.annotate(b)
    assert b.layers["countline"].shape == b.shape and "X_countline" in b.obsm
    b.write_h5ad(tmp_path / "out.h5ad")
    note = anndata.read_h5ad(tmp_path / "out.h5ad").uns["scdl_teach"]["both"]
    assert json.loads(note["hyper"])["epochs"] == 5 and note["seed"] == 0
    with pytest.raises(DataError, match=r"obs/donr is missing.*obs has \['donor'\]"):
        Both().fit(b, where=where | {"batch": "obs/donr"}, **CPU)
    with pytest.raises(DataError, match="no place in an AnnData"):
        Both().fit(b, where={"x": "counts"}, **CPU)
    with pytest.raises(DataError, match=r"where= names \['y'\]"):
        Both().fit(b, where={"y": "X"}, **CPU)


def test_layer_counts_is_taken_unless_the_user_says_x():
    (a,) = toy_for(CountLine)
    a.layers["counts"] = a.X + 1
    plain, said = CountLine(epochs=0).fit(a, **CPU), CountLine(epochs=0).fit(a, where={"x": "X"}, **CPU)
    assert np.allclose(plain._fitted_data((a,)).take({"cells": np.arange(3)}).x, a.X[:3] + 1)
    assert np.allclose(said._fitted_data((a,)).take({"cells": np.arange(3)}).x, a.X[:3])


def test_raw_is_named_but_never_read():
    (a,) = toy_for(CountLine)
    a.raw = a.copy()
    a.X = np.log1p(a.X)
    with pytest.raises(DataError, match=r"adata.raw looks like counts: fit\(adata, where=\{'x': 'raw'\}\)"):
        CountLine().fit(a, **CPU)


def test_genes_by_name():
    (a,) = toy_for(CountLine)
    m = CountLine().fit(a, **CPU)
    want = m.predict(a)
    turned = a[:, ::-1].copy()
    assert np.array_equal(m.predict(turned)["latent"], want["latent"])
    m.annotate(turned)
    assert np.array_equal(turned.layers["countline"], want["denoised"][:, ::-1])
    more = anndata.concat([a, toy_for(CountLine)[0][:, :2].copy()], axis=1, index_unique="-")
    more.var_names = [*a.var_names, "other_1", "other_2"]
    m.annotate(more)
    assert np.array_equal(more.layers["countline"][:, :-2], want["denoised"]) and np.isnan(more.layers["countline"][:, -2:]).all()
    with pytest.raises(DataError, match=r"lacks 3 of the 24 genes of the fit \(\['g0', 'g1', 'g2'\]\)"):
        m.predict(a[:, 3:].copy())

    class Zero(CountLine):
        missing_genes = "zero"

    z = Zero().fit(a, **CPU)
    empty = a.copy()
    empty.X[:, :3] = 0
    assert np.array_equal(z.predict(a[:, 3:].copy())["latent"], z.predict(empty)["latent"])


def test_shared_genes_of_two_tables():
    class Two(Line):
        tables, same_genes = ("cells", "spots"), True
        needs = {"x": Counts(), "y": Counts(table="spots")}

    a, b = toy_for(Two)
    b = b[:, ::-1][:, 2:].copy()
    m = Two(epochs=1).fit(a, b, **CPU)
    assert m.genes_["cells"] == m.genes_["spots"] == [f"g{j}" for j in range(22)] and m.sizes_.x == 22
    b.var_names = [f"ENSG{j}" for j in range(22)]
    with pytest.raises(DataError, match=r"share no gene \(cells: \['g0', 'g1'\], spots: \['ENSG0'"):
        Two().fit(a, b, **CPU)


def test_numbers_in_obs_and_optional_fields():
    class Aged(Line):
        needs = {"x": Field(), "age": Field("obs/age", optional=True)}

        def loss(self, b):
            return super().loss(b) + b.get("age", b.x.new_zeros(1)).mean() * 0

    (a,) = toy_for(Aged)
    assert Aged().fit(a, **CPU).sizes_.age == 1
    del a.obs["age"]
    assert "age" not in Aged().fit(a, **CPU).sizes_
    a.obs["age"] = "old"
    with pytest.raises(DataError, match="obs/age holds object values|obs/age holds .*str.* values"):
        Aged().fit(a, **CPU)


# -- two tables ----------------------------------------------------------------------------------------
class Pair(Model):
    tables, paired = ("rna", "atac"), True
    needs = {"x": Counts(), "y": Field("obsm/y", "atac", shape=(3,))}
    writes = {"guess": "atac:obsm/y_hat"}

    epochs: int = 1

    def build(self, sizes):
        self.w = nn.Parameter(torch.zeros(sizes.x, sizes.y))
        self.same = True

    def loss(self, b):
        self.same &= torch.equal(b.rows, b.rows_atac)
        return (b.x @ self.w - b.y).square().mean()

    def outputs(self, b):
        return {"guess": b.x @ self.w}


def test_paired_tables_stay_paired():
    r, a = toy_for(Pair)
    m = Pair().fit(r, a, validation=0.2, **CPU)
    assert m.same and m.predict(r, a)["guess"].shape == (90, 3)
    with pytest.raises(DataError, match="same examples in the same order"):
        Pair().fit(r, a[::-1].copy(), **CPU)
    with pytest.raises(DataError, match="1 AnnData given, where 2 are needed, in this order: rna, atac"):
        Pair().fit(r, **CPU)
    with pytest.raises(DataError, match=r"an AnnData is needed, not str; .*datasets.read"):
        Pair().fit("a.h5ad", "b.h5ad", **CPU)


def test_mudata_stands_for_its_tables():
    r, a = toy_for(Pair)
    with tables_apart():
        both = mudata.MuData({"atac": a.copy(), "rna": r.copy()})  # named, so the order is no matter
    want = Pair().fit(r, a, **CPU).predict(r, a)["guess"]
    m = Pair().fit(both, **CPU)
    assert np.array_equal(m.predict(both)["guess"], want)
    assert np.array_equal(m.annotate(both)["atac"].obsm["y_hat"], want)


def test_labels_only_for_fit_and_names():
    (a,) = toy_for(Label)
    truth = a.obs["cell_type"].to_numpy().astype(str)
    a.obs.loc[a.obs_names[:30], "cell_type"] = np.nan
    m = Label().fit(a, **CPU)
    del a.obs["cell_type"]
    m.annotate(a)
    assert (a.obs["label_label"].astype(str) == truth).mean() > 0.95


# -- bad data ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "field,spoil,what",
    [
        (Counts(), lambda a: a.X.__setitem__((0, 0), np.inf), "NaN or infinite"),
        (Counts(), lambda a: a.X.__setitem__((0, 0), -1), "negative values"),
        (Counts(), lambda a: a.X.__setitem__(3, 0), "1 rows without any count.*filter_cells"),
        (Expression(), lambda a: a.X.__setitem__((0, 0), -1), "negative values.*log-normalised, not z-scored"),
        (Binary(), lambda a: a.X.__setitem__((0, 0), 2), "values other than 0 and 1"),
        (
            Category("obs/label", levels=2),
            lambda a: a.obs.__setitem__("label", list("ABC") * 30),
            "has 3 categories .*where 2 are needed",
        ),
        (Category("obs/label"), lambda a: a.obs.__setitem__("label", [None, *"AB" * 44, "A"]), "has 1 missing values"),
        (Field(), lambda a: setattr(a, "var_names", ["g0"] * a.n_vars), "names 1 genes more than once.*var_names_make_unique"),
    ],
)
def test_refusals(field, spoil, what):
    cls = type("Some", (Line,), {"needs": {"x": field}})
    (a,) = toy_for(cls)
    a.X = np.asarray(a.X.toarray() if sp.issparse(a.X) else a.X)
    spoil(a)
    with pytest.raises(DataError, match=what):
        cls().fit(a, **CPU)


def test_one_row_and_no_rows():
    (a,) = toy_for(Line)
    with pytest.raises(DataError, match="one row; at least two"):
        Line().fit(a[:1].copy(), **CPU)
    with pytest.raises(DataError, match="is empty: 0 rows x 24 genes"):
        Line().fit(a[:0].copy(), **CPU)
    with pytest.raises(DataError, match="90 rows x 0 genes; a join keeps what all tables share"):
        Line().fit(a[:, :0].copy(), **CPU)


def test_unknown_category():
    class Batched(Line):
        needs = {"x": Field(), "batch": Category()}

    (a,) = toy_for(Batched)
    m = Batched().fit(a, **CPU)
    a.obs["batch"] = "new"
    with pytest.raises(DataError, match=r"unseen by fit\(\): \['new'\]; known are \['A', 'B'\].*ScArches"):
        m.predict(a)


# -- transductive, reference, programmes ---------------------------------------------------------------
def test_transductive():
    class Own(Line):
        transductive = True

    (a,) = toy_for(Own)
    m = Own().fit(a, **CPU)
    with pytest.raises(DataError, match="predicts only those of fit"):
        m.predict(a[::-1].copy())


def test_reference(tmp_path):
    (a,) = toy_for(Line)
    base = Line().fit(a, **CPU)
    with pytest.raises(TypeError, match="builds on no other"):
        Line().fit(a, reference=base, **CPU)

    class Tuned(Line):
        def adopt(self, reference):
            assert reference is not None

        def build(self, sizes):
            self.net = self.reference.net

    before = {k: v.clone() for k, v in base.state_dict().items()}
    m = Tuned(epochs=1).fit(a, reference=base, **CPU)
    assert not torch.equal(m.net[0].weight, base.net[0].weight)
    assert all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    with pytest.raises(DataError, match="not fitted"):
        Tuned().fit(a, reference=Line(), **CPU)
    with pytest.raises(DataError, match=r"lacks 1 of the 24 genes"):
        Tuned().fit(a[:, 1:].copy(), reference=base, **CPU)
    assert "reference" not in m.get_params() and clone(m).reference is None
    m.save(tmp_path)
    assert np.array_equal(Tuned.load(tmp_path).predict(a)["latent"], m.predict(a)["latent"])


def test_estimator_on_an_estimator(tmp_path):
    class Above(Mean):
        def adopt(self, reference):
            assert isinstance(reference, Mean)

        def outputs(self, b):
            return {"distance": self.reference.outputs(b)["distance"] + 1}

    (a,) = toy_for(Mean)
    base = Mean().fit(a, **CPU)
    m = Above().fit(a, reference=base, **CPU)
    m.save(tmp_path)
    assert np.array_equal(Above.load(tmp_path).predict(a)["distance"], base.predict(a)["distance"] + 1)


def test_programmes_by_name():
    class Sets(Line):
        needs = {"x": Field(), "programmes": Mask(optional=True)}

        def plan(self):
            plan = super().plan()
            plan[0].start = self.note
            return plan

        def note(self, data):
            self.seen = data.values["programmes"]

    (a,) = toy_for(Sets)
    sets = pd.DataFrame(np.eye(24, 3, dtype=int), index=a.var_names, columns=["B cell", "T cell", "NK"])
    a.varm["programmes"] = sets
    m = Sets(epochs=1).fit(a, **CPU)
    assert m.categories_["programmes"] == ["B cell", "T cell", "NK"] and np.array_equal(m.seen, sets)
    del a.varm["programmes"]
    assert Sets(epochs=1).fit(a, **CPU).categories_["programmes"] == []
    a.varm["programmes"] = 2 * sets
    with pytest.raises(DataError, match="varm/programmes has values other than 0 and 1"):
        Sets().fit(a, **CPU)


# -- the suite bites -----------------------------------------------------------------------------------
def test_the_suite_bites():
    class Cheat(Line):
        needs = {"x": Counts()}

        def outputs(self, b):
            return {"latent": self.net(b.x) + len(b.x)}

    class Unseeded(Line):
        def outputs(self, b):
            return {"latent": self.net[0](b.x) + np.random.SeedSequence().entropy % 9973}

    class Lazy(Line):
        def build(self, sizes):
            super().build(sizes)
            self.idle = nn.Linear(3, 3)

    class Hungry(Line):
        def get_params(self, deep=True):
            return super().get_params() | {"more": 1}

    class Stale(Line):
        expected_failures = {"saves": "no reason"}

    class Grows(Line):
        def loss(self, b):
            return -super().loss(b).log()

        def skill(self, b):
            return -Line.loss(self, b)

    class Slips(Line):
        def loss(self, b):
            return super().loss(b) + (torch.zeros(len(b.x)) * b.x[:, 0]).mean()

    class Scribbles(Line):
        def fit(self, *adatas, **kw):
            adatas[0].uns[f"mine{len(adatas[0].uns)}"] = 1
            return super().fit(*adatas, **kw)

    cases = {Cheat: "subset", Unseeded: "deterministic", Lazy: "moves", Hungry: "constructs", Stale: "saves", Grows: "learns"}
    cases |= {Slips: "meta", Scribbles: "untouched"}
    for cls, check in cases.items():
        found = check_model(cls, only=(check,))
        assert found[check].startswith("FAILED"), (cls, check, found)
    assert check_model(Hungry, only=("authors",))["authors"].startswith("FAILED")


def test_estimators_have_no_gradient():
    assert issubclass(Model, Estimator) and not issubclass(Mean, nn.Module)


# -- the terms of a loss ---------------------------------------------------------------------------------------
class TwoTerms(Line):
    terms = {"loss": ("error", "ridge")}
    writes = {"latent": "obsm/X_twoterms"}
    weight: float = 0.1

    def loss(self, b):
        return self.sum_of(error=super().loss(b), ridge=self.weight * self.net[0].weight.square().mean())


class Dropped(TwoTerms):
    writes = {"latent": "obsm/X_dropped"}

    def loss(self, b):
        return self.sum_of(error=Line.loss(self, b))


class Beside(TwoTerms):
    writes = {"latent": "obsm/X_beside"}

    def loss(self, b):
        return super().loss(b) - 0.05 * self.net[0].weight.square().mean()


class Cut(TwoTerms):
    writes = {"latent": "obsm/X_cut"}

    def loss(self, b):
        return self.sum_of(error=Line.loss(self, b), ridge=self.net[0].weight.detach().square().mean())


class Unnamed(TwoTerms):
    writes = {"latent": "obsm/X_unnamed"}
    terms = {}


@pytest.mark.parametrize(
    "cls,why",
    [
        (TwoTerms, ""),
        (Dropped, "adds up"),
        (Beside, "loss"),
        (Cut, "ridge moves no weight"),
        (Unnamed, "terms names"),
    ],
)
def test_a_term_that_is_dropped_cut_or_added_beside_is_noticed(cls, why):
    found = failures(cls, only=["terms"])
    assert bool(found) == bool(why) and why in found.get("terms", ""), found


def test_a_weight_of_nothing_is_noticed():
    assert "ridge moves no weight" in failures(TwoTerms, preset=dict(weight=0.0), only=["terms"])["terms"]
