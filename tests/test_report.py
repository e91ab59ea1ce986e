"""Reports: names show as they are and do nothing, scales are read, and what could not be judged is said in words."""

import itertools
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat.v4 as nb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from nbconvert.filters import markdown2html

from scdl_teach import DataWarning, get, plot, recipes, simulate
from scdl_teach.recipes import intake, report, runner

HOSTILE = [
    "<script>document.title='x'</script>",
    r"$\frac{1$",
    "a$x_1$b$",
    "`tick` and ``two``",
    "</title></table><img src=x onerror=alert(1)>",
    "[see](javascript:alert(1)) ![i](https://example.org/a.png) https://example.org <b@example.org>",
    "**bold** _it_ ~~no~~ | a | b |",
    "_hidden",
    "- one\n\n# two\r\n1. three",
    "tab\there \x00 \x1b[31m \u202egnp.exe\u200b",
    "細胞 \U0001f9ec \u0627\u0644",
    "half \ud800 a pair",
    "&lt;script&gt; &amp; &#60;",
    "\\$ \\( \\[ \\begin{a} $$ {{x}} {% y %}",
    "",
    " ",
    "nan",
    "long " * 40,
]
TAGS = "html head meta title style body h1 h2 p div strong em code span table thead tbody tr th td img pre ul li"
ATTRIBUTES = "lang charset http-equiv content class id border style alt src"


class Seen(HTMLParser):
    """The words of a page; anything but plain elements and pictures that stand in it is refused."""

    def __init__(self, page):
        super().__init__()
        self.words, self.inside = [], []
        self.feed(page)
        self.text = "".join(self.words).replace("\xa0", " ")  # newer pandas keeps two spaces apart so

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS.split(), (tag, attributes)
        for name, value in attributes:
            assert name in ATTRIBUTES.split() and "javascript:" not in value, (tag, name, value)
            assert name != "src" or value.startswith("data:image/png;base64,"), value
            assert name != "style" or value == "text-align: right;", value
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, text):
        quiet = {*self.inside} & {"title", "pre", "h1", "style"}
        assert quiet or text == "$" or "$" not in text, f"a dollar beside other letters: {text!r}"
        self.words.append("" if "style" in self.inside else text)

    def handle_comment(self, text):
        raise AssertionError(f"a comment: {text!r}")


class Shown(list):
    """Stands in for IPython's ``display``: what a notebook would keep."""

    def __call__(self, *objects):
        from IPython.core.formatters import DisplayFormatter

        for o in objects:
            data, about = DisplayFormatter().format(o)
            self.append(nb.new_output("display_data", data, metadata=about))


@pytest.fixture(scope="module")
def shown():
    made = Shown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", made)
        yield made


@pytest.fixture
def listening():
    """What ``report.listen`` changes is put back."""
    with warnings.catch_warnings():
        report.listen()
        yield report.HEARD
    report.HEARD.clear()


def read(path):
    """The elements of an executed notebook's outputs, as Jupyter would show them: nothing in them is live."""
    for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
        for out in cell.get("outputs", []):
            assert out.get("name") != "stderr", out
            for kind, text in out.get("data", {}).items():
                Seen("".join(text)) if kind == "text/html" else None
                Seen(markdown2html("".join(text))) if kind == "text/markdown" else None
                assert kind in ("text/html", "text/markdown", "text/plain", "image/png"), kind


