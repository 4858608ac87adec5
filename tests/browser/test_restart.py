"""A server that starts anew: the page is told what that costs, and goes on."""

from __future__ import annotations

from typing import Any

from hisock import ClientInfo, ThreadedHiSockServer, start_threaded_server

from .conftest import PAGES, Open

PATIENCE = 10.0


def _serve(port: int, generation: str) -> ThreadedHiSockServer:
    server = start_threaded_server(("127.0.0.1", port), pages=PAGES)

    @server.on("join")
    def join(client: ClientInfo) -> None:
        server.send_client(client, "value", f"{client['name']} to {generation}")

    server.on("which")(lambda client, _: generation)
    return server


def _events(page: Any) -> list[str]:
    return [name for name, *_ in page.evaluate("() => page.events")]


def test_a_page_outlives_a_restart(connected: Open) -> None:
    """The server goes and comes back at its port: the page is told of the lost session
    before any new message, and works with the new server."""
    with _serve(0, "first") as server:
        port = server.addr[1]
        page = connected(f"http://127.0.0.1:{port}/", name="ann", group="red")
        page.evaluate("() => page.keep('value')")
        page.wait_for_function("page.came.includes('ann to first')")
        server.close(reconnect=True)
    page.wait_for_function("page.has('drop')")
    # Sent to nobody: whether it arrived is never known.
    page.evaluate("() => { page.client.send('order', [1, 'tea']); }")

    with _serve(port, "second") as server:
        page.wait_for_function("page.came.includes('ann to second')")

        assert page.evaluate("() => page.client.call('which')") == "second"
        assert [(client["name"], client["group"]) for client in server] == [
            ("ann", "red")
        ]
        assert _events(page) == ["drop", "lost"]
        reason, unacked = page.evaluate("() => page.events.at(-1).slice(1)")
        assert unacked == [{"command": "order", "content": [1, "tea"]}]
        assert reason == "server_restarted"
        page.evaluate("() => page.client.close()")


def test_a_page_that_was_sent_away_stays_away(connected: Open) -> None:
    """A kick is the end: the page is told why, and does not come back."""
    with _serve(0, "only") as server:
        page = connected(f"http://127.0.0.1:{server.addr[1]}/", name="ann")
        server.disconnect_client("ann", reason="enough")

        page.wait_for_function("page.has('end')")
        assert page.evaluate("() => page.events.at(-1)") == ["end", "kicked"]
        refused = (
            "() => { try { page.client.send('more'); } catch (error) "
            "{ return [error.code, error.message]; } }"
        )
        assert page.evaluate(refused) == ["disconnected", "disconnected: enough"]
        assert len(server) == 0
