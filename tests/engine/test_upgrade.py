"""A socket that speaks WebSocket, where a program is interrupted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.contract.authorities import Authorities
from tests.faults.raw import HOST

from hisock import connect, start_threaded_server

from .test_blocking import interrupt_at


@pytest.mark.parametrize("wire", ["ws", "wss", "tls"])
def test_an_interrupt_anywhere_in_a_send_writes_nothing_twice(
    tmp_path: Path, wire: str
) -> None:
    """Ctrl-C costs the link at most: each message arrives once, and in order."""
    files = Authorities(tmp_path) if wire != "ws" else None
    came: list[int] = []
    lost: list[object] = []
    cert = None if files is None else files.server
    with start_threaded_server((HOST, 0), tls=cert) as server:
        server.on("it")(lambda client, number: came.append(number))
        host, port = server.addr
        address = (host, port) if wire == "tls" else f"{wire}://{host}:{port}"
        with connect(address, "ann", tls={"ca": files.ca} if files else None) as client:
            client.on_session_lost(lost.append)
            place = number = 0
            is_struck = True
            while is_struck:
                number += 1
                try:
                    with interrupt_at(place) as reached:
                        client.send("it", number)
                except KeyboardInterrupt:
                    pass
                is_struck = bool(reached)
                number += 1
                client.send("it", number)
                end = time.monotonic() + 3
                while number not in came:
                    client.update(timeout=0.01)
                    assert time.monotonic() < end, (reached, came)
                assert came in ([number - 1, number], [number]), reached
                assert not lost, reached
                came.clear()
                place += 3  # places in one function fare alike
