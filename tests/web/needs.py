"""Packages that some tests need: missing ones skip them, in CI they fail."""

from __future__ import annotations

__all__ = ("needs",)

import os
from importlib.metadata import PackageNotFoundError, version

import pytest


def needs(package: str) -> None:
    """Skip the tests of a module where a package is missing; in CI fail."""
    try:
        version(package)
    except PackageNotFoundError:
        text = f"{package} is missing: pip install -e .[test]"
        if os.environ.get("CI"):
            pytest.fail(text, pytrace=False)
        pytest.skip(text, allow_module_level=True)
