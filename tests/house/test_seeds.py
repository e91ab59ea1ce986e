"""The ranges that ``tools/seeds.py --write`` puts into lessons."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import seeds

CELL = """%matplotlib inline
x = 2
claim("µ is small", x, below=3)
claim(
    "and above one",
    x,
    above=1,
    seen="old (words)",
)
claim("both", f(x), below=3, seen="1 to 2"); y = 3
claim(
    "nothing seen yet", x,
    above=1
)
"""
FOUND = [("", 1.23456, 2, "", "", 0), ("", 0.5, 0.5, "", "", 0), ("", -1, 12345, "", "", 0), ("", 0, 1e-7, "", "", 0)]


def test_ranges_go_into_their_claims():
    made = seeds.filled(CELL, FOUND)
    calls = seeds.sites(made)
    seen = [ast.literal_eval(next(k.value for k in c.keywords if k.arg == "seen")) for c in calls]
    assert seen == ["1.23 to 2", "0.5", "-1 to 12,345", "0 to 1e-07"]
    assert [len(c.args) for c in calls] == [2] * 4 and "old" not in made and "; y = 3" in made


def test_filling_twice_is_filling_once():
    once = seeds.filled(CELL, FOUND)
    assert seeds.filled(once, FOUND) == once


def test_a_cell_without_room_for_a_range_is_refused():
    with pytest.raises(ValueError):
        seeds.filled(CELL, FOUND[:2])


def test_ranges_over_runs():
    run = lambda v, ok: {4: [["text", str(v), "None", "1.0", str(ok)]]}
    assert seeds.ranges([run(2.0, True), run(1.5, True), run(0.5, False)]) == {4: [("text", 0.5, 2.0, "None", "1.0", 1)]}


def test_what_a_claim_printed_follows():
    text = "holds: one\n       1.3, wanted below 3{}\nholds: two\n       4, wanted below 3{}\n"
    out = {"text": text.format("", "; five seeds gave 3 to 5")}
    seeds.printed([out], FOUND[:2])
    assert out["text"] == text.format("; five seeds gave 1.23 to 2", "; five seeds gave 0.5")
