"""Tests of what HTTP on the port answers."""
