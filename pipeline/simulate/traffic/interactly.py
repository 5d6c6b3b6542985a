"""Interactly's traffic: status updates with whole assistants, growing conversations, a report minutes later."""

from typing import Any, Final

from pipeline.simulate.traffic import words
from pipeline.simulate.traffic.assistants import Assistant, make_assistant
from pipeline.simulate.traffic.chance import MILLISECOND, SECOND, Dice, encode, iso_ms, mix
from pipeline.simulate.traffic.plan import Plan, Sending

_FATES: Final = mix(completed=70, forwarded=6, no_answer=9, busy=5, failed=3, canceled=3, unknown=1)
_PHONE_STATUS: Final = {"no_answer": "no-answer", "unknown": "completed"}
_TRIGGERS: Final = mix(user=48, bot=44, system=8)
_SCORES: Final = ("Excellent", "Good", "Fair", "Poor")
_ERRORS: Final = (
    ("llm_error", "rate_limited", "openai"),
    ("stt_error", "timeout", "deepgram"),
    ("tts_error", "quota", ""),
)
_CLINICS: Final = ("Apollo Clinic", "Mary Dental", "Lakeside Orthopaedics", "Northgate Eye Care")


class Interactly:
    """A few teams and their assistants."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        teams = [dice.hex(24) for _ in range(2)]
        self.assistants = [make_assistant(dice, teams[i % 2], name) for i, name in enumerate(_CLINICS)]

    def plan(self, at_us: int) -> Plan:
        """A call that is queued at `at_us`."""
        dice = self.dice
        is_web, is_outbound = dice.happens(0.35), dice.happens(0.6)
        fate = (
            dice.pick(_FATES)
            if is_outbound and not is_web
            else dice.one(("completed",) * 14 + ("forwarded",))
        )
        call = _Call(dice, dice.one(self.assistants), is_web, is_outbound and not is_web, at_us)
        call.queue()
        if fate in ("completed", "forwarded"):
            call.converse("finished" if fate == "completed" else "forwarded")
        else:
            call.fail(_PHONE_STATUS.get(fate, fate))
        is_answered = {"completed": True, "forwarded": True, "unknown": None}.get(fate, False)
        return Plan(
            "interactly",
            call.facts["id"],
            fate,
            is_answered,
            call.facts["direction"],
            talk_seconds=call.facts["assistantCallDuration"] / 1000 if is_answered else None,
            is_transferred=fate == "forwarded",
            sendings=call.sendings,
            stream=call.facts["id"],
        )


class _Call:
    """One call as it goes on: `facts` is the call object of the next message."""

    def __init__(self, dice: Dice, assistant: Assistant, is_web: bool, is_outbound: bool, at_us: int) -> None:
        self.dice, self.assistant, self.at_us = dice, assistant, at_us
        self.is_web = is_web
        self.sendings: list[Sending] = []
        self.messages: list[dict[str, Any]] = []
        self.user = f"web-{dice.one(words.NAMES)}" if is_web else dice.phone()
        self.facts: dict[str, Any] = {
            "id": f"WC-{dice.uuid()}" if is_web else dice.uuid(),
            "teamId": assistant.team_id,
            "assistantId": assistant.assistant_id,
            "callType": "web" if is_web else "phone",
            "direction": "outbound" if is_outbound else "inbound",
            "startAt": iso_ms(at_us),
            "userNumber": self.user,
            "assistantNumber": assistant.assistant_id if is_web else assistant.number,
            "status": "queued",
            "phoneCallStatus": "in-progress" if is_web else "queued",
            "phoneCallStatusReason": "Call is in progress",
            "callEndTriggerBy": "",
            "assistantCallDuration": 0,
            "analysis": {"summary": "", "successEvaluation": ""},
            "recording": {"s3Bucket": "", "path": ""},
            "assistantOverrides": {},
            "metadata": {},
        }

    def send(self, kind: str, assistant: Any = None, **more: Any) -> None:
        message = {"timestamp": self.at_us // MILLISECOND, "type": kind, "call": self.facts}
        message |= {"assistant": assistant if assistant is not None else {}, **more}
        message["phone"] = {"provider": {"name": "" if self.is_web else "twilio"}}
        message["customer"] = {"number": self.user}
        message.setdefault("analysis", {})
        self.sendings.append(Sending(self.at_us, encode({"message": message})))

    def status(self, status: str, phone_status: str) -> None:
        reason = {"in-progress": "Call is in progress", "completed": "Call is completed"}
        self.facts |= {"status": status, "phoneCallStatus": phone_status}
        self.facts["phoneCallStatusReason"] = reason.get(phone_status, f"Call is {phone_status}")
        is_full = self.dice.happens(0.85)
        self.send("status-update", self.assistant.full if is_full else self.assistant.brief)

    def queue(self) -> None:
        self.at_us += self.dice.randint(200, 500) * MILLISECOND
        self.status("queued", self.facts["phoneCallStatus"])
        if not self.is_web and self.dice.happens(0.004):
            self.at_us += 700 * MILLISECOND
            self.status("dialing", "ringing")

    def converse(self, end_status: str) -> None:
        dice = self.dice
        self.at_us += dice.wait(0.4 if self.is_web else 7, 0.5, 50)
        begun_us = self.at_us - 40 * MILLISECOND
        self.facts["startAt"] = iso_ms(begun_us)
        self.status("ongoing", "in-progress")
        talk_us = dice.wait(110, 0.9, 3600)
        turns = min(7, 1 + talk_us // (40 * SECOND))
        for turn in range(turns):
            self.at_us = begun_us + 50 * MILLISECOND + (talk_us - 45 * MILLISECOND) * turn // turns
            self.talk(turn)
        self.trouble(begun_us + talk_us - 2 * MILLISECOND)
        duration_ms = talk_us // MILLISECOND
        self.end(
            end_status,
            "completed",
            dice.pick(_TRIGGERS),
            begun_us,
            talk_us,
            duration_ms + dice.randint(0, 15),
        )

    def talk(self, turn: int) -> None:
        """The whole conversation so far, every time."""
        for index in range(2 * turn, 2 * turn + 2):
            who, said = words.line(self.dice, index)
            message = {
                "messageId": f"m-{index}",
                "role": who,
                "text": said,
                "timestamp": self.at_us // 1000 - 2,
            }
            self.messages.append(message)
        brief = self.assistant.brief if self.dice.happens(0.2) else None
        self.send("conversation-update", brief, messages=self.messages)

    def trouble(self, latest_us: int) -> None:
        """Silence, errors, and message types nobody has heard of: none of them ends the call."""
        dice = self.dice
        for share, kind in ((0.05, "hang"), (0.04, "error"), (0.005, "transfer-destination-request")):
            if dice.happens(share):
                self.at_us = max(self.at_us + MILLISECOND, latest_us - 40 * MILLISECOND)
                error, code, vendor = dice.one(_ERRORS)
                detail = {"type": error, "code": code, "message": f"{vendor} said {code}", "provider": vendor}
                self.send(kind, **({"error": detail | {"retryable": True}} if kind == "error" else {}))

    def fail(self, phone_status: str) -> None:
        begun_us = self.at_us
        self.at_us += self.dice.wait(3 if phone_status in ("failed", "busy") else 25, 0.4, 90)
        self.end("finished", phone_status, "system", begun_us, self.at_us - begun_us, 0)

    def end(
        self, status: str, phone_status: str, trigger: str, begun_us: int, lasted_us: int, duration_ms: int
    ) -> None:
        dice, end_us = self.dice, begun_us + lasted_us
        self.facts |= {"callEndTriggerBy": trigger, "assistantCallDuration": duration_ms}
        self.at_us = max(end_us, self.at_us) + dice.randint(50, 400) * MILLISECOND
        self.status(status, phone_status)
        self.at_us += dice.wait(25 if duration_ms else 3, 1.0, 600)
        seconds = lasted_us / SECOND if duration_ms else 0
        self.facts |= {"endAt": iso_ms(end_us), "cost": _cost(dice, seconds)}
        if duration_ms:
            path = f"{self.assistant.team_id}/{self.facts['id']}.mp3"
            self.facts["recording"] = {"s3Bucket": "interactly-us-recordings", "path": path}
            self.facts["metrics"] = _metrics(dice, len(self.messages))
        structured = {"Name": "", "phone number": "", "serial_number": 0}
        analysis = {"summary": "", "successEvaluation": "", "structuredData": structured, "outcome": ""}
        if duration_ms:
            analysis |= {"summary": words.transcript(dice, 2), "successEvaluation": dice.one(_SCORES)}
        self.send("end-of-call-report", messages=self.messages, analysis=analysis)


def _cost(dice: Dice, seconds: float) -> dict[str, Any]:
    per_minute = {
        "interactlyCost": 0.01,
        "ttsVendorCost": 0.015,
        "sttVendorCost": 0.0077,
        "llmVendorCost": 0.002,
    }
    cost: dict[str, Any] = {"analysis": {"total": 0}, "callDuration": seconds}
    cost |= {
        "ttsGenCharsTotal": int(seconds * 3),
        "inputTokensTotal": int(seconds * 12),
        "outputTokensTotal": int(seconds),
    }
    vendors = {
        name: round(rate * seconds / 60 * (0.9 + 0.2 * dice.random()), 9) for name, rate in per_minute.items()
    }
    return cost | vendors | {"phoneCost": 0.0165, "totalCost": round(sum(vendors.values()) + 0.0165, 9)}


def _metrics(dice: Dice, turns: int) -> dict[str, Any]:
    audio = {
        "delayedChunksCount": dice.randint(0, 90),
        "latencyAvg": 80 + 60 * dice.random(),
        "droppedChunksCount": 0,
    }
    hearing = {"responseCount": turns, "responseLatencyAvg": -309.399, "connectionRetries": 0, "errors": 0}
    return {
        "callStats": {
            "userAudio": audio,
            "turns": {"user": turns // 2, "bot": turns // 2},
            "sttStats": hearing,
        }
    }
