"""Whippy's traffic: two generations of one payload, reasons without an end, analysis first or last."""

from typing import Any, Final

from pipeline.simulate.traffic import words
from pipeline.simulate.traffic.chance import MILLISECOND, SECOND, Dice, encode, iso_us, mix
from pipeline.simulate.traffic.plan import Plan, Sending

_REASONS: Final = mix(
    user_hangup=36, agent_hangup=24, call_transfer=4, voicemail_reached=5, dial_no_answer=8, dial_busy=4, dial_failed=2,
    invalid_destination=1, user_declined=2, concurrency_limit_reached=2, inactivity=2, max_duration_reached=1,
    error_llm_websocket_open=1, error_no_audio_received=1, error_asr=0.6, error_unknown=0.6, ivr_reached=0.8,
    marked_as_spam=0.4, scam_detected=0.3, manual_stopped=0.3, bare=2
)  # fmt: skip
_OUTCOME: Final = {
    "call_transfer": "forwarded",
    "voicemail_reached": "voicemail",
    "dial_no_answer": "no_answer",
    "dial_busy": "busy",
    "dial_failed": "failed",
    "invalid_destination": "failed",
    "user_declined": "rejected",
    "concurrency_limit_reached": "limit_reached",
}
_NEVER_STARTED: Final = frozenset(
    {
        "dial_no_answer",
        "dial_busy",
        "dial_failed",
        "invalid_destination",
        "user_declined",
        "concurrency_limit_reached",
    }
)
_NULLS: Final = (
    "step_id",
    "language",
    "campaign_id",
    "step_contact_id",
    "campaign_contact_id",
    "translation_language",
)


class Whippy:
    """Channels and agents of one account."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.channels = [(dice.uuid(), dice.phone()) for _ in range(4)]
        self.agents = [dice.uuid() for _ in range(6)]

    def plan(self, at_us: int) -> Plan:
        """A call whose row is created at `at_us`."""
        dice = self.dice
        reason = dice.pick(_REASONS)
        call = _Call(dice, dice.one(self.channels), dice.one(self.agents), at_us, is_new=dice.happens(0.7))
        talk_seconds = call.go(reason)
        outcome = "failed" if reason.startswith("error_") else _OUTCOME.get(reason, "completed")
        is_answered = reason not in _NEVER_STARTED
        plan = Plan("whippy", call.data["id"], outcome, is_answered, call.data["direction"].lower())
        plan.talk_seconds = talk_seconds if is_answered and call.is_new else None
        plan.is_transferred = outcome == "forwarded"
        plan.sendings, plan.stream = call.sendings, call.data["id"]
        return plan


class _Call:
    def __init__(self, dice: Dice, channel: tuple[str, str], agent: str, at_us: int, is_new: bool) -> None:
        self.dice, self.agent, self.is_new = dice, agent, is_new
        self.sendings: list[Sending] = []
        self.created_us = at_us + dice.randint(0, 999)
        self.request_id = dice.uuid()
        is_outbound = dice.happens(0.55)
        ours, theirs = channel[1], dice.phone()
        self.data: dict[str, Any] = {
            "id": dice.uuid(),
            "to": theirs if is_outbound else ours,
            "body": None,
            "from": ours if is_outbound else theirs,
            **dict.fromkeys(_NULLS),
            "direction": "OUTBOUND" if is_outbound else "INBOUND",
            "channel_id": channel[0],
            "contact_id": dice.uuid(),
            "created_at": iso_us(self.created_us),
            "updated_at": iso_us(self.created_us),
            "attachments": [],
            "conversation_id": dice.uuid(),
            "delivery_status": "call_in_progress",
            "translated_body": None,
            "user_id": None if is_new else dice.randint(1, 60),
        }
        if is_new:
            ids = {"agent_id": agent, "agent_version_id": dice.uuid(), "llm_id": dice.uuid()}
            kind = "web" if dice.happens(0.1) else "phone"
            metadata = {
                "type": kind,
                "duration": None,
                "placeholders_data": {"last_name||sir": "Hessel"},
                **ids,
            }
            self.data |= {"type": "call", "mode": "ai", "sequence_id": None, "metadata": metadata}

    def send(self, event: str, at_us: int) -> None:
        envelope: dict[str, Any] = {"data": self.data, "event": event}
        if self.is_new:
            envelope |= {"api_version": "v1", "created_at": iso_us(at_us), "request_id": self.dice.uuid()}
        else:
            envelope["request_id"] = self.request_id
        self.sendings.append(Sending(at_us, encode(envelope)))

    def go(self, reason: str) -> float:
        """All the events of the call; returns the seconds from its start event to its end."""
        dice = self.dice
        answered_us = self.created_us + dice.wait(5, 0.5, 60)
        if reason in _NEVER_STARTED:
            end_us = answered_us + dice.wait(8, 0.6, 60)
        else:
            self.send("call.started", answered_us)
            end_us = answered_us + dice.wait(85, 0.9, 3600)
        self.data["delivery_status"] = "call_completed" if reason == "bare" else f"call_completed.{reason}"
        if reason not in _NEVER_STARTED:
            self.data["body"] = words.transcript(dice, min(24, 2 + (end_us - answered_us) // (12 * SECOND)))
        if self.is_new:
            self.data["metadata"]["duration"] = (
                (end_us - answered_us) // MILLISECOND if self.data["body"] else 0
            )
        if self.is_new or dice.happens(0.5):
            self.data["updated_at"] = iso_us(end_us)
        sent_us = end_us + dice.wait(0.8, 0.4, 5)
        analysed_us = sent_us + dice.wait(20, 0.8, 400)
        is_analysed = self.data["body"] is not None and dice.happens(0.9)
        if is_analysed and dice.happens(0.06):
            sent_us, analysed_us = analysed_us, sent_us
        self.finish(sent_us, analysed_us if is_analysed else None)
        return (end_us - answered_us) / SECOND

    def finish(self, ended_us: int, analysed_us: int | None) -> None:
        """The end and the analysis, whichever comes first; now and then things that are not calls."""
        self.send("call.ended", ended_us)
        if self.dice.happens(0.006):
            self.send("call.recording_ready", ended_us + 900 * MILLISECOND)
        if self.dice.happens(0.03):
            self.text_message(ended_us + 1200 * MILLISECOND)
        if analysed_us is not None:
            base = f"https://files.example.com/organization_{self.agent}/calls/"
            kinds = (("application/json", "analysis.json"), ("audio/x-wav", "recording.wav"))
            self.data["attachments"] = [
                {"content_type": kind, "agent_id": self.agent, "url": f"{base}{self.dice.uuid()}/{name}"}
                for kind, name in (*kinds, ("application/json", "transcript.json"))
            ]
            self.send("call.analyzed", analysed_us)
        self.sendings.sort(key=lambda sending: sending.at_us)

    def text_message(self, at_us: int) -> None:
        data = {
            "id": self.dice.uuid(),
            "type": "sms",
            "delivery_status": "delivered",
            "body": "See you on Friday.",
        }
        data |= {
            "from": self.data["from"],
            "to": self.data["to"],
            "conversation_id": self.data["conversation_id"],
        }
        envelope = {"data": data, "event": "message.sent", "request_id": self.dice.uuid()}
        self.sendings.append(Sending(at_us, encode(envelope)))
