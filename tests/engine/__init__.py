"""Tests of hisock.engine."""
