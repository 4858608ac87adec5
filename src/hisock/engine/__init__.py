"""The only place with sockets, loops and threads."""
