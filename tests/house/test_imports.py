"""Importing the package is quick, loads nothing heavy and touches nothing of the caller's."""

import subprocess
import sys
import textwrap

SCRIPT = """
import sys, time, random, logging
state, handlers = random.getstate(), len(logging.getLogger().handlers)
start = time.perf_counter()
import scdl_teach
seconds = time.perf_counter() - start
assert not {"torch", "scanpy", "pandas", "numpy", "anndata"} & set(sys.modules), set(sys.modules) & {"torch", "scanpy", "pandas"}
assert random.getstate() == state and len(logging.getLogger().handlers) == handlers
print(seconds)
"""


def run(script):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light_and_quick():
    assert min(float(run(SCRIPT)) for _ in range(3)) < 0.3


def test_lazy_names():
    assert "core" not in run(
        "import scdl_teach; print([n for n in ('get', 'catalogue', 'datasets', 'simulate') if n not in dir(scdl_teach)])"
    )


def test_threads_and_default_type_stay():
    run("""
        import torch
        before = torch.get_num_threads(), torch.get_default_dtype()
        from scdl_teach import simulate
        from scdl_teach.imputation.dca import DCA
        DCA(epochs=1).fit(simulate.counts(n=40, genes=20), progress=False)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == before
    """)
