"""The one training loop of the package: plans made of phases, phases made of updates."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from .fields import DataError


@dataclass
class Update:
    """One optimiser: lower ``model.<loss>(batch)`` by moving the weights of ``of``.

    ``of`` is a module, a parameter, or a list of them; ``(part, 10)`` in the list learns ten times as fast.
    """

    of: nn.Module | nn.Parameter | list
    loss: str = "loss"
    lr: float = 1e-3
    every: int = 1  # batches between two steps, counted over the phase
    optimizer: Callable = torch.optim.Adam
    options: dict = field(default_factory=dict)
    clip_norm: float | None = None  # largest norm of the gradient
    clip_value: float | None = None  # largest entry of the gradient
    schedule: Callable | None = None  # at -> factor on lr; at = fraction of the phase that is done
    after: Callable | None = None  # after(lr), when the weights have moved: weight clipping, proximal steps


@dataclass
class Phase:
    """Epochs during which the same updates take turns on every batch. What no update moves is frozen: eval mode, no gradient."""

    name: str
    epochs: int
    updates: list[Update]
    batch_size: int | None = 128  # of all processes together; None: everything at once
    by: str | Callable | None = None  # a Category, or by(data) -> codes: batch_size rows of every level
    start: Callable | None = None  # start(data), before the first epoch; may make new parameters
    each_epoch: Callable | None = None  # each_epoch(data, epoch), after every epoch; True ends the phase
    finish: Callable | None = None  # finish(data), after the last epoch
    patience: int | None = None  # epochs without progress before the best weights are restored
    watch: str | None = None  # the falling column that means progress; default: skill held out, else the first loss


@contextmanager
def seeded(seed):
    """Fixed random numbers inside; the caller's random state is the same after as before."""
    state, plain = np.random.get_state(), random.getstate()  # igraph draws from the second
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield np.random.default_rng(seed)
        finally:
            np.random.set_state(state)
            random.setstate(plain)


@contextmanager
def judging(model):
    """As in prediction: no gradient, eval mode, warm-ups complete."""
    at, model.at = model.at, 1.0
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.at = at


def parts(of, factor=1.0):
    """The modules and parameters that an update moves, each with its factor on the learning rate."""
    if isinstance(of, (nn.Module, nn.Parameter)):
        return [(of, factor)]
    if isinstance(of, tuple) and len(of) == 2 and isinstance(of[1], (int, float)):
        return parts(of[0], factor * of[1])
    return [found for part in of for found in parts(part, factor)]


def weights(of):
    """Every weight of an update once, with its factor."""
    return {w: f for p, f in parts(of) for w in ([p] if isinstance(p, nn.Parameter) else p.parameters())}


def skill_of(model, data, size):
    """Mean of ``model.skill`` over all rows."""
    with judging(model):
        spans = data.spans(size)
        scores = [float(model.skill(data.take(rows))) for rows in spans]
    return float(np.average(scores, weights=[max(map(len, rows.values())) for rows in spans]))


class Best:
    """Early stopping: remembers the best weights, counts the epochs since."""

    def __init__(self, model):
        self.model, self.score, self.state, self.waited = model, -np.inf, None, 0

    def waits(self, score):
        self.waited += 1
        if self.state is None or score > self.score + 1e-4 * abs(self.score):
            self.score, self.waited = score, 0
            self.state = {k: v.clone() for k, v in self.model.state_dict().items()}
        return self.waited


