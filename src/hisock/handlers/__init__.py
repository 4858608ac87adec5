"""Which function runs, with which arguments; runs nothing itself."""
