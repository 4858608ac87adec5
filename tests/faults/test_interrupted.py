"""Ctrl-C at any moment: a real signal that strikes wherever the program is just then.

``tests/engine/test_blocking.py`` and ``test_serve.py`` strike at each place in turn;
here chance chooses, and the interpreter's own machinery delivers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hisock import ClientInfo, start_threaded_server
from hisock.server import ThreadedHiSockServer

from .programs import SLOW, Program
from .raw import HOST, eventually, needs_posix

pytestmark = [pytest.mark.timeout(40), needs_posix]

#: Strikes of one run.
MANY = 80

#: What all programs begin with. ``interrupted`` runs something until a Ctrl-C comes out
#: of it; finalizers, from which nothing can come out, run at no time but the program's.
_STRIKES = """
import faulthandler, gc, json, os, queue, random, signal, sys, threading, time
import hisock
faulthandler.dump_traceback_later(12)  # where it hangs, if it does
gc.disable()
port, many = int(sys.argv[1]), int(sys.argv[2])
address = ("127.0.0.1", port) if sys.argv[3] == "tcp" else f"ws://127.0.0.1:{port}"
asked, struck = queue.SimpleQueue(), queue.SimpleQueue()
def strike():
    while (moment := asked.get()) is not None:
        time.sleep(moment)
        os.kill(os.getpid(), signal.SIGINT)
        struck.put(None)
def interrupted(action):
    try:
        asked.put(random.uniform(0, 0.002))
        while True:
            action()
    except KeyboardInterrupt:
        pass
    struck.get()
    time.sleep(0)  # a second one would come out here, and end the program
def say(what):
    sys.stdout.write(json.dumps(what) + "\\n")
    sys.stdout.flush()
threading.Thread(target=strike, daemon=True).start()
"""

_SENDING = """
client = hisock.connect(address, "ann", dead_after=1)
number = 0
def action():
    global number
    number += 1
    client.send("it", [number, "x" * (number % 300)])
    if not number % 7:
        client.update(timeout=0)
for _ in range(many):
    interrupted(action)
say(client.call("sum", number, timeout=60))
client.close()
"""

_CALLING = """
client = hisock.connect(address, "ann", dead_after=1)
client.on("news")(lambda number: None)
number, wrong = 0, []
def action():
    global number
    number += 1
    answer = client.call("double", number, timeout=60)
    if answer != 2 * number:
        wrong.append([number, answer])
for _ in range(many):
    interrupted(action)
    client.update(timeout=0)
say([wrong, client.call("double", 21, timeout=60)])
client.close()
"""

_CONNECTING = """
# An import that is interrupted is another matter: msgspec does not always survive it.
made = [hisock.connect(("127.0.0.1", port), "ann", reconnect=False)]
made.pop().close()
def action():
    made.append(hisock.connect(("127.0.0.1", port), "ann", reconnect=False))
before = len(os.listdir("/dev/fd"))
for _ in range(many):
    interrupted(action)
    while made:
        made.pop().close()
gc.collect()
say([len(os.listdir("/dev/fd")) - before, threading.active_count()])
"""

_END = """
asked.put(None)
"""


class Watched:
    """A server that adds up, doubles, and notes in which order what came."""

    def __init__(self) -> None:
        self.server: ThreadedHiSockServer = start_threaded_server((HOST, 0))
        self.numbers: list[int] = []
        self.server.on("it")(self._note)
        self.server.on("sum")(lambda client, last: [last, len(self.numbers)])
        self.server.on("double")(self._double)

    def _note(self, client: ClientInfo, message: list[object]) -> None:
        number, padding = message
        assert isinstance(number, int)
        assert padding == "x" * (number % 300)
        self.numbers.append(number)

    def _double(self, client: ClientInfo, number: int) -> int:
        client.send("news", number)
        return 2 * number


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A server in its thread, that may be asked afterwards."""
    made = Watched()
    with made.server:
        yield made


def said_by(source: str, watched: Watched, scheme: str = "tcp") -> Any:
    """What a program says at its end, which comes soon and without complaint."""
    arguments = (watched.server.addr[1], MANY, scheme)
    with Program(_STRIKES + source + _END, *arguments) as program:
        said = program.next()
        assert program.end() == (0, "")
    return said


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_f4_ctrl_c_in_sends(watched: Watched, scheme: str) -> None:
    """It comes out once each; what arrives is whole and in order, nothing is doubled,
    and the next call is answered behind all of it."""
    last, count = said_by(_SENDING, watched, scheme)
    assert watched.numbers == sorted(set(watched.numbers))
    assert count == len(watched.numbers) > MANY
    assert watched.numbers[-1] <= last
    assert last - count <= MANY, "more is lost than the one that was being sent"


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_f4_ctrl_c_in_calls(watched: Watched, scheme: str) -> None:
    """No call gets the answer to another, and the next one is answered."""
    assert said_by(_CALLING, watched, scheme) == [[], 42]


def test_f4_ctrl_c_in_connect(watched: Watched) -> None:
    """Nothing is left of what was begun: no descriptor, no thread, no member."""
    # The main thread, and the one that strikes.
    assert said_by(_CONNECTING, watched) == [0, 2]
    eventually(lambda: not len(watched.server), "all have left", within=SLOW)
