"""The network of scvi-tools with the weights of ours, and steps of both without chance (no dropout, z at its mean)."""

from unittest.mock import patch

import numpy as np
import torch
from scvi.module import VAE

from scdl_teach.testing import toy_for

ADAM = dict(lr=1e-2, eps=0.01, weight_decay=1e-6)
VARIANTS = {
    "nb": {"likelihood": "nb"},
    "zinb": {"likelihood": "zinb"},
    "nb, latent library": {"likelihood": "nb", "latent_library": True},
    "nb, batch in the encoder": {"likelihood": "nb", "encode_batch": True},
}
SMALL = dict(hidden=8, latent=3, dropout=0.0)


def our_model(variant, seed=0):
    """A model of ours with its first weights, and the cells: counts and the batch of each."""
    from scdl_teach.imputation.scvi import SCVI

    (a,) = toy_for(SCVI, n=40, genes=12, seed=seed)
    model = SCVI(**SMALL, **VARIANTS[variant]).fit(a, epochs=0, seed=seed, device="cpu", progress=False)
    x = torch.tensor(np.asarray(a.X.todense() if hasattr(a.X, "todense") else a.X), dtype=torch.float32)
    return model, x, torch.tensor([model.categories_["batch"].index(k) for k in a.obs["batch"].astype(str)])


def their_net(model):
    """scvi-tools' module with a copy of these weights."""
    depth, net = model.depth.numpy().astype(np.float32), model.net
    library = dict(library_log_means=depth[None, :, 0], library_log_vars=depth[None, :, 1]) if model.library else {}
    genes, batches = net.read.in_features, len(depth)
    vae = VAE(
        genes, batches, n_hidden=model.hidden, n_latent=model.latent, dropout_rate=0.0, gene_likelihood=model.likelihood,
        use_observed_lib_size=not model.library, encode_covariates=model.encode_batch, **library,
    )  # fmt: skip
    copy_block(vae.z_encoder.encoder, net.read, net.after_read[0], model.into)
    copy_block(vae.decoder.px_decoder, net.expand, net.after_expand[0], model.out)
    heads = {
        net.mean: vae.z_encoder.mean_encoder,
        net.log_var: vae.z_encoder.var_encoder,
        net.logits: vae.decoder.px_scale_decoder[0],
    }
    if net.pi:
        heads[net.pi] = vae.decoder.px_dropout_decoder
    if model.library:
        copy_block(vae.l_encoder.encoder, *model.library.body[:2], None)
        heads |= {model.library.mean: vae.l_encoder.mean_encoder, model.library.log_var: vae.l_encoder.var_encoder}
    for ours, theirs in heads.items():
        theirs.load_state_dict(ours.state_dict())
    vae.px_r.data.copy_(net.log_theta.data)
    return vae


def copy_block(theirs, linear, norm, table):
    """Linear and batch norm; the one-hot batch of theirs has its columns behind the others, where ours has a table."""
    columns = [linear.weight.data] + ([table.weight.data.T] if table else [])
    theirs.fc_layers[0][0].weight.data.copy_(torch.cat(columns, 1))
    theirs.fc_layers[0][0].bias.data.copy_(linear.bias.data)
    theirs.fc_layers[0][1].load_state_dict(norm.state_dict())


def our_steps(model, x, batch, steps=15, weight=0.7):
    """Losses of full-batch Adam steps of ours."""
    from scdl_teach.core.data import Batch

    b = Batch(x=x, batch=batch, x_nz=x.flatten().nonzero().squeeze(1))

    def loss():
        return model.elbo(b, model.shifts(b), weight)[0]

    with patch("torch.randn_like", torch.zeros_like):
        return descend(model, loss, steps)


def their_steps(vae, x, batch, steps=15, weight=0.7):
    tensors = {"X": x, "batch": batch[:, None], "labels": torch.zeros(len(x), 1)}
    with patch("torch.distributions.Normal.rsample", lambda self, *shape: self.mean):
        return descend(vae, lambda: vae(tensors, loss_kwargs={"kl_weight": weight})[2].loss, steps)


def descend(net, loss, steps):
    net.train()
    adam, losses = torch.optim.Adam(net.parameters(), **ADAM), []
    for _ in range(steps):
        adam.zero_grad()
        value = loss()
        value.backward()
        adam.step()
        losses.append(value.item())
    return losses
