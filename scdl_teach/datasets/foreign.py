"""What a file or folder of cells is, told by what it holds and not by its name; one sentence where it cannot be read.

anndata is not needed for that, so a refusal is quick.
"""

import re
from pathlib import Path
from textwrap import shorten

from ..core.fields import DataError

READ = ".h5ad, .zarr, .h5 of Cell Ranger, or a folder with matrix.mtx"
PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd", b"PK\x03\x04": "unzip"}
FRAME = "import anndata, pandas; anndata.AnnData({}).write_h5ad({{made!r}}) (where rows are genes, .T behind the table)"
IN_R = "in R: zellkonverter::writeH5AD(Seurat::as.SingleCellExperiment({}), {{made!r}})"
ENDINGS = {  # what a file that is not HDF5 is by its ending, and the line that makes an .h5ad file of it
    ".csv": ("a table of text", FRAME.format("pandas.read_csv({name!r}, index_col=0)")),
    ".tsv": ("a table of text", FRAME.format("pandas.read_csv({name!r}, sep='\\t', index_col=0)")),
    ".txt": ("a table of text", FRAME.format("pandas.read_csv({name!r}, sep='\\t', index_col=0)")),
    ".xlsx": ("a sheet of Excel", FRAME.format("pandas.read_excel({name!r}, index_col=0)")),
    ".xls": ("a sheet of Excel", FRAME.format("pandas.read_excel({name!r}, index_col=0)")),
    ".rds": ("an object of R", IN_R.format("readRDS({name!r})")),
    ".rda": ("an object of R", IN_R.format("get(load({name!r}))")),
    ".rdata": ("an object of R", IN_R.format("get(load({name!r}))")),
    ".mtx": (
        "a matrix without names",
        "put its barcodes.tsv and features.tsv beside it; without names: import anndata, scipy.io; "
        "anndata.AnnData(scipy.io.mmread({name!r}).tocsc().T).write_h5ad({made!r})",
    ),
}
HELD = {  # what an HDF5 file or a zarr store may be instead of an AnnData, by one key that it holds
    "mod": "several tables (MuData), and one is needed: import mudata; mudata.{read}({name!r})['rna'].write_h5ad({made!r})",
    "tables": "a SpatialData store, and one of its tables is needed: give {name}/tables/table",
    "col_attrs": "a loom file, and an .h5ad file is needed: import scanpy; scanpy.read_loom({name!r}).write_h5ad({made!r})",
    "cell.names": "a Seurat file, and an .h5ad file is needed; in R: SeuratDisk::Convert({name!r}, dest = 'h5ad')",
    "barcode_idx": "Cell Ranger's list of molecules, and its table is needed: give filtered_feature_bc_matrix.h5",
}
PLAIN = (
    "HDF5 without names of cells and genes ({has}), and an AnnData is needed: import anndata, h5py; "
    "anndata.AnnData(h5py.File({name!r})['X'][:]).write_h5ad({made!r}) (where rows are genes, .T behind [:])"
)
BOXES = ("layers", "obsm", "obsp", "varm", "varp")


def kind(path):
    """One of "h5ad", "zarr", "h5" (Cell Ranger) and "mtx"; a ``DataError`` for all else."""
    if path.is_dir():
        return kind_of_folder(path)
    if not path.is_file():
        raise DataError(f"{path.name} is no file of a disk; give one of these: {READ}")
    with open(path, "rb") as f:
        start = f.read(4096)
    if not start:
        raise DataError(f"{path.name} is empty (0 bytes), and an .h5ad file is needed; copy or download it again")
    import h5py

    if h5py.is_hdf5(path):
        return kind_of_hdf5(path)
    if path.name.lower().endswith((".mtx", ".mtx.gz")) and named(path):
        return "mtx"
    raise DataError(f"{path.name} {no_hdf5(path, start)}")


def named(path):
    """Does a matrix have files of names beside it?"""
    from .cellranger import beside, prefix_of

    return all(beside(path.parent, prefix_of(path), *names) for names in (("barcodes",), ("features", "genes")))


