# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 0001 A tour: from counts to cell types, and what a VAE adds
#
# | After this lesson you can | *turn* a table of counts into cell types in six lines; *build* a variational autoencoder for counts and say what each part is for; *judge* what the network adds to the six lines, and what it does not |
# |---|---|
# | **Papers** | scVI: [Lopez et al. 2018](https://doi.org/10.1038/s41592-018-0229-2) · the cells: [Zheng et al. 2017](https://doi.org/10.1038/ncomms14049) · the review this book follows: [Erfanian et al. 2023](https://doi.org/10.1016/j.biopha.2023.115077) |
# | **Before it** | Python and a little NumPy. No biology, no deep learning |
# | **Time** | 60 minutes to read and work through; about 40 seconds to run on one CPU core, 0.7 GB of memory |
# | **For the lecturer** | project Figure 8: the same cells from two batches, three embeddings |

# %% [markdown]
# ## 1. The question
#
# Take a drop of blood, catch single cells in droplets, and read which genes each cell is using. What comes back is a table: one row a cell, one column a
# gene, and in each place the **number of messenger RNA molecules** that were seen. This lesson follows such a table from its first look to named cell types.
# It does so twice: with six lines of classical statistics, and with a small neural network. Then it asks the question of the whole book:
# **what does the network add, and how would we know?**

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

from scdl_teach import datasets, metrics, notebook, plot, simulate
from scdl_teach.baselines.imputation import gene_mean, knn_smooth
from scdl_teach.imputation.scvi import SCVI
from scdl_teach.lessons import l0001 as draw
from scdl_teach.notebook import check, claim, show_source

SEED = notebook.setup(seed=0)

# %% [markdown]
# The cells of this tour are 700 blood cells that come with scanpy. `datasets.pbmc()` gives them with their whole counts, and with the cell types that the
# authors assigned by comparing each cell with purified populations. We keep these names for judging. No method below is shown them.

# %% tags=["nbval-check-output"]
pbmc = datasets.pbmc()
counts = pbmc.X.toarray()
kind = pbmc.obs["cell_type"].astype(str).to_numpy()
print(pbmc.shape, "cells x genes;", f"{(counts == 0).mean():.0%} zeros")
print(pbmc.obs["cell_type"].value_counts().to_dict())

# %% [markdown]
# Here is a corner of the table: five cells of each of six types, and ten genes that immunologists know by heart. *CD79A* marks B cells, *NKG7* cells that
# kill, *LYZ* monocytes, *FCER1A* dendritic cells.

# %% mystnb={"image": {"alt": "Heat map of thirty cells by ten marker genes with the count written in each place. Blocks of non-zero counts stand on the diagonal: CD79A in B cells, NKG7 in natural killer cells, LYZ in monocytes. Many entries are zero, also inside the blocks."}}
draw.corner(pbmc)
plt.show()

# %% [markdown]
# **Figure 1.** A corner of the table. The blocks are easy to see, and so are the holes: some B cells show no *CD79A* at all. They are not different cells.
# A droplet catches perhaps one molecule in ten, so a gene with three molecules in the cell is often seen as zero.

# %% [markdown]
# ## 2. Data: look before modelling
#
# On real cells nobody knows the truth. So each lesson of this book begins with **simulated** cells, where we do. `simulate.counts` makes 700 cells of five
# types. For each entry it first fixes a true mean, then draws a count around it. The layer `truth` keeps the mean.

# %%
sim = simulate.counts(n=700, genes=300, seed=SEED)
truth = sim.layers["truth"]
draw.truth_and_counts(sim, genes=(195, 278))
plt.show()

# %% [markdown]
# **Figure 2.** Two genes of the simulated cells, on a log scale. *Left:* the true means, where each type has its place. *Right:* the counts, shifted a little so that equal ones
# do not hide each other. What a method should do is draw the left picture from the right one.

