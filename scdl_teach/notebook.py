"""What every lesson uses: set-up, claims that are checked, source on show, answers checked."""

import importlib
import inspect
import os
import textwrap
import traceback
import warnings


def setup(seed=0):
    """Seeds, one look for all figures, short tracebacks; prints the versions that matter, returns the seed.

    ``SCDL_TEACH_SEED`` in the environment moves the seed, so that a lesson's claims can be tried on others.
    """
    import random
    from importlib.metadata import version

    import matplotlib as mpl
    import numpy as np
    import torch
    from IPython import get_ipython

    from .plot import STYLE

    seed = int(os.environ.get("SCDL_TEACH_SEED", seed))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    mpl.rcParams.update(STYLE)
    warnings.formatwarning = in_words
    shell = get_ipython()
    if shell is not None:
        shell.InteractiveTB.set_mode("Minimal")
        keep = '{"bbox_inches": "tight", "metadata": {"Software": None}}'
        shell.run_line_magic("config", f"InlineBackend.print_figure_kwargs = {keep}")
        shell.set_custom_exc((NameError,), out_of_order)
    print("  ".join(f"{p} {version(p).split('+')[0]}" for p in ("scdl-teach", "torch", "scanpy", "anndata", "numpy")))
    return seed


def in_words(message, category, *place, others=warnings.formatwarning, **more):
    """A ``DataWarning`` as its sentence, without the place in a file that nobody wants to read."""
    if category.__name__ != "DataWarning":
        return others(message, category, *place, **more)
    return textwrap.fill(f"DataWarning: {message}", 76) + "\n"


def out_of_order(shell, kind, error, trace, tb_offset=None):
    """A name that is not there was mostly made by a cell that has not run: say so."""
    error.args = (f"{error}. If a cell above makes it, run the lesson from the top (Run > Run All Above Selected Cell)",)
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def claim(text, value, *, below=None, above=None, seen=""):
    """Assert a claim of the text on a measured value and print how close it was.

    ``seen`` says what other seeds gave, so that the reader can judge the limit.
    """
    value = float(value)
    holds = (below is None or value < below) and (above is None or value > above)
    limit = " and ".join(f"{w} {v:g}" for w, v in (("below", below), ("above", above)) if v is not None)
    line = f"{textwrap.fill(text, 76)}\n       {value:.3g}, wanted {limit}" + (f"; five seeds gave {seen}" if seen else "")
    log = os.environ.get("SCDL_TEACH_CLAIMS")
    if log:
        with open(log, "a", encoding="utf-8") as f:
            f.write(f"{text}\t{value!r}\t{below}\t{above}\t{holds}\n")
    assert holds or log, f"the claim does not hold. {line}"
    print("holds:" if holds else "FAILS:", line)


def show_source(*objects):
    """Show the source of functions or classes as highlighted code, straight from the package."""
    from IPython.display import Code, display

    for obj in objects:
        display(Code(textwrap.dedent(inspect.getsource(obj)).rstrip(), language="python"))


def diagram(model):
    """The network of a fitted model as a drawing, made from the model itself (see ``scdl_teach.plot.diagram``)."""
    from .plot.diagram import diagram

    return diagram(model)


def check(exercise, answer):
    """Compare an answer with what the exercise asks; print a hint when it is not right; True or False, never an error.

    ``exercise`` is "0303.1"; its judge is ``exercise_1`` in ``scdl_teach/lessons/l0303.py``: None if right, else a hint.
    """
    lesson, number = exercise.split(".")
    judge = getattr(importlib.import_module(f"scdl_teach.lessons.l{lesson}"), f"exercise_{number}")
    try:
        hint = judge(answer)
    except NotImplementedError:
        hint = "nothing to check yet: replace the line that raises NotImplementedError, then run both cells again"
    except Exception as error:  # whatever a reader's code may raise is told, not thrown
        hint = stopped(error, answer)
    text = f"Exercise {exercise}: right." if hint is None else f"Exercise {exercise}, not yet: {hint}."
    print(textwrap.fill(text, 76))
    return hint is None


def stopped(error, answer):
    """A hint for an answer that cannot be judged: the reader's own line stopped, or what it returned is of another kind than
    asked.
    """
    modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)}
    found = f"{type(error).__name__}: {error}"
    if getattr(answer, "__module__", None) in modules:
        return f"your code stopped with {found}"
    return f"what your code returns is of another kind than the exercise asks for ({found}); look at its type and its shape"
