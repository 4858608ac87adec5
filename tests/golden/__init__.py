"""Golden transcripts of hisock 1.1: what real peers wrote, byte for byte.

`load` and `recordings` read the files in ``recordings/``. A test replays the `Action`
steps of its own side, plays the other side's `Frame` steps, and compares bytes. The
README beside this file says how they were recorded.
"""

from __future__ import annotations

__all__ = (
    "Action",
    "Frame",
    "Handled",
    "Recording",
    "Side",
    "Step",
    "load",
    "recordings",
)

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

Side: TypeAlias = Literal["client", "server"]

_FOLDER = Path(__file__).resolve().parent / "recordings"


@dataclass(frozen=True, slots=True)
class Handled:
    """A handler that ran, and the arguments it got."""

    handler: str
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """A call a program made; the frames after it are what the call caused.

    ``client`` is the caller's letter, or ``None`` for the server. ``handled`` is filled
    for ``run`` and ``update``, ``returned`` for ``recv_raw``, ``raised`` where the call
    failed. A text ``{port:A}`` stands for the port of client A, as in a frame.
    """

    side: Side
    client: str | None
    call: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, str]
    handled: tuple[Handled, ...]
    returned: bytes | None
    raised: str | None


@dataclass(frozen=True, slots=True)
class Frame:
    """What one side wrote in one go on the connection of one client."""

    client: str
    sender: Side
    text: str

    def wire(self, ports: Mapping[str, int]) -> bytes:
        """The bytes, with the ports of this run in place of the placeholders."""
        return fill(self.text, ports).encode("latin-1")


Step: TypeAlias = Action | Frame


@dataclass(frozen=True, slots=True)
class Recording:
    """One scenario with one header length."""

    scenario: str
    about: str
    header_len: int
    recorded_from: frozenset[Side]
    client_handlers: tuple[str, ...]
    server_handlers: tuple[str, ...]
    steps: tuple[Step, ...]

    def turns(self) -> Iterator[tuple[Action, tuple[Frame, ...]]]:
        """Each call with the frames it caused."""
        action: Action | None = None
        frames: list[Frame] = []
        for step in self.steps:
            if isinstance(step, Frame):
                frames.append(step)
                continue
            if action is not None:
                yield action, tuple(frames)
            action, frames = step, []
        if action is not None:
            yield action, tuple(frames)

    def stream(self, client: str, sender: Side, ports: Mapping[str, int]) -> bytes:
        """All that one side wrote on the connection of one client."""
        return b"".join(
            step.wire(ports)
            for step in self.steps
            if isinstance(step, Frame)
            and (step.client, step.sender) == (client, sender)
        )


def fill(text: str, ports: Mapping[str, int]) -> str:
    """Put ports where placeholders stand.

    Raises:
        ValueError: A port has not five digits, so the recorded length would be wrong.
    """
    for client, port in ports.items():
        if not 10000 <= port <= 65535:
            raise ValueError(f"client {client} has port {port}; five digits are needed")
        text = text.replace(f"{{port:{client}}}", str(port))
    return text


@cache
def load(scenario: str, header_len: int) -> Recording:
    """The recording of a scenario with a header length (2, 8, 16 or 64)."""
    return _read(_FOLDER / f"{scenario}-{header_len}.json")


@cache
def recordings() -> tuple[Recording, ...]:
    """All recordings, in the order of their file names."""
    return tuple(_read(path) for path in sorted(_FOLDER.glob("*.json")))


def _read(path: Path) -> Recording:
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Recording(
        scenario=raw["scenario"],
        about=raw["about"],
        header_len=raw["header_len"],
        recorded_from=frozenset(raw["recorded_from"]),
        client_handlers=tuple(raw["handlers"]["client"]),
        server_handlers=tuple(raw["handlers"]["server"]),
        steps=tuple(_step(step) for step in raw["steps"]),
    )


def _step(raw: Mapping[str, Any]) -> Step:
    if "action" in raw:
        return _action(raw["action"])
    return Frame(raw["client"], raw["from"], raw["bytes"])


def _action(raw: Mapping[str, Any]) -> Action:
    return Action(
        side=raw["side"],
        client=raw.get("client"),
        call=raw["call"],
        args=_values(raw.get("args", ())),
        kwargs=raw.get("kwargs", {}),
        handled=tuple(
            Handled(each["handler"], _values(each["args"]))
            for each in raw.get("handled", ())
        ),
        returned=_value(raw["returned"]) if "returned" in raw else None,
        raised=raw.get("raised"),
    )


def _values(raw: list[Any]) -> tuple[Any, ...]:
    return tuple(_value(each) for each in raw)


def _value(raw: Any) -> Any:
    if isinstance(raw, dict) and raw.keys() == {"bytes"}:
        return raw["bytes"].encode("latin-1")
    return raw
