"""Differential expression with the batch in the model instead of out of the data: MAST's hurdle model, and DESeq2 on sums of
cells.

A corrected table has forgotten how unsure its correction was, and a test that reads it is too sure. Both methods leave the data
alone and ask each gene whether the groups differ *beyond* what the batches explain.
**Lesson** notebooks/04_batch/0401_batch_effects.ipynb
"""

import numpy as np
import pandas as pd
from scipy.stats import chi2

from ..core.fields import Category, Counts, DataError, Expression
from ..core.model import Estimator, arrays
from .batch_steps import onehot


def false_discovery(p):
    """Benjamini and Hochberg's adjusted p-values; NaN stays.

    >>> false_discovery(np.array([0.01, 0.04, 0.03, np.nan])).round(3).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    out, real = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    order = real[np.argsort(p[real])]
    out[order] = np.minimum.accumulate((p[order] * len(order) / np.arange(1, len(order) + 1))[::-1])[::-1]
    return out


def logistic(design, y, ridge, rounds=30):
    """Coefficients (genes x columns) and log-likelihoods (genes) of yes or no in each gene (cells x genes), all genes at once.

    ``ridge`` (columns) is the precision of a normal prior around 0, which keeps coefficients finite where a group is all yes.
    """
    beta = np.zeros((y.shape[1], design.shape[1]))
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-np.clip(design @ beta.T, -30, 30)))
        w = np.maximum(p * (1 - p), 1e-9)
        pull = (y - p).T @ design - ridge * beta
        step = np.linalg.solve(products(design, w) + np.diag(ridge), pull[..., None])[..., 0]
        beta += np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-8:
            break
    eta = np.clip(design @ beta.T, -30, 30)
    return beta, (y * eta - np.logaddexp(0, eta)).sum(0) - 0.5 * beta**2 @ ridge


def products(design, w):
    """design.T diag(w) design for every gene (genes x columns x columns), from weights (cells x genes)."""
    pairs = design[:, :, None] * design[:, None]
    return (w.T @ pairs.reshape(len(design), -1)).reshape(-1, *pairs.shape[1:])


def linear(design, x, seen):
    """Coefficients (genes x columns) and residual sums of squares (genes), by least squares on the cells that show the gene."""
    beta = np.linalg.solve(products(design, seen) + 1e-9 * np.eye(design.shape[1]), ((x * seen).T @ design)[..., None])[..., 0]
    return beta, (seen * (x - design @ beta.T) ** 2).sum(0)


class MAST(Estimator):
    r"""MAST: is the gene on, and how high if it is (Finak et al. 2015, doi:10.1186/s13059-015-0844-5).

    **Idea** A gene of a single cell is zero or some positive number. So two regressions for each gene: a logistic one on whether
    it is seen, and a linear one on its level where it is. Both know the group, the cell's detection rate (how many genes it
    shows, a measure of depth and quality) and the batch; a likelihood-ratio test of both parts together says whether the group
    matters.
    **Kept** Both parts, the detection rate, further covariates, chi-squared with a degree of freedom for each part that can be
    tested.
    **Left out** The shrinkage of variances over genes, random effects of donors, contrasts of several groups.
    A normal prior of sd ``prior`` on the logistic coefficients (MAST: a Cauchy one) where a group is all on or all off.
    **Trap** Cells of one donor are no independent samples: over several donors p-values are far too small. Sum the cells then
    (DESeq2).
    **Source** The paper's facts; no code taken.

    Objective
    ---------
    $$\Lambda_g = 2 \sum_{m \in \{\text{seen},\, \text{level}\}} \big[\ell_m(\text{rest
    + group}) - \ell_m(\text{rest})\big] \sim \chi^2, \qquad
    \operatorname{logit} P(x_{cg} > 0) = D_c \beta_g, \quad x_{cg} \mid x_{cg} > 0 \sim \mathrm{N}(D_c \kappa_g, \sigma_g^2)$$
    $x$: value of gene $g$ in cell $c$; $D$: one, detection rate, batches and group; $\ell$: largest log likelihood of each part.

    Parameters
    ----------
    prior : sd of the logistic coefficients' prior (5); larger is weaker

    Reads
    -----
    x : log-normalised expression, zero where nothing was seen (cells x genes)
    group : two groups of cells (obs/group); batch : optional. Both to fit only

    Writes
    ------
    varm/mast : genes x (log fold change, statistic, p, adjusted p); ``table()`` gives them with names. The second group, in the
        order
    of the alphabet, over the first; the fold is that of mean log expression at the mean covariates. A gene of no cell, or of too
    few to test, has p = 1

    Raises
    ------
    DataError : NaN, infinite or negative values, not two groups, groups that are batches

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(MAST)
    >>> MAST().fit(adata, progress=False).table().columns.tolist()
    ['log_fold', 'statistic', 'p', 'p_adjusted']
    """

    needs = {
        "x": Expression(),
        "group": Category("obs/group", levels=2, fit_only=True),
        "batch": Category("obs/batch", optional=True, fit_only=True),
    }
    writes = {"table": "varm/mast"}
    deterministic = True

    prior: float = 5.0

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        x, group = np.asarray(b.x, float), np.asarray(b.group, float)
        seen = (x > 0).astype(float)
        rate = seen.mean(1)
        batches = onehot(b.batch, self.sizes_.batch)[:, 1:] if self.sizes_.get("batch", 0) > 1 else np.zeros((len(x), 0))
        rest = np.column_stack([np.ones(len(x)), (rate - rate.mean()) / max(rate.std(), 1e-9), batches])
        rest = rest if rate.std() > 1e-9 else np.delete(rest, 1, 1)
        full = np.column_stack([rest, group])
        if np.linalg.matrix_rank(full) < full.shape[1]:
            raise DataError("the groups are the batches, so that nobody can tell them apart; compare groups that share a batch")
        self.table_ = self.tested(full, x, seen)
        yield {"genes_below_0.05": float((self.table_[:, 3] < 0.05).sum())}

    def tested(self, full, x, seen):
        """Log fold change, statistic, p and adjusted p (genes x 4); the last column of ``full`` is the group."""
        rest, n, columns = full[:, :-1], seen.sum(0), full.shape[1]
        ridge = np.r_[0.0, np.full(columns - 1, self.prior**-2)]
        on, high = logistic(full, seen, ridge)
        gain = 2 * (high - logistic(rest, seen, ridge[:-1])[1])
        level, least = linear(full, x, seen)
        more = n * (np.log(np.maximum(linear(rest, x, seen)[1], 1e-12)) - np.log(np.maximum(least, 1e-12)))
        of_group = np.minimum(full[:, -1] @ seen, n - full[:, -1] @ seen)  # cells that show it, in the rarer group
        parts = np.stack([(n > 0) & (n < len(x)), (n > columns + 1) & (of_group > 1)])
        statistic = (np.maximum([gain, more], 0) * parts).sum(0)
        freedom = parts.sum(0)
        p = np.where(freedom > 0, chi2.sf(statistic, np.maximum(freedom, 1)), 1.0)
        at = [np.r_[rest.mean(0), g] for g in (0.0, 1.0)]
        low, up = ((1 / (1 + np.exp(-np.clip(on @ a, -30, 30)))) * (level @ a) for a in at)
        return np.column_stack([np.where(parts[1], up - low, 0), statistic, p, false_discovery(p)]).astype(np.float32)

    def table(self):
        """The test of every gene (DataFrame)."""
        return pd.DataFrame(self.table_, self.genes_["cells"], ["log_fold", "statistic", "p", "p_adjusted"])

    def outputs(self, b):
        return {"table": self.table_}


class DESeq2(Estimator):
    r"""DESeq2 on pseudobulk: sum the cells of a sample, then test samples (Love, Huber & Anders 2014,
    doi:10.1186/s13059-014-0550-8).

    **Idea** Cells of one sample share its fate; the sample is what was repeated, not the cell. So the counts of each cell type
    are summed over the cells of a sample, and the sums are tested by a negative binomial regression on batch and condition, in
    which genes lend each other strength for the dispersion.
    **Kept** All of DESeq2, by the package pydeseq2, which is called and not written again.
    **Left out** Continuous covariates, shrunken fold changes.
    **Source** pydeseq2 (MIT), an optional package: pip install 'scdl-teach[classics]'.

    Objective
    ---------
    $$k_{gs} \sim \mathrm{NB}\big(\mu_{gs}, \alpha_g\big), \qquad \mu_{gs} = f_s\, 2^{D_s \beta_g}, \qquad
    W_g = \hat\beta_g / \mathrm{SE}(\hat\beta_g)$$
    $k$: counts of gene $g$ summed over the cells of sample $s$; $f$: size factor; $D$: batch and condition; $\alpha_g$:
    dispersion, shrunken over genes; $W$: Wald statistic of the condition.

    Parameters
    ----------
    least : cells that a sample needs of a type to count (10)

    Reads
    -----
    x : raw counts (cells x genes); condition : two conditions (obs/condition); sample : the unit that was repeated (obs/sample)
    batch, cell_type : optional; the batch enters the model, each type is tested by itself. All but x to fit only

    Writes
    ------
    varm/deseq2 : log2 fold changes (genes x types), of the second condition in the alphabet over the first
    varm/deseq2_p : adjusted p (genes x types); ``table(cell_type)`` gives all that DESeq2 says

    Raises
    ------
    DataError : not counts, not two conditions, fewer than two samples of one with enough cells, conditions that are batches,
    pydeseq2 not installed

    Examples
    --------
    >>> from scdl_teach.testing import toy_for
    >>> (adata,) = toy_for(DESeq2)
    >>> DESeq2(least=1).fit(adata, progress=False).table().columns.tolist()
    ['baseMean', 'log2FoldChange', 'lfcSE', 'stat', 'pvalue', 'padj']
    """

    needs = {
        "x": Counts(),
        "condition": Category("obs/condition", levels=2, fit_only=True),
        "sample": Category("obs/sample", fit_only=True),
        "batch": Category("obs/batch", optional=True, fit_only=True),
        "cell_type": Category("obs/cell_type", optional=True, fit_only=True),
    }
    writes = {"fold": "varm/deseq2", "p": "varm/deseq2_p"}
    deterministic = True
    expected_failures = {"small": "eight cells hold no two samples of each condition, and it says so"}

    least: int = 10

    def learn(self, data, rng, epochs=None, device="auto"):
        b = arrays(data.take(data.rows))
        said = {k: np.array(self.categories_[k])[b[k]] for k in ("condition", "sample", "batch", "cell_type") if k in b}
        about, tables = pd.DataFrame(said), []
        for kind in self.kinds:
            mine = about["cell_type"] == kind if "cell_type" in about else np.ones(len(about), bool)
            sums, units = self.pseudobulk(np.asarray(b.x)[mine], about[mine], kind)
            tables.append(self.tested(sums, units).to_numpy(float))
            yield {"samples": float(len(units))}
        self.tables_ = np.stack(tables).astype(np.float32)  # types x genes x columns

    @property
    def kinds(self):
        return self.categories_.get("cell_type") or ["all"]

    def pseudobulk(self, x, about, kind):
        """Sums of counts (units x genes) and what is known of each: every sample, condition and batch that occur together."""
        keys = [k for k in ("sample", "condition", "batch") if k in about]
        place = about.groupby(keys, observed=True).ngroup().to_numpy()
        units = about.groupby(keys, observed=True).size().rename("cells").reset_index()
        sums = np.zeros((len(units), x.shape[1]), np.int64)
        np.add.at(sums, place, x.astype(np.int64))
        enough = (units["cells"] >= self.least).to_numpy()
        sums, units = sums[enough], units[enough].reset_index(drop=True)
        count = units.groupby("condition")["sample"].nunique().reindex(self.categories_["condition"], fill_value=0)
        if count.min() < 2:
            found = ", ".join(f"{k}: {v}" for k, v in count.items())
            raise DataError(
                f"type {kind!r} has {found} samples with {self.least} cells or more; DESeq2 needs two of each condition: "
                "measure more samples, leave the type out, or DESeq2(least=...)"
            )
        return sums, units

    def tested(self, sums, units):
        """DESeq2's table of all genes."""
        try:
            from pydeseq2.dds import DeseqDataSet
            from pydeseq2.ds import DeseqStats
        except ImportError as e:
            raise DataError(
                "DESeq2 is run by the package pydeseq2, which is not installed; pip install 'scdl-teach[classics]'"
            ) from e
        several = "batch" in units and units["batch"].nunique() > 1
        if several and (pd.crosstab(units["batch"], units["condition"]) > 0).sum(axis=1).max() < 2:
            raise DataError(
                "the conditions are the batches, so that nobody can tell them apart; compare conditions that share a batch"
            )
        units = units.astype(str).rename(index=str)
        counts = pd.DataFrame(sums, units.index, self.genes_["cells"])
        old, new = self.categories_["condition"]
        design = "~batch + condition" if several else "~condition"
        dds = DeseqDataSet(counts=counts, metadata=units, design=design, quiet=True, n_cpus=1)
        dds.deseq2()
        found = DeseqStats(dds, contrast=["condition", new, old], quiet=True, n_cpus=1)
        found.summary()
        return found.results_df

    def table(self, cell_type=None):
        """What DESeq2 says of every gene in one cell type, by default the first (DataFrame)."""
        columns = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]
        at = self.kinds.index(cell_type) if cell_type else 0
        return pd.DataFrame(self.tables_[at], self.genes_["cells"], columns)

    def outputs(self, b):
        return {"fold": self.tables_[:, :, 1].T, "p": self.tables_[:, :, 5].T}
