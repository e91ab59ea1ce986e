"""What the docstrings say of a system, taken apart in one place for ``scdl-teach show``, the pages of the book and the tests."""

import inspect
import re

HEADINGS = ("Idea", "Kept", "Left out", "Measured", "Trap", "Lesson", "Source")
SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.M)


def paragraphs(cls):
    """``{"Idea": text, ...}`` of the class, where a module holds many (the classical rivals), else of its module."""
    own = cls.__doc__ or ""
    text = inspect.cleandoc(own if "**Idea**" in own else inspect.getmodule(cls).__doc__ or "")
    head = SECTION.split(text)[0]
    parts = re.split(rf"\*\*({'|'.join(HEADINGS)})\*\*", head)
    return {k: " ".join(v.split()) for k, v in zip(parts[1::2], parts[2::2], strict=True)}


def sections(cls):
    """``{"Parameters": text, "Objective": text, ...}``: the sections of the class docstring, with their lines."""
    parts = SECTION.split(inspect.cleandoc(cls.__doc__ or ""))
    return {k: v.strip("\n") for k, v in zip(parts[1::2], parts[2::2], strict=True)}


def formula_of(cls):
    """The display formula of the objective with its ``$$``, and the lines that say what its letters are."""
    start, formula, letters = [*sections(cls).get("Objective", "").split("$$"), "", ""][:3]
    return (f"$${formula}$$" if formula else ""), f"{start}{letters}".strip()


def meanings(cls, section="Parameters"):
    """``{name: what is said of it}`` of a section whose lines are ``name, other : what it is``."""
    out, names = {}, []
    for line in sections(cls).get(section, "").replace("``", "").splitlines():
        if not line.startswith(" ") and " : " in line:
            head, line = line.split(" : ", 1)
            names = [n.strip() for n in head.split(",")]
        for n in names:
            out[n] = f"{out.get(n, '')} {line.strip()}".strip()
    return out
