"""GONN: a classifier whose first units are gene programmes (Peng, Wang & Shang 2019, doi:10.1186/s12859-019-2769-6).

**Idea** The encoder of GOAE, learnt from labels: genes feed the units of their own programmes (in the paper, terms of the Gene
Ontology), free units see all genes, a second layer joins both to a code, and a softmax names the cell's type. The code of
cells without labels can then be clustered, and the units say which programmes the answer rests on.
**Kept** A first layer made of programmes, learning from labels, a hidden layer that can be clustered.
**Left out** The Ontology itself (its levels and the annotations that climb them): any table of sets will do.
**Trap** No code was found and only the abstract was at hand. Free units, all widths (``paper`` too: sizes that nobody read),
tanh, cross-entropy, optimiser and epochs are a reconstruction.
**Measured** With ``shuffled(programmes)`` as control: simulated types that differ in planted sets (seeds 10-14, ``free=0``;
share of new cells named rightly): true sets 0.83-0.88, shuffled 0.66-0.74, logistic regression on genes 0.75-0.81, but on means
of the true sets 0.82-0.88. With free units true and shuffled sets are equal (0.77-0.81). On blood cells, half of them labelled,
true modules 0.75-0.80, shuffled 0.75-0.76, logistic regression 0.79-0.85; without its free units the net lacks the genes in no
module.
**Lesson** notebooks/05_embedding/0503_knowledge_primed_nets.ipynb
**Source** The paper's abstract; written from it, no code taken.
"""

from torch import nn
from torch.nn import functional as F

from ..core.engine import Phase, Update
from ..core.fields import Category, Counts, DataError, Mask
from ..core.model import Model
from ..nn.layers import CountScaler
from .goae import PrimedEncoder, start_from


class GONN(Model):
    r"""A classifier whose first hidden units are named gene programmes.

    Objective
    ---------
    $$-\frac{1}{N} \sum_i \log \mathrm{softmax}\big(V z(\tilde{x}_i) + v\big)_{y_i}$$
    $\tilde{x}$: centred log expression of a cell, a share ``dropout`` of it lost; $z$: its code; $y$: its type.

    Parameters
    ----------
    free : units that see all genes (100; never more than programmes); 0: every unit is a programme
    latent : width of the code (100)
    dropout : share of the input set to zero in training (0 to 1)
    epochs, lr, batch_size : 100 at 1e-3 with 64 cells; all numbers here are a reconstruction
    patience : epochs without progress before it stops, seen on rows held out by ``fit(validation=0.1)``, else in the loss

    Reads
    -----
    x : raw counts, of which the net sees centred logs; label : the cell types; programmes : zeros and ones (genes x programmes, a
    DataFrame names them), as ``datasets.programmes(adata)`` makes them. The last two to fit only

    Writes
    ------
    obsm/X_gonn : code (cells x latent); obs/gonn_label : the likeliest type
    obsm/gonn_probability : of every type (cells x types, in the order of ``categories_["label"]``)
    obsm/X_gonn_activity : activities (cells x programmes, -1 to 1; positive: its genes go up)
    varm/gonn : weights of the masked layer (genes x programmes)

    Raises
    ------
    DataError : not counts, a cell without a label, no programmes, or none with any of these genes

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> GONN(epochs=1).fit(*toy_for(GONN), progress=False).predict(*toy_for(GONN))["probability"].shape
    (90, 3)
    """

    needs = {"x": Counts(), "label": Category("obs/label", fit_only=True), "programmes": Mask()}
    writes = {
        "latent": "obsm/X_gonn",
        "label": "obs/gonn_label",
        "probability": "obsm/gonn_probability",
        "activity": "obsm/X_gonn_activity",
        "weights": "varm/gonn",
    }
    names = {"label": "label"}
    terms = {"loss": ("entropy",)}
    # read by nobody: the abstract, all that was at hand, gives neither sizes nor schedule; these are a reconstruction
    paper = dict(free=100, latent=100, dropout=0.2, epochs=100, lr=1e-3, batch_size=64)

    free: int = 100
    latent: int = 100
    dropout: float = 0.2
    epochs: int = 100
    lr: float = 1e-3
    batch_size: int = 64
    patience: int | None = None

    def build(self, sizes):
        if not sizes.programmes:
            raise DataError("varm['programmes'] has no programme; take scdl_teach.datasets.programmes(adata)")
        self.scaler = CountScaler(sizes.x)
        self.encoder = PrimedEncoder(sizes.x, sizes.programmes, self.free, self.latent)
        self.answer = nn.Linear(self.latent, sizes.label)

    def plan(self):
        update = Update([self.encoder, self.answer], lr=self.lr)
        return [Phase("train", self.epochs, [update], self.batch_size, start=self.begin, patience=self.patience)]

    def begin(self, data):
        start_from(self.encoder, self.scaler, data)

    def read(self, b):
        """Code (cells x latent), activities (cells x programmes), logits of the types (cells x types)."""
        x = self.scaler.log(b.x)[0] - self.scaler.mean
        z, activity = self.encoder(F.dropout(x, self.dropout, self.training))
        return z, activity, self.answer(z)

    def loss(self, b):
        return F.cross_entropy(self.read(b)[2], b.label)

    def skill(self, b):
        """Share of cells whose type is found."""
        return (self.read(b)[2].argmax(1) == b.label).float().mean()

    def outputs(self, b):
        z, activity, logits = self.read(b)
        return {
            "latent": z,
            "label": logits.argmax(1),
            "probability": logits.softmax(1),
            "activity": activity * self.encoder.sign,
            "weights": self.encoder.weights,
        }
