"""Recurrent nets: one small net reads a sequence step by step and keeps a state (Elman 1990, doi:10.1207/s15516709cog1402_1).

(LSTM: Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; GRU: Cho et al. 2014, arXiv:1406.1078)

**Idea** The same weights meet every step. What happened long ago must survive all steps since: the plain net turns and
squeezes its state, and the slope of the last of T states along the first is at most s^(T - 1), where s is the largest singular
value of U. The LSTM carries a sum beside the state, which gates may leave alone; the GRU mixes old and new, with fewer weights.
**Kept** The equations, weight for weight those of torch (order of gates, two biases); forget bias + 1 (Gers et al. 2000).
**Left out** Several layers, both directions, unequal lengths, peepholes; the LSTM of 1997 had no forget gate. Cho's GRU: U (r h)
where torch and we have r (U h): the old state is gated after U, so that U h is one product for all three parts.
**Lesson** notebooks/01_basics/0102_recurrent_nets.ipynb
**Source** The papers; no code taken. Made for time-lapse tracks: genes have no order, and each order gives another answer.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..core.engine import Phase, Update
from ..core.fields import Category, DataError, Field
from ..core.model import Model

NEEDS = {"x": Field("obsm/sequence", shape=(20, 3)), "label": Category("obs/label", fit_only=True)}


def elman(wx, uh, h):
    """h <- tanh(W x + U h)."""
    return (torch.tanh(wx + uh),)


def lstm(wx, uh, h, c):
    """i writes, f keeps, o shows (sigmoids), g is new: c <- f c + i g, h <- o tanh(c)."""
    i, f, g, o = (wx + uh).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru(wx, uh, h):
    """r lets the old state speak, z keeps it (sigmoids): n = tanh(W x + r U h), h <- (1 - z) n + z h."""
    (wr, wz, wn), (ur, uz, un) = wx.chunk(3, -1), uh.chunk(3, -1)
    r, z = (wr + ur).sigmoid(), (wz + uz).sigmoid()
    return ((1 - z) * (wn + r * un).tanh() + z * h,)


CELLS = {"rnn": (elman, 1, 1), "lstm": (lstm, 4, 2), "gru": (gru, 3, 1)}  # equations, blocks in W and U, vectors carried on


class Recurrent(nn.Module):
    """Sequences (cells x times x features) -> h at every time (cells x times x hidden), types from the last (cells x types)."""

    def __init__(self, cell, sizes, hidden):
        super().__init__()
        inputs = 1 if isinstance(sizes.x, int) else sizes.x[-1]  # cells x times: one feature
        self.step, blocks, self.carries = CELLS[cell]
        self.W, self.U = nn.Linear(inputs, blocks * hidden), nn.Linear(hidden, blocks * hidden)
        self.head = nn.Linear(hidden, sizes.label)
        for p in self.parameters():
            nn.init.uniform_(p, -(hidden**-0.5), hidden**-0.5)
        for part, one in ((self.W, 1.0), (self.U, 0.0)) if cell == "lstm" else ():  # keep, to begin with
            nn.init.constant_(part.bias[hidden : 2 * hidden], one)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("sd", torch.ones(inputs))

    def measure(self, data):
        """Mean and sd of every feature, over cells and times."""
        x = data.map(lambda b: self.shaped(b.x)).flatten(0, 1)
        self.mean.copy_(x.mean(0))
        self.sd.copy_(torch.where(x.std(0) > 1e-6, x.std(0), 1.0))

    def shaped(self, x):
        x = x if x.dim() > 2 else x[..., None]
        if x.shape[2:] != self.mean.shape:
            raise DataError(f"a sequence is {tuple(x.shape[1:])}; needed are times x {len(self.mean)} features, as in fit()")
        return x

    def unroll(self, x, carried=None):
        """What is carried on at every time (each cells x times x hidden): h, and an LSTM's c, from 0 or ``carried``."""
        carried, made = carried or [x.new_zeros(len(x), self.U.in_features)] * self.carries, []
        for wx in self.W(x).unbind(1):
            carried = self.step(wx, self.U(carried[0]), *carried)
            made.append(carried)
        return [torch.stack(v, 1) for v in zip(*made, strict=True)]

    def forward(self, x):
        h, *_ = self.unroll((self.shaped(x) - self.mean) / self.sd)
        return h, self.head(h[:, -1])

    def fading(self, x):
        """Spectral norm of d(carried at t) / d(carried after the first step) at the later times of x (times x features)."""
        first = torch.cat(self.unroll(x[None, :1]))[:, 0].detach()
        later = lambda s: torch.cat(self.unroll(x[None, 1:], s.chunk(self.carries)), -1)[0]
        slopes = torch.autograd.functional.jacobian(later, first, vectorize=True, strategy="forward-mode")
        return torch.linalg.matrix_norm(slopes.flatten(2), 2)


# -- what the three models have in common; they differ in their cell alone ----------------------------
def plan(self):
    """Adam, whose rate falls to a tenth; the gradient is clipped, for it may explode as well as fade."""
    update = Update(self, lr=self.lr, clip_norm=self.clip, schedule=lambda at: 0.1**at)
    return [Phase("train", self.epochs, [update], self.batch_size, start=self.net.measure)]


