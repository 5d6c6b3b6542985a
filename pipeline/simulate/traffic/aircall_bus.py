"""The bus's traffic: agents with one call at a time, whose browser pages relay what the dialer says."""

import heapq
from typing import Any, Final

from pipeline.simulate.traffic.chance import MILLISECOND, SECOND, Dice, encode, iso_ms, mix
from pipeline.simulate.traffic.plan import Plan, Sending

_FATES: Final = mix(completed=66, merged=4, swapped=2, dropped=2, missed=26)
_SESSION_GAP: Final = 3 * 3600 * SECOND


class _Agent:
    """One agent: `last_us` is when the stream was last heard of."""

    def __init__(self, dice: Dice, agent_id: int) -> None:
        self.agent_id = agent_id
        self.is_bare = dice.happens(0.1)
        self.tags = dice.happens(0.4)
        self.number = dice.phone()
        self.session, self.seq, self.last_us = "", 0, 0


class AircallBus:
    """As many agents as it takes; whoever has been free the longest takes the call."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.free: list[tuple[int, int]] = []
        self.agents: dict[int, _Agent] = {}
        for _ in range(8):
            self.hire()

    def hire(self) -> None:
        """One agent more."""
        agent = _Agent(self.dice, 41_000 + len(self.agents))
        self.agents[agent.agent_id] = agent
        heapq.heappush(self.free, (0, agent.agent_id))

    def plan(self, at_us: int) -> Plan:
        """A call that begins at `at_us`."""
        if self.free[0][0] > at_us:
            self.hire()
        _, agent_id = heapq.heappop(self.free)
        agent = self.agents[agent_id]
        call = _Call(self.dice, agent, at_us)
        plan = call.go(self.dice.pick(_FATES))
        agent.last_us = call.at_us
        heapq.heappush(self.free, (call.at_us + self.dice.wait(8, 0.8, 120), agent_id))
        return plan


class _Call:
    def __init__(self, dice: Dice, agent: _Agent, at_us: int) -> None:
        self.dice, self.agent, self.at_us = dice, agent, at_us
        self.uuid = f"CA{dice.hex(32)}"
        self.sendings: list[Sending] = []
        if at_us - agent.last_us > _SESSION_GAP:
            agent.session, agent.seq = f"s-{dice.hex(16)}", 0

    def send(self, kind: str, payload: dict[str, Any]) -> None:
        event = {"type": kind, "payload": payload}
        if self.agent.is_bare:
            self.sendings.append(Sending(self.at_us, encode(event), is_movable=False, is_instant=True))
            return
        self.agent.seq += 1
        envelope = {"agent_id": self.agent.agent_id, "session_id": self.agent.session, "seq": self.agent.seq}
        envelope |= {"sent_at": iso_ms(self.at_us), "event": event}
        self.sendings.append(Sending(self.at_us, encode(envelope)))

    def status(self, status: str, flow: str | None = "regular") -> None:
        self.send("DIALER.CALL_STATUS", {"status": status} | ({"flow": flow} if flow else {}))

    def wait(self, median_seconds: float, spread: float = 0.5, most_seconds: float = 3600) -> int:
        self.at_us += self.dice.wait(median_seconds, spread, most_seconds)
        return self.at_us

    def go(self, fate: str) -> Plan:
        """All the events of the call."""
        direction = self.dice.one(("outbound",) * 11 + ("inbound",) * 8 + ("internal",))
        is_answered = fate != "missed"
        outcome = {"missed": "no_answer", "merged": "forwarded"}.get(fate, "completed")
        agent = self.agent
        plan = Plan("aircall_bus", None, outcome, is_answered, direction, str(agent.agent_id), self.at_us)
        self.begin(direction, is_answered)
        if is_answered:
            answered_us = self.at_us
            self.status("connected")
            self.sync(direction)
            self.wait(120, 0.9)
            if fate != "completed":
                self.transfer(fate)
            plan.talk_seconds = (self.hang_up(fate == "merged") - answered_us) / SECOND
        else:
            self.give_up(direction)
        self.after(direction)
        plan.is_transferred = fate == "merged"
        plan.sendings, plan.stream = self.sendings, f"agent-{agent.agent_id}"
        plan.query = b'{"agent_id":"%d"}' % agent.agent_id if agent.is_bare else b""
        return plan

    def begin(self, direction: str, is_answered: bool) -> None:
        agent, dice = self.agent, self.dice
        self.theirs = f"client:{dice.randint(41_000, 41_020)}" if direction == "internal" else dice.phone()
        if direction == "outbound":
            self.send("DIALER.DIALING", {"from": agent.number, "to": self.theirs})
            self.wait(0.3)
            self.status("connecting")
            self.wait(1.2)
            self.status("ringing")
            self.wait(9, 0.6, 60)
            return
        kind = "internal" if direction == "internal" else dice.one(("external",) * 9 + ("cold-transfer",))
        to = f"client:{agent.agent_id}" if kind != "external" else agent.number
        self.send("DIALER.INCOMING", {"from": self.theirs, "to": to, "callUuid": self.uuid, "type": kind})
        self.wait(6, 0.6, 45)
        if is_answered:
            self.status("accepting")
            self.wait(0.6)

    def sync(self, direction: str) -> None:
        """Ids and numbers, once they are known; sent only if something changed."""
        if self.dice.happens(0.8):
            self.wait(0.4)
            ours = {"user": {"id": self.agent.agent_id}, "legId": f"leg-{self.uuid[-8:]}", "isHeld": False}
            outgoing = direction == "outbound"
            ends = (self.agent.number, self.theirs) if outgoing else (self.theirs, self.agent.number)
            metadata: dict[str, Any] = {"id": 7_000_000 + self.agent.seq, "callUuid": self.uuid}
            metadata |= {"line": {"id": 12, "name": "Front desk", "number": self.agent.number}}
            if direction != "internal":
                metadata |= {"from": ends[0], "to": ends[1]}
            metadata |= {"canControlRecording": True, "recordingState": "recording", "me": ours}
            metadata["direction"] = "outgoing" if outgoing else "incoming"
            self.send("DIALER.SYNC", {"metadata": metadata})
        if self.dice.happens(0.01):
            self.wait(5)
            self.status("onHold")
            self.wait(5)
            self.send("DIALER.MUTED", {"isMuted": True})

    def transfer(self, fate: str) -> None:
        """A warm transfer: merged, or swapped to and fro, or dropped before anybody answered it."""
        self.status("startingWarmTransfer")
        self.wait(1)
        self.status("ringing", "warmTransfer")
        self.wait(8)
        if fate == "dropped":
            self.status("connected")
            self.wait(30, 0.8)
            return
        self.status("connected", "warmTransfer")
        self.wait(20)
        for _ in range(2 if fate == "swapped" else 0):
            self.status("swapping", "warmTransfer")
            self.wait(0.5)
            self.status("connected", "warmTransfer")
            self.wait(12)
        if fate == "merged" or self.dice.happens(0.3):
            self.status("merging", "warmTransfer")
            self.wait(0.8)
        if fate != "merged":
            self.status("connected")
            self.wait(20, 0.8)

    def hang_up(self, is_merged: bool) -> int:
        """The end of the talk, and of the call; returns when the talk ended."""
        if is_merged:
            self.status("ended")
            return self.at_us
        over_us = self.at_us
        self.status("hanging")
        self.wait(0.3)
        if self.agent.tags:
            self.tag()
        self.status("ended")
        return over_us

    def tag(self) -> None:
        self.status("mandatoryTagging")
        self.at_us += 60 * MILLISECOND
        updated = self.at_us + self.dice.randint(0, 999)
        payload = {"userId": self.agent.agent_id, "status": "after_call_work", "updatedAt": updated}
        self.send("USER.AVAILABILITY_CHANGED", payload)
        self.wait(18, 0.8, 600)

    def give_up(self, direction: str) -> None:
        if direction == "outbound":
            self.status("hanging")
            self.wait(0.3)
        if self.dice.happens(0.04):
            self.status("idle", None)
        else:
            self.status("ended")

    def after(self, direction: str) -> None:
        """What the dialer says once the call is over."""
        if self.dice.happens(0.5):
            self.wait(1.5)
            self.sync(direction)
        if self.dice.happens(0.15):
            self.wait(3)
            self.status("idle", None)
        if self.agent.tags and self.dice.happens(0.5):
            self.wait(1)
            payload = {"userId": self.agent.agent_id, "status": "available", "updatedAt": self.at_us + 7}
            self.send("USER.AVAILABILITY_CHANGED", payload)