# -- names -------------------------------------------------------------------------------------------------
PIECES = ["<", ">", "&", "*", "_", "`", "[", "](", "|", "$", "\\", "\n", "~", "#", "<script>", "onload=", "javascript:", "a", " "]
NAMES = st.one_of(st.text(st.characters()), st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(HOSTILE))
SCORES = pd.DataFrame(
    {"mixing": [0.1, 0.5, 0.9], "structure kept": 1.0, "labels kept": 0.9, "labels across": 0.8},
    ["uncorrected", "mean-centring", "scVI"],
)


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_any_name_is_shown_letter_by_letter(shown, names):
    """In verdicts, findings, captions and tables."""
    said = [*report.batch_verdict("scVI", SCORES, "kind", 0.9, names), *map(report.code, names)]
    text = Seen(markdown2html("\n\n".join(said))).text
    for name in names:
        assert text.count(plot.printable(name)) >= 2, (name, text)
    shown.clear()
    report.table(pd.DataFrame({"a name": names, "a number": 0.5}, index=names), f"Of {report.plain(names[0])}.")
    report.table({k: k for k in names}, "Found.")
    tables = [o.data["text/html"] for o in shown if "text/html" in o.data]
    for page in tables:
        text = Seen(page).text
        assert all(text.count(plot.printable(name)) >= 2 for name in names)
    assert len(tables) == 2 and "0.5" in tables[0]


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_any_name_can_be_drawn(name):
    """It is no mathematics, needs no character that the font lacks, and is left out of no legend."""
    drawn = plot.literal(name)
    assert not cbook.is_math_text(drawn) and not drawn.startswith("_") and {*drawn} - {"\\", "$"} <= plot.glyphs(("sans-serif",))
    assert drawn.replace(r"\$", "$").strip().isprintable()


def test_names_of_printable_letters_stay():
    assert plot.literal("CD4 T (naïve), β > 1") == plot.printable("CD4 T (naïve), β > 1") == "CD4 T (naïve), β > 1"
    assert plot.literal("細") == r"\u7d30" and plot.printable("細\n") == "細\\n" and plot.literal("_a$b") == r" _a\$b"
    assert report.plain("a, b/c (d 1") == "a, b/c (d 1" and report.plain("<*_`[|$\n") == (
        "&#60;&#42;&#95;&#96;&#91;&#124;<span>&#36;</span>&#92;n"
    )


def test_long_names_stay_different():
    names = [f"CD4-positive, alpha-beta T cell, {i} of these memory cells" for i in "abcab"] + ["B"]
    made = report.short(names)
    assert len(set(made)) == 4 and made[0] == made[3] and made[-1] == "B" and max(map(len, made)) <= 30


def drawn_with(names):
    """Every figure of a report, with names out of a file wherever one may stand."""
    rng = np.random.default_rng(0)
    n = len(names)
    xy, v = rng.normal(size=(4 * n, 2)), rng.normal(1, 0.1, (4 * n, n)) ** 2
    labels = np.array(names, object).repeat(4)
    yield report.map_figure({k: xy for k in names[:2]}, labels)
    yield report.map_figure({names[0]: xy}, np.arange(4.0 * n))
    yield report.genes_figure(xy, {names[0]: v[:, :4], names[1]: v[:, :4]}, names[:4])
    yield report.loss_figure({k: rng.normal(1, 0.1, 9) for k in names})
    yield report.links_figure({k: rng.random(9) for k in names[:3]})
    yield report.trade_figure(
        pd.DataFrame({"mixing": 0.5, "structure kept": 0.5}, index=pd.Index(names[:3])), "mixing", "structure kept"
    )
    yield plot.history(pd.DataFrame({"phase": names[:2], names[0] or "loss": [1.0, 2.0]}))
    yield plot.gene_pair({"cells": xy}, list(labels), names[:2])
    yield plot.heatmap(np.eye(n), names, names)


@pytest.mark.parametrize("at", range(0, len(HOSTILE), 6))
def test_figures_of_hostile_names(at):
    """None dies, warns, or leaves a name out."""
    names = HOSTILE[at : at + 6]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = list(drawn_with(names))
        for fig in figures:
            fig.canvas.draw()
    legend = {t.get_text() for t in figures[0].axes[-1].get_legend().get_texts()}
    assert {plot.literal(s) or "''" for s in report.short(names)} == legend
    plt.close("all")


# -- the page ------------------------------------------------------------------------------------------------
def executed(shown, source, out):
    """A small executed recipe, as papermill leaves it."""
    from papermill.translators import PythonTranslator

    shown.clear()
    report.figure(report.loss_figure({k: np.arange(3.0) for k in HOSTILE}), f"Of {report.plain(HOSTILE[4])}.")
    report.table({k: k for k in HOSTILE}, f"Of {report.plain(HOSTILE[0])}.")
    first = nb.new_code_cell("# your data", outputs=list(shown))
    shown.clear()
    report.conclude([report.code(h) for h in HOSTILE])
    last = nb.new_code_cell("# verdict", outputs=list(shown), metadata={"tags": ["verdict"]})
    lines = PythonTranslator.codify({"source": str(source), "out": str(out)})
    told = nb.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})
    return nb.new_notebook(cells=[nb.new_markdown_cell("# Title\n\nText"), told, first, last])


