"""Bytes to frames and back. No sockets, no clock, no threads."""
