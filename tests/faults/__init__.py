"""What hisock 1.1 got wrong, and what networks do: each fault injected for real."""
