"""The name somebody probably meant."""

from __future__ import annotations

__all__ = ("did_you_mean",)

from collections.abc import Iterable


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`` Did you mean 'right'?``, or nothing if nothing is near."""
    import difflib  # 4 ms, and only on the way to an error

    near = difflib.get_close_matches(str(wrong)[:80], list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
