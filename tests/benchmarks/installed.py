"""What a package brings into this environment: ``python installed.py NAME`` -> packages and MB of it and all it requires."""

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement


def flat(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(name):
    """Every distribution that ``name`` needs, itself first, without extras that nobody asked for."""
    found, waiting = {}, [(name, "")]
    while waiting:
        wanted, extra = waiting.pop()
        if (flat(wanted), extra) in found:
            continue
        try:
            found[flat(wanted), extra] = here = distribution(wanted)
        except PackageNotFoundError:  # for another system
            continue
        for line in here.requires or ():
            r = Requirement(line)
            if r.marker is None or r.marker.evaluate({"extra": extra}):
                waiting += [(r.name, e) for e in ("", *r.extras)]
    return {d.metadata["Name"]: d for d in found.values()}


def megabytes(d):
    return sum(f.locate().stat().st_size for f in d.files or () if f.locate().is_file()) / 1e6


if __name__ == "__main__":
    sizes = {name: megabytes(d) for name, d in closure(sys.argv[1]).items()}
    versions = {k: distribution(k).version for k in (sys.argv[1], "torch")}
    out = {"packages": len(sizes), "mb": sum(sizes.values()), "torch_mb": sizes["torch"], "versions": versions}
    print(json.dumps(out | {"largest": sorted(sizes.items(), key=lambda s: -s[1])[:8]}))
