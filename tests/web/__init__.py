"""What the server's port answers to HTTP."""
