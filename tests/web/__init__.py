"""WebSocket as others speak it: the RFC's cases, other clients, and bad input."""
