"""Our scores that scib-metrics has too, with equal neighbourhoods."""

from scdl_teach import metrics


def ours(z, kind, batch):
    """Every score that scib-metrics has too; their neighbours count the cell itself."""
    return {
        "type ASW": metrics.type_asw(z, kind),
        "batch ASW": metrics.batch_asw(z, kind, batch),
        "iLISI": metrics.ilisi(z, batch, k=60),
        "cLISI": metrics.clisi(z, kind, k=60),
        "kBET": metrics.kbet(z, batch, k=30),
        "connectivity": metrics.graph_connectivity(z, kind, k=5),
        "PCR": metrics.pcr_comparison(z + 3.0 * batch[:, None], z, batch),
    }