@pytest.mark.parametrize("name", ["a`b\"'</title><script>1</script>$x$&lt;", "naïve 細胞", "half \udcff of a pair", "-\n\\n"])
def test_nothing_in_a_page_is_live(shown, name, tmp_path):
    """Whatever the file and the folder are called; both pages say where the results stand in the end."""
    out, new, source = tmp_path / name / name, tmp_path / name / f".{name}-12345678", Path(f"/x/{name}.h5ad")
    source, out, new = (Path(*(p.replace("/", ":") if i else p for i, p in enumerate(path.parts))) for path in (source, out, new))
    new.mkdir(parents=True)
    runner.publish(executed(shown, source, new), "toy", source, new, out, 1.0)
    read(new / "toy.ipynb")
    page = (new / "toy.html").read_text(encoding="utf-8")
    words = Seen(page).text
    assert all(words.count(plot.printable(h)) >= 3 for h in HOSTILE if h.strip())
    assert "default-src 'none'" in page and page.index("Content-Security-Policy") < page.index("<title>")
    assert f"Title: {plot.printable(source.name)}" in words and f'alt="Of {"&lt;/title&gt;"}' in page
    assert ".-12345678" not in page and "-12345678" not in (new / "toy.ipynb").read_text(encoding="utf-8") + page


# -- scales --------------------------------------------------------------------------------------------------
FORWARD = {
    "counts": lambda x, unit: x,
    "normalised": lambda x, unit: unit,
    "log1p normalised": lambda x, unit: np.log1p(unit),
    "log2 normalised": lambda x, unit: np.log2(1 + unit),
    "log10 counts": lambda x, unit: np.log10(1 + x),
}


@pytest.mark.parametrize("key", intake.systems("imputation"))
def test_the_scale_of_every_imputation(key):
    """Its class says it; true expected values on that scale lead back to counts; what it reads is on the scale it answers on."""
    a = simulate.counts(n=60, genes=40)
    x = a.X.toarray()
    truth = a.layers["true_mean"] if "true_mean" in a.layers else x + 0.3
    truth = truth / truth.sum(1, keepdims=True) * x.sum(1, keepdims=True)
    deep = np.median(x.sum(1)) / x.sum(1, keepdims=True)
    scale = report.scale(key)
    assert scale in FORWARD and get(key).imputes["scale"] in (scale, "as given")
    assert np.allclose(report.as_counts(key, FORWARD[scale](truth, truth * deep), a), truth, rtol=1e-4)
    where = intake.inputs(a, key)
    if where:
        assert np.allclose(a.layers["logs"].toarray(), FORWARD[scale](x, x * deep), atol=1e-5)
        assert np.allclose(report.as_counts(key, a.layers["logs"], a), x, atol=1e-3)


def test_imputed_values_that_are_none_are_told():
    a = simulate.counts(n=60, genes=40)
    made = np.log1p(a.X.toarray())
    made[0, :3] = np.nan, np.inf, -np.inf
    made[1] = 1e30
    with pytest.warns(DataWarning, match="3 of 2,400 values that drimpute imputed are no numbers"):
        assert np.isfinite(report.as_counts("drimpute", made, a)).all()


# -- what could not be judged ----------------------------------------------------------------------------------
def told(*sentences):
    """No number that is none stands in a sentence."""
    text = " ".join(sentences)
    assert not re.search(r"\b([Nn]a[Nn]|[Ii]nf|None)\b", text), text
    return text


def losses():
    """Losses of cells as they may come out: usual, equal, of one cell, of none, and no numbers."""
    some = np.random.default_rng(0).random(30)
    return [some, some + 0.1, np.ones(30), np.ones(1), np.ones(0), np.where(some > 0.5, np.nan, 1), np.full(30, np.inf)]


