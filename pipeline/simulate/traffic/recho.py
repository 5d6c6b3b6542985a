"""Recho's traffic: statuses without times, redials under new legs, and two endpoints telling the same thing."""

from typing import Any, Final

from pipeline.simulate.traffic.chance import SECOND, Dice, encode, iso_ms, mix
from pipeline.simulate.traffic.plan import Plan, Sending

_OUT_FATES: Final = mix(
    completed=50, no_answer=13, busy=6, unreachable=4, expired=3, canceled=3, voicemail=5, limit=3, failed=4,
    redial=9
)  # fmt: skip
_IN_FATES: Final = mix(completed=86, limit=5, failed_answered=4, failed=5)
_END: Final = {"no_answer": "NO_RESPONSE", "busy": "BUSY", "unreachable": "UNREACHABLE"}
_LIMITS: Final = ("LIMIT_REACHED", "CONCURRENCY_LIMIT_EXCEEDED")
_FAILURES: Final = ("CALLING", "ERROR", "HEALTHCHECK_FAILED", "CONNECTING")
_CODES: Final = (
    ("NETWORK_ERROR", "Connection timed out", "OutboundCallAdapter.connect", "CONNECTING"),
    ("LLM_ERROR", "Model did not answer", "DialogueEngine.reply", "CALLING"),
    ("PROVIDER_ERROR", "Carrier rejected the request", "TelephonyGateway.dial", "REQUESTED"),
)
_RULE: Final = "━━━━━━━━━━━━━━"


