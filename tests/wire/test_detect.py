"""Which wire a peer speaks."""

from __future__ import annotations

import pytest

from hisock.wire.detect import Wire, detect


@pytest.mark.parametrize("first", range(256))
def test_the_first_byte_decides(first: int) -> None:
    """A digit is a client of ours; every other byte is a stranger."""
    expected = Wire.CLASSIC if chr(first) in "0123456789" else None

    assert expected is detect(bytes([first]))
    assert expected is detect(bytes([first]) + b"anything")
    assert expected is detect(bytes([first]), "hisock/2")
    assert detect(bytes([first]), "http/1.1") is None


@pytest.mark.parametrize(
    "stranger",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-",
        b"OPTIONS * RTSP/1.0",
        b"PROXY TCP4 ",
        "٣".encode(),
        b"$CLTHELLO$ {}",
        b" 40",
    ],
)
def test_a_stranger_is_told_apart(stranger: bytes) -> None:
    """Other protocols are no client of ours."""
    assert detect(stranger) is None
