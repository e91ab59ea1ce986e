"""Files as people really have them: read, or refused with one sentence and the line that mends."""

import contextlib
import gzip
import re
import subprocess
import sys
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scdl_teach import DataError, DataWarning, datasets, get
from scdl_teach.core.arrays import tables_apart
from scdl_teach.datasets import foreign
from scdl_teach.recipes import intake


def cells(n=60, genes=12, seed=0):
    """Counts with names, two batches and three types."""
    rng = np.random.default_rng(seed)
    out = AnnData(sp.csr_matrix(rng.poisson(rng.gamma(1, 2, (n, genes)) + 0.3).astype(np.float32)))
    out.obs_names, out.var_names = [f"cell_{i}" for i in range(n)], [f"CD{j}" for j in range(genes)]
    out.obs["batch"] = pd.Categorical(np.where(np.arange(n) % 2, "one", "two"))
    out.obs["cell_type"] = rng.choice(["B", "T", "NK"], n)
    return out


def droplets(folder, a, prefix="", genes="features.tsv", columns=3, packed=(), title=False):
    """The three files of Cell Ranger or STARsolo; ``packed`` names those to compress."""
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.mmwrite(folder / f"{prefix}matrix.mtx", sp.coo_matrix(a.X.T).astype(int))
    (folder / f"{prefix}barcodes.tsv").write_text("x\n" * title + "\n".join(a.obs_names) + "\n")
    lines = [[f"ENSG{j:011d}", name, "Gene Expression", "chr1", "100"] for j, name in enumerate(a.var_names)]
    lines = [line[1:2] if columns == 1 else line[:columns] for line in lines]
    (folder / f"{prefix}{genes}").write_text("".join("\t".join(line) + "\n" for line in lines))
    for name in packed:
        plain = folder / f"{prefix}{name}"
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return folder


def same(path, a, **how):
    made = datasets.read(path, **how)
    assert isinstance(made, AnnData) and list(made.obs_names) == list(a.obs_names) and list(made.var_names) == list(a.var_names)
    assert (sp.csr_matrix(made.X) != a.X).nnz == 0
    return made


# -- read ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packed", [(), ("matrix.mtx", "barcodes.tsv", "features.tsv"), ("matrix.mtx",), ("barcodes.tsv",)])
def test_folders_of_starsolo_packed_or_not(packed, tmp_path):
    made = same(droplets(tmp_path / "run", cells(), packed=packed), cells())
    assert made.X.dtype == np.float32 and made.var["gene_ids"].iloc[0] == "ENSG00000000000"


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
@pytest.mark.parametrize("genes", ["features.tsv", "genes.tsv"])
def test_names_of_genes_in_any_number_of_columns(genes, columns, tmp_path):
    same(droplets(tmp_path / "run", cells(), genes=genes, columns=columns), cells())


def test_one_matrix_below_is_read_and_several_are_named(tmp_path):
    a = cells()
    droplets(tmp_path / "Solo.out" / "GeneFull" / "raw", a)
    same(tmp_path / "Solo.out", a)
    droplets(tmp_path / "Solo.out" / "Gene" / "filtered", a)
    with pytest.raises(DataError, match=r"Solo.out holds 2 matrices \(Gene/filtered/matrix.mtx, .*; give the path of one: ") as e:
        datasets.read(tmp_path / "Solo.out")
    same(str(e.value).split("the path of one: ")[1], a)


def test_prefixes_of_geo(tmp_path):
    a, b = cells(), cells(seed=1)
    droplets(tmp_path / "GSE1", a, "GSM1_left_", packed=("matrix.mtx", "barcodes.tsv", "features.tsv"))
    same(tmp_path / "GSE1", a)
    droplets(tmp_path / "GSE1", b, "GSM2_right_")
    with pytest.raises(DataError, match="GSE1 holds 2 matrices \\(GSM1_left_matrix.mtx.gz, GSM2_right_matrix.mtx\\)"):
        datasets.read(tmp_path / "GSE1")
    same(tmp_path / "GSE1" / "GSM2_right_matrix.mtx", b)
    same(tmp_path / "GSE1" / "GSM1_left_matrix.mtx.gz", a)


def test_a_matrix_that_was_turned(tmp_path):
    folder = droplets(tmp_path / "run", cells())
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(cells().X).astype(int))
    same(folder, cells())


def test_zarr_and_whatever_a_file_is_called(tmp_path):
    a = cells()
    a.write_zarr(tmp_path / "store.zarr")
    same(tmp_path / "store.zarr", a)
    a.write_h5ad(tmp_path / "named.h5")
    same(tmp_path / "named.h5", a)
    ten_x(tmp_path / "named.h5ad", a)
    same(tmp_path / "named.h5ad", a)


