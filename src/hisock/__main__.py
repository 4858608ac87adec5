"""``python -m hisock``: the command line."""

from __future__ import annotations

__all__ = ()

from hisock.cli import main

if __name__ == "__main__":
    main()
