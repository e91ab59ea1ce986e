"""Attention: by hand, and equal to torch's."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from scdl_teach.nn.attention import MultiHead, attend

CAUSAL = torch.full((7, 7), -torch.inf).triu(1)


def test_attention_by_hand():
    """Two keys at right angles: the query's fit with the first is log 3, so three quarters of the answer come from there."""
    q, k = torch.tensor([[np.log(3) * 2**0.5, 0.0]]), torch.eye(2, dtype=torch.float64)
    mixed, weights = attend(q.double(), k, torch.tensor([[4.0, 0.0], [0.0, 8.0]]).double())
    assert torch.allclose(weights, torch.tensor([[0.75, 0.25]]).double(), atol=1e-7)
    assert torch.allclose(mixed, torch.tensor([[3.0, 2.0]]).double(), atol=1e-6)


@pytest.mark.parametrize("mask", [None, CAUSAL])
def test_attention_is_torchs(mask):
    q, k, v = torch.randn(3, 5, 4, 7, 6)
    assert torch.allclose(attend(q, k, v, mask)[0], scaled_dot_product_attention(q, k, v, mask), atol=1e-5)
    unscaled = (q @ k.mT + (0 if mask is None else mask)).softmax(-1) @ v
    assert not torch.allclose(attend(q, k, v, mask)[0], unscaled, atol=1e-2)


@pytest.mark.parametrize("mask", [None, CAUSAL])
def test_heads_are_torchs_weight_for_weight(mask):
    ours, torchs = MultiHead(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        torchs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
    torchs.out_proj.load_state_dict(ours.join.state_dict())
    h = torch.randn(5, 7, 12)
    want, maps = torchs(h, h, h, attn_mask=mask, average_attn_weights=False)
    mixed, weights = ours(h, mask)
    assert torch.allclose(mixed, want, atol=1e-5) and torch.allclose(weights, maps, atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(5, 3, 7), atol=1e-6)