def ten_x(path, a, types=None, genomes=None):
    """Cell Ranger 3 and later."""
    with h5py.File(path, "w") as f:
        box = matrix(f.create_group("matrix"), a)
        about = box.create_group("features")
        names = [f"ENSG{j:011d}" for j in range(a.n_vars)], list(a.var_names), types or ["Gene Expression"] * a.n_vars
        for key, values in zip(("id", "name", "feature_type"), names, strict=True):
            about[key] = np.array(values, "S")
        about["genome"] = np.array(genomes or ["GRCh38"] * a.n_vars, "S")


def matrix(box, a):
    """A table as Cell Ranger stores it: genes x cells, by columns."""
    x = sp.csr_matrix(a.X).astype(np.int32)
    box["data"], box["indices"], box["indptr"], box["shape"] = x.data, x.indices, x.indptr, np.array(x.shape[::-1], np.int32)
    box["barcodes"] = np.array(list(a.obs_names), "S")
    return box


def old_ten_x(path, **tables):
    """Cell Ranger 2: a group for each genome."""
    with h5py.File(path, "w") as f:
        for genome, a in tables.items():
            box = matrix(f.create_group(genome), a)
            box["genes"], box["gene_names"] = (
                np.array([f"ENSG{j:011d}" for j in range(a.n_vars)], "S"),
                np.array(a.var_names, "S"),
            )


def test_files_of_several_genomes(tmp_path):
    a, b = cells(), cells(seed=1)
    old_ten_x(tmp_path / "one.h5", hg19=a)
    same(tmp_path / "one.h5", a)
    old_ten_x(tmp_path / "two.h5", hg19=a, mm10=b)
    with pytest.raises(
        DataError, match=r"two.h5 holds the genomes hg19, mm10, and one is needed: .*read\('two.h5', genome='hg19'\)"
    ):
        datasets.read(tmp_path / "two.h5")
    same(tmp_path / "two.h5", b, genome="mm10")
    ten_x(tmp_path / "new.h5", a, genomes=["GRCh38"] * 7 + ["mm10"] * 5)
    with pytest.warns(
        DataWarning, match=r"new.h5 holds genes of 2 genomes \(GRCh38, mm10\), read as one table; .*genome='GRCh38'"
    ):
        same(tmp_path / "new.h5", a)
    same(tmp_path / "new.h5", a[:, 7:], genome="mm10")
    with pytest.raises(DataError, match="new.h5 holds the genomes GRCh38, mm10, and 'hg38' is none of them"):
        datasets.read(tmp_path / "new.h5", genome="hg38")
    a.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match="a.h5ad is no .h5 of Cell Ranger, whose genome could be chosen; leave genome= out"):
        datasets.read(tmp_path / "a.h5ad", genome="hg19")


def test_rows_that_are_no_genes_are_left_out_and_said(tmp_path):
    a, types = cells(), ["Gene Expression"] * 9 + ["Antibody Capture"] * 2 + ["Custom"]
    ten_x(tmp_path / "cite.h5", a, types)
    folder = droplets(tmp_path / "cite", a)
    lines = [f"ENSG{j}\t{n}\t{t}\n" for j, (n, t) in enumerate(zip(a.var_names, types, strict=True))]
    (folder / "features.tsv").write_text("".join(lines))
    for path in (tmp_path / "cite.h5", folder):
        with pytest.warns(DataWarning, match=f"{path.name} has rows that are left out: 2 of Antibody Capture, 1 of Custom; "):
            same(path, a[:, :9])
    ten_x(tmp_path / "atac.h5", a, ["Peaks"] * 12)
    with pytest.raises(DataError, match="atac.h5 holds no gene expression, but 12 of Peaks; give the table of the genes"):
        datasets.read(tmp_path / "atac.h5")


def test_nothing_is_said_of_a_file_as_it_should_be(tmp_path):
    ten_x(tmp_path / "a.h5", cells())
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        datasets.read(tmp_path / "a.h5")
        datasets.read(droplets(tmp_path / "run", cells()))


# -- refused ---------------------------------------------------------------------------------------------------
def refused(path):
    with pytest.raises(DataError) as e:
        datasets.read(path)
    said = str(e.value)
    assert "\n" not in said and path.name in said and len(said) < 420
    return said


def mended(said, folder, name):
    """Run the line of Python that a sentence ends with; the file that it makes."""
    line = re.search(r"import (?:anndata|h5py|mudata).*?(?= \(where|$)", said)[0]
    with contextlib.chdir(folder), warnings.catch_warnings(action="ignore"):
        exec(line, {})
    return folder / name


