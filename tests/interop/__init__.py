"""Ours and real hisock 1.1 in one room, over real sockets."""
