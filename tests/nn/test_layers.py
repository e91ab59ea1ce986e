"""Shared layers against their definitions."""

import numpy as np
import torch
from torch import nn

from scdl_teach.core.data import Data
from scdl_teach.core.fields import Counts
from scdl_teach.nn.layers import CountScaler, ShiftNorm, glorot, mlp
from scdl_teach.simulate import counts


def test_mlp():
    net = mlp([5, 4, 3, 2], last=nn.Softplus(), bias=False)
    assert [type(x).__name__ for x in net] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "Softplus"]
    assert net[6].bias is None and net[0].bias is not None
    assert [type(x).__name__ for x in mlp([5, 2], norm=False)] == ["Linear"]


def test_glorot():
    net = glorot(mlp([300, 200, 10]))
    bound = (6 / 500) ** 0.5
    assert net[0].weight.abs().max() <= bound and net[0].weight.std() > 0.5 * bound and (net[0].bias == 0).all()


def test_shift_norm_is_batch_norm_without_scale():
    ours, keras = ShiftNorm(4), nn.BatchNorm1d(4, eps=1e-3, momentum=0.01)
    x = torch.randn(50, 4) * 3 + 1
    with torch.no_grad():
        ours.shift.fill_(0.7)
        keras.bias.fill_(0.7)
    assert torch.allclose(ours(x), keras(x), atol=1e-6)
    assert torch.allclose(ours.eval()(x), keras.eval()(x), atol=1e-6)
    assert sum(p.numel() for p in ours.parameters()) == 4


def test_scaler_is_the_z_score():
    """log1p at the median depth, then centred and divided by the sd with n - 1; a constant gene is only centred."""
    a = counts(n=80, genes=20)
    x = a.X.toarray()
    x[:, 3] = 0
    a.X = x
    data = Data({"cells": a}, {"x": Counts()})
    scaler = CountScaler(20)
    scaler.measure(data)
    size = x.sum(1, keepdims=True) / torch.tensor(x.sum(1)).median().item()
    y = np.log1p(x / size)
    sd = y.std(0, ddof=1)
    want = (y - y.mean(0)) / np.where(sd < 1e-5, 1, sd)
    z, s = scaler(torch.tensor(x))
    assert np.allclose(z, want, atol=1e-4) and np.allclose(s, size, rtol=1e-5)
    assert set(scaler.state_dict()) == {"median", "mean", "sd"}
