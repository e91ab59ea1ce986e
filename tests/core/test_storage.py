"""Model folders: nothing foreign runs, nothing is mixed or lost, and whatever is wrong ends in one sentence."""

import json
import multiprocessing
import os
import random
import sys
import time
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors
from typer.testing import CliRunner

from scdl_teach import get, simulate
from scdl_teach.cli.app import app
from scdl_teach.core import registry, storage
from scdl_teach.core.fields import DataError
from scdl_teach.core.model import Estimator
from scdl_teach.imputation.scvi import SCVI
from scdl_teach.multiomics.scarches import ScArches
from scdl_teach.testing import toy_for

from .small import CPU, CountLine, Line, Mean

EXAMPLES = int(os.environ.get("SCDL_TEACH_EXAMPLES", "100"))  # of each of two fuzzers
TWO = ["model.json", "weights.safetensors"]


def stands(folder):
    return json.loads((folder / "model.json").read_text())


def changed(folder, state=None, **change):
    """Write a note, and weights, with the sums of someone who knows how they are made."""
    note = stands(folder) | change
    if state is not None:
        (folder / "weights.safetensors").write_bytes(state)
        note |= {"sha256": sha256(state).hexdigest()}
    (folder / "model.json").write_text(json.dumps(storage.sealed(note)))


def same(a, b):
    state, other = a._state(), b._state()
    return storage.described(a) == storage.described(b) and all(np.array_equal(v, other[k]) for k, v in state.items())


@pytest.fixture
def line(tmp_path):
    (a,) = toy_for(Line)
    m = Line(epochs=1).fit(a, **CPU)
    m.save(tmp_path)
    return m


# -- nothing foreign is called -------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name,hyper",
    [
        ("scdl_teach.core.model:import_module", {"name": "evil_module"}),
        ("scdl_teach.cli.commands:execute", {}),
        ("scdl_teach.recipes:copy", {}),
        ("scdl_teach.core.model:Estimator", {}),
        ("scdl_teach.core.model:Model", {}),
        ("scdl_teach.imputation.saverx:deepcopy", {"x": 1}),
        ("scdl_teach.multiomics.scarches:Model", {}),  # seen there, defined elsewhere
        ("scdl_teach.core.model:Estimator.fit", {}),
        ("scdl_teach.cli.app:app", {}),
        ("evil_module:Line", {}),
        ("scdl_teach...evil_module:Line", {}),
        ("nonsense", {}),
        ("", {}),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_only_a_system_is_made(tmp_path, monkeypatch, line, name, hyper, inside):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "scdl_teach.cli.app", raising=False)
    registry.table()  # imported and read
    before = set(sys.modules)
    foreign = {"model": name, "hyper": hyper}
    changed(tmp_path, **({"reference": stands(tmp_path) | foreign} if inside else foreign))
    for cls in (Line, Estimator):
        with pytest.raises(DataError, match="no system of this package"):
            cls.load(tmp_path)
    assert not (tmp_path / "ran").exists() and set(sys.modules) == before


def test_another_class_is_refused_before_it_is_made(tmp_path, monkeypatch, line):
    monkeypatch.setattr(Line, "__post_init__", lambda self: pytest.fail("made"))
    with pytest.raises(DataError, match=r"holds a Line, not a CountLine: Line.load"):
        CountLine.load(tmp_path)


def test_a_system_is_imported_by_its_catalogue_alone(tmp_path):
    """In a fresh process only the module of the system is imported, and the model is the same."""
    (a,) = toy_for(get("pca"))
    m = get("pca")(latent=2).fit(a, **CPU)
    m.save(tmp_path)
    code = f"""
import sys
from scdl_teach.core.model import Estimator
m = Estimator.load({str(tmp_path)!r})
bad = [k for k in sys.modules if k.startswith("scdl_teach") and k.rpartition(".")[2] in ("commands", "app", "recipes")]
assert type(m).__module__ == "scdl_teach.baselines.embedding" and not bad, bad
"""
    context = multiprocessing.get_context("spawn").Process(target=exec, args=(code,))
    context.start()
    context.join()
    assert context.exitcode == 0


def test_the_same_class_written_again_is_the_one_that_loads(tmp_path):
    """A notebook cell that is run twice makes the class twice."""

    def cell():
        class Mine(Line):
            epochs: int = 1

        return Mine

    old, new = cell(), cell()
    old().fit(*toy_for(Line), **CPU).save(tmp_path)
    assert type(new.load(tmp_path)) is new and type(old.load(tmp_path)) is old