def loss(self, b):
    return cross_entropy(self.net(b.x)[1], b.label)


def skill(self, b):
    """Share of sequences whose type is found."""
    return (self.net(b.x)[1].argmax(1) == b.label).float().mean()


def outputs(self, b):
    h, logits = self.net(b.x)
    return {"latent": h[:, -1], "label": logits.argmax(1)}


class RNN(Model):
    r"""Types of sequences by Elman's net, whose memory fades (doi:10.1207/s15516709cog1402_1).

    Over 50 frames its claim is false: in seven of ten seeds it stays near chance (0.48-0.54), in three it finds 0.82-0.83, where
    ``LSTM`` and ``GRU`` find at least 0.98 in each.

    Objective
    ---------
    $$-\frac{1}{N} \sum_{i} \log p_{i y_i}, \quad p_i = \mathrm{softmax}(V h_{iT} + b), \quad
    h_{it} = \tanh(W x_{it} + U h_{i, t-1} + c)$$
    $x_{it}$: features of sequence $i$ at time $t$, z-scored; $h$: state; $y_i$: type; $N$: sequences.

    Parameters
    ----------
    hidden, clip : units of the state, largest norm of the gradient
    epochs, lr, batch_size : of Adam; ``lr`` falls to a tenth

    Reads
    -----
    x : sequences of one length (cells x times x features, or cells x times); label : their types, to learn only

    Writes
    ------
    obsm/X_rnn : the last state (cells x hidden); obs/rnn_label : the likeliest type

    Raises
    ------
    DataError : NaN or infinite values, cells without a label, another number of features than in fit()

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> RNN(epochs=2).fit(*toy_for(RNN)).predict(*toy_for(RNN))["latent"].shape
    (90, 32)
    """

    needs, names = NEEDS, {"label": "label"}
    writes = {"latent": "obsm/X_rnn", "label": "obs/rnn_label"}
    terms = {"loss": ("surprise",)}

    hidden: int = 32
    clip: float = 1.0
    epochs: int = 30
    lr: float = 1e-2
    batch_size: int = 64

    def build(self, sizes):
        self.net = Recurrent("rnn", sizes, self.hidden)

    plan, loss, skill, outputs = plan, loss, skill, outputs


class LSTM(Model):
    r"""Types of sequences by a state with a gated sum beside it (doi:10.1162/neco.1997.9.8.1735).

    Reads, Writes (obsm/X_lstm, obs/lstm_label), Raises and Examples: as ``RNN``.

    Objective
    ---------
    $$-\frac{1}{N} \sum_i \log p_{i y_i}, \quad p_i = \mathrm{softmax}(V h_{iT} + b), \quad
    h_{it} = o \odot \tanh(c_{it}), \quad
    c_{it} = f \odot c_{i, t-1} + i \odot g$$
    $i, f, o$: gates that write, keep and show, sigmoids of $W x_{it} + U h_{i, t-1}$; $g$: the new, by tanh; $y_i$: type.

    Parameters
    ----------
    hidden, clip : units of the state, largest norm of the gradient
    epochs, lr, batch_size : of Adam; ``lr`` falls to a tenth
    """

    needs, names = NEEDS, {"label": "label"}
    writes = {"latent": "obsm/X_lstm", "label": "obs/lstm_label"}
    terms = {"loss": ("surprise",)}

    hidden: int = 32
    clip: float = 1.0
    epochs: int = 30
    lr: float = 1e-2
    batch_size: int = 64

    def build(self, sizes):
        self.net = Recurrent("lstm", sizes, self.hidden)

    plan, loss, skill, outputs = plan, loss, skill, outputs


class GRU(Model):
    r"""Types of sequences by a state that is mixed rather than replaced (arXiv:1406.1078).

    Reads, Writes (obsm/X_gru, obs/gru_label), Raises and Examples: as ``RNN``.

    Objective
    ---------
    $$-\frac{1}{N} \sum_i \log p_{i y_i}, \quad p_i = \mathrm{softmax}(V h_{iT} + b), \quad
    h_{it} = (1 - z) \odot n + z \odot h_{i, t-1}, \quad
    n = \tanh(W x_{it} + r \odot U h_{i, t-1})$$
    $r, z$: gates, sigmoids of $W x_{it} + U h_{i, t-1}$; $n$: the new state; $y_i$: type; $N$: sequences.

    Parameters
    ----------
    hidden, clip : units of the state, largest norm of the gradient
    epochs, lr, batch_size : of Adam; ``lr`` falls to a tenth
    """

    needs, names = NEEDS, {"label": "label"}
    writes = {"latent": "obsm/X_gru", "label": "obs/gru_label"}
    terms = {"loss": ("surprise",)}

    hidden: int = 32
    clip: float = 1.0
    epochs: int = 30
    lr: float = 1e-2
    batch_size: int = 64

    def build(self, sizes):
        self.net = Recurrent("gru", sizes, self.hidden)

    plan, loss, skill, outputs = plan, loss, skill, outputs