def no_hdf5(path, start):
    """What a file that is not HDF5 is, and how to make an .h5ad file of it."""
    ending, name = path.suffix.lower(), path.name
    tool = next((tool for magic, tool in PACKED.items() if start.startswith(magic)), None)
    if tool and ending not in ENDINGS:
        inner = ENDINGS.get(Path(path.stem).suffix.lower())
        then = f", then {line_for(inner[1], Path(path.stem))}" if inner else ""
        return f"is compressed, and a plain file is needed: {tool} {name}{then}"
    if ending in ENDINGS:
        what, line = ENDINGS[ending]
        return f"is {what} ({ending}), and an .h5ad file is needed: {line_for(line, path)}"
    text = start.split(b"\n")[0].decode("utf-8", "replace").strip()
    if text and text.isprintable() and "\ufffd" not in text:
        line = ENDINGS[".txt" if "\t" in text else ".csv"][1].format(name=name, made="my_table.h5ad")
        return f"is a text file (it begins {text[:40]!r}), and an .h5ad file (HDF5) is needed: {line}"
    if ending == ".h5ad":
        return "cannot be read as .h5ad (it does not begin as HDF5 does); copy or download it again"
    return f"is a file of an unknown kind ({ending or 'without ending'}); give one of these: {READ}"


def line_for(line, path, **more):
    """A line that mends, with the name of the file and of the one to be made."""
    return line.format(name=path.name, made=f"{path.stem}.h5ad", **more)


# -- HDF5 and zarr -----------------------------------------------------------------------------------------
def kind_of_hdf5(path):
    import h5py

    with h5py.File(path, "r") as f:
        self_contained(f, path.name)
        return kind_of_tree(f, path, "read_h5mu")


def kind_of_tree(root, path, mudata):
    """An AnnData, Cell Ranger's file, or one sentence on what an HDF5 file or a zarr store is instead."""
    has = sorted(map(str, root.keys()))
    if {"obs", "var"} <= {*has} and "mod" not in has:
        split_names(root, path)
        return "zarr" if path.is_dir() else "h5ad"
    from .cellranger import is_table

    if not path.is_dir() and is_table(root):
        return "h5"
    held = shorten(f"it holds {', '.join(has) or 'nothing'}", 120, placeholder=" ...")
    said = next((said for key, said in HELD.items() if key in has), None)
    if said is None and not path.is_dir() and getattr(root.get("X"), "ndim", 0) == 2:
        said = PLAIN
    if said:
        raise DataError(f"{path.name} is {line_for(said, path, has=held, read=mudata)}")
    mend = "write it with adata.write_h5ad('my.h5ad')"
    raise DataError(f"{path.name} is no AnnData: {held}, where obs, var and X are needed; {mend}")


def self_contained(root, name):
    """Refuse a file that takes values from another one, or that holds what this HDF5 cannot unpack."""
    import h5py

    groups, seen = [root], set()
    while groups:
        group = groups.pop()
        at = h5py.h5o.get_info(group.id).addr
        nodes = [] if at in seen else [followed(group, key, name) for key in group]  # links may lead round
        seen.add(at)
        groups += [node for node in nodes if isinstance(node, h5py.Group)]
        for array in nodes:
            if isinstance(array, h5py.Dataset):
                own_values(array, name)


def followed(group, key, name):
    """The group or array behind a name, which must lie in this file."""
    import h5py

    link, place = group.get(key, getlink=True), f"{group.name.rstrip('/')}/{key}".lstrip("/")
    mend = "give the file that holds it, or copy it: adata = anndata.read_h5ad(path); adata.write_h5ad('whole.h5ad')"
    if isinstance(link, h5py.ExternalLink):
        raise DataError(f"{name} does not hold its {place}: it is a link to {link.path} in the file {link.filename}; {mend}")
    node = group.get(key)
    if node is None:
        raise DataError(f"{name} does not hold its {place}: it is a link to {link.path}, which is not there; {mend}")
    return node