@pytest.mark.parametrize("ending,sep", [(".csv", ","), (".tsv", "\t"), (".txt", "\t")])
def test_tables_of_text_are_named_with_a_line_that_works(ending, sep, tmp_path):
    a = cells()
    a.to_df().to_csv(tmp_path / f"my{ending}", sep=sep)
    said = refused(tmp_path / f"my{ending}")
    assert f"is a table of text ({ending}), and an .h5ad file is needed" in said
    same(mended(said, tmp_path, "my.h5ad"), a)


def test_other_kinds_are_named_with_a_line_that_works(tmp_path):
    a = cells()
    with h5py.File(tmp_path / "plain.h5", "w") as f:
        f["X"], f["Y"] = a.X.toarray(), np.arange(60)
    said = refused(tmp_path / "plain.h5")
    assert "plain.h5 is HDF5 without names of cells and genes (it holds X, Y), and an AnnData is needed" in said
    made = datasets.read(mended(said, tmp_path, "plain.h5ad"))
    assert np.array_equal(made.X, a.X.toarray())
    scipy.io.mmwrite(tmp_path / "counts.mtx", sp.coo_matrix(a.X.T).astype(int))
    said = refused(tmp_path / "counts.mtx")
    assert (
        "is a matrix without names (.mtx), and an .h5ad file is needed: put its barcodes.tsv and features.tsv beside it" in said
    )
    assert (datasets.read(mended(said, tmp_path, "counts.h5ad")).X != a.X).nnz == 0


def test_multi_omics_files_are_named_with_a_line_that_works(tmp_path):
    mudata = pytest.importorskip("mudata")
    with tables_apart():
        mudata.MuData({"rna": cells()}).write(tmp_path / "both.h5mu")
    said = refused(tmp_path / "both.h5mu")
    assert "both.h5mu is several tables (MuData), and one is needed: " in said
    same(mended(said, tmp_path, "both.h5ad"), cells())


@pytest.mark.parametrize(
    "name,start,said",
    [
        ("x.h5ad.gz", b"\x1f\x8b", "is compressed, and a plain file is needed: gunzip x.h5ad.gz$"),
        ("x.h5ad", b"\x1f\x8b", "is compressed, and a plain file is needed: gunzip x.h5ad$"),
        (
            "matrix.csv.gz",
            b"\x1f\x8b",
            "gunzip matrix.csv.gz, then import anndata, pandas; .*read_csv\\('matrix.csv', index_col=0",
        ),
        ("x.zarr.zip", b"PK\x03\x04", "unzip x.zarr.zip"),
        ("x.h5ad.bz2", b"BZh9", "bunzip2 x.h5ad.bz2"),
        ("x.rds", b"\x1f\x8b", "is an object of R \\(.rds\\), .* in R: .*readRDS\\('x.rds'\\)\\), 'x.h5ad'\\)"),
        ("x.RData", b"\x1f\x8b", "is an object of R \\(.rdata\\), .*get\\(load\\('x.RData'\\)\\)"),
        ("x.xlsx", b"PK\x03\x04", "is a sheet of Excel \\(.xlsx\\), .*pandas.read_excel\\('x.xlsx', index_col=0\\)"),
        ("x.bam", b"BAM\1\0", "is a file of an unknown kind \\(.bam\\); give one of these: .h5ad, .zarr, "),
        ("x", b"\0\1\2", "is a file of an unknown kind \\(without ending\\)"),
        ("x.h5ad", b"\x89HDF", "cannot be read as .h5ad \\(it does not begin as HDF5 does\\); copy or download it again"),
        ("x.h5ad", b"", "is empty \\(0 bytes\\)"),
    ],
)
def test_files_known_by_their_first_bytes(name, start, said, tmp_path):
    (tmp_path / name).write_bytes(start + bytes(50) if start else b"")
    assert re.search(said, refused(tmp_path / name))


@pytest.mark.parametrize(
    "keys,said",
    [
        (["matrix", "col_attrs", "row_attrs"], "is a loom file, .*scanpy.read_loom\\('x.h5ad'\\)"),
        (["cell.names", "assays"], "is a Seurat file, .* in R: SeuratDisk::Convert\\('x.h5ad', dest = 'h5ad'\\)"),
        (["barcode_idx", "count"], "is Cell Ranger's list of molecules, .*give filtered_feature_bc_matrix.h5"),
        (["matrix"], "is no AnnData: it holds matrix, where"),
        (["X"], "is no AnnData: it holds X, where"),
        (["model_weights"], "is no AnnData: it holds model_weights, where obs, var and X are needed; write it with adata.write"),
        (
            [f"a_long_name_{i}" for i in range(90)],
            "is no AnnData: it holds a_long_name_0, .*a_long_name_1[0-9], \\.\\.\\., where",
        ),
        ([], "is no AnnData: it holds nothing, where"),
    ],
)
def test_hdf5_of_other_programs(keys, said, tmp_path):
    with h5py.File(tmp_path / "x.h5ad", "w") as f:
        for key in keys:
            f.create_group(key)
    assert re.search(said, refused(tmp_path / "x.h5ad"))