class Training:
    """Runs ``model.plan()``; ``rows()`` gives a dict of mean losses per epoch, ``judge()`` scores what is held out."""

    def __init__(self, model, data, fabric, rng, judge=None):
        self.model, self.data, self.fabric, self.rng, self.judge = model, data, fabric, rng, judge
        fabric.to_device(model)
        data.device = fabric.device

    def rows(self, epochs=None):
        flags = {}
        try:
            for i, phase in enumerate(self.model.plan()):
                self.hook(phase.start)
                phase = self.model.plan()[i]  # read again: start may have made new parameters
                moved = set().union(*(weights(u.of) for u in phase.updates))
                for p in self.model.parameters():
                    p.requires_grad_(flags.setdefault(p, p.requires_grad) and p in moved)
                self.net = self.fabric.setup_module(self.model) if moved else None  # DDP sees this phase's weights
                yield from self.phase(phase, phase.epochs if epochs is None else min(epochs, phase.epochs))
                self.hook(phase.finish)
        finally:
            for p, flag in flags.items():
                p.requires_grad_(flag)
            self.model.at, self.model.logs = 1.0, None

    def phase(self, phase, epochs):
        if phase.batch_size == 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules()):
            raise DataError(
                f"{type(self.model).__name__} normalises over a batch, and needs two rows or more at a time: batch_size=2"
            )
        opts, best, self.steps = [self.optimiser(u) for u in phase.updates], Best(self.model), 0
        self.levels = self.data.levels(phase.by)
        for epoch in range(epochs):
            self.model.logs = defaultdict(list)
            self.epoch(phase, opts, epoch, epochs)
            done = self.hook(phase.each_epoch, epoch)
            logs, self.model.logs = self.model.logs, None
            row = {"phase": phase.name, "epoch": epoch} | {k: self.mean(k, v, phase, epoch) for k, v in logs.items()}
            if self.judge:
                row["val_skill"] = self.judge()
            yield row
            if done or (phase.patience and best.waits(self.progress(phase, row)) >= phase.patience):
                break
        if best.state:
            self.model.load_state_dict(best.state)

    def progress(self, phase, row):
        if phase.watch:
            return -row[phase.watch]
        return row["val_skill"] if self.judge else -row[phase.updates[0].loss]

    def hook(self, function, *more):
        if function:
            with judging(self.model):
                return function(self.data, *more)

    def optimiser(self, u):
        fuse = u.optimizer in (torch.optim.Adam, torch.optim.AdamW) and self.fabric.device.type == "cpu"
        options = ({"fused": True} if fuse else {}) | u.options  # one pass over the weights instead of six
        groups = defaultdict(list)
        for w, factor in weights(u.of).items():
            groups[factor].append(w)
        groups = [{"params": ws, "lr": u.lr * factor, "base": u.lr * factor} for factor, ws in groups.items()]
        return self.fabric.setup_optimizers(u.optimizer(groups, lr=u.lr, **options))

    def epoch(self, phase, opts, epoch, epochs):
        self.model.eval()
        self.model.training = True  # the model's own flag, for losses that ask; its frozen parts stay in eval mode
        for part, _ in parts([u.of for u in phase.updates]):
            if isinstance(part, nn.Module):
                part.train()
        rank, world = self.fabric.global_rank, self.fabric.world_size
        spans = self.data.spans(phase.batch_size, self.rng, rank, world, self.levels)
        for i, rows in enumerate(spans):
            self.model.at = (epoch + i / len(spans)) / epochs
            batch, self.steps = self.data.take(rows), self.steps + 1
            for u, opt in zip(phase.updates, opts, strict=True):
                if self.steps % u.every == 0:
                    self.model.logs[u.loss].append(self.step(u, opt, batch))

    def step(self, u, opt, batch):
        """The only place of the package where gradients are made and weights move."""
        factor = u.schedule(self.model.at) if u.schedule else 1.0
        for group in opt.param_groups:
            group["lr"] = factor * group["base"]
        opt.zero_grad()
        loss = self.net(u.loss, batch)
        self.fabric.backward(loss)
        if u.clip_norm:
            self.fabric.clip_gradients(self.net, opt, max_norm=u.clip_norm, error_if_nonfinite=False)  # mean() tells it
        if u.clip_value:
            self.fabric.clip_gradients(self.net, opt, clip_val=u.clip_value)
        opt.step()
        if u.after:
            with torch.no_grad():
                u.after(factor * u.lr)
        return loss.detach()

    def mean(self, name, values, phase, epoch):
        value = float(self.fabric.all_reduce(torch.stack(values).float().mean()))
        if not np.isfinite(value):
            mend = "lower lr, clip the gradient, or check the scale of the input"
            raise FloatingPointError(f"{name!r} is not finite in phase {phase.name!r}, epoch {epoch}: {mend}")
        return value
