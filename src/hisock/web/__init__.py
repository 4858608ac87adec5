"""What HTTP on a server's port answers, and what it serves to browsers."""
