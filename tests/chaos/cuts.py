"""Which cuts there are, when they come, and how the proxy makes each.

The schedule is drawn from a seed; progress, not time, says when the next is due.
"""

from __future__ import annotations

__all__ = ("ALL", "KINDS", "SILENT", "Chaos", "Cut", "schedule")

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from .pipes import Direction, How
from .proxy import ChaosProxy
from .traffic import Traffic

#: Seconds for a client to come back.
_PATIENCE: Final = 30.0
_HOW: Final[tuple[How, ...]] = ("fin", "rst", "both")


@dataclass(frozen=True)
class Cut:
    """One cut as it is planned.

    Attributes:
        kind: One of ``KINDS`` or ``SILENT``.
        how: By FIN, RST or both.
        way: Of kinds that are about one direction, which.
        n_bytes: Of kinds that count bytes, how many.
        delay: Of kinds that last, seconds.
    """

    kind: str
    how: How
    way: Direction
    n_bytes: int
    delay: float


def schedule(
    seed: int, cuts: int, silences: int = 0, only: Sequence[str] = ()
) -> list[Cut]:
    """So many cuts, ``silences`` of them such that only silence tells.

    Every kind comes before one comes again. The last is one that happens at once.

    Args:
        seed: The same seed gives the same schedule.
        cuts: How many.
        silences: How many of them are of ``SILENT``.
        only: Kinds that the others are drawn from; all of ``KINDS`` unless given.
    """
    rng = Random(seed)
    choice = sorted(only or KINDS)
    kinds: list[str] = []
    while len(kinds) < cuts:
        kinds += rng.sample(choice, len(choice))
    del kinds[cuts:]
    for place in rng.sample(range(cuts), min(silences, cuts)):
        kinds[place] = rng.choice(sorted(SILENT))
    if kinds and kinds[-1] == "mid-frame":
        kinds[-1] = "plain"
    return [_draw(rng, kind) for kind in kinds]


def _draw(rng: Random, kind: str) -> Cut:
    most = 400 if kind == "handshake" else 3000
    return Cut(
        kind,
        rng.choice(_HOW),
        rng.choice(("up", "down")),
        rng.randint(1, most),
        rng.uniform(0.0, 0.05),
    )