class Recho:
    """A few projects; some do not subscribe to PENDING, some have two endpoints that lead to us."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.projects = [dice.uuid() for _ in range(5)]

    def plan(self, at_us: int) -> Plan:
        """A call whose first event is at about `at_us`."""
        dice = self.dice
        index = int(dice.random() * len(self.projects))
        is_outbound = dice.happens(0.75)
        call = _Call(
            dice, self.projects[index], "OUTBOUND" if is_outbound else "INBOUND", at_us, is_doubled=index == 3
        )
        if is_outbound:
            outcome = call.dial(dice.pick(_OUT_FATES), has_pending=index != 4)
        else:
            outcome = call.receive(dice.pick(_IN_FATES))
        is_answered = outcome in ("completed", "voicemail") or (outcome == "failed" and call.was_answered)
        direction = "outbound" if is_outbound else "inbound"
        plan = Plan("recho", call.call_id, outcome, is_answered, direction, attempts=max(1, call.attempts))
        plan.sendings, plan.stream = call.sendings, call.call_id
        return plan


class _Call:
    def __init__(self, dice: Dice, project: str, side: str, at_us: int, is_doubled: bool) -> None:
        self.dice, self.project, self.side, self.at_us = dice, project, side, at_us
        self.is_doubled = is_doubled
        self.call_id, self.client = dice.uuid(), f"client-{dice.randint(1, 400)}"
        self.has_sids = dice.happens(0.85)
        self.sid: str | None = None
        self.attempts = 0
        self.was_answered = False
        self.sendings: list[Sending] = []

    def send(self, event: str, status: str | None = None, errors: int = 0) -> None:
        """One event; the clock then moves by at least a second, so that no two texts are the same."""
        status = status or event
        event_type = f"{self.side}_CALL_{event}"
        data = {"callId": self.call_id, "callStatus": status, "callSid": self.sid, "clientId": self.client}
        failures = [self.error() for _ in range(errors)]
        body = {
            "subject": f"[Recho] {event_type}",
            "text": self.text(data, failures),
            "data": data,
            "errors": failures,
        }
        for number in (1, 2) if self.is_doubled else (1,):
            endpoint: dict[str, Any] = {
                "id": f"ep-00{number}",
                "name": f"Notifications {number}",
                "endpointType": "CUSTOM",
            }
            endpoint |= {"target": "https://hooks.example.com/webhooks/recho", "contentKey": None}
            payload = {
                "projectId": self.project,
                "webhookEndpoint": endpoint,
                "eventType": event_type,
                "body": body,
            }
            payload["authConfig"] = {"authType": "BEARER"}
            sent_us = self.at_us + (number - 1) * 60_000
            self.sendings.append(Sending(sent_us, encode(payload), is_movable=False))

    def error(self) -> dict[str, str]:
        code, message, where, phase = self.dice.one(_CODES)
        return {
            "code": code,
            "message": message,
            "timestamp": iso_ms(self.at_us - self.dice.randint(500, 15_000) * 1000),
            "where": where,
            "phase": phase,
            "stacktrace": "",
        }

    def text(self, data: dict[str, Any], errors: list[dict[str, str]]) -> str:
        lines = [f"{key}: {value}" for key, value in data.items()]
        said = [f" - [{error['code']}] {error['message']} (phase: {error['phase']})" for error in errors]
        problems = ["Errors:", *said, _RULE] if said else []
        time = iso_ms(self.at_us)[:19].replace("T", " ")
        return "\n".join(["[Recho] call", _RULE, *lines, _RULE, *problems, f"Time: {time}"])

    def wait(self, median_seconds: float, spread: float = 0.6, most_seconds: float = 3600) -> None:
        self.at_us += SECOND + self.dice.wait(median_seconds, spread, most_seconds)

    def dial(self, fate: str, has_pending: bool) -> str:
        """An outbound call; returns the outcome."""
        if has_pending or fate in ("expired", "canceled"):
            self.send("PENDING")
            self.wait(8, 1.0, 1200)
        if fate in ("expired", "canceled"):
            self.wait(60, 0.8, 1800)
            self.send(fate.upper())
            return fate
        if fate == "redial":
            return self.redial()
        self.attempt()
        if fate == "completed":
            return self.complete()
        if fate in _END:
            self.send(_END[fate])
            return fate
        status, outcome = self.misfortune(fate)
        self.send("ERROR", status, errors=0 if self.dice.happens(0.3) else 1)
        return outcome

    def misfortune(self, fate: str) -> tuple[str, str]:
        if fate == "voicemail":
            return "VOICEMAIL_REACHED", "voicemail"
        if fate == "limit":
            return self.dice.one(_LIMITS), "limit_reached"
        return self.dice.one(_FAILURES), "failed"

    def attempt(self) -> None:
        self.attempts += 1
        self.sid = f"CA{self.dice.hex(32)}" if self.has_sids else None
        self.send("REQUESTED")
        self.wait(1.5, 0.5)
        self.send("CALLING")
        self.wait(16, 0.5, 90)

    def redial(self) -> str:
        """Attempts that come to nothing, then a conversation or the end of patience."""
        for _ in range(self.dice.randint(1, 3)):
            self.attempt()
            self.send(self.dice.one(("NO_RESPONSE", "NO_RESPONSE", "BUSY", "UNREACHABLE")))
            self.wait(240, 0.6, 1800)
        self.attempt()
        if self.dice.happens(0.55):
            return self.complete()
        self.send("NO_RESPONSE")
        self.wait(1)
        self.send("MAX_ATTEMPTS_REACHED")
        return "max_attempts"

    def complete(self) -> str:
        self.was_answered = True
        self.wait(95, 0.9)
        if self.dice.happens(0.01):
            self.send("ERROR", "CALLING", errors=1)
            self.wait(5)
        self.send("CLOSING")
        self.wait(9, 0.7, 300)
        self.send("COMPLETED", errors=1 if self.dice.happens(0.04) else 0)
        if self.dice.happens(0.01):
            self.wait(20)
            self.send("SUMMARIZED", "COMPLETED")
        return "completed"

    def receive(self, fate: str) -> str:
        """An inbound call; returns the outcome."""
        self.sid = f"CA{self.dice.hex(32)}" if self.has_sids else None
        if fate != "limit" or self.dice.happens(0.5):
            self.send("CONNECTING")
            self.wait(1.5, 0.5, 20)
        if fate == "limit":
            self.send("CONCURRENCY_LIMIT_EXCEEDED")
            return "limit_reached"
        if fate == "failed":
            self.send("ERROR", errors=2)
            return "failed"
        self.send("CALLING")
        self.was_answered = True
        if fate == "failed_answered":
            self.wait(30)
            self.send("ERROR", "CALLING", errors=1)
            return "failed"
        return self.complete()
