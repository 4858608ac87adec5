"""Which wire a peer speaks."""

from __future__ import annotations

import pytest

from hisock.wire.detect import Wire, detect


@pytest.mark.parametrize("first", range(256))
def test_the_first_byte_decides(first: int) -> None:
    """A digit is a client of ours, a G may become a GET; all others are strangers."""
    begun = bytes([first])
    is_digit, is_get = chr(first) in "0123456789", begun == b"G"
    expected = Wire.CLASSIC if is_digit else Wire.HTTP if is_get else None

    assert expected is detect(begun)
    assert detect(begun + b"anything") is (Wire.CLASSIC if is_digit else None)
    assert detect(begun, "hisock/2") is (Wire.CLASSIC if is_digit else None)
    assert detect(begun, "http/1.1") is (Wire.HTTP if is_get else None)


@pytest.mark.parametrize("size", range(1, 5))
def test_a_get_is_known_by_what_came_of_it(size: int) -> None:
    """However it was cut; the verb is nothing but these letters."""
    assert detect(b"GET / HTTP/1.1"[:size]) is Wire.HTTP
    for wrong in (b"GETS", b"Get ", b"GE\t", b"GET\r", b"G T "):
        assert detect(wrong) is None


@pytest.mark.parametrize(
    "stranger",
    [
        b"",
        b"POST / HTTP/1.1\r\n",
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
