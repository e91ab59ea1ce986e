"""A network drawn from the fitted model itself: one batch walks through it, and every layer it meets becomes a box."""

from dataclasses import dataclass, field, replace
from html import escape

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..core.data import Batch
from ..core.engine import judging, seeded
from ..core.fields import Category, Mask
from ..testing.toys import toy
from .figures import BLUE, GREY, ORANGE, PURPLE

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
LIGHT = (
    *NORMS,
    nn.Dropout,
    nn.Flatten,
    nn.Identity,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.Unflatten,
    nn.AdaptiveAvgPool2d,
)
ACTS = {"relu", "sigmoid", "tanh", "softmax", "softplus", "leaky_relu", "gelu", "elu", "log_softmax", "exp"}
WIDTH, ROW, BOX = 690, 54, 36  # of the picture, of a row, height of a box (pixels)


@dataclass
class Node:
    """A box: an input, a layer with what follows it (norm, activation), or an output."""

    name: str
    kind: str = "layer"  # input, layer, output, learning
    head: str = ""  # as "300 → 64"
    units: int = 1
    notes: list = field(default_factory=list)
    sources: set = field(default_factory=set)
    calls: int = 0
    rank: int = 0

    def lines(self):
        first = f"{self.name}  {self.head}".strip() + (f"  × {self.calls}" if self.calls > 1 else "")
        return [first, " · ".join(dict.fromkeys(self.notes))] if self.notes else [first]


def tensors(thing):
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    inside = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, (list, tuple)) else ()
    return [t for v in inside for t in tensors(v)]


class Walk(TorchFunctionMode):
    """Notes of each tensor which boxes it was made from."""

    def __init__(self, model):
        super().__init__()
        self.nodes, self.came, self.kept, self.inside = {}, {}, [], 0
        self.handles = []
        for name, part in model.named_modules():
            if part is not model and not list(part.children()):
                enter = part.register_forward_pre_hook(
                    lambda m, x, kw, n=name: self.enter(n, m, tensors([x, kw])), with_kwargs=True
                )
                self.handles += [enter, part.register_forward_hook(lambda m, x, y, n=name: self.leave(n, m, y))]

    def mark(self, made, sources):
        for t in tensors(made):
            self.came[id(t)] = sources
            self.kept.append(t)  # or its id might be used again

    def sources(self, things):
        return set().union(*(self.came.get(id(t), set()) for t in things))

    def enter(self, name, part, given):
        self.inside += 1
        self.given = self.sources(given)

    def leave(self, name, part, made):
        self.inside -= 1
        light = isinstance(part, LIGHT) or not [*part.parameters(), *part.buffers()]
        if isinstance(part, nn.Dropout) and part.p == 0:
            return self.mark(made, self.given)
        if light and len(self.given) == 1 and self.nodes[next(iter(self.given))].kind == "layer":
            self.nodes[next(iter(self.given))].notes.append(words(part))
            return self.mark(made, self.given)
        node = self.nodes.setdefault(name, Node(label(name, part), head=head(part), units=units(made)))
        node.sources |= self.given - {name}
        node.calls += 1
        self.mark(made, {name})

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if not self.inside:
            sources = self.sources(tensors([args, kwargs]))
            name = getattr(function, "__name__", "")
            if name in ACTS and len(sources) == 1 and (at := self.nodes[next(iter(sources))]).kind == "layer":
                at.notes.append(name.replace("_", " "))
            self.mark(made, sources)
        return made


def words(part):
    """A light layer in a word or two."""
    if isinstance(part, NORMS):
        return "layer norm" if isinstance(part, nn.LayerNorm) else "batch norm"
    if isinstance(part, nn.Dropout):
        return f"dropout {part.p:g}"
    return type(part).__name__


def label(name, part):
    """The attribute that holds the layer: "net.encoder.0" is encoder."""
    known = [w for w in name.split(".") if not w.isdigit()]
    return (known[-1] if known else type(part).__name__).replace("_", " ")


def head(part):
    """Sizes of a layer, as far as it knows them."""
    for a, b in (("in_features", "out_features"), ("in_channels", "out_channels"), ("num_embeddings", "embedding_dim")):
        if hasattr(part, a):
            return f"{getattr(part, a):,} → {getattr(part, b):,}" + (" channels" if a == "in_channels" else "")
    return ""


