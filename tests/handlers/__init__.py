"""Tests of hisock.handlers."""