@pytest.mark.parametrize(
    "change",
    [
        {"hyper": {"epochs": 1}},
        {"hyper": {"epochs": 1, "lr": 0.1, "batch_size": 8, "patience": None, "key": "x"}},
        {"hyper": {"epochs": 1, "lr": {"a": 1}, "batch_size": 8, "patience": None}},
        {"hyper": []},
        {"facts": {}},
        {"facts": None},
        {"reference": 3},
    ],
)
def test_words_that_the_class_does_not_have(tmp_path, line, change):
    changed(tmp_path, **change)
    with pytest.raises(DataError, match="model.json has other values than it needs"):
        Line.load(tmp_path)


@pytest.mark.parametrize("fact", [{"predict": 1}, {"seed_": "1"}, {"genes_": {"cells": [1]}}, {"history_": {"a": 1}}])
def test_facts_of_other_kinds(tmp_path, line, fact):
    changed(tmp_path, facts=stands(tmp_path)["facts"] | fact)
    with pytest.raises(DataError, match="model.json has other values than it needs"):
        Line.load(tmp_path)


def test_sizes_that_cannot_belong_to_the_weights(tmp_path, line, monkeypatch):
    """Nothing larger than the allowance is made: refused while it still takes no memory."""
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda self: pytest.fail("made"))
    for genes in (10**9, 10**12):
        facts = stands(tmp_path)["facts"]
        changed(tmp_path, facts=facts | {"sizes_": facts["sizes_"] | {"x": genes}})
        with pytest.raises(DataError, match="far more memory than the weights hold"):
            Line.load(tmp_path)


# -- the two files are one model ------------------------------------------------------------------------
def test_files_of_two_savings(tmp_path):
    (a,) = toy_for(Line)
    for seed, folder in enumerate("ab"):
        Line(epochs=1).fit(a, seed=seed, **CPU).save(tmp_path / folder)
    os.replace(tmp_path / "a/weights.safetensors", tmp_path / "b/weights.safetensors")
    with pytest.raises(DataError, match="its two files are not as they were saved together"):
        Line.load(tmp_path / "b")


def test_a_changed_note_is_seen(tmp_path, line):
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace('"g3"', '"g4"'))
    with pytest.raises(DataError, match="not as they were saved"):
        Line.load(tmp_path)


def test_save_is_all_or_nothing(tmp_path, monkeypatch, line):
    (a,) = toy_for(Line)
    new, real, moves = Line().fit(a, seed=1, **CPU), os.replace, []
    (tmp_path / "notes.txt").write_text("mine")

    def full(*_):
        raise OSError(28, "No space left on device")

    def stopped(*_):
        raise KeyboardInterrupt

    def stopped_after_one(*paths):
        moves.append(paths)
        return real(*paths) if len(moves) == 1 else stopped()

    for where, what, error in ((storage, "written", full), (os, "fsync", full), (os, "replace", stopped)):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, error)
            with pytest.raises((OSError, KeyboardInterrupt)):
                new.save(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "notes.txt", "weights.safetensors"]
        assert same(Line.load(tmp_path), line)
    monkeypatch.setattr(os, "replace", stopped_after_one)
    with pytest.raises(KeyboardInterrupt):
        new.save(tmp_path)
    assert same(Line.load(tmp_path), new)  # the second move was never made, and yet nothing is lost
    monkeypatch.undo()
    line.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "notes.txt", "weights.safetensors"]
    assert same(Line.load(tmp_path), line)


def again(models, folder):
    while True:
        for m in models:
            m.save(folder)


def started(models, folder):
    """A process that saves these models in turn; it is a fork, so that it begins at once."""
    child = multiprocessing.get_context("fork").Process(target=again, args=(models, folder))
    child.start()
    return child