def test_names_that_would_break_a_line(tmp_path):
    path = tmp_path / "it's\n\x1b[2Jmine.csv"
    cells().to_df().to_csv(path)
    with pytest.raises(DataError) as e:
        datasets.read(path)
    assert str(e.value).isprintable() and "it's [2Jmine.csv is a table of text" in str(e.value)
    path.rename(tmp_path / "it's.csv")
    same(mended(refused(tmp_path / "it's.csv"), tmp_path, "it's.h5ad"), cells())
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f.create_group("a\nb\x1b[2J")
    assert refused(tmp_path / "x.h5").isprintable()


def test_a_file_that_another_program_writes(tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.h5ad")], **pipes) as other:
        other.stdout.readline()
        assert "a.h5ad is open for writing in another program (" in refused(tmp_path / "a.h5ad")
        other.stdin.close()


def test_folders_without_a_matrix(tmp_path):
    assert f"the folder {tmp_path} holds no matrix.mtx; give an .h5ad file, or Cell Ranger's" in refused(tmp_path)
    cells().write_h5ad(tmp_path / "a.h5ad")
    assert refused(tmp_path).endswith(f"holds a.h5ad; give the path of one of them: {tmp_path / 'a.h5ad'}")
    with pytest.raises(DataError, match="there is no file .*A.h5ad; did you mean 'a.h5ad'\\?"):
        datasets.read(tmp_path / "A.h5ad")


def test_a_slash_in_a_name_is_said_with_a_line_that_works(tmp_path):
    a = cells()
    a.layers["umi"] = a.X.copy()
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f["layers"].create_group("raw")
        f.move("layers/umi", "layers/raw/umi")
    said = refused(tmp_path / "a.h5ad")
    assert "a.h5ad has a group layers/raw where a table is needed (it holds raw/umi); a name must be without '/'" in said
    made = datasets.read(mended(said, tmp_path, "a.h5ad"))
    assert (made.layers["raw_umi"] != a.X).nnz == 0


def test_values_in_another_file_are_never_read(tmp_path):
    a = cells()
    a.X = a.X.toarray()
    a.write_h5ad(tmp_path / "other.h5ad")
    for kind in ("external link", "link to nowhere", "virtual", "raw file"):
        path = tmp_path / f"{kind}.h5ad"
        a.write_h5ad(path)
        with h5py.File(path, "r+") as f:
            about = dict(f["X"].attrs)
            del f["X"]
            linked(f, kind, a, tmp_path)
            if kind in ("virtual", "raw file"):
                f["X"].attrs.update(about)
        said = refused(path)
        assert f"{kind}.h5ad does not hold its X: " in said and "; give " in said
        assert "there" in said if kind == "link to nowhere" else "other." in said


def test_tables_in_another_file_are_never_read(tmp_path):
    from scdl_teach.cli import fitting

    mudata = pytest.importorskip("mudata")
    with tables_apart():
        mudata.MuData({"rna": cells(), "protein": cells()}).write(tmp_path / "both.h5mu")
    assert list(fitting.read(tmp_path / "both.h5mu").mod) == ["rna", "protein"]
    cells().write_h5ad(tmp_path / "other.h5ad")
    with h5py.File(tmp_path / "both.h5mu", "r+") as f:
        del f["mod/rna/X"]
        f["mod/rna/X"] = h5py.ExternalLink("other.h5ad", "/X")
    with pytest.raises(DataError, match="both.h5mu does not hold its mod/rna/X: it is a link to /X in the file other.h5ad; give"):
        fitting.read(tmp_path / "both.h5mu")


def linked(f, kind, a, folder):
    match kind:
        case "external link":
            f["X"] = h5py.ExternalLink("other.h5ad", "/X")
        case "link to nowhere":
            f["X"] = h5py.SoftLink("/layers/gone")
        case "virtual":
            layout = h5py.VirtualLayout(a.shape, "f4")
            layout[:] = h5py.VirtualSource("other.h5ad", "X", a.shape)
            f.create_virtual_dataset("X", layout)
        case "raw file":
            (folder / "other.bin").write_bytes(a.X.tobytes())
            f.create_dataset("X", a.shape, "f4", external=[(str(folder / "other.bin"), 0, h5py.h5f.UNLIMITED)])


def test_links_inside_a_file_are_followed(tmp_path):
    a = cells()
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f["layers/again"] = h5py.SoftLink("/X")
        f["uns/round"] = f["uns"]  # a ring
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        del f["uns/round"]
    assert (same(tmp_path / "a.h5ad", a).layers["again"] != a.X).nnz == 0


def test_a_ring_of_links_ends(tmp_path):
    cells().write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        f["uns/round"] = f["uns"]
    assert "cannot be read" in refused(tmp_path / "a.h5ad")


def test_compressors(tmp_path, monkeypatch):
    a = cells()
    a.write_h5ad(tmp_path / "lzf.h5ad", compression="lzf")
    same(tmp_path / "lzf.h5ad", a)
    a.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as f:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((8,))
        plan.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(f.id, b"packed", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((16,)), plan)
    said = refused(tmp_path / "a.h5ad")
    assert "a.h5ad is compressed with filter 32999 (packed), which HDF5 does not unpack alone; pip install hdf5plugin" in said


@pytest.mark.parametrize(
    "spoil,said",
    [
        (
            lambda d: (d / "barcodes.tsv").unlink(),
            "holds matrix.mtx without its names .*; put barcodes.tsv and features.tsv beside",
        ),
        (lambda d: (d / "features.tsv").unlink(), "holds matrix.mtx without its names"),
        (
            lambda d: (d / "barcodes.tsv").write_text("x\n" + (d / "barcodes.tsv").read_text()),
            "12 genes and 61 barcodes; .*title line",
        ),
        (
            lambda d: (d / "matrix.mtx").write_text("%%MatrixMarket matrix array real general\n12 60\n"),
            "matrix.mtx begins '%%matrix",
        ),
        (lambda d: cut(d / "matrix.mtx", 400), "of its [0-9]+ values are there\\); it may be cut short"),
        (lambda d: (d / "matrix.mtx").write_text("12 60 1\n1 1 1\n"), "matrix.mtx begins '12 60 1', and the sparse matrix"),
        (lambda d: (d / "matrix.mtx").write_bytes(b"\x1f\x8b" + bytes(40)), "cannot be read"),
        (lambda d: (d / "features.tsv").write_bytes(b"\xff\xfe" * 30), "cannot be read"),
        (lambda d: (d / "matrix.mtx").write_text(HEAD + "12 60 1\n13 1 1\n"), "cannot be read"),
        (
            lambda d: (d / "matrix.mtx").write_text(HEAD + "999999999999 60 1\n13 1 1\n"),
            "is 999999999999 x 60, and beside it are 12 genes",
        ),
    ],
)
def test_damaged_folders(spoil, said, tmp_path):
    folder = droplets(tmp_path / "run", cells())
    spoil(folder)
    with pytest.raises(DataError, match=said) as e:
        datasets.read(folder)
    assert "\n" not in str(e.value)


HEAD = "%%MatrixMarket matrix coordinate integer general\n%\n"


def cut(path, n):
    path.write_bytes(path.read_bytes()[:n])


def test_damaged_tables_of_cell_ranger(tmp_path):
    for key, value in (
        ("indptr", np.arange(61)[::-1]),
        ("indices", None),
        ("shape", np.array([3, 3])),
        ("barcodes", np.arange(60)),
    ):
        ten_x(tmp_path / "a.h5", cells())
        with h5py.File(tmp_path / "a.h5", "r+") as f:
            old = f[f"matrix/{key}"][:]
            del f[f"matrix/{key}"]
            f[f"matrix/{key}"] = old + 10**6 if value is None else value
        assert "; " in refused(tmp_path / "a.h5")


def test_a_refusal_loads_neither_torch_nor_anndata(tmp_path):
    (tmp_path / "a.csv").write_text(",a\nb,1\n")
    code = (
        "import sys; from pathlib import Path; from scdl_teach.datasets import foreign\n"
        "try: foreign.kind(Path(sys.argv[1]))\n"
        "except ValueError: sys.exit(any(m in sys.modules for m in ('torch', 'scanpy', 'anndata')))\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.csv")]).returncode == 0


