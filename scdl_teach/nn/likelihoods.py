"""Count likelihoods, in float32 whatever the precision of the network around them."""

from functools import wraps

import torch
from torch.nn.functional import softplus

RUNGS = 16  # counts up to here need no gamma function at all


def float32(function):
    """Leave autocast: a count of 3,000 or a log-gamma does not survive sixteen bits."""

    @wraps(function)
    def wide(*args, **kwargs):
        device = next(a.device.type for a in args if isinstance(a, torch.Tensor))
        half = (torch.float16, torch.bfloat16)
        full = [a.float() if isinstance(a, torch.Tensor) and a.dtype in half else a for a in args]
        with torch.autocast(device if device != "meta" else "cpu", enabled=False):
            return function(*full, **kwargs)

    return wide


@float32
def poisson_nll(x, mean, eps=1e-8):
    """-log Poisson(x | mean), elementwise."""
    return mean - x * torch.log(mean + eps) + torch.lgamma(x + 1)


@float32
def nb_nll(x, mean, theta, eps=1e-8):
    """-log NB(x | mean, theta), elementwise: the plain form, for any shapes that broadcast.

    theta is the inverse dispersion: variance = mean + mean^2 / theta.

    >>> x, mean = torch.tensor([0.0, 3.0]), torch.tensor([1.0, 1.0])
    >>> nb_nll(x, mean, torch.tensor(1.0)).exp().round(decimals=2).tolist()  # 1 / P: a half, and a sixteenth
    [2.0, 16.0]
    """
    log_all = torch.log(theta + mean + eps)
    gammas = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
    return -(gammas + theta * (torch.log(theta + eps) - log_all) + x * (torch.log(mean + eps) - log_all))


@float32
def zinb_nll(x, mean, theta, logit_pi, eps=1e-8):
    """-log ZINB(x | mean, theta, sigmoid(logit_pi)), elementwise; pi is the share of zeros added."""
    at_zero = theta * (torch.log(theta + eps) - torch.log(theta + mean + eps))
    log_pi, log_rest = -softplus(-logit_pi), -softplus(logit_pi)
    return -torch.where(x < 0.5, torch.logaddexp(log_pi, log_rest + at_zero), log_rest - nb_nll(x, mean, theta, eps))


class SoftmaxNB(torch.autograd.Function):
    """Mean over cells of -log NB(x | exp(lib) softmax(logits), exp(log_theta)), with its gradient in closed form.

    With e = mean / theta, a cell and gene costs
    (x + theta) log(1 + e) - x log e - [lgamma(x + theta) - lgamma(theta)] + lgamma(x + 1).
    The bracket is log theta + log(theta + 1) + ... + log(theta + x - 1), so nothing for x = 0, and for the other
    counts it is enough to know how many cells of the batch reach each rung of this ladder: a histogram, no gamma function.
    """

    @staticmethod
    def forward(ctx, logits, lib, log_theta, x, flat):
        share, theta = torch.softmax(logits, 1), log_theta.exp()
        e = share.mul(lib.exp()).div_(theta)
        soft = torch.log1p(e)
        cols = flat % len(theta)
        v, at, e_at = (a.reshape(-1).index_select(0, flat) for a in (x, soft, e))
        reached, high = ladder(v, cols, len(theta))
        log_e = torch.log(e_at.clamp(min=1e-30))  # only where x > 0: elsewhere it is multiplied by 0
        per_gene = soft.sum(0)
        steps = theta + torch.arange(RUNGS, device=x.device)[:, None]
        nll = torch.dot(theta, per_gene) + torch.dot(v, at - log_e) - (reached * steps.log()).sum()
        nll = nll + torch.dot(reached.sum(1), torch.arange(1, RUNGS + 1, device=x.device, dtype=x.dtype).log())
        vh, th = v[high], theta[cols[high]]
        first = torch.lgamma(th + RUNGS) - torch.lgamma(torch.full_like(vh, RUNGS + 1))  # what the ladder has counted
        nll = nll - (torch.lgamma(vh + th) - torch.lgamma(vh + 1) - first).sum()
        ctx.save_for_backward(
            share, e, theta, per_gene - (reached / steps).sum(0), v.div_(e_at.add_(1)), flat, vh, th, cols[high]
        )
        return nll / len(x)

    @staticmethod
    def backward(ctx, up):
        share, e, theta, per_gene, fall, flat, vh, th, cols = ctx.saved_tensors
        by_mean = (e + 1).reciprocal_().mul_(e).mul_(theta)  # gradient with respect to the log mean: where x = 0,
        by_mean.view(-1).index_add_(0, flat, fall, alpha=-1)  # and what each count takes from it
        by_theta = theta * per_gene - by_mean.sum(0)
        by_theta.index_add_(0, cols, th * (torch.digamma(vh + th) - torch.digamma(th + RUNGS)), alpha=-1)
        k, total = up / len(share), by_mean.sum(1, keepdim=True)
        return by_mean.addcmul_(share, total, value=-1).mul_(k), total * k, by_theta * k, None, None


def ladder(v, cols, genes):
    """How many non-zeros of a gene reach rung 1, 2, ... (rungs x genes), and which go beyond the last."""
    top = v.clamp(max=RUNGS).long() - 1
    seen = torch.bincount(top * genes + cols, minlength=RUNGS * genes).view(RUNGS, genes)
    return seen.flip(0).cumsum(0).flip(0).to(v.dtype), (v > RUNGS).nonzero().squeeze(1)


@float32
def softmax_nb_nll(logits, lib, log_theta, x, flat):
    """Mean over cells of the negative log-likelihood of scVI's decoder, summed over genes; the fast form of ``nb_nll``.

    logits (cells x genes); lib (cells x 1), log of the library; log_theta (genes); x counts; flat places of the non-zeros.
    """
    if x.device.type == "meta":  # shapes only: how many counts are high is a matter of values
        return nb_nll(x, lib.exp() * logits.softmax(1), log_theta.exp()).sum(1).mean()
    return SoftmaxNB.apply(logits, lib, log_theta, x, flat)
