"""The zero-inflated form of ``likelihoods.SoftmaxNB``: exact, closed-form gradient, gamma functions only where counts are high.

With s = log(1 + mean / theta) the NB gives a zero the probability q = exp(-theta s), and the ZINB gives it P = pi + (1 - pi) q.
A zero costs -log P, any other count costs -log(1 - pi) more than under the NB. The posterior probability that a zero was
added is r = pi / P, and it is all that the gradient needs: a zero pulls on the mean as under the NB, times 1 - r.
"""

import torch
from torch.nn.functional import softplus

from .likelihoods import RUNGS, float32, ladder, zinb_nll


class SoftmaxZINB(torch.autograd.Function):
    """Mean over cells of -log ZINB(x | exp(lib) softmax(logits), exp(log_theta), sigmoid(logit_pi)), gradient in closed form."""

    @staticmethod
    def forward(ctx, logits, lib, log_theta, logit_pi, x, flat):
        share, theta = torch.softmax(logits, 1), log_theta.exp()
        e = share.mul(lib.exp()).div_(theta)
        soft = torch.log1p(e)
        pi = torch.sigmoid(logit_pi)
        nll, added = zeros(soft, theta, logit_pi, pi, flat)
        cols = flat % len(theta)
        v, at, log_e, logit = (a.reshape(-1).index_select(0, flat) for a in (x, soft, e, logit_pi))
        log_e = log_e.clamp_(min=1e-30).log_()
        nll = nll + torch.dot(v, at - log_e) + torch.dot(theta.index_select(0, cols), at) + softplus(logit).sum()
        gammas, slopes, high = log_gammas(v, cols, theta)
        per_gene = soft.mul_(1 - added).sum(0) - slopes
        ctx.save_for_backward(share, e, theta, x, pi, added, per_gene, v[high], cols[high])
        return (nll - gammas) / len(x)

    @staticmethod
    def backward(ctx, up):
        share, e, theta, x, pi, added, per_gene, vh, cols = ctx.saved_tensors
        by_mean = torch.addcmul(theta, added, theta, value=-1).add_(x).mul_(e.div(e + 1)).sub_(x)  # by the log mean
        by_theta = theta * per_gene - by_mean.sum(0)
        th = theta[cols]
        by_theta.index_add_(0, cols, th * (torch.digamma(vh + th) - torch.digamma(th + RUNGS)), alpha=-1)
        k, total = up / len(x), by_mean.sum(1, keepdim=True)
        return by_mean.sub_(share * total).mul_(k), total * k, by_theta * k, pi.sub(added).mul_(k), None, None


def zeros(soft, theta, logit_pi, pi, flat):
    """Minus log probability of all zeros, and r, the probability that a zero was added (cells x genes; 0 where x > 0)."""
    never = soft.mul(theta).neg_()  # log q
    p = torch.addcmul(pi, 1 - pi, never.exp())
    if p.numel() and p.min() < 1e-30:  # neither explanation is likely: only logarithms still hold them
        log_p, added = torch.logaddexp(logit_pi, never).sub_(softplus(logit_pi)), torch.sigmoid(logit_pi - never)
        log_p.view(-1).index_fill_(0, flat, 0.0)
    else:
        added = pi / p
        p.view(-1).index_fill_(0, flat, 1.0)
        log_p = p.log_()
    added.view(-1).index_fill_(0, flat, 0.0)
    return -log_p.sum(), added


def log_gammas(v, cols, theta):
    """Sum of lgamma(v + theta) - lgamma(theta) - lgamma(v + 1), its ladder's slope by theta (genes), which counts are high."""
    reached, high = ladder(v, cols, len(theta))
    rungs = torch.arange(RUNGS, device=v.device, dtype=v.dtype)[:, None]
    steps = theta + rungs
    low = (reached * steps.log()).sum() - torch.dot(reached.sum(1), (rungs[:, 0] + 1).log())
    vh, th = v[high], theta[cols[high]]
    first = torch.lgamma(th + RUNGS) - torch.lgamma(torch.full_like(vh, RUNGS + 1))  # what the ladder has counted
    return low + (torch.lgamma(vh + th) - torch.lgamma(vh + 1) - first).sum(), (reached / steps).sum(0), high


@float32
def softmax_zinb_nll(logits, lib, log_theta, logit_pi, x, flat):
    """Mean over cells of the negative log-likelihood, summed over genes; the fast form of ``zinb_nll``.

    logits, logit_pi (cells x genes); lib (cells x 1), log of the library; log_theta (genes); x counts; flat places of the
    non-zeros.
    """
    if x.device.type == "meta":  # shapes only: how many counts are high is a matter of values
        return zinb_nll(x, lib.exp() * logits.softmax(1), log_theta.exp(), logit_pi).sum(1).mean()
    return SoftmaxZINB.apply(logits, lib, log_theta, logit_pi, x, flat)