def test_one_that_may_not_be_read(tmp_path, monkeypatch):
    cells().write_h5ad(tmp_path / "a.h5ad")

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(foreign, "open", closed, raising=False)
    assert "a.h5ad may not be read ([Errno 13] Permission denied); ask its owner" in refused(tmp_path / "a.h5ad")


# -- what a recipe says of it ----------------------------------------------------------------------------------
def found(a, folder, **how):
    """The facts of a recipe, and what it warned of."""
    a.write_h5ad(folder / "my.h5ad")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        facts = intake.load(folder / "my.h5ad", **how)[2]
    notes = [v for k, v in facts.items() if k.startswith("note")]
    assert notes == [str(w.message) for w in said if w.category is DataWarning]
    return facts, notes


def test_equal_totals_are_no_molecules(tmp_path):
    a = cells()
    x = a.X.toarray()
    a.X = np.round(x / x.sum(1, keepdims=True) * 1e6)
    (note,) = found(a, tmp_path)[1]
    assert "X has the same total in every row (1,000,000), as rounded TPM or CPM have" in note
    assert found(cells(), tmp_path)[1] == []


def test_batches_whose_names_look_wrong(tmp_path):
    a = cells()
    a.obs["batch"] = ["nan"] * 20 + ["1"] * 40
    (note,) = found(a, tmp_path, batch="batch")[1]
    assert "has a category called 'nan', most likely missing values made text" in note
    a.obs["batch"] = ["day 1"] * 20 + ["Day 1"] * 20 + ["two"] * 20
    (note,) = found(a, tmp_path, batch="batch")[1]
    assert "categories that differ in case or blanks only (['Day 1', 'day 1'])" in note