def units(made):
    first = (tensors(made) or [torch.zeros(1)])[0]
    return int(first.shape[-1]) if first.dim() else 1


def example(model):
    """A batch of the right shapes, from what the model knows of its data."""
    rng, batch = np.random.default_rng(0), Batch()
    for name, f in model.needs.items():
        if f.fit_only or name not in model.sizes_ or isinstance(f, Mask):
            continue
        table = f.table or model.tables[0]
        rows = model.sizes_[f"n_{table}"] if model.transductive or model.chunk is None else 4
        size = model.sizes_[name]
        if isinstance(f, Category):
            values = np.zeros(rows, np.int64)
        else:
            shape = (size,) if isinstance(size, int) else tuple(size)
            values = toy(replace(f, shape=shape), rng, rng.integers(0, 3, rows), shape[0])
        batch.update(f.take(name, values, np.arange(rows)))
    return Batch({k: v.to(model.device) for k, v in batch.items()})


def walk(model):
    """The boxes of ``model.outputs``, in the order in which the batch met them."""
    batch, trace = example(model), Walk(model)
    for name, v in batch.items():
        if name in model.needs:
            trace.nodes[f"input {name}"] = Node(
                name, "input", head=" × ".join(f"{s:,}" for s in v.shape[1:]) or "codes", units=units(v)
            )
            trace.mark(v, {f"input {name}"})
    for name, p in model.named_parameters(recurse=False):
        trace.nodes[name] = Node(
            name.replace("_", " "), head=" × ".join(f"{s:,}" for s in p.shape), units=units(p), notes=["weights"]
        )
        trace.mark(p, {name})
    try:
        with seeded(0), judging(model), trace:
            made = model.outputs(batch)
    finally:
        for h in trace.handles:
            h.remove()
    for name, v in made.items():
        node = Node(name, "output", head=f"→ {model.writes[name]}", units=units(v), sources=trace.came.get(id(v), set()))
        trace.nodes[f"output {name}"] = node
    return rest(model, trace.nodes)


def rest(model, nodes):
    """What the outputs do not touch, as a critic: it moves while learning only."""
    for name, _ in model.named_parameters(recurse=False):
        if not any(name in n.sources for n in nodes.values()):
            nodes[name].kind, nodes[name].notes = "learning", ["while learning only"]
    for name, part in model.named_children():
        weights = sum(p.numel() for p in part.parameters())
        if weights and name != "reference" and not [n for n in nodes if n.split(".")[0] == name]:
            nodes[f"learning {name}"] = Node(
                name, "learning", head=f"{weights:,} weights", notes=["while learning only"], units=256
            )
    return nodes


def rows_of(nodes):
    """Rank every box below its sources; a list of rows, each from left to right. Edges against the order are feedback."""
    order, place = {n: i for i, n in enumerate(nodes)}, {}
    for n, node in nodes.items():
        before = [nodes[s].rank for s in node.sources if order[s] < order[n]]
        node.rank = 1 + max(before) if before else int(node.kind not in ("input", "learning"))
    last = max(node.rank for node in nodes.values())
    rows = [[n for n in nodes if nodes[n].rank == r] for r in range(last + 1)]
    for row in rows:
        middle = lambda n: np.mean([place.get(s, 0.5) for s in nodes[n].sources] or [0.5])
        row.sort(key=lambda n: (nodes[n].kind == "output", middle(n)))
        place |= {n: (i + 0.5) / len(row) for i, n in enumerate(row)}
    return [row for row in rows if row]


def places(nodes, rows):
    """{box: (middle x, top y, width)}; wide boxes have many units."""
    found = {}
    for r, row in enumerate(rows):
        text = [max(map(len, nodes[n].lines())) * 6.6 + 18 for n in row]
        wide = [max(t, 60 + 22 * np.log2(max(2, nodes[n].units))) for n, t in zip(row, text)]
        scale = min(1.0, (WIDTH - 20 - 14 * len(row)) / sum(wide))
        wide = [w * scale for w in wide]
        x = (WIDTH - sum(wide) - 14 * (len(row) - 1)) / 2
        for n, w in zip(row, wide):
            found[n] = x + w / 2, 10 + r * ROW, w
            x += w + 14
    return found


