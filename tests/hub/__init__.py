"""Tests of hisock.hub."""
