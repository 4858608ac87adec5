"""The name somebody probably meant."""

from __future__ import annotations

__all__ = ("did_you_mean",)

from collections.abc import Iterable

#: Names that are compared, and letters of each: a stranger may choose both, and the
#: comparison is quadratic.
_NAMES = 64
_LETTERS = 40


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`` Did you mean 'right'?``, or nothing if nothing is near."""
    import difflib  # 4 ms, and only on the way to an error

    names = {name[:_LETTERS]: name for name in known}
    alike = [name for name in names if name[:1].lower() == wrong[:1].lower()]
    near = difflib.get_close_matches(wrong[:_LETTERS], alike[:_NAMES], n=1)
    return f" Did you mean {names[near[0]]!r}?" if near else ""
