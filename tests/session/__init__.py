"""Tests of hisock.session."""

from __future__ import annotations

from hypothesis import settings

# Fast enough to run with every change; a slow machine is no failure.
settings.register_profile("suite", max_examples=100, deadline=None)
settings.load_profile("suite")