def test_batches_that_share_hardly_a_gene(tmp_path):
    a, b = cells(30, 30), cells(30, 30)
    b.var_names = ["CD0", "CD1", *[f"ENSG{j:011d}" for j in range(28)]]
    both = anndata.concat([a, b], join="outer", label="batch", keys=["left", "right"], index_unique="-", fill_value=0)
    (note,) = found(both, tmp_path, batch="batch")[1]
    assert "the batches 'left' and 'right' have 2 of 58 genes in common; nothing can be matched" in note
    few = anndata.concat([a, b], label="batch", keys=["left", "right"], index_unique="-")
    with pytest.raises(DataError, match=r"my.h5ad has 2 genes \(60 cells x 2 genes\), and 10 or more are needed; a join keeps"):
        found(few, tmp_path, batch="batch")


def test_names_of_genes_behind_a_genome(tmp_path):
    a = cells()
    for before in ("hg19_", "GRCh38______", "mm10___"):
        a.var_names = [f"{before}CD{j}" for j in range(12)]
        (note,) = found(a, tmp_path)[1]
        assert f"the names of genes begin with a genome's ({before}CD0), so symbols do not match them: adata.var_names = " in note
        with pytest.raises(DataError, match=f"genes= names CD3, absent here; .*; did you mean '{before}CD3'\\?"):
            intake.places(a, ["CD3"])
    exec(note.split("match them: ")[1], {"adata": a})
    assert intake.places(a, ["CD3"]) == [3]
    with pytest.raises(DataError, match="genes= names cd3, absent here; the file has CD0, .*; did you mean 'CD3'\\?"):
        intake.places(a, ["cd3"])


def test_antibodies_left_out_stand_in_the_facts(tmp_path):
    ten_x(tmp_path / "cite.h5", cells(), ["Gene Expression"] * 11 + ["Antibody Capture"])
    with pytest.warns(DataWarning, match="1 of Antibody Capture"):
        facts = intake.load(tmp_path / "cite.h5")[2]
    assert "cite.h5 has rows that are left out: 1 of Antibody Capture" in facts["note 1"] and facts["genes"] == "11"


HALVES = np.arange(60) < 40


@pytest.mark.parametrize(
    "column,names",
    [
        (np.where(HALVES, 1, 2), ["1", "2"]),
        (np.where(HALVES, 1.0, 2.0), ["1", "2"]),
        (np.where(HALVES, 0.5, 2.0), ["0.5", "2.0"]),
        (HALVES, ["False", "True"]),
        (pd.Categorical(np.where(HALVES, "a", "b"), ["a", "never", "b"]), ["a", "b"]),
        (pd.Categorical(np.where(HALVES, 3, 4), [9, 3, 4]), ["3", "4"]),
        (pd.array(np.where(HALVES, 7, 8), "Int64"), ["7", "8"]),
        (pd.array(HALVES, "boolean"), ["False", "True"]),
    ],
)
def test_columns_of_any_type_are_names(column, names, tmp_path):
    a = cells()
    a.obs["batch"] = column
    facts, notes = found(a, tmp_path, batch="batch", label="batch")
    assert notes == [] and sorted(re.findall(r"[:,] (\S+) \(", facts["batches"])) == names
    assert facts["labels"] == facts["batches"]
    made = intake.choose(a, a.X, batch="batch", label="batch")
    assert list(made.obs["batch"].cat.categories) == list(made.obs["label"].cat.categories) == names


def test_a_column_of_days():
    a = cells()
    a.obs["batch"] = pd.to_datetime(np.where(HALVES, "2024-01-01", "2024-03-01"))
    assert "2024-01-01 (40), 2024-03-01 (20)" in intake.levels_of(a, "batch", "batches")


