"""The proof that no message is lost, doubled or overtaken, whatever cuts the network.

``proxy`` is the network that misbehaves, ``oracle`` sends numbered messages through it
and checks what arrives. ``python -m tests.chaos --help`` for the long run.
"""