def test_no_nan_in_a_verdict_of_an_imputation():
    for values in itertools.product(losses(), repeat=4):
        if len({v.shape for v in values}) == 1:
            by = dict(zip(("raw counts", "gene mean", "kNN smoothing", "DCA"), values, strict=True))
            lost = report.no_number(by)
            for pairs in losses():
                at = {"raw counts": values[0], "kNN smoothing": pairs, "DCA": values[3]}
                said = told(*report.imputation_verdict("DCA", by, at, len(values[0])))
                assert ("has not seen could not be judged**" in said) == bool(lost)
    empty = {"raw counts": np.ones(0), "kNN smoothing": np.ones(0), "DCA": np.ones(0)}
    assert "invents links between genes could not be judged" in told(report.links_found("DCA", empty))


def test_no_nan_in_a_verdict_of_an_embedding():
    numbers = (0.9, 0.0, np.nan, np.inf)
    for values in itertools.product(losses(), repeat=3):
        if len({v.shape for v in values}) == 1:
            by = dict(zip(("gene mean", "PCA", "scVI"), values, strict=True))
            for a, b in itertools.product(numbers, repeat=2):
                two = {"PCA": a, "scVI": b}
                said = told(*report.embedding_verdict("scVI", by, two, two, 0))
                assert ("labels are found could not be judged" in said) == (not np.isfinite([a, b]).all())
                assert ("maps are could not be judged" in said) == (not np.isfinite([a, b]).all())
                assert ("in the space of scVI tell could not" in said) == bool(report.no_number(by))


NUMBERS = st.sampled_from([0.0, 0.3, 0.95, 1.0, np.nan, np.inf, -np.inf])


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=12, max_size=12), NUMBERS, st.booleans(), st.booleans())
def test_no_nan_in_a_verdict_of_a_batch(values, v, label, single):
    scores = pd.DataFrame(np.reshape(values, (3, 4)), index=SCORES.index, columns=SCORES.columns)
    said = told(*report.batch_verdict("scVI", scores, "kind" if label else "", v, ["B"] if single else []))
    kept = scores.loc["scVI"]
    assert ("know its unseen molecules as well as before could not be judged" in said) == (
        not np.isfinite(kept["structure kept"])
    )
    if not np.isfinite(scores.loc[["uncorrected", "scVI"], "mixing"]).all():
        assert "Whether scVI mixes the batches could not be judged" in said and "Of the two" not in said


def test_scores_that_cannot_be_given():
    """A batch of one cell, a label of one kind, embeddings of no numbers, deep counts without structure: NaN, and nothing
    dies.
    """
    a = simulate.batches(n=60, genes=30, seed=3)
    seen, aside = report.thinned(a)
    pcs, n = intake.pca(seen), seen.n_obs
    none, one, solo = np.full((n, 2), np.nan), np.full(n, "a"), np.array(["solo"] + ["b"] * (n - 1))
    chance = np.random.default_rng(0).normal(size=(n, 2))
    kind = np.tile(["t", "u"], n)[:n]
    for value in (
        report.mixing(pcs, one),
        report.mixing(none, solo),
        report.structure_kept(seen, aside, pcs, chance, one),
        report.structure_kept(seen, aside, none, pcs, one),
        report.across(pcs, solo, one),
        report.across(pcs, one, kind),
        report.across(none, solo, kind),
        report.label_accuracy(pcs, one),
        report.label_accuracy(none, kind),
        report.label_accuracy(pcs[:1], kind[:1]),
        report.neighbours_kept(pcs[:2], pcs[:2]),
        report.neighbours_kept(pcs, none),
        report.tied([], [])[0],
    ):
        assert np.isnan(value)
    assert report.compare(np.ones(1), np.zeros(1), np.zeros(1)) == 0, "one cell has no standard error"
    assert np.isfinite([report.mixing(pcs, solo), report.across(pcs, solo, kind), report.tied(solo, kind)[0]]).all()
    assert np.isfinite(report.structure_kept(seen, aside, pcs, pcs, solo)) and report.tied(solo, one) == (0.0, [])
    assert np.isnan(report.pooled(seen, none)).all() and len(report.links(np.ones((5, 3)), np.array([True, False, False]))) == 0


