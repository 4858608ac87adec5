"""Every case of the RFC that Autobahn has, against our server's end and our client's.

``kosoku`` runs them. The ends send back what they get (``echo``), for hisock itself
refuses foreign content.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
from websockets.sync.client import connect

from .echo import EchoServer, call
from .needs import needs

needs("kosoku")

pytestmark = pytest.mark.timeout(60)

CASES: Final = 517
#: 12 and 13: compression, which is never agreed on.
COMPRESSED: Final = 216
#: What we do not answer before we fail the connection over what came behind it, in the
#: same read or the same frame: all of it is read first.
MAY_BE_NON_STRICT: Final = {
    *("3.2", "3.3", "3.4", "5.15", "6.4.3", "6.4.4"),
    *("4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5"),
}
#: Cases for which the RFC has no answer.
UNDEFINED: Final = {"7.1.6", "7.13.1", "7.13.2"}
#: Clients that try themselves at a time: cases that wait do so together.
AT_ONCE: Final = 6

FUZZER: Final = (sys.executable, str(Path(__file__).with_name("fuzzer.py")))

#: What a case came to, how it was closed, and why.
Verdict = tuple[str, str, str]


def check(told: Mapping[str, Verdict]) -> None:
    """Nothing failed, all was run, and what is not strictly right is known by name."""
    assert len(told) == CASES
    failed = {
        case: verdict for case, verdict in told.items() if not _is_fine(case, verdict)
    }
    assert failed == {}
    assert Counter(_is_compressed(case) for case in told)[True] == COMPRESSED


def _is_compressed(case: str) -> bool:
    return case.split(".")[0] in ("12", "13")


def _is_fine(case: str, verdict: Verdict) -> bool:
    if _is_compressed(case):
        return tuple(verdict[:2]) == ("UNIMPLEMENTED", "OK")
    allowed = {("OK", "OK")}
    if case in MAY_BE_NON_STRICT:
        allowed.add(("NON-STRICT", "OK"))
    if case in UNDEFINED:
        allowed.add(("INFORMATIONAL", "INFORMATIONAL"))
    return tuple(verdict[:2]) in allowed


def test_the_cases_are_those_of_one_version() -> None:
    """Another version of kosoku has other cases, which are to be looked at first."""
    assert version("kosoku") == "0.1.0"


def test_our_server_does_what_the_rfc_says() -> None:
    """No case fails against our end of a server."""
    with EchoServer() as server:
        host, port = server.address
        run = [*FUZZER, "client", f"ws://{host}:{port}"]
        told = json.loads(subprocess.check_output(run, timeout=50))

    assert server.errors == []
    check(told)


def test_our_client_does_what_the_rfc_says() -> None:
    """No case fails against our end of a client."""
    with subprocess.Popen([*FUZZER, "server"], stdout=subprocess.PIPE) as fuzzer:
        try:
            assert fuzzer.stdout is not None
            address = "127.0.0.1", int(fuzzer.stdout.readline())
            uri = f"ws://127.0.0.1:{address[1]}"
            with connect(f"{uri}/getCaseCount") as asking:
                assert int(asking.recv()) == CASES
            cases = [
                f"{uri}/runCase?case={n}&agent=hisock" for n in range(1, CASES + 1)
            ]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(partial(call, address=address), cases))
            call(f"{uri}/updateReports?agent=hisock", address)
            told = json.loads(fuzzer.communicate(timeout=20)[0])
        finally:
            fuzzer.kill()

    check(told)
