"""The web: WebSocket as others speak it, pages, and the client for browsers."""