@pytest.fixture(scope="module")
def two():
    (a,) = toy_for(Line)
    return [Line(epochs=1).fit(a, seed=0, **CPU), Mean(power=3.0).fit(a, **CPU)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("kills", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path, two, kills):
    """A process that saves two models in turn is killed: one of the two is there, whole, and in the end nothing else."""
    rng, found = random.Random(0), []
    two[0].save(tmp_path)
    for _ in range(kills):
        child = started(two, tmp_path)
        time.sleep(rng.uniform(0.02, 0.12))
        child.kill()
        child.join()
        loaded = Estimator.load(tmp_path)
        found += [k for k, m in enumerate(two) if type(m) is type(loaded) and same(m, loaded)]
    assert len(found) == kills and set(found) == {0, 1}
    two[1].save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == TWO and same(Estimator.load(tmp_path), two[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_several_savers_at_once(tmp_path, two):
    two[0].save(tmp_path)
    children = [started([m], tmp_path) for m in two]
    try:
        loaded = [Estimator.load(tmp_path) for _ in range(40)]
    finally:
        for child in children:
            child.kill()
            child.join()
    assert all(any(type(m) is type(v) and same(m, v) for m in two) for v in loaded)
    assert all(not child.exitcode or child.exitcode < 0 for child in children)


def test_without_locks_only_old_leftovers_are_removed(tmp_path, monkeypatch, line):
    monkeypatch.setattr(storage, "got", lambda *_: False)
    for name, age in ((".saving-new", 0), (".saving-old", 2 * storage.STALE)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    line.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".saving-new", *TWO]


# -- arrays ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arrays",
    [
        {"mean_": np.zeros(24, np.float32), "predict": np.zeros(2)},
        {"mean_": np.zeros(24, np.float32), "genes_": np.zeros(2)},
        {"mean_": np.zeros(24, np.float32), "reference.mean_": np.zeros(2)},
        {"mean_": np.zeros(23, np.float32)},
        {"mean_": np.zeros(24, np.int8)},
        {},
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_arrays_of_a_classical_method(tmp_path, arrays, listed):
    Mean().fit(*toy_for(Mean), **CPU).save(tmp_path)
    told = {"arrays": storage.listed(arrays)} if (listed and "mean_" not in arrays) or (len(arrays) > 1 and listed) else {}
    changed(tmp_path, safetensors.save(arrays), **told)
    with pytest.raises(DataError, match="the arrays are not those|the saved arrays"):
        Mean.load(tmp_path)


@pytest.mark.parametrize(
    "change", [lambda v: v.astype(np.int8), lambda v: v[..., :1], lambda v: v.astype(np.float64), lambda v: v * np.nan]
)
def test_weights_of_another_kind(tmp_path, line, change):
    arrays = line._state() | {"net.0.weight": np.ascontiguousarray(change(line._state()["net.0.weight"]))}
    changed(tmp_path, safetensors.save(arrays), arrays=storage.listed(arrays))
    with pytest.raises(DataError, match=r"the saved arrays \['net.0.weight'\] do not fit Line"):
        Line.load(tmp_path)


def test_a_classical_method_inside_a_net(tmp_path):
    class Above(Line):
        def adopt(self, reference):
            assert isinstance(reference, Mean)

        def outputs(self, b):
            return {"latent": self.net[0](b.x) + float(self.reference.mean_.sum())}

    (a,) = toy_for(Mean)
    m = Above(epochs=1).fit(a, reference=Mean().fit(a, **CPU), **CPU)
    m.save(tmp_path)
    assert np.array_equal(Above.load(tmp_path).predict(a)["latent"], m.predict(a)["latent"])


def test_numbers_of_numpy(tmp_path):
    m = Mean(power=np.float32(3)).fit(*toy_for(Mean), **CPU)
    m.save(tmp_path)
    assert Mean.load(tmp_path).get_params() == {"power": 3.0}


# -- folders that hold something else ---------------------------------------------------------------------
def test_folders_that_hold_something_else(tmp_path):
    with pytest.raises(DataError, match=r"holds no readable model \(FileNotFoundError\)"):
        Line.load(tmp_path / "none")
    with pytest.raises(DataError, match="not fitted, so there is nothing to save"):
        Line().save(tmp_path)
    m = Line(epochs=1).fit(*toy_for(Line), **CPU)
    m.save(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(stands(tmp_path) | {"format": 1, "version": "0.0.9"}))
    with pytest.raises(DataError, match="saved by scdl-teach '0.0.9' in format 1; this is .* Fit the model again"):
        Line.load(tmp_path)
    file = tmp_path / "model.json"
    for act in (lambda: Line.load(file), lambda: m.save(file), lambda: m.save(file / "below")):
        with pytest.raises(DataError, match="file"):
            act()


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch, line):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage.Path, "read_bytes", forbidden)
    with pytest.raises(DataError, match=r"you may not read it: chmod"):
        Line.load(tmp_path)
    monkeypatch.setattr(storage.Path, "mkdir", forbidden)
    with pytest.raises(DataError, match="you may not make the folder"):
        line.save(tmp_path)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", ["{", "[]", "null", "3", '"word"', "{}", DEEP, "9" * 5000, "NaN", "\udcff", '{"format": 2}'])
def test_notes_that_are_none(tmp_path, line, text):
    (tmp_path / "model.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="holds no readable model"):
        Line.load(tmp_path)


@pytest.mark.parametrize("state", [b"", b"{}", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_none(tmp_path, line, state):
    changed(tmp_path, state)
    with pytest.raises(DataError, match="holds no Line that can be made"):
        Line.load(tmp_path)


def test_the_command_line(tmp_path, line):
    """One sentence and exit code 2 for each."""
    simulate.counts(n=30, genes=10).write_h5ad(tmp_path / "in.h5ad")
    call = ["fit", "scarches", str(tmp_path / "in.h5ad"), str(tmp_path / "out.h5ad"), "--reference"]
    whole = stands(tmp_path)
    for change, folder, words in (
        ({}, tmp_path, "ScArches needs fit(query"),
        ({"model": "scdl_teach.cli.commands:execute"}, tmp_path, "no system of this package"),
        ({"sha256": "0"}, tmp_path, "is damaged"),
        ({}, tmp_path / "in.h5ad", "it is a file"),
        ({}, tmp_path / "none", "holds no readable model"),
    ):
        (tmp_path / "model.json").write_text(json.dumps(storage.sealed(whole | change)))
        done = CliRunner().invoke(app, [*call, str(folder)])
        assert done.exit_code == 2 and words in " ".join(done.output.split()), done.output
        assert done.stderr.strip().splitlines()[-1].startswith("scdl-teach: ") and "Traceback" not in done.stderr


# -- any change at all -----------------------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**12),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=6,
)
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES <= 100)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A net, a classical method, and a net on another: the models and their folders."""
    (a,), (query,) = toy_for(SCVI, n=40), toy_for(ScArches, n=40)
    query.obs["batch"] = "query"
    below = SCVI(hidden=8, latent=2, encode_batch=True, norm="layer", epochs=1).fit(a, **CPU)
    models = [
        Line(epochs=1).fit(*toy_for(Line), **CPU),
        Mean().fit(*toy_for(Mean), **CPU),
        ScArches(epochs=1).fit(query, reference=below, **CPU),
    ]
    folders = [tmp_path_factory.mktemp(type(m).__name__) for m in models]
    for m, folder in zip(models, folders, strict=True):
        m.save(folder)
    return [
        (m, folder, stands(folder), (folder / "weights.safetensors").read_bytes())
        for m, folder in zip(models, folders, strict=True)
    ]


def nodes(v):
    """Every place in a JSON value, as (its container, its key)."""
    keys = v.keys() if isinstance(v, dict) else range(len(v)) if isinstance(v, list) else ()
    return [(v, k) for k in keys] + [n for k in keys for n in nodes(v[k])]


def loads_or_refuses(model, folder, forged):
    """An equal model, or a DataError; from one who knows the sums perhaps another model, but always one of this class."""
    try:
        again = type(model).load(folder)
    except DataError as e:
        assert len(str(e)) < 600 and "\n" not in str(e)
        return
    assert type(again) is type(model) and (forged or same(again, model))


@FUZZ
@given(data=st.data())
def test_any_note(saved, data):
    model, folder, note, state = data.draw(st.sampled_from(saved))
    (folder / "weights.safetensors").write_bytes(state)
    note = json.loads(json.dumps(note))
    for _ in range(data.draw(st.integers(1, 3))):
        box, key = data.draw(st.sampled_from(nodes(note)))
        box[key] = data.draw(JSON)
    forged = data.draw(st.booleans())
    (folder / "model.json").write_text(json.dumps(storage.sealed(note) if forged else note))
    loads_or_refuses(model, folder, forged)


@FUZZ
@given(data=st.data())
def test_any_weights(saved, data):
    model, folder, note, state = data.draw(st.sampled_from(saved))
    (folder / "model.json").write_text(json.dumps(note))
    at = data.draw(st.integers(0, len(state) - 1))
    state = state[:at] + data.draw(st.binary(max_size=8)) + state[at + data.draw(st.integers(0, 8)) :]
    forged = data.draw(st.booleans())
    (folder / "weights.safetensors").write_bytes(state)
    if forged:
        changed(folder, state)
    loads_or_refuses(model, folder, forged)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_folder_names_that_cannot_be(tmp_path, line, name):
    with pytest.raises(DataError, match="cannot be made"):
        line.save(tmp_path / name)
    with pytest.raises(DataError, match="holds no readable model"):
        Line.load(tmp_path / name)


@pytest.mark.parametrize("fact", ["genes_", "rows_"])
def test_facts_of_a_table_that_the_class_does_not_read(tmp_path, line, fact):
    changed(tmp_path, facts=stands(tmp_path)["facts"] | {fact: {"others": ["a"]}})
    with pytest.raises(DataError, match=f"other values than it needs for \\['{fact}'\\]"):
        Line.load(tmp_path)