# %% [markdown]
# Three facts about counts decide everything that follows.
#
# 1. **Cells differ in depth.** One cell gives 500 molecules, its neighbour 3,000, for reasons that have nothing to do with what the cells are.
# 2. **The spread grows with the mean.** Expecting 100 and seeing 110 is nothing; expecting 1 and seeing 11 is news.
# 3. **Zeros are mostly low means.** For most genes, their share of zeros is what chance gives at their mean.

# %% mystnb={"image": {"alt": "Two panels. Left, box plots of total counts per cell for ten blood cell types, medians between 200 and 600, on a log axis. Right, share of zeros against mean count for each gene; the dots follow the curve expected from Poisson noise with varying depth, a little above it."}}
draw.depth_and_zeros(pbmc)
plt.show()

# %% [markdown]
# **Figure 3.** *Left:* the total of each cell, over these 765 genes: it varies by a factor of ten, between and within types. *Right:* each dot is a gene. The curve is the share of
# zeros that pure counting noise gives at that mean, with the depths of these cells. Genes above it differ between cells, which is what we are looking for.

# %% tags=["checkpoint", "hide-input"]
low = draw.expected_zeros(counts)
claim(
    "Correlation of the share of zeros with that of counting noise alone",
    np.corrcoef(low, (counts == 0).mean(0))[0, 1],
    above=0.9,
    seen="the same, the data are fixed",
)

# %% [markdown]
# ## 3. The idea
#
# **The classical way** needs six lines. Divide each cell by its depth, take logs (fact 2: the log tames the spread), and look for the few directions in which cells differ most:
# *principal components*, PCA. Cells near each other in these directions get the same label, by k-means.
#
# **The network way** tells a story of how the table came to be, and then fits the story. A cell is a point $z$ in a small space, say ten numbers. A *decoder*
# turns $z$ into the share $\rho_g$ that each gene has in the cell. The depth $\ell$ is known. The count is drawn around $\ell \rho_g$:
#
# $$
# z \sim \mathcal{N}(0, I), \qquad x_g \sim \text{NB}\bigl(\ell\, \rho_g(z),\ \theta_g\bigr)
# $$
#
# The *negative binomial* (NB) is a Poisson distribution with extra spread, of which $\theta_g$ says how much; lesson 0204 is about it. Which $z$ belongs to a cell? A second
# network, the *encoder*, reads the counts and answers with a guess and how sure it is: a mean $m$ and a variance $v$. The pair is a **variational autoencoder**, VAE.

# %% mystnb={"image": {"alt": "Diagram of a variational autoencoder. Counts enter an encoder, which gives mean and variance of z. A sample of z enters a decoder, which gives the share of every gene. Shares times depth give the mean of the counts, judged by minus log probability of the counts. A second term compares z with the standard normal."}}
draw.vae_diagram()
plt.show()

# %% [markdown]
# **Figure 4.** scVI, the model of this lesson. Two terms pull on it. The first asks: *how probable are the counts that we saw?* The second, the Kullback-Leibler divergence, keeps the
# guesses near a standard normal cloud, so that the space has no holes and $z$ does not memorise single counts. What is minimised is
#
# $$
# \begin{aligned}
# \text{loss} = {} & \underbrace{-\log p(x \mid z)}_{\text{explain the counts}} + \underbrace{\text{KL}\bigl(\mathcal{N}(m, v)\,\|\,\mathcal{N}(0, 1)\bigr)}_{\text{keep the code simple}} \\
# \text{KL} = {} & \tfrac12 \textstyle\sum (m^2 + v - 1 - \log v)
# \end{aligned}
# $$

# %% [markdown]
# ## 4. From scratch
#
# First the classical six lines.


# %% tags=["from-scratch"]
def six_lines(x, clusters, components=10):
    size = x.sum(1, keepdims=True) / np.median(x.sum(1))
    logs = np.log1p(x / size)
    z = PCA(components, random_state=0).fit_transform(logs)
    means = KMeans(clusters, n_init=10, random_state=SEED)
    return z, means.fit_predict(z)


pcs, found = six_lines(sim.X.toarray(), clusters=5)
ari = metrics.adjusted_rand
print(f"agreement with the true types: {ari(sim.obs.cell_type, found):.2f}")

