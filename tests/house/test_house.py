"""The plan of the house: how many rooms it has, who may ask whom, and that nobody asks in a circle."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "scdl_teach"
FLOORS, ROOMS = 7, 28
BESIDE = ("tools", "data", "book")  # rooms that are no part of the package


def module(path):
    """``scdl_teach.core.model`` of its file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module(p): p for p in PACKAGE.rglob("*.py")}


def asked(path, node):
    """The modules of the package that an import statement may mean."""
    if isinstance(node, ast.Import):
        return {a.name for a in node.names}
    home = path.relative_to(ROOT).parent.parts
    base = ".".join([*home[: len(home) - node.level + 1], node.module or ""]).strip(".") if node.level else node.module
    return {f"{base}.{a.name}" if f"{base}.{a.name}" in FILES else base for a in node.names}


def arrows(path):
    """What a file imports of the package, inside functions too."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, (ast.Import, ast.ImportFrom))]
    return {m for n in nodes for m in asked(path, n) if m in FILES} - {module(path)}


def room(name):
    """A file or folder directly in the package; the package's own door is no room."""
    return name.split(".")[1] if "." in name else ""


def heights(graph):
    """{room: the length of the longest chain of imports below it}; a circle is an error that names it."""
    found = {}

    def height(at, below=()):
        assert at not in below, f"imports run in a circle: {' -> '.join([*below[below.index(at) :], at])}"
        if at not in found:
            found[at] = 1 + max([height(n, (*below, at)) for n in sorted(graph[at])], default=0)
        return found[at]

    for name in graph:
        height(name)
    return found


def plan():
    """The same between rooms: what a room's files ask of other rooms; ``get`` and ``catalogue`` stand at the door."""
    rooms = {room(m): set() for m in FILES if room(m)}
    for m, path in FILES.items():
        if room(m):
            rooms[room(m)] |= {room(n) for n in arrows(path)} - {room(m), ""}
    return rooms


def test_no_module_asks_in_a_circle():
    heights({m: arrows(p) for m, p in FILES.items()})


def test_the_house_has_few_floors():
    found = heights(plan())
    assert max(found.values()) <= FLOORS, sorted(found.items(), key=lambda x: -x[1])


def test_the_house_has_few_rooms():
    rooms = sorted({*plan(), *BESIDE})
    assert len(rooms) <= ROOMS, f"{len(rooms)} rooms: {rooms}; join what belongs together"


def test_a_circle_and_a_tower_are_noticed():
    import pytest

    with pytest.raises(AssertionError, match="a -> b -> a"):
        heights({"a": {"b"}, "b": {"a"}})
    assert heights({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}
