"""These tests compare with other packages and run in an environment of their own: `make peers`."""

import importlib.util

collect_ignore = [
    f"test_{name}.py"
    for name, module in {"scvi": "scvi", "tangram": "tangram", "scib": "scib_metrics"}.items()
    if not importlib.util.find_spec(module)
]
