"""The recordings are complete and well formed, so that tests can rely on them."""

from __future__ import annotations

import pytest

from . import Frame, Recording, load, recordings

PORTS = {"A": 40001, "B": 40002}
HEADER_LENGTHS = {2, 8, 16, 64}
BARE_TOKENS = {"$CHNAME$", "$CHGROUP$"}


def name(recording: Recording) -> str:
    """The test's name for a recording."""
    return f"{recording.scenario}-{recording.header_len}"


@pytest.mark.parametrize("recording", recordings(), ids=name)
def test_each_frame_is_a_padded_length_and_so_many_bytes(recording: Recording) -> None:
    """But for 1.1's two bare tokens, a header tells the length of the body."""
    size = recording.header_len
    for step in recording.steps:
        if isinstance(step, Frame) and step.text not in BARE_TOKENS:
            wire = step.wire(PORTS)
            header, body = wire[:size], wire[size:]
            assert header == str(len(body)).ljust(size).encode()


@pytest.mark.parametrize("recording", recordings(), ids=name)
def test_turns_hold_every_step_once(recording: Recording) -> None:
    """Calls with their frames, put in a row, are the steps again."""
    again = [step for action, frames in recording.turns() for step in (action, *frames)]
    assert tuple(again) == recording.steps


def test_every_scenario_is_there_with_every_header_length() -> None:
    """And is the same but for the padding of the header."""
    scenarios = {recording.scenario for recording in recordings()}
    for scenario in scenarios:
        bodies = set()
        for header_len in HEADER_LENGTHS:
            steps = load(scenario, header_len).steps
            frames = [step for step in steps if isinstance(step, Frame)]
            bodies.add(
                tuple(
                    frame.text if frame.text in BARE_TOKENS else frame.text[header_len:]
                    for frame in frames
                )
            )
        assert len(bodies) == 1
    assert len(recordings()) == len(scenarios) * len(HEADER_LENGTHS)


def test_a_stream_is_all_that_one_side_wrote_to_one_client() -> None:
    """The frames of the other client and of the other side are left out."""
    stream = load("others", 2).stream("B", "client", PORTS)
    hello = b'$CLTHELLO$ {"name": null, "group": null}'
    assert stream.count(b"$CLTHELLO$") == 2
    assert stream.endswith(b"%d%b10$USRCLOSE$" % (len(hello), hello))


def test_a_port_that_would_change_the_length_is_refused() -> None:
    """The recorded header counts five digits."""
    frame = Frame("A", "server", "{port:A}")
    with pytest.raises(ValueError, match="five digits"):
        frame.wire({"A": 999})
