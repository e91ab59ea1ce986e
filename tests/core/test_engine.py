"""The rules of the loop."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from scdl_teach.core.data import Data
from scdl_teach.core.engine import Phase, Update
from scdl_teach.core.fields import Category, DataError, Field
from scdl_teach.core.model import Model
from scdl_teach.testing import toy_for

from .small import CPU, CountLine, Line


@pytest.mark.parametrize("n,size", [(65, 32), (33, 32), (2, 32), (64, 32), (1, 32)])
def test_no_last_batch_of_one(n, size):
    spans = Data({"cells": toy_for(Line, n=n)[0]}, Line.needs).spans(size, np.random.default_rng(0))
    assert sorted(np.concatenate([s["cells"] for s in spans])) == list(range(n))
    assert n == 1 or min(len(s["cells"]) for s in spans) > 1


def test_batches_of_one_are_allowed_when_asked_for():
    spans = Data({"cells": toy_for(Line, n=5)[0]}, Line.needs).spans(1, np.random.default_rng(0))
    assert [len(s["cells"]) for s in spans] == [1] * 5


@pytest.mark.parametrize("n", [64, 65, 67])
def test_processes_share_every_batch(n):
    """The batch size is global: together three processes take the batches of one, and each takes as many steps."""
    data = Data({"cells": toy_for(Line, n=n)[0]}, Line.needs)
    alone = data.spans(10, np.random.default_rng(0))
    shared = [data.spans(10, np.random.default_rng(0), r, 3) for r in range(3)]
    assert {len(s) for s in shared} == {len(shared[0])} and min(len(s["cells"]) for r in shared for s in r) > 0
    assert len(shared[0]) in (len(alone), len(alone) - 1)
    assert sorted(np.concatenate([s["cells"] for r in shared for s in r])) == list(range(n))


def test_stratified_batches():
    class Kinds(Line):
        needs = {"x": Field(), "k": Category("obs/kind")}

    data = Data({"cells": toy_for(Kinds, n=70)[0]}, Kinds.needs)
    levels, codes = data.levels("k"), data.values["k"]
    spans = data.spans(8, np.random.default_rng(0), levels=levels)
    assert len(spans) == -(-max(map(len, levels)) // 8)
    assert all(np.array_equal(codes[s["cells"]], np.repeat(np.arange(3), 8)) for s in spans)
    assert set(np.concatenate([s["cells"] for s in spans])) == set(range(70))
    half = data.spans(8, np.random.default_rng(0), rank=1, world=2, levels=levels)
    assert all(np.array_equal(codes[s["cells"]], np.repeat(np.arange(3), 4)) for s in half)
    assert [len(r) for r in data.levels(lambda d: np.where(np.arange(70) < 5, -1, 2))] == [65]


def test_by_is_asked_after_start():
    class Stratified(Line):
        def plan(self):
            return [Phase("train", 1, [Update(self)], 4, by=lambda data: self.found, start=self.find)]

        def find(self, data):
            self.found = data.map(lambda b: b.x[:, 0] > 0).int().numpy()

        def loss(self, b):
            half = len(b.x) // 2
            assert (b.x[:half, 0] <= 0).all() and (b.x[half:, 0] > 0).all()
            return super().loss(b)

    assert len(Stratified().fit(*toy_for(Stratified), **CPU).history_) == 1


def test_early_stopping_restores_the_best():
    class Worse(Line):
        def build(self, sizes):
            super().build(sizes)
            self.seen = []

        def plan(self):
            return [Phase("train", 50, [Update(self)], 32, each_epoch=self.spoil, patience=4)]

        def spoil(self, data, epoch):
            if epoch >= 2:
                self.net[2].weight.mul_(2.0)
            self.seen.append(self.net[2].weight.clone())

    m = Worse().fit(*toy_for(Worse), validation=0.2, **CPU)
    best = m.history_.val_skill.idxmax()
    assert len(m.history_) == best + 5 < 50 and torch.equal(m.net[2].weight, m.seen[best])


def test_watch_names_what_must_fall():
    class Watched(Line):
        def plan(self):
            return [Phase("train", 50, [Update(self)], 32, each_epoch=self.note, patience=3, watch="distance")]

        def note(self, data, epoch):
            self.log(distance=torch.tensor(float(abs(epoch - 4))))

    m = Watched().fit(*toy_for(Watched), **CPU)
    assert len(m.history_) == 8 and m.history_.distance.tolist() == [4, 3, 2, 1, 0, 1, 2, 3]


def test_hidden_entries_show_over_fitting():
    """Held-out entries are hidden from the input, and no entry of the learning data is changed otherwise."""
    from scdl_teach.core.validation import hide

    (a,) = toy_for(CountLine)
    data = Data({"cells": a}, CountLine.needs)
    part, hidden = hide(data, "x", 0.2, np.random.default_rng(0))
    x = np.asarray(a.X.toarray() if hasattr(a.X, "toarray") else a.X)
    kept = part.values["x"] if isinstance(part.values["x"], np.ndarray) else part.values["x"].toarray()
    assert 0.15 < hidden.mean() < 0.25 and (kept[hidden] == 0).all() and np.array_equal(kept[~hidden], x[~hidden])
    m = CountLine(epochs=3).fit(a, validation={"entries": 0.2}, **CPU)
    assert np.isfinite(m.history_.val_skill).all()
    with pytest.raises(ValueError, match="does not estimate its input: hold out rows, validation=0.2"):
        Line().fit(*toy_for(Line), validation={"entries": 0.2}, **CPU)


def test_nan_names_phase_epoch_loss():
    class Nan(Line):
        def loss(self, b):
            return super().loss(b) * (float("nan") if self.at > 0.5 else 1)

    m = Nan(epochs=5)
    with pytest.raises(FloatingPointError, match="'loss'.*phase 'train'.*epoch 2"):
        m.fit(*toy_for(Nan), **CPU)
    with pytest.raises(DataError, match="not fitted"):
        m.predict(*toy_for(Nan))


def test_at_rises_and_ends_at_one():
    class Watch(Line):
        def loss(self, b):
            self.__dict__.setdefault("ats", []).append(self.at)
            return super().loss(b)

    m = Watch(epochs=4).fit(*toy_for(Watch), **CPU)
    assert m.ats == sorted(m.ats) and m.ats[0] == 0 and 0.9 < m.ats[-1] < 1 and m.at == 1


def test_every_clip_schedule_after():
    rates = []

    class Many(Line):
        def plan(self):
            sgd = dict(optimizer=torch.optim.SGD, lr=0.1, schedule=lambda at: 1 - at, after=rates.append)
            return [Phase("only", 2, [Update([self.net[0], self.net[2].bias], every=3, clip_norm=1e-3, **sgd)], 10)]

    start = Many().fit(*toy_for(Many, n=60), epochs=0, **CPU)
    m = Many().fit(*toy_for(Many, n=60), **CPU)
    assert np.allclose(rates, [0.1 * (1 - s / 12) for s in (2, 5, 8, 11)])  # the third, sixth, ... of twelve steps
    assert torch.equal(m.net[2].weight, start.net[2].weight) and not torch.equal(m.net[0].weight, start.net[0].weight)
    assert m.net[1].running_mean.abs().sum() == 0  # frozen: BatchNorm stays in eval mode
    moved = sum((p - q).norm() ** 2 for p, q in zip(m.net[0].parameters(), start.net[0].parameters(), strict=True)) ** 0.5
    assert moved <= 0.1 * 1e-3 * 4


def test_clip_value_bounds_every_entry():
    class Clipped(Line):
        def plan(self):
            return [Phase("only", 1, [Update(self.net[2].bias, lr=1.0, clip_value=1e-4, optimizer=torch.optim.SGD)], None)]

    start, m = (Clipped().fit(*toy_for(Clipped), epochs=e, **CPU) for e in (0, 1))
    assert 0 < (m.net[2].bias - start.net[2].bias).abs().max() <= 1.001e-4


def test_a_part_may_learn_faster():
    class Fast(Line):
        def plan(self):
            sgd = dict(optimizer=torch.optim.SGD, lr=0.01)
            return [Phase("only", 1, [Update([self.net[0], (self.net[2].bias, self.factor)], **sgd)], None)]

        factor: float = 1.0

    start = Fast().fit(*toy_for(Fast), epochs=0, **CPU)
    step = [(Fast(factor=f).fit(*toy_for(Fast), **CPU).net[2].bias - start.net[2].bias) for f in (1.0, 10.0)]
    assert torch.allclose(step[1], 10 * step[0], rtol=1e-3)


def test_hooks_in_order():
    calls = []

    class Hooks(Line):
        def plan(self):
            note = lambda word: lambda data, *epoch: calls.append((word, *epoch))
            first = Phase("a", 2, [Update(self)], start=note("start"), each_epoch=note("epoch"), finish=note("finish"))
            return [first, Phase("b", 1, [Update(self.net[0])], each_epoch=lambda data, epoch: True)]

    m = Hooks().fit(*toy_for(Hooks), **CPU)
    assert calls == [("start",), ("epoch", 0), ("epoch", 1), ("finish",)] and m.history_.phase.tolist() == ["a", "a", "b"]


def test_progress_is_what_one_gives(capsys, monkeypatch):
    lines = []
    Line(epochs=3).fit(*toy_for(Line), device="cpu", progress=lines.append)
    assert len(lines) == 3 and lines[0].startswith("phase=train  epoch=0  loss=")
    Line(epochs=10).fit(*toy_for(Line), device="cpu", progress="lines")
    assert len(capsys.readouterr().out.splitlines()) == 5
    monkeypatch.setenv("SCDL_TEACH_PROGRESS", "off")
    Line(epochs=3).fit(*toy_for(Line), device="cpu")
    assert capsys.readouterr() == ("", "")


def test_weights_in_half_precision_are_refused():
    with pytest.raises(ValueError, match="would round the counts"):
        Line().fit(*toy_for(Line), precision="bf16-true", **CPU)


def test_interrupted_fit_leaves_nothing_behind():
    class Stopped(Line):
        def loss(self, b):
            if self.training and self.at > 0.3:
                raise KeyboardInterrupt
            return super().loss(b)

    (a,) = toy_for(Stopped)
    m, state, before = Stopped(), torch.get_rng_state(), a.copy()
    with pytest.raises(KeyboardInterrupt):
        m.fit(a, **CPU)
    assert torch.equal(state, torch.get_rng_state()) and np.array_equal(a.X, before.X)
    with pytest.raises(DataError, match="not fitted"):
        m.predict(a)
    assert all(p.requires_grad for p in m.parameters())


def test_one_place_makes_gradients():
    """backward, zero_grad and step are called once in the whole package."""
    from pathlib import Path

    import scdl_teach

    source = "\n".join(
        p.read_text(encoding="utf-8") for p in Path(scdl_teach.__file__).parent.rglob("*.py") if p.name != "suite.py"
    )
    for call in (".backward(", ".zero_grad(", "opt.step("):
        assert source.count(call) == 1, call


def test_two_processes_agree(tmp_path):
    """Two processes: equal weights on both, and the loss of one process within 5 %."""
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent("""
        import torch, warnings, logging; warnings.filterwarnings("ignore"); logging.disable(50)
        from scdl_teach import simulate
        from scdl_teach.imputation.dca import DCA
        kw = dict(hidden=16, latent=4, likelihood="nb", epochs=8)
        def main():
            a = simulate.counts(n=300, genes=40)
            m = DCA(**kw).fit(a, device="cpu", devices=2, progress=False)
            w = torch.cat([p.flatten() for p in m.parameters()]).detach()
            both = [torch.zeros_like(w) for _ in range(2)]
            torch.distributed.all_gather(both, w)
            assert torch.equal(*both), "the processes disagree"
            one = DCA(**kw).fit(a, device="cpu", progress=False).history_.loss.iloc[-1]
            two = m.history_.loss.iloc[-1]
            assert abs(two - one) < 0.05 * one, (one, two)
            print("agree")
        if __name__ == "__main__":
            main()
        """)
    )
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=env)
    assert done.stdout.count("agree") == 2, done.stdout + done.stderr[-2000:]


def test_model_of_the_contract_is_abstract():
    with pytest.raises(NotImplementedError):
        Model().loss(None)