class Chaos:
    """Makes the cuts of a schedule while the traffic goes on.

    Args:
        proxy: What cuts.
        traffic: What says when.
        cuts: The schedule.

    Attributes:
        silences: How many links were found dead by their silence.
    """

    def __init__(self, proxy: ChaosProxy, traffic: Traffic, cuts: list[Cut]) -> None:
        self.silences = 0
        self._proxy = proxy
        self._traffic = traffic
        self._cuts = cuts
        #: What was armed for later, and the count of cuts by then.
        self._armed: tuple[Cut, int] | None = None

    def run_chaos(self) -> None:
        """Make every cut when it is due; ends with the traffic."""
        for stage, cut in enumerate(self._cuts, start=1):
            if not self._traffic.wait_for_stage():
                return
            self._finish_armed()
            if not self._wait(lambda: self._proxy.present):
                return
            self._traffic.last_cut = f"cut {stage}, {cut}"
            ALL[cut.kind](self, cut)
            self._traffic.open_stage(stage)

    def _finish_armed(self) -> None:
        """Make the cut that waits for a byte which has not come."""
        if self._armed is not None:
            cut, before = self._armed
            self._armed = None
            self._proxy.disarm()
            if self._proxy.cuts == before:
                self._proxy.cut(cut.how)

    def _wait(self, look: Callable[[], object]) -> bool:
        """Wait for the proxy; whether it came in time, and before the end."""
        over = self._traffic.is_over.is_set
        for _ in range(int(_PATIENCE)):
            if self._proxy.wait_for(lambda: look() or over(), 1.0):
                return not over()
        self._traffic.fail("the client did not come back")
        return False

    def _wait_for_next(self, before: int) -> bool:
        return self._wait(lambda: self._proxy.connections > before)

    def _pause(self, seconds: float) -> None:
        """Let a fault last; nothing depends on how long."""
        self._traffic.is_over.wait(seconds)

    # --- kinds -----------------------------------------------------------------

    def plain(self, cut: Cut) -> None:
        """Wherever it happens to be."""
        self._proxy.cut(cut.how)

    def mid_frame(self, cut: Cut) -> None:
        """At a byte of the traffic."""
        self._armed = cut, self._proxy.cuts
        self._proxy.cut_after(cut.way, cut.n_bytes, cut.how)

    def black_hole(self, cut: Cut) -> None:
        """Nothing passes for a while, then the cut: all that waited is lost."""
        self._hole(cut, None)

    def one_way(self, cut: Cut) -> None:
        """The same in one direction."""
        self._hole(cut, cut.way)

    def _hole(self, cut: Cut, way: Direction | None) -> None:
        self._proxy.blackhole(way)
        self._pause(cut.delay)
        self._proxy.cut(cut.how)
        self._proxy.heal()

    def twice(self, cut: Cut) -> None:
        """Again as soon as the client is back, with nothing sent in between."""
        before = self._proxy.connections
        self._proxy.cut(cut.how)
        if self._wait_for_next(before):
            self._proxy.cut(cut.how)

    def resumed(self, cut: Cut) -> None:
        """Again when the session has just been resumed."""
        before = self._traffic.resumes
        self._proxy.cut(cut.how)
        if self._traffic.wait_for_resume(before, _PATIENCE):
            self._proxy.cut(cut.how)

    def at_once(self, cut: Cut) -> None:
        """Again before the first byte of the next link."""
        self._proxy.cut_after("up", 0, cut.how, of="next")
        self._proxy.cut(cut.how)

    def handshake(self, cut: Cut) -> None:
        """Again while the next link is being agreed on."""
        self._proxy.cut_after(cut.way, cut.n_bytes, cut.how, of="next")
        self._proxy.cut(cut.how)

    def client_alone(self, cut: Cut) -> None:
        """The server does not notice: its old link is open when the client is back."""
        self._proxy.cut(cut.how, only="client")

    def refused(self, cut: Cut) -> None:
        """The client's first attempts to come back fail."""
        how: Literal["fin", "rst"] = "rst" if cut.how == "rst" else "fin"
        self._proxy.refuse(how)
        self._proxy.cut(cut.how)
        self._wait(lambda: self._proxy.refused)
        self._proxy.accept_again()

    def silence(self, cut: Cut) -> None:
        """A black hole and nothing else: a side has to find out."""
        self._silence(None)

    def silence_one_way(self, cut: Cut) -> None:
        """The same in one direction."""
        self._silence(cut.way)

    def _silence(self, way: Direction | None) -> None:
        before = self._proxy.connections
        self._proxy.blackhole(way)
        if self._wait_for_next(before):
            self.silences += 1
        self._proxy.heal()

    def server_alone(self, cut: Cut) -> None:
        """The server is told, the client has to find out."""
        before = self._proxy.connections
        self._proxy.cut(cut.how, only="server")
        self._wait_for_next(before)


#: Kinds that the client is told of: it is back as soon as it has tried.
KINDS: Final[dict[str, Callable[[Chaos, Cut], None]]] = {
    "plain": Chaos.plain,
    "mid-frame": Chaos.mid_frame,
    "black hole": Chaos.black_hole,
    "one-way": Chaos.one_way,
    "twice": Chaos.twice,
    "resumed": Chaos.resumed,
    "at once": Chaos.at_once,
    "handshake": Chaos.handshake,
    "client alone": Chaos.client_alone,
    "refused": Chaos.refused,
}
#: Kinds that only silence tells: each takes ``dead_after``.
SILENT: Final[dict[str, Callable[[Chaos, Cut], None]]] = {
    "silence": Chaos.silence,
    "silence one way": Chaos.silence_one_way,
    "server alone": Chaos.server_alone,
}
ALL: Final = KINDS | SILENT