def box(node, x, y, w):
    color = {"input": GREY, "layer": BLUE, "output": ORANGE, "learning": PURPLE}[node.kind]
    dash = ' stroke-dasharray="5 3"' if node.kind == "learning" else ""
    shape = f'<rect x="{x - w / 2:.1f}" y="{y}" width="{w:.1f}" height="{BOX}" rx="7" fill="white"/>'  # hides what passes behind
    shape += f'<rect x="{x - w / 2:.1f}" y="{y}" width="{w:.1f}" height="{BOX}" rx="7" fill="{color}" fill-opacity="0.13" '
    shape += f'stroke="{color}" stroke-width="1.6"{dash}/>'
    lines = node.lines()
    for i, line in enumerate(lines):
        size = min(12.0 - i, (w - 8) / max(1, len(line)) / 0.54)
        at = y + BOX / 2 + 4 + (i - (len(lines) - 1) / 2) * 14
        shape += f'<text x="{x:.1f}" y="{at:.1f}" font-size="{size:.1f}" text-anchor="middle">{escape(line)}</text>'
    return shape


def arrow(start, end, far):
    """A line down to the next row; over several rows a pale curve, against the order a dashed one."""
    (x0, y0, _), (x1, y1, _) = start, end
    if y1 <= y0:
        side = WIDTH - 6
        path, look = (
            f"M {x0 + 20:.1f} {y0} C {side} {y0 - 20}, {side} {y1 + BOX + 20}, {x1 + 20:.1f} {y1 + BOX + 4}",
            'stroke-dasharray="4 3"',
        )
    else:
        bend = (y1 - y0 - BOX) / 2
        path = f"M {x0:.1f} {y0 + BOX} C {x0:.1f} {y0 + BOX + bend:.1f}, {x1:.1f} {y1 - bend:.1f}, {x1:.1f} {y1 - 4}"
        look = 'stroke-opacity="0.45"' if far else ""
    return f'<path d="{path}" fill="none" stroke="#444" stroke-width="1.3" marker-end="url(#tip)" {look}/>'


class Diagram:
    """A drawing that notebooks show; ``svg`` is its text, ``alt`` the same in words."""

    def __init__(self, model):
        self.nodes = walk(model)
        weights = sum(p.numel() for p in model.parameters())
        self.alt = f"{type(model).__name__}, {weights:,} weights. " + " ".join(self.sentences())
        self.svg = self.draw(type(model).__name__)

    def sentences(self):
        for n in self.nodes.values():
            made = ", ".join(self.nodes[s].name for s in self.nodes if s in n.sources)
            yield ": ".join(filter(None, (n.kind, ", ".join(n.lines())))) + (f", from {made}." if made else ".")

    def draw(self, title):
        rows = rows_of(self.nodes)
        at = places(self.nodes, rows)
        arrows = [arrow(at[s], at[n], self.nodes[n].rank - self.nodes[s].rank > 1) for n in at for s in self.nodes[n].sources]
        boxes = [box(self.nodes[n], *at[n]) for n in at]
        tip = (
            '<marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="6" markerHeight="6" '
            'orient="auto"><path d="M0 0 L8 4 L0 8z" fill="#444"/></marker>'
        )
        top = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {len(rows) * ROW + 4}" width="{WIDTH}" role="img" '
        top += (
            f'font-family="DejaVu Sans, Helvetica, Arial, '
            f'sans-serif"><title>{escape(title)}</title><desc>{escape(self.alt)}</desc>'
        )
        return f"{top}<defs>{tip}</defs>{''.join(arrows + boxes)}</svg>"

    def _repr_svg_(self):
        return self.svg


def diagram(model):
    """Draw a fitted model's network: inputs grey, layers blue (wide for many units), outputs orange, what only learns dashed.

    >>> from scdl_teach import get, simulate
    >>> drawn = diagram(get("dca")(epochs=0).fit(simulate.counts(n=20, genes=30), progress=False))
    >>> drawn.alt[:20], drawn.svg[:4]
    ('DCA, 10,236 weights.', '<svg')
    """
    return Diagram(model)