def test_a_column_twice_and_one_that_is_half_empty(tmp_path):
    a = cells()
    a.obs = pd.concat([a.obs, a.obs[["batch"]]], axis=1)
    with pytest.raises(DataError, match="obs/batch is there 2 times, and one column is needed: adata.obs = "):
        intake.levels_of(a, "batch", "batches")
    a = cells()
    a.obs["batch"] = pd.array(np.where(HALVES, 7, None), "Int64")
    with pytest.raises(DataError, match="my.h5ad: obs/batch has 20 missing values; every row needs a category. Drop"):
        found(a, tmp_path, batch="batch")


@pytest.mark.parametrize("place,key", [("layers", "Counts"), ("layers", " counts"), ("layers", "UMI")])
def test_names_in_another_case(place, key, tmp_path):
    a = cells()
    a.layers[key], a.X = a.X.copy(), np.log1p(a.X)
    with pytest.raises(DataError, match=f"layers/{key.strip().lower()} is missing, .*; did you mean '{key}'\\?"):
        found(a, tmp_path, where={"x": f"layers/{key.strip().lower()}"})
    with pytest.raises(DataError, match=re.escape(f"layers['{key}'] looks like counts: --where x=layers/{key}, in Python")):
        found(a, tmp_path)


def test_symbols_that_are_missing_are_names():
    a = cells()
    a.var["symbol"], a.var_names = ["CD0", None, "", *a.var_names[3:]], [f"ENSG{j:011d}" for j in range(12)]
    assert list(intake.symbols(a)[:4]) == ["CD0", "ENSG00000000001", "ENSG00000000002", "CD3"]


@pytest.mark.parametrize(
    "n,genes,batch,said",
    [
        (60, 1, ["one", "two"] * 30, r"has 1 gene \(60 cells x 1 genes\), and 10 or more are needed"),
        (49, 12, ["one"] * 25 + ["two"] * 24, "has 49 cells; 50 or more are needed"),
        (60, 12, [f"b{i}" for i in range(60)], r"obs\['batch'\] has 60 different values in 60 cells"),
        (60, 12, ["one"] * 60, r"obs\['batch'\] has one batch only \(one\)"),
    ],
)
def test_sizes_from_which_nothing_can_be_learnt(n, genes, batch, said, tmp_path):
    a = cells(n, genes)
    a.X = a.X + sp.csr_matrix(np.ones(a.shape, np.float32))
    a.obs["batch"] = batch
    with pytest.raises(DataError, match=said):
        found(a, tmp_path, batch="batch")
    whole = cells(50)
    assert found(whole, tmp_path, batch="batch", label="cell_type")[0]["cells"] == "50"


