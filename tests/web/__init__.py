"""Tests of hisock.web."""
