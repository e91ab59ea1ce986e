"""Which code a stored result is of: a hash of files and of all that they reach by name. The standard library alone.

Words may be mended, lines wrapped, files moved and imports rewritten without another hash: it is taken of the syntax trees of
single definitions, without docstrings, comments, import lines and the marks of claims, whichever file they stand in.
What every model shares (``core`` and what serves it) is left out: the numbers of the engine answer for it.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

APART = {"core"}  # the numbers of the engine answer for it
APART |= {"datasets", "recipes"}  # data with sums of their own
APART |= {"testing", "lessons", "plot", "notebook", "cli"}  # compute no result
MARKS = {"claims", "comparison"}  # bars and words; the rows hold them beside the numbers
SKIPPED = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}  # in some Pythons only, or without meaning here


def plain(node):
    """A syntax tree as text that is the same on every Python: empty parts are left out."""
    if isinstance(node, ast.AST):
        kept = [(k, v) for k, v in ast.iter_fields(node) if k not in SKIPPED and v is not None and v != []]
        return f"{type(node).__name__}({' '.join(f'{k}={plain(v)}' for k, v in kept)})"
    return f"[{' '.join(map(plain, node))}]" if isinstance(node, list) else repr(node)


def is_words(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def is_mark(node):
    return isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) in MARKS


def strip(tree):
    """Leave out docstrings, import lines and marks, at any depth."""
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            lines = getattr(node, part, None)
            if isinstance(lines, list):
                setattr(node, part, [n for n in lines if not is_words(n) and not isinstance(n, (ast.Import, ast.ImportFrom))])
        if hasattr(node, "decorator_list"):
            node.decorator_list = [d for d in node.decorator_list if not is_mark(d)]
    return tree


def dotted(node):
    """``a.b.c`` of names and attributes; None of anything else."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return before and f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def imports_of(tree):
    """{name: (level, module, attribute)} of all imports of a file, those inside functions too."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {n.asname or n.name.split(".")[0]: (0, n.name if n.asname else n.name.split(".")[0], "") for n in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {n.asname or n.name: (node.level, node.module or "", n.name) for n in node.names}
    return found


def names_of(statement):
    """What a statement of a module defines."""
    if hasattr(statement, "name"):
        return [statement.name]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


@cache
def parts(path, changed):
    """Of a file as it was ``changed`` last: its statements as [(text, words)], {name: their numbers} and its imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports, statements, defined = imports_of(tree), [], {}
    for i, s in enumerate(strip(tree).body):
        statements.append((plain(s), {dotted(n) for n in ast.walk(s)} - {None}))
        for name in names_of(s):
            defined.setdefault(name, []).append(i)
    known = defined.keys() | imports.keys()
    return [(text, {w for w in words if w.partition(".")[0] in known}) for text, words in statements], defined, imports


def read(path):
    return parts(path, (path.stat().st_mtime_ns, path.stat().st_size))


def root_of(path):
    """The folder that the package stands in."""
    return next((p for p in path.parents if (p / "scdl_teach").is_dir()), path.parent)


def module_at(folder, name):
    """The file of a module, or None where it is another package's."""
    place = folder.joinpath(*name.split(".")) if name else folder
    return next((f for f in (place.with_name(f"{place.name}.py"), place / "__init__.py") if f.is_file()), None)


def is_apart(path):
    words = path.relative_to(root_of(path)).with_suffix("").parts[1:]
    return words == ("__init__",) or words[0] in APART


def find(path, name, *more):
    """(file, name) where ``name.more`` is written, followed through imports; None: not here, or a whole module."""
    _, defined, imports = read(path)
    if name in defined:
        return None if is_apart(path) else (path, name)
    if name in imports:
        level, module, attribute = imports[name]
        inside = module_at(path.parents[level - 1] if level else root_of(path), module)
        more = (attribute, *more) if attribute else more
    else:
        inside = path if path.name == "__init__.py" else None
    if inside == path:  # a package that names one of its own modules
        first, *more = (*more,) if name in imports else (name, *more)
        inside = module_at(path.parent, first)
    return find(inside, *more) if inside and more else None


def digest_of(*paths):
    """Twelve hexadecimal digits for whole files and all functions, classes and constants that they reach by name."""
    texts, seen, todo = set(), set(), [(Path(p).resolve(), None) for p in paths]
    while todo:
        path, name = todo.pop()
        statements, defined, _ = read(path)
        for i in range(len(statements)) if name is None else defined[name]:
            texts.add(statements[i][0])
            new = {find(path, *word.split(".")) for word in statements[i][1]} - seen - {None}
            seen |= new
            todo += new
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:12]