def solo(k, n=120):
    """Two batches, and a third of ``k`` cells."""
    a = cells(n)
    a.obs["batch"] = ["solo"] * k + ["one", "two"] * ((n - k) // 2) + ["one"] * ((n - k) % 2)
    return a


@pytest.mark.parametrize("system", intake.IN_EACH)
def test_batches_with_fewer_cells_than_a_system_compares(system):
    """What is refused before a recipe starts is what the system itself would refuse."""
    least = intake.IN_EACH[system]
    for k in (least - 1, least):
        a = intake.choose(solo(k), solo(k).X, batch="batch")
        where = intake.inputs(a, system)
        if k == least:
            intake.has_all(a, system, {"batch": "batch"})
            get(system)().fit(a, where=where, progress="off")
            continue
        with pytest.raises(DataError, match=f"batch 'solo'.* has ({k}|one) cell"):
            get(system)().fit(a, where=where, progress="off")
        with pytest.raises(DataError, match=f"has {k} cells?, and '{system}' needs {least} in each; leave it out: ") as e:
            intake.has_all(a, system, {"batch": "batch"})
        assert eval(str(e.value).split("leave it out: ")[1], {"adata": a}).n_obs == 120 - k


@pytest.mark.parametrize("system", ["bbknn", "combat", "gplvm", "limma", "saver", "scanorama", "simlr", "tsne"])
def test_one_gene_is_refused_by_methods_that_compare_genes(system):
    a = cells()
    a.X = a.X.toarray() + 1
    with pytest.raises(DataError, match="needs 2 genes or more and this table has 1; give the whole table"):
        get(system)().fit(a[:, :1].copy(), progress="off")


@pytest.mark.parametrize("system", intake.PAIRS)
def test_more_batches_than_a_system_joins(system):
    a = intake.choose(solo(30), solo(30).X, batch="batch")
    with pytest.raises(DataError, match="3"):
        get(system)().fit(a, where=intake.inputs(a, system), epochs=1, progress="off")
    with pytest.raises(DataError, match=f"'{system}' joins two batches, and obs\\['batch'\\] has 3; keep two: adata"):
        intake.has_all(a, system, {"batch": "batch"})


def test_more_cells_than_a_system_holds():
    from scdl_teach.baselines import batch_graph

    assert intake.MOST["scbatch"] == batch_graph.LARGEST
    with pytest.raises(
        DataError, match="'scbatch' holds all pairs of cells and these are 4,001, where 4,000 can be; take a sample"
    ):
        intake.has_all(cells(4001), "scbatch", {"batch": "batch"})


def test_a_sample_keeps_small_batches():
    a = solo(25, 2000)
    few = intake.sample(a, 100)
    assert (few.obs["batch"] == "solo").sum() == 25 and 100 <= few.n_obs < 160
    assert list(few.obs_names) == [n for n in a.obs_names if n in set(few.obs_names)]
    del a.obs["batch"]
    assert intake.sample(a, 100).n_obs == 100 and intake.sample(a, 5000).n_obs == 2000


# -- any bytes -------------------------------------------------------------------------------------------------
FUZZ = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def read_or_refused(path):
    """An AnnData or one sentence, and no other error."""
    try:
        with warnings.catch_warnings(action="ignore"):
            assert isinstance(datasets.read(path), AnnData)
    except DataError as e:
        assert str(e) and "\n" not in str(e)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """The bytes of a small file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    cells(8, 4).write_h5ad(folder / "a.h5ad")
    ten_x(folder / "a.h5", cells(8, 4))
    droplets(folder / "run", cells(8, 4), packed=("matrix.mtx",))
    return folder, {name: (folder / name).read_bytes() for name in ("a.h5ad", "a.h5", "run/matrix.mtx.gz", "run/features.tsv")}


@settings(max_examples=110, **FUZZ)
@given(name=st.sampled_from(["a.h5ad", "a.h5", "run/matrix.mtx.gz", "run/features.tsv"]), data=st.data())
def test_files_with_changed_bytes_or_cut_short(name, data, whole_files):
    folder, whole = whole_files
    content = bytearray(whole[name])
    places = st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        content[at] = value
    end = data.draw(st.one_of(st.just(len(content)), places))
    (folder / name).write_bytes(content[:end])
    try:
        read_or_refused(folder / name if name.startswith("a.") else folder / "run")
    finally:
        (folder / name).write_bytes(whole[name])


KEYS = st.sampled_from(
    ["X", "obs", "var", "layers", "obsm", "uns", "_index", "data", "indices", "indptr", "matrix", "mod", "a", "b"]
)
ABOUT = st.sampled_from(["anndata", "dataframe", "csr_matrix", "array", "dict", "categorical", "string-array", "raw", "nothing"])
ARRAYS = st.sampled_from(
    [np.arange(6.0), np.zeros((3, 2)), np.array([b"x", b"y"]), np.float64(1), np.zeros(0, int), np.arange(3)]
)
TREES = st.recursive(ARRAYS, lambda below: st.tuples(ABOUT, st.dictionaries(KEYS, below, max_size=5)), max_leaves=12)


def grow(f, key, tree):
    if not isinstance(tree, tuple):
        f[key] = tree
        return
    about, below = tree
    group = f.require_group(key)
    if about != "nothing":
        group.attrs.update({"encoding-type": about, "encoding-version": "0.1.0", "shape": [3, 2], "_index": "_index"})
        group.attrs["column-order"] = np.array([k for k in below if k != "_index"], "S")
    for name, tree in below.items():
        grow(group, name, tree)


@settings(max_examples=60, **FUZZ)
@given(
    tree=st.tuples(ABOUT, st.fixed_dictionaries({}, optional={k: TREES for k in ("X", "obs", "var", "layers", "uns", "matrix")}))
)
def test_any_tree_of_hdf5(tree, tmp_path):
    with h5py.File(tmp_path / "tree.h5ad", "w") as f:
        grow(f, "/", tree)
    read_or_refused(tmp_path / "tree.h5ad")


LINES = st.lists(st.text('AC1-7 \t"%.e\n', max_size=12), max_size=6)


@settings(max_examples=60, **FUZZ)
@given(sizes=st.tuples(*[st.integers(-2, 5)] * 3), entries=LINES, barcodes=LINES, features=LINES)
def test_any_folder_of_a_matrix(sizes, entries, barcodes, features, tmp_path):
    text = HEAD + " ".join(map(str, sizes)) + "\n" + "\n".join(entries)
    for name, content in (("matrix.mtx", text), ("barcodes.tsv", "\n".join(barcodes)), ("features.tsv", "\n".join(features))):
        (tmp_path / name).write_text(content)
    read_or_refused(tmp_path)