def test_tables_and_figures_say_what_is_missing(shown):
    shown.clear()
    report.table(pd.DataFrame({"loss": [0.5, np.nan, np.inf], "what": ["a", np.nan, -np.inf]}), "Of what is none.")
    told(shown[1].data["text/html"])
    assert shown[1].data["text/html"].count("not judged") == 4
    rng = np.random.default_rng(0)
    xy, none = rng.normal(size=(40, 2)), np.r_[np.nan, np.inf, np.ones(38)]
    lost = np.where(np.arange(80).reshape(40, 2) < 4, np.nan, xy)
    figures = [
        report.loss_figure({"a": none, "b": np.ones(9), "c": np.ones(1)}),
        report.links_figure({"a": np.ones(0), "b": none, "c": np.ones(5)}),
        report.trade_figure(SCORES.assign(mixing=[np.nan, 1, np.inf]), "mixing", "structure kept"),
        report.map_figure({"a": lost}, np.repeat(["x", "y"], 20)),
        report.map_figure({"a": xy}, none),
        report.genes_figure(lost, {"counts": np.column_stack([none, np.full(40, np.nan)])}, ["g", "h"]),
        report.data_figure(np.column_stack([none, none])),
    ]
    for fig in figures:
        fig.canvas.draw()
        text = " ".join(t.get_text() for t in fig.findobj(plt.Text))
        assert "not judged" in told(text) or "without a number: not drawn" in text, text
    plt.close("all")


# -- findings ------------------------------------------------------------------------------------------------
class Fitted:
    def __init__(self, *findings):
        self.findings_ = list(findings)


def test_findings_open_the_verdict(shown, listening):
    """Each once, with where; warnings about the data in words, those of packages apart, of programming not at all."""
    assert report.findings(Fitted(), Fitted()) == [] and report.findings(object(), object()) == [] and report.heard() == []
    broken, falls = "the loss 'nll' still falls (by 12 % at the end): give more epochs=", "all cells have one code"
    for text, kind in (
        (f"SCVI: {broken}", DataWarning),
        ("a batch is called <nan>", DataWarning),
        ("a batch is called <nan>", DataWarning),
        ("did not\nconverge", RuntimeWarning),
        ("will go away", DeprecationWarning),
    ):
        warnings.warn(text, kind, stacklevel=1)
    shown.clear()
    report.conclude(["Take scVI."], Fitted(broken), Fitted(broken, falls))
    page = markdown2html(shown[0].data["text/markdown"])
    text = Seen(page).text
    assert text.index("something is wrong") < text.index(broken) < text.index(falls) < text.index("Take scVI.")
    assert f"{broken} (on the cells judged and on all cells)" in text and f"{falls} (on all cells)" in text
    assert text.count(broken) == text.count("a batch is called <nan>") == 1 and page.count("<li>") == 3
    assert [Seen(markdown2html(h)).text.strip() for h in report.heard()] == [
        "Said by the packages used, each once: did not converge."
    ]


def test_what_is_warned_of_is_not_printed(listening, capsys):
    warnings.warn("too few genes", DataWarning, stacklevel=1)
    assert capsys.readouterr().err == "" and listening == {"too few genes": DataWarning}


@pytest.mark.parametrize("name", recipes.available())
def test_every_recipe_tells_what_was_found(name):
    """It listens from its set-up on, keeps what packages said, and gives both models to the verdict."""
    code = ["".join(c["source"]) for c in runner.cells_of(recipes.notebook(name)) if c["cell_type"] == "code"]
    assert "report.listen()" in code[1] and "report.heard()" in code[-2] and re.search(r"trial,\s+model,?\s*\)$", code[-1])
    assert sum("trial.fit(" in c for c in code) == 1 and sum("model.fit(" in c for c in code) == 1
    assert not any(re.search(r"`\{(stem|source|label|batch)\b", c) for c in code), "a name of the user's between backticks"
