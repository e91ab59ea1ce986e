"""What a person sees while a model trains."""

import os
import sys


def reporter(progress, total):
    """A function that shows one row (dict) of the history.

    ``progress``: a function of one line; ``"lines"`` (about five of them), ``"bar"``, ``"off"`` or False; None
    means the word in SCDL_TEACH_PROGRESS, else a bar where a person watches and nothing elsewhere.
    """
    if progress is None:
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        progress = os.environ.get("SCDL_TEACH_PROGRESS", "bar" if watched else "off")
    if progress in (False, "off") or not total:
        return lambda row: None
    if progress in (True, "bar"):
        from tqdm.auto import tqdm

        bar = tqdm(total=total)
        return lambda row: (bar.set_postfix({k: v for k, v in row.items() if k != "epoch"}, refresh=False), bar.update())
    every, show, seen = (1, progress, []) if callable(progress) else (max(1, total // 5), write, [])

    def line(row):
        seen.append(row)
        if len(seen) % every == 0:
            show("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()))

    return line


def write(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