def own_values(array, name):
    """Refuse an array whose values lie in another file, or are packed in a way that is not installed."""
    other = [f for f, *_ in array.external or ()]
    if array.is_virtual:
        other = [s.file_name for s in array.virtual_sources() if s.file_name != "."]
    if other:
        mend = "give a file that holds all: adata = anndata.read_h5ad(path); adata.write_h5ad('whole.h5ad')"
        raise DataError(f"{name} does not hold its {array.name.lstrip('/')}: the values lie in the file {other[0]}; {mend}")
    if missing := unpackable(array):
        mend = "pip install hdf5plugin, and it is read; or write it again with compression='gzip'"
        raise DataError(
            f"{name} is compressed with {missing} ({array.name.lstrip('/')}), which HDF5 does not unpack alone; {mend}"
        )


def unpackable(array):
    """The name of a compressor that HDF5 lacks; those of hdf5plugin are used if it is installed."""
    from importlib import import_module
    from importlib.util import find_spec

    import h5py

    plan = array.id.get_create_plist()
    used = [plan.get_filter(i) for i in range(plan.get_nfilters())]
    if all(h5py.h5z.filter_avail(code) for code, *_ in used):
        return None
    if find_spec("hdf5plugin"):
        import_module("hdf5plugin")  # importing it makes its compressors known
    return next((n.decode() or f"filter {code}" for code, _, _, n in used if not h5py.h5z.filter_avail(code)), None)


def split_names(root, path):
    """Refuse a table whose name holds "/": it is stored as a group, which anndata takes for a table."""
    for box in BOXES:
        for key in root.get(box, ()):
            node = root[f"{box}/{key}"]
            if not hasattr(node, "keys") or {"encoding-type", "h5sparse_format"} & {*node.attrs}:
                continue
            below = [f"{key}/{k}" for k in node]
            one = below[0] if below else key
            plain = one.replace("/", "_")
            there = f"f.move('{box}/{one}', '{box}/{plain}'); " if below else ""
            line = f"import h5py; f = h5py.File('{path.name}', 'r+'); {there}del f['{box}/{key}']; f.close()"
            if path.is_dir():
                line = f"adata.{box}['{plain}'] = adata.{box}.pop('{one}'), and write it again"
            has = f"it holds {', '.join(below[:3])}" if below else "it is empty"
            raise DataError(
                f"{path.name} has a group {box}/{key} where a table is needed ({has}); a name must be without '/': {line}"
            )


# -- folders -----------------------------------------------------------------------------------------------
def kind_of_folder(path):
    if any((path / mark).is_file() for mark in (".zgroup", "zarr.json")):
        import zarr

        return kind_of_tree(zarr.open_group(path, mode="r"), path, "read_zarr")
    from .cellranger import matrices

    if matrices(path):
        return "mtx"
    has = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    if tables := [n for n in has if re.search(r"\.(h5ad|h5|zarr)$", n)]:
        raise DataError(f"the folder {path} holds {', '.join(tables[:3])}; give the path of one of them: {path / tables[0]}")
    held = shorten(f"it holds {', '.join(has) or 'nothing'}", 120, placeholder=" ...")
    mend = "give an .h5ad file, or Cell Ranger's filtered_feature_bc_matrix"
    raise DataError(f"the folder {path} holds no matrix.mtx; {mend} ({held})")


# -- what the readers say ------------------------------------------------------------------------------------
def one_line(said):
    """A sentence with names from a file, as one line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(said)).split())


def damage(path, error):
    """Why a file could not be read, and how to mend it."""
    from importlib.metadata import version

    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if newer := re.search(r"IOSpec\(encoding_type='([^']*)', encoding_version='([^']*)'\)", said):
        old = version("anndata")
        what = f"was written by another anndata: its {newer[1]!r} of version {newer[2]!r} is unknown to anndata {old}"
        return f"{what}; update it (pip install -U anndata), or write the file with anndata {old}"
    said = shorten(said, 160, placeholder=" ...")
    if "lock file" in said:
        return f"is open for writing in another program ({said}); close it there"
    if isinstance(error, MemoryError):
        return f"needs more memory than there is ({said}); take a sample of the cells, or read it with backed='r'"
    if isinstance(error, PermissionError):
        return f"may not be read ({said}); ask its owner, or change its permissions: chmod u+r"
    return f"cannot be read{f' as {path.suffix}' * bool(path.suffix)} ({said}); it may be cut short: copy or download it again"
