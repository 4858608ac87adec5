"""The helpers of hisock 1.1."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import pytest

from hisock import constants, errors, utils
from hisock.errors import InvalidAddress, InvalidOption, MessageTooLarge

Typing = Callable[..., list[str]]


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Typing:
    """Types lines at the prompts; returns the list of prompts that were shown."""

    def script(*lines: str) -> list[str]:
        prompts: list[str] = []
        left = iter(lines)

        def answer(prompt: str = "") -> str:
            prompts.append(prompt)
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", answer)
        return prompts

    return script


@pytest.mark.parametrize(
    ("message", "header_len", "expected"),
    [
        (b"", 16, b"0               "),
        (b"hello", 16, b"5               "),
        ("hello", 2, b"5 "),
        ("é", 4, b"2   "),
        (b"x" * 99, 2, b"99"),
        (b"x", 64, b"1" + b" " * 63),
    ],
)
def test_a_header_is_a_padded_length(
    message: str | bytes, header_len: int, expected: bytes
) -> None:
    """``make_header`` counts bytes and pads with spaces; as text on request."""
    assert expected == utils.make_header(message, header_len)
    assert expected.decode() == utils.make_header(message, header_len, encode=False)


def test_a_header_has_to_hold_the_length() -> None:
    """A length over the header's digits is refused, with what to do."""
    with pytest.raises(MessageTooLarge, match=r"header_len 2 .* 100 bytes; use a lar"):
        utils.make_header(b"x" * 100, 2)


@pytest.mark.parametrize("wrong", [0, 1, 65, -1, True, 2.0, "16", None])
def test_a_header_length_is_checked(wrong: object) -> None:
    """A header length that cannot work is refused."""
    with pytest.raises(InvalidOption, match="header_len"):
        utils.make_header(b"x", wrong)  # type: ignore[arg-type]  # that is the test


def test_the_local_ip_is_an_address() -> None:
    """``get_local_ip`` gives an IPv4 address that can be listened at."""
    address = utils.get_local_ip()

    assert isinstance(ipaddress.ip_address(address), ipaddress.IPv4Address)
    with socket.socket() as sock:
        sock.bind((address, 0))


class _NoNetwork(socket.socket):
    def connect(self, address: object) -> None:
        raise OSError("network is unreachable")


class _NoAddress(socket.socket):
    def connect(self, address: object) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return "0.0.0.0", 0


@pytest.mark.parametrize("kind", [_NoNetwork, _NoAddress])
def test_a_machine_without_network_has_a_local_ip(
    monkeypatch: pytest.MonkeyPatch, kind: type[socket.socket]
) -> None:
    """Without a network the local address is this machine's own."""
    monkeypatch.setattr(socket, "socket", kind)

    assert utils.get_local_ip() == "127.0.0.1"


def test_a_server_is_asked_for(typing: Typing) -> None:
    """``input_server_config`` asks for IP and port, and gives an address."""
    prompts = typing("127.0.0.1", "6969")

    assert utils.input_server_config() == ("127.0.0.1", 6969)
    assert prompts == [
        "Enter the IP of where to host the server: ",
        "Enter the Port of where to host the server: ",
    ]


