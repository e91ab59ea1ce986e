"""Tables made by lot: every field reads them, or says what is wrong; nothing else is raised, and no value is lost in silence."""

import os
import warnings

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scdl_teach import DataError
from scdl_teach.core.fields import Binary, Category, Counts, Expression, Field, Sequence

MANY = settings(
    max_examples=int(os.environ.get("SCDL_TEACH_EXAMPLES", 200)),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TYPES = ["f2", "f4", "f8", ">f4", ">f8", "g", "i1", "i4", "i8", ">i4", "u1", "u4", "u8", "?", "c8"]
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5))
TABLES = st.sampled_from(TYPES).flatmap(lambda t: hnp.arrays(np.dtype(t), SHAPES))
FIELDS = [Field(), Expression(), Counts(), Counts(nonzeros=True, empty=True), Binary(), Binary(missing=True), Sequence("X")]


FORMS = {
    "array": lambda x: x,
    "frame": lambda x: pd.DataFrame(x, index=[f"c{i}" for i in range(len(x))]).rename(columns=str),
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
}


@MANY
@given(TABLES, st.sampled_from(sorted(FORMS)), st.sampled_from(FIELDS))
def test_numbers(x, form, field):
    if x.dtype.kind in "biuf" and form != "array":
        x = x.astype("f4" if x.dtype == np.float16 else x.dtype.newbyteorder("="))  # as SciPy takes them
    a = anndata.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(len(x))]))
    try:
        a.obsm["X"] = FORMS[form](x)
    except (TypeError, ValueError):
        assume(False)  # nothing that AnnData or SciPy would hold
    field = type(field)(**vars(field) | {"where": "obsm/X"})
    try:
        with warnings.catch_warnings(record=True):
            values = field.read(a)
            field.check("x", values, a)
    except DataError as e:
        assert "\n" not in str(e) and len(str(e)) > 40
        return
    made = field.take("x", values, np.arange(len(x)))["x"]
    assert len(made) == len(x)
    if not isinstance(field, Sequence):
        assert np.allclose(made.numpy(), x.astype("f8"), rtol=1e-6, equal_nan=True)


NAMES = st.lists(
    st.one_of(st.text(max_size=4), st.none(), st.integers(-3, 3), st.floats(), st.booleans(), st.dates()), min_size=1, max_size=6
)


@MANY
@given(NAMES, st.sampled_from(["object", "category", "string"]), st.booleans())
def test_names(values, kind, missing):
    column = pd.Series(values, dtype=object)
    column = column.map(lambda v: v if v is None else str(v)).astype(kind) if kind != "object" else column
    a = anndata.AnnData(obs=pd.DataFrame({"batch": column.to_numpy() if kind == "object" else column.array}))
    field = Category(missing=missing)
    try:
        with warnings.catch_warnings(record=True):
            found = field.read(a)
            field.check("batch", found, a)
            codes, names = field.encode(found, [], True)
    except DataError as e:
        assert "\n" not in str(e)
        return
    back = [names[c] if c >= 0 else None for c in codes]
    assert back == list(found) and len(set(names)) == len(names)
