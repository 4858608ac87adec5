"""Benchmarks beside a raw-socket baseline in the same run; see ``CONTRIBUTING.md``."""
