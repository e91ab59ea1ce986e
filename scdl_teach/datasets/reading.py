"""AnnData from what users bring, or one sentence on why not."""

from difflib import get_close_matches
from pathlib import Path

from ..core.fields import DataError
from . import foreign


def read(path, backed=None, genome=None):
    """AnnData from a file of cells, or one sentence on why not.

    Parameters
    ----------
    path : ``.h5ad`` or a zarr store as anndata writes them; the ``.h5`` of Cell Ranger; a folder that holds one ``matrix.mtx``
        with ``barcodes.tsv`` and ``features.tsv`` as Cell Ranger and STARsolo write them (also below it, packed or not), or the
        path of that matrix (genes named twice there get "-1", "-2" behind their names)
    backed : "r" leaves the matrix of an ``.h5ad`` on disk
    genome : the one to read of a ``.h5`` that holds several

    Raises
    ------
    DataError : no such file, another kind of file, a damaged one, or one of a newer anndata

    Warns
    -----
    DataWarning : rows that are no genes are left out; genes of several genomes are in one table
    """
    path = Path(path)
    try:
        if not path.exists():
            raise DataError(f"there is no file {path}; {near(path)}")
        kind = foreign.kind(path)
        if genome is not None and kind != "h5":
            raise DataError(f"{path.name} is no .h5 of Cell Ranger, whose genome could be chosen; leave genome= out")
        return READERS[kind](path, backed, genome)
    except DataError as e:
        raise DataError(foreign.one_line(e)) from e.__cause__
    except Exception as e:  # h5py, zarr, pandas, scipy and anndata raise many kinds for a damaged file
        raise DataError(foreign.one_line(f"{path.name} {foreign.damage(path, e)}")) from e


def near(path):
    """The name in that folder that comes next to one that is not there."""
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, names, 1)
    return f"did you mean {close[0]!r}?" if close else "give the path of an .h5ad file"


def h5ad(path, backed, genome):
    from anndata import read_h5ad

    return read_h5ad(path, backed=backed)


def zarr(path, backed, genome):
    from anndata import read_zarr

    return read_zarr(path)


def h5(path, backed, genome):
    from .cellranger import read_h5

    return read_h5(path, genome)


def mtx(path, backed, genome):
    from .cellranger import read_mtx

    return read_mtx(path)


READERS = {"h5ad": h5ad, "zarr": zarr, "h5": h5, "mtx": mtx}
