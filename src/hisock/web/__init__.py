"""What HTTP on the server's port answers: a request in, a response out; no sockets."""
