"""The helpers that hisock 1.1 came with; nothing inside the library uses them."""

from __future__ import annotations

__all__ = (
    "ClientDisconnected",
    "ClientException",
    "NoHeaderWarning",
    "NoMessageException",
    "ServerException",
    "ServerNotRunning",
    "get_local_ip",
    "input_client_config",
    "input_server_config",
    "ipstr_to_tup",
    "iptup_to_str",
    "make_header",
)

import ipaddress
import socket
from typing import Any

from hisock.errors import (
    ClientDisconnected,
    ClientException,
    InvalidAddress,
    NoHeaderWarning,
    NoMessageException,
    ServerException,
    ServerNotRunning,
)
from hisock.types import Address
from hisock.wire.classic import check_header_len, check_size, header


def make_header(header_msg: str | bytes, header_len: int, encode: bool = True) -> Any:
    """The header of a message: its length in bytes, padded with spaces.

    Args:
        header_msg: The message; text counts as UTF-8.
        header_len: Bytes of the header.
        encode: Whether to return bytes; else text.

    Raises:
        MessageTooLarge: ``header_len`` digits cannot hold the length.
    """
    size = len(header_msg.encode() if isinstance(header_msg, str) else header_msg)
    check_size(size, 0, check_header_len(header_len))
    made = header(size, header_len)
    return made if encode else made.decode()


def get_local_ip() -> str:
    """This machine's address on its network; ``127.0.0.1`` where there is none."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Sends nothing: it only asks the system which address it would send from
            # (192.0.2.1 is reserved for documentation, RFC 5737).
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
    except OSError:
        return "127.0.0.1"
    return "127.0.0.1" if address == "0.0.0.0" else address


def input_server_config(
    ip_prompt: str = "Enter the IP of where to host the server: ",
    port_prompt: str = "Enter the Port of where to host the server: ",
) -> Address:
    """Ask for an address; what is not one is asked for again.

    Args:
        ip_prompt: What to print before the IP is typed.
        port_prompt: What to print before the port is typed.

    Raises:
        EOFError: The input ended.
    """
    ip = input(ip_prompt).strip()
    while not _is_ip(ip):
        print(f"E: {ip!r} is no IP address; write it like 127.0.0.1")
        ip = input(ip_prompt).strip()
    port = input(port_prompt).strip()
    while not _is_port(port):
        print(f"E: {port!r} is no port; it is a number from 0 to 65535")
        port = input(port_prompt).strip()
    return ip, int(port)


def input_client_config(
    ip_prompt: str = "Enter the IP of the server: ",
    port_prompt: str = "Enter the Port of the server: ",
    name_prompt: str | None = "Enter name to connect as: ",
    group_prompt: str | None = "Enter group to connect to: ",
) -> tuple[Any, ...]:
    """Ask for an address, a name and a group; what is empty is asked for again.

    Args:
        ip_prompt: What to print before the IP is typed.
        port_prompt: What to print before the port is typed.
        name_prompt: The same for the name; ``None`` leaves it out of the result.
        group_prompt: The same for the group; ``None`` leaves it out of the result.

    Returns:
        ``(ip, port, name, group)``, without what was not asked for.

    Raises:
        EOFError: The input ended.
    """
    answers: list[Any] = [*input_server_config(ip_prompt, port_prompt)]
    for prompt in (name_prompt, group_prompt):
        if prompt is None:
            continue
        answer = input(prompt)
        while not answer:
            answer = input(prompt)
        answers.append(answer)
    return tuple(answers)


def ipstr_to_tup(formatted_ip: str) -> Address:
    """``"ip:port"`` as ``(ip, port)``.

    Raises:
        InvalidAddress: It is not of that form (a ``ValueError``).
    """
    host, colon, port = formatted_ip.rpartition(":")
    if not colon or not host or not _is_port(port):
        raise InvalidAddress(f'an address is written "ip:port", not {formatted_ip!r}')
    return host.removeprefix("[").removesuffix("]"), int(port)


def iptup_to_str(formatted_tuple: Address) -> str:
    """``(ip, port)`` as ``"ip:port"``.

    Raises:
        InvalidAddress: It is not of that form (a ``ValueError``).
    """
    match formatted_tuple:
        case (str() as host, int() as port) if not isinstance(port, bool):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            raise InvalidAddress(f"an address is (ip, port), not {formatted_tuple!r}")


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536