# %% [markdown]
# The *adjusted Rand index* compares two groupings: 1 is perfect agreement, 0 is what chance gives. On these simulated cells the six lines find all types. Keep that in
# mind whenever a paper shows a network that finds types in a simulation.
#
# Now the network. It is short because PyTorch does the derivatives. Read it beside Figure 4.


# %% tags=["from-scratch"]
class CountVAE(nn.Module):
    """Counts in; probability of the counts, and a code of ten numbers."""

    def __init__(self, genes, hidden=128, latent=10):
        super().__init__()
        self.read = nn.Sequential(
            nn.Linear(genes, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.m, self.log_v = (nn.Linear(hidden, latent) for _ in "mv")
        self.write = nn.Sequential(
            nn.Linear(latent, hidden), nn.BatchNorm1d(hidden), nn.ReLU()
        )
        self.share = nn.Linear(hidden, genes)
        self.log_theta = nn.Parameter(torch.zeros(genes))

    def encode(self, x):
        h = self.read(torch.log1p(x))
        return self.m(h), self.log_v(h).exp() + 1e-4

    def decode(self, z, depth):
        return depth * self.share(self.write(z)).softmax(1)


# %% [markdown]
# The loss is the display above, term by term. The line `z = ...` is the one trick of the VAE: to draw a random $z$ *and* still know how it would change with $m$ and
# $v$, the randomness comes from outside.


# %% tags=["from-scratch"]
def nb_nll(x, mu, theta):
    """Minus the log-probability of a negative binomial."""
    bursts = torch.lgamma(x + theta) - torch.lgamma(theta)
    fit = (x + theta) * torch.log(theta + mu) - theta * theta.log()
    return fit - x * (mu + 1e-8).log() - bursts + torch.lgamma(x + 1)


def loss_of(net, x, weight):
    m, v = net.encode(x)
    z = m + v.sqrt() * torch.randn_like(m)
    mu = net.decode(z, depth=x.sum(1, keepdim=True))
    explain = nb_nll(x, mu, net.log_theta.exp()).sum(1).mean()
    simple = 0.5 * (m**2 + v - 1 - v.log()).sum(1).mean()
    return explain + weight * simple


def train(counts, epochs=40, lr=5e-3):
    torch.manual_seed(SEED)
    x, net = torch.as_tensor(counts), CountVAE(counts.shape[1])
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(100):
            value = loss_of(net, x[rows], min(1, 2 * epoch / epochs))
            adam.zero_grad(), value.backward(), adam.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {value.item():.0f}")
    return net.eval()


# %% [markdown]
# The weight of the second term grows from 0 to 1 during the first half of the training. Without this *warm-up* the network may find it easiest to leave the code empty. We train on the
# simulated cells, ask for the expected counts, and compare them with the truth that only we know.

# %%
net = train(sim.X.toarray())
with torch.no_grad():
    x = torch.as_tensor(sim.X.toarray())
    code, spread = net.encode(x)
    scratch = net.decode(code, x.sum(1, keepdim=True)).numpy()
error = lambda estimate: metrics.truth_error(estimate, truth)
print(f"error of the counts themselves {error(sim.X):.2f}")
print(f"gene mean {error(gene_mean(sim)):.3f}, VAE {error(scratch):.3f}")

# %% [markdown]
# The **truth error** is the mean squared distance of log expression from the truth. The raw counts are far off, because a zero is a poor estimate of anything. The *gene mean*, which gives each cell
# the same shares, is the **floor**: a method that does not beat it has learnt nothing about any cell.

# %% mystnb={"image": {"alt": "Three scatter plots of the two simulated genes: the counts form a blurred grid, the VAE's estimates form five groups close to those of the truth, shown last."}}
draw.three_panels(sim, scratch, genes=(195, 278), seed=SEED)
plt.show()

# %% [markdown]
# **Figure 5.** The two genes of Figure 2 again. The network has never seen the right picture, only the left one, and draws something close to the right one. Where did the information come from? From the other
# 298 genes: what a cell shows there says which type it is, and so what these two should be.

# %% tags=["checkpoint", "hide-input"]
claim(
    "Truth error of the VAE from scratch, relative to the gene mean",
    error(scratch) / error(gene_mean(sim)),
    below=0.75,
    seen="SEEN_SCRATCH",
)

# %% [markdown]
# ## 5. The package version
#
# `SCVI` is the same model with all its variants, checks on the data, saving and loading. Every system of this book is used with the same words: `fit` learns, `predict` returns arrays, `annotate` writes
# them into the table.

# %%
model = SCVI(epochs=40, warmup=0.5, lr=5e-3).fit(sim, seed=SEED)
sim = model.annotate(sim)
print(sim.obsm["X_scvi"].shape, sim.layers["scvi"].shape)
print(f"truth error {error(sim.layers['scvi']):.3f}")

# %% [markdown]
# Is it really the same? We copy the weights of our network into a fresh `SCVI` and compare every number of the code and of the expected counts.

# %% tags=["checkpoint", "hide-input"]
twin = SCVI().fit(sim, epochs=0, seed=SEED)
draw.copy_weights(net, twin.net)
same = twin.predict(sim)
torch.testing.assert_close(
    torch.tensor(same["latent"]), code, rtol=1e-4, atol=1e-5
)
torch.testing.assert_close(
    torch.tensor(same["denoised"]),
    torch.tensor(scratch),
    rtol=1e-3,
    atol=1e-4,
)
print("equal: the package computes what section 4 computes")

# %% [markdown]
# The loss of the package is shown from the package itself, never copied, so it cannot grow old:

# %%
show_source(SCVI.loss, SCVI.outputs)

# %% [markdown]
# Now the blood cells. Ten numbers per cell cannot be drawn, so we colour the map that comes with the data, and beside it the first two of the ten
# principal components.

# %%
blood = SCVI(epochs=60, warmup=0.5, lr=5e-3).fit(pbmc, seed=SEED)
z = blood.predict(pbmc)["latent"]
pcs, by_pca = six_lines(counts, clusters=10)
by_vae = KMeans(10, n_init=10, random_state=SEED).fit_predict(z)
print(f"k-means against the authors' types: PCA {ari(kind, by_pca):.2f}")
print(f"                                  scVI {ari(kind, by_vae):.2f}")

# %% mystnb={"image": {"alt": "Three maps of the same 700 blood cells: coloured by the authors' ten types, by k-means on principal components and by k-means on the code of scVI. Monocytes, B cells and natural killer cells agree in all three. The T cell types are cut differently in each."}}
draw.three_maps(pbmc, kind, by_pca, by_vae)
plt.show()

# %% [markdown]
# **Figure 6.** *Left:* the authors' types. *Middle and right:* ten clusters each. B cells, monocytes and killer cells are found by all. The T cells are a continuum that
# each method cuts where it likes, and the authors' own borders there are not beyond doubt either. **More agreement with a label is not always more truth.**

# %% [markdown]
# ## 6. Against the classical baseline
#
# Three jobs, one rule: same cells, same score, and always a floor, a classical rival and, where the truth is known, an oracle.
#
# **Job 1, cell types.** To take k-means out of the comparison, we ask for the nearest labelled neighbours instead: learn the types of half of the cells, predict the other half.

# %%
half = np.random.default_rng(SEED).permutation(len(kind))
a, b = half[:350], half[350:]
transfer = {
    name: metrics.label_transfer(y[a], kind[a], y[b], kind[b])
    for name, y in {"PCA": pcs, "scVI": z}.items()
}
most = pd.Series(kind).value_counts(normalize=True).iloc[0]
print(f"always the largest type {most:.2f}", {k: round(v, 2) for k, v in transfer.items()})

# %% tags=["checkpoint", "hide-input"]
claim(
    "Label transfer on blood cells, scVI minus PCA: level",
    abs(transfer["scVI"] - transfer["PCA"]),
    below=0.08,
    seen="SEEN_TRANSFER",
)
claim(
    "...and both far above always saying the largest type",
    min(transfer.values()) - most,
    above=0.2,
    seen="SEEN_ABOVE",
)

# %% [markdown]
# **For finding types among cells of one experiment, six lines do as well as the network.** That is the honest answer, and it holds for most of the published comparisons when
# both sides are tuned with the same care.
#
# **Job 2, expression.** On the simulated cells we can ask who comes nearest to the truth. The classical rival pools each cell with its nearest neighbours. One run here, and five seeds from the
# table that `make study` writes for scVI:

# %%
rivals = {
    "gene mean (floor)": error(gene_mean(sim)),
    "nearest neighbours": error(knn_smooth(sim)),
    "scVI": error(sim.layers["scvi"]),
}
print({k: round(v, 3) for k, v in rivals.items()})
table = draw.study("scvi")
print(table[["seed", "floor", "classical", "deep"]].round(3).to_string(index=False))

# %% mystnb={"image": {"alt": "Dot plot over five seeds of the error against the truth: the gene mean is worst, scVI is clearly below it, nearest-neighbour smoothing is level or lower, the oracle is zero."}}
plot.claims(table, better="lower", title="Error against the true expression")
plt.show()

# %% [markdown]
# **Figure 7.** One dot a seed, the bar their mean. scVI is far below the floor. STUDY_SENTENCE

# %% tags=["checkpoint", "hide-input"]
claim(
    "Truth error of scVI relative to the floor, five seeds",
    (table["deep"] / table["floor"]).max(),
    below=0.75,
    seen="the stored table",
)
claim(
    "This run relative to the floor",
    rivals["scVI"] / rivals["gene mean (floor)"],
    below=0.75,
    seen="SEEN_RUN",
)

# %% [markdown]
# **Job 3, two batches.** Now the case for which such models were made. The same four cell types are measured twice, and the second measurement shifts every gene a little. The decoder of scVI is
# *told* the batch of each cell, so the code need not carry it.

# %%
two = simulate.batches(n=800, genes=200, bs=0.4, seed=SEED)
said = SCVI(epochs=80, warmup=0.5, lr=5e-3).fit(two, seed=SEED)
codes = {
    "PCA": six_lines(two.X.toarray(), 4)[0],
    "PCA, centred by batch": draw.centred(two),
    "scVI, told the batch": said.predict(two)["latent"],
}
type_, batch = two.obs["cell_type"], two.obs["batch"]
for name, y in codes.items():
    mix, keep = metrics.mixing(y, batch), draw.purity(y, type_)
    print(f"{name:22s} mixing {mix:.2f}  types kept {keep:.2f}")

# %% mystnb={"image": {"alt": "Two rows of three scatter plots of 800 cells. With plain PCA the two batches lie apart in each type. With PCA centred by batch and with scVI the batches overlap and the four types stay apart."}}
draw.batch_panels(codes, type_, batch)
plt.show()

# %% [markdown]
# **Figure 8.** The same cells, above coloured by type, below by batch. *Mixing* is 1 when the neighbours of a cell come from both batches as often as chance gives, 0 when they never do. *Types kept* is the share of
# neighbours of the same type. Plain PCA sees two experiments. scVI sees four types. **And so does the classical repair**, subtracting each batch's mean before PCA: as long as
# both batches hold the same mixture of types.

# %% [markdown]
# The balance matters. We give the first batch mostly one type and the second mostly another, and repeat.

# %% tags=["experiment"]
odd = simulate.batches(
    n=800,
    genes=200,
    bs=0.4,
    props=[[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]],
    seed=SEED,
)
told = SCVI(epochs=80, warmup=0.5, lr=5e-3).fit(odd, seed=SEED)
uneven = {
    "centred": draw.transfer(draw.centred(odd), odd),
    "scVI": draw.transfer(told.predict(odd)["latent"], odd),
    "floor": draw.largest(odd),
}
print("types of batch 1 read from batch 0:")
print({k: round(v, 2) for k, v in uneven.items()})

# %% tags=["checkpoint", "hide-input"]
mixed = {k: metrics.mixing(y, batch) for k, y in codes.items()}
claim(
    "Batches mixed by scVI, minus mixed by plain PCA",
    mixed["scVI, told the batch"] - mixed["PCA"],
    above=0.3,
    seen="SEEN_MIX",
)
claim(
    "Unequal batches: scVI reads types better than centring does, by",
    uneven["scVI"] - uneven["centred"],
    above=0.1,
    seen="SEEN_UNEVEN",
)

# %% [markdown]
# Centring assumes that the mean cell of both batches is the same cell. When it is not, it moves one type onto another, and every picture still looks beautifully mixed. The VAE fits the shift of the batch *and* the
# types together, and errs less. Part 04 of the book takes this apart, with cases in which the networks over-correct as well.

# %% [markdown]
# ## 7. Where it fails
#
# Smoothing always looks better. To see what it invents we plant **decoys**: for forty blood genes a twin with the same mean and the same noise, drawn at each cell's depth, and no
# connection with what the cell is. Whatever structure a decoy shows after denoising, the model has made.

# %% tags=["experiment"]
pick = np.random.default_rng(SEED).choice(pbmc.n_vars, 40, replace=False)
fake = simulate.decoys(counts, theta=5.0, seed=SEED)[:, pick]
more = datasets.add_genes(pbmc, fake, "decoy-" + pbmc.var_names[pick])
deep = SCVI(epochs=60, warmup=0.5, lr=5e-3).fit(more, seed=SEED)
clean = deep.predict(more)["denoised"]
decoy = more.var["decoy"].to_numpy()
before = draw.between_types(more.X.toarray(), kind)
after = draw.between_types(clean, kind)

# %% mystnb={"image": {"alt": "Strip plot of the share of each gene's variance that lies between cell types. Real genes: low in counts, high after scVI. Decoys: near zero in counts, clearly above zero after scVI."}}
draw.decoy_strips(before, after, decoy)
plt.show()

# %% [markdown]
# **Figure 9.** How much of a gene's variation goes with the cell type. In the counts, decoys have next to none, as they should. After denoising they have some, and a test for "genes that differ
# between types", run on denoised values, would announce many of them. The rule for practice: **look at denoised values, test on counts.**

# %% tags=["checkpoint", "hide-input"]
claim(
    "Median share of a decoy's variance between types, counts",
    np.median(before[decoy]),
    below=0.05,
    seen="SEEN_BEFORE",
)
claim(
    "...and after denoising",
    np.median(after[decoy]),
    above=0.1,
    seen="SEEN_AFTER",
)

# %% [markdown]
# ## 8. Relatives
#
# scVI has many. The table is read from the package's own catalogue: autoencoders and VAEs for imputation, with the lessons that treat (or will treat) them.

# %%
from scdl_teach import catalogue

rows = catalogue().query("section == '4.1.3.1' and kind == 'deep'")
print(rows[["system", "year", "family", "status"]].to_string(index=False))

# %% [markdown]
# **DCA** (2019) is the nearest one that is built: also counts and a negative binomial, but no sampling and no second term, so no distribution over codes. It denoises, and cannot invent new cells. One call:

# %%
from scdl_teach.imputation.dca import DCA

dca = DCA(likelihood="nb", latent=8, epochs=40).fit(sim, seed=SEED)
print(f"truth error of DCA {error(dca.predict(sim)['denoised']):.3f}")

# %% [markdown]
# ## 9. Exercises
#
# Each has a stub, a check that says what is wrong, and a folded solution below. Replace the line that raises, run the cell and the check.
#
# **1 (run).** How many of the 700 blood cells show no molecule of *CD79A*, and how many of the B cells (`"CD19+ B"`) among them? Return the two numbers.


# %% tags=["exercise", "raises-exception"]
def zeros_of_cd79a(pbmc):
    raise NotImplementedError("return (all cells, B cells)")


zeros_of_cd79a(pbmc)

# %% tags=["check"]
check("0001.1", zeros_of_cd79a);


# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution of exercise 1"}
def zeros_of_cd79a(pbmc):
    none = pbmc[:, "CD79A"].X.toarray().ravel() == 0
    b_cells = (pbmc.obs["cell_type"] == "CD19+ B").to_numpy()
    return int(none.sum()), int((none & b_cells).sum())


assert check("0001.1", zeros_of_cd79a)

# %% [markdown]
# **2 (change).** Write the second term of the loss, the KL divergence of $\mathcal{N}(m, v)$ from $\mathcal{N}(0, 1)$, summed over the code of each cell. `m` and `v` are tensors of cells x units; return one number a cell.


# %% tags=["exercise", "raises-exception"]
def kl(m, v):
    raise NotImplementedError("one number for every cell")


kl(torch.zeros(2, 3), torch.ones(2, 3))

# %% tags=["check"]
check("0001.2", kl);


# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution of exercise 2"}
def kl(m, v):
    return 0.5 * (m**2 + v - 1 - v.log()).sum(1)


assert check("0001.2", kl)

# %% [markdown]
# **3 (think).** A colleague trains scVI on a table in which each cell was first divided by its depth and multiplied by 10,000, then logged. The package refuses. Which argument of `fit` mends it if the counts are in
# `layers["umi"]`? Return the argument as a dictionary, `{"where": ...}`.


# %% tags=["exercise", "raises-exception"]
def mended_call():
    raise NotImplementedError('return {"where": {...}}')


mended_call()

# %% tags=["check"]
check("0001.3", mended_call);


# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution of exercise 3"}
def mended_call():
    return {"where": {"x": "layers/umi"}}


assert check("0001.3", mended_call)

# %% [markdown]
# ## 10. Recipe: your own cells
#
# The same on your file. `where` says where your counts and batches are; leave out what you do not have. The error messages are written to be read: try it without `where` first.

# %%
def my_cells(adata, where, epochs=60):
    """Code, expected counts and clusters, written into adata."""
    model = SCVI(epochs=epochs, warmup=0.5).fit(adata, where=where)
    model.annotate(adata)
    groups = KMeans(8, n_init=10, random_state=0)
    adata.obs["group"] = groups.fit_predict(adata.obsm["X_scvi"])
    return adata


mine = two.copy()  # adata = scdl_teach.datasets.read("my.h5ad")
mine.obs["donor"] = mine.obs.pop("batch")
mine = my_cells(mine, {"x": "X", "batch": "obs/donor"}, epochs=10)
print(mine)

# %% [markdown]
# ## 11. Takeaways
#
# * Six lines of classical statistics find cell types as well as a network does, when there is one experiment and clear types.
# * A VAE is a *story of the data* that is fitted: depth, noise and batch have their own place in it, so that the code is left with the cell. That pays when batches differ, above all when their cells differ too.
# * A smoother picture is not a truer one. Every claim needs a floor, a rival and, where possible, the truth; and tests belong on counts.

# %% [markdown]
# ## 12. References
#
# * Lopez R, Regier J, Cole MB, Jordan MI, Yosef N. Deep generative modeling for single-cell transcriptomics. *Nat Methods* 2018. [doi:10.1038/s41592-018-0229-2](https://doi.org/10.1038/s41592-018-0229-2)
# * Zheng GXY et al. Massively parallel digital transcriptional profiling of single cells. *Nat Commun* 2017. [doi:10.1038/ncomms14049](https://doi.org/10.1038/ncomms14049)
# * Eraslan G et al. Single-cell RNA-seq denoising using a deep count autoencoder. *Nat Commun* 2019. [doi:10.1038/s41467-018-07931-2](https://doi.org/10.1038/s41467-018-07931-2)
# * Erfanian N et al. Deep learning applications in single-cell genomics and transcriptomics data analysis. *Biomed Pharmacother* 2023. [doi:10.1016/j.biopha.2023.115077](https://doi.org/10.1016/j.biopha.2023.115077)
#
# Words to look up in the glossary: count, library size, dropout, negative binomial, latent space, variational autoencoder, KL divergence, batch effect, adjusted Rand index.
