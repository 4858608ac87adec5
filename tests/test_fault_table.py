"""``docs/faults.md`` has a row for each fault and threat, and names real tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "faults.md"
#: Those that this part of hisock can meet: 43 to 47 are of servers that share clients.
FAULTS = [str(number) for number in (*range(1, 43), *range(48, 55))]
#: All of them, those of later parts with the reason.
THREATS = [f"T{number}" for number in range(1, 32)]
PROMISES = ROOT / "docs" / "promises.md"

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w.]+)`")


def rows(path: Path) -> dict[str, list[str]]:
    """The cells of each row behind its number."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and re.fullmatch(r"T?[0-9]+", cells[0]):
            assert cells[0] not in found, f"two rows for {cells[0]}"
            found[cells[0]] = cells[1:]
    return found


ROWS = rows(TABLE)


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file: functions, and methods behind their class."""
    found: set[str] = set()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for each in inside:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(prefix + each.name)
    return frozenset(name for name in found if name.split(".")[-1].startswith("test_"))


def test_no_fault_is_missing() -> None:
    """Each fault and each threat has its row, in order, and no other has."""
    assert list(ROWS) == [*FAULTS, *THREATS]


def test_each_threat_has_its_defence() -> None:
    """What faults.md shows is promised under the same number."""
    promised = rows(PROMISES)
    assert [number for number in promised if number in ROWS] == THREATS
    for number in THREATS:
        threat, defence = promised[number]
        assert threat
        is_later = ROWS[number][1].startswith("None here: ")
        assert (defence == "Of a later part.") == is_later, number


@pytest.mark.parametrize("number", [*FAULTS, *THREATS])
def test_each_row_says_what_happens_and_what_shows_it(number: str) -> None:
    """A fault, what becomes of it, and tests that exist; or a reason for none."""
    fault, happens, shown = ROWS[number]
    assert fault
    assert len(happens) > len("It works.")
    named = _NAMED.findall(shown)
    assert len(named) == len(set(named))
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert name in names_in(path), f"{path} has no {name}"
    rest = _NAMED.sub("", shown).replace(",", "").strip()
    if named:
        assert not rest, f"neither a test nor a comma: {rest}"
    else:
        assert happens.startswith("None here: "), "there is neither test nor reason"


def test_each_test_of_a_fault_is_named() -> None:
    """A test with a number in its name stands in the row of that fault or threat."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in names_in(path.relative_to(ROOT).as_posix()):
            for kind, number in re.findall(r"(?<=_)([ft])0*(\d+)(?=_)", name):
                row = ROWS["T" * (kind == "t") + number]
                assert f"::{name}`" in row[2], f"{name} in {kind}{number}"
