"""Attention: every token takes a mean of what the others say, weighted by how well they fit its question."""

from torch import nn


def attend(q, k, v, mask=None):
    """softmax(q k' / sqrt(d) + mask) v (... queries x d), and the weights (... queries x keys); -inf in ``mask`` forbids."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return weights @ v, weights


class MultiHead(nn.Module):
    """Attention in ``heads`` small spaces at once (cells x tokens x width); also the weights (cells x heads x queries x keys)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.join = (nn.Linear(width, width) for _ in range(4))

    def forward(self, h, mask=None):
        q, k, v = (part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed, weights = attend(q, k, v, mask)
        return self.join(mixed.transpose(1, 2).flatten(2)), weights
