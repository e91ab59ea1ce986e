"""What is said to a user: one sentence that stops, one that does not."""

import warnings
from difflib import get_close_matches


class DataError(ValueError):
    """The data do not fit the model; the message says what was found, what is needed and how to mend it."""


class DataWarning(UserWarning):
    """The data, or what was learnt from them, can be used but look wrong; the message says what was found and how to mend it."""


def near(key, names):
    """``"; did you mean 'Batch'?"`` where a name is like the one asked for, in another case at the least; else nothing."""
    folded = {str(n).strip().lower().replace(" ", "_"): n for n in names}
    found = get_close_matches(str(key).strip().lower().replace(" ", "_"), folded, 1, 0.75)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def noted(*texts):
    """Say what does not stop."""
    for text in texts:
        warnings.warn(text, DataWarning, stacklevel=3)
