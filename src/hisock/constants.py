"""The version and friends, under the names of hisock 1.1."""

from __future__ import annotations

__all__ = ("__author__", "__copyright__", "__version__")

__version__ = "4.0.0"
__copyright__ = "the hisock authors"
__author__ = "the hisock authors"