def test_wrong_answers_are_asked_for_again(
    typing: Typing, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no IP or port is named, with what would be right, and asked again."""
    prompts = typing(
        "", "localhost", "300.1.1.1", " ::1 ", "", "-1", "65536", "٣", "1_0", "80 "
    )

    assert utils.input_server_config("ip? ", "port? ") == ("::1", 80)
    assert prompts == ["ip? "] * 4 + ["port? "] * 6
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "E: 'localhost' is no IP address; write it like 127.0.0.1"
    assert shown[5] == "E: '65536' is no port; it is a number from 0 to 65535"
    assert len(shown) == 8


def test_a_client_is_asked_for(typing: Typing) -> None:
    """``input_client_config`` asks for address, name and group."""
    prompts = typing("127.0.0.1", "6969", "Ada", "red")

    assert utils.input_client_config() == ("127.0.0.1", 6969, "Ada", "red")
    assert prompts == [
        "Enter the IP of the server: ",
        "Enter the Port of the server: ",
        "Enter name to connect as: ",
        "Enter group to connect to: ",
    ]


def test_an_empty_name_is_asked_for_again(typing: Typing) -> None:
    """A name or a group is not empty."""
    prompts = typing("127.0.0.1", "6969", "", "", "Ada", "", "red")

    given = utils.input_client_config("i", "p", "n", "g")

    assert given == ("127.0.0.1", 6969, "Ada", "red")
    assert prompts == ["i", "p", "n", "n", "n", "g", "g"]


def test_what_is_not_asked_for_is_left_out(typing: Typing) -> None:
    """A prompt of ``None`` leaves name or group out of the result."""
    typing("127.0.0.1", "6969", "Ada")
    assert utils.input_client_config(group_prompt=None) == ("127.0.0.1", 6969, "Ada")

    typing("127.0.0.1", "6969", "red")
    assert utils.input_client_config(name_prompt=None) == ("127.0.0.1", 6969, "red")

    typing("127.0.0.1", "6969")
    assert utils.input_client_config(name_prompt=None, group_prompt=None) == (
        "127.0.0.1",
        6969,
    )


@pytest.mark.parametrize("lines", [(), ("127.0.0.1",), ("no", "no"), ("::1", "x")])
def test_the_end_of_the_input_ends_the_questions(
    typing: Typing, lines: tuple[str, ...]
) -> None:
    """With a closed input the questions end in ``EOFError``, never in a loop."""
    typing(*lines)
    with pytest.raises(EOFError):
        utils.input_server_config()

    typing(*lines)
    with pytest.raises(EOFError):
        utils.input_client_config()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:6969", ("127.0.0.1", 6969)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_an_address_reads_as_it_is_written(text: str, address: tuple[str, int]) -> None:
    """``ipstr_to_tup`` and ``iptup_to_str`` undo each other, IPv6 included."""
    assert address == utils.ipstr_to_tup(text)
    assert text == utils.iptup_to_str(address)


@pytest.mark.parametrize(
    "wrong", ["", "127.0.0.1", ":80", "a:", "a:b", "a:-1", "a:65536", "a: 1", "a:٣"]
)
def test_a_text_that_is_no_address_is_refused(wrong: str) -> None:
    """The text tells the form of an address; it is a ``ValueError``, as in 1.1."""
    with pytest.raises(InvalidAddress) as caught:
        utils.ipstr_to_tup(wrong)

    assert f'an address is written "ip:port", not {wrong!r}' == str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "wrong", [(), ("a",), ("a", "80"), (1, 80), ("a", 80, 1), "a:80", None]
)
def test_what_is_no_address_is_refused(wrong: object) -> None:
    """``iptup_to_str`` takes ``(ip, port)`` only."""
    with pytest.raises(InvalidAddress) as caught:
        utils.iptup_to_str(wrong)  # type: ignore[arg-type]  # that is the test

    assert f"an address is (ip, port), not {wrong!r}" == str(caught.value)


def test_true_is_no_port() -> None:
    """``True`` is a number to Python, and no port."""
    with pytest.raises(InvalidAddress):
        utils.iptup_to_str(("127.0.0.1", True))


def test_the_exceptions_of_1_1_are_here_too() -> None:
    """1.1 programs import exceptions from ``hisock.utils``; they are the same ones."""
    for name in (
        "ClientDisconnected",
        "ClientException",
        "NoHeaderWarning",
        "NoMessageException",
        "ServerException",
        "ServerNotRunning",
    ):
        assert getattr(utils, name) is getattr(errors, name)


def test_every_name_exists() -> None:
    """``from hisock.utils import *`` and ``hisock.constants`` bring what they list."""
    for module in (utils, constants):
        assert all(hasattr(module, name) for name in module.__all__)
