"""FreeClimb's traffic: one terminal webhook per leg, child legs, and a signature that is the only clock."""

from typing import Any, Final

from pipeline.simulate.traffic.chance import SECOND, Dice, encode, mix
from pipeline.simulate.traffic.plan import Plan, Sending

_OUT_FATES: Final = mix(completed=52, no_answer=16, busy=8, voicemail=9, failed=7, canceled=5)
_IN_FATES: Final = mix(completed=88, canceled=4, failed=4, no_answer=4)
_STATUS: Final = {"no_answer": "noAnswer", "voicemail": "completed"}
_REASONS: Final = {
    "completed": mix(farEndHangup=50, appHangup=38, maxDuration=4, webhookFailed=3, perclProcessingError=2),
    "no_answer": mix(noAnswer=1),
    "busy": mix(busy=1),
    "voicemail": mix(machineDetected=1),
    "failed": mix(failed=6, internalError=2, configErrorNoVoiceUrl=1, webhookInvalidResponse=1),
    "canceled": mix(callCanceled=4, appReject=1),
}


class FreeClimb:
    """One account with a few numbers."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.account = f"AC{dice.hex(40)}"
        self.numbers = [dice.phone() for _ in range(5)]

    def plan(self, at_us: int) -> Plan:
        """A root leg that begins at `at_us`."""
        is_outbound = self.dice.happens(0.55)
        direction = self.dice.one(("outbound", "outboundAPI")) if is_outbound else "inbound"
        ours, theirs = self.dice.one(self.numbers), self.dice.phone()
        ends = (ours, theirs) if is_outbound else (theirs, ours)
        return self.leg(at_us, direction, ends, None)

    def child(self, parent: Plan) -> Plan:
        """The leg that an answered root dials out."""
        at_us = parent.first_us + 4 * SECOND
        return self.leg(
            at_us, "outboundDial", (self.dice.one(self.numbers), self.dice.phone()), parent.call_id
        )

    def leg(self, at_us: int, direction: str, ends: tuple[str, str], parent: str | None) -> Plan:
        """One leg; seven seconds at least, so that what is told of its life comes before its end."""
        dice, call_id = self.dice, f"CA{self.dice.hex(40)}"
        fate = dice.pick(_IN_FATES if direction == "inbound" else _OUT_FATES)
        is_answered = fate in ("completed", "voicemail")
        end_us = at_us + 7 * SECOND + dice.wait(6, 0.6, 60) + (dice.wait(100, 0.9) if is_answered else 0)
        basic: dict[str, Any] = {"accountId": self.account, "callId": call_id, "conferenceId": None}
        basic |= {
            "direction": direction,
            "from": ends[0],
            "to": ends[1],
            "parentCallId": parent,
            "queueId": None,
        }
        sendings = self.early(at_us, basic, is_answered)
        sendings.append(self.sending(end_us, basic | self.end(fate, end_us - at_us)))
        simple = "inbound" if direction == "inbound" else "outbound"
        plan = Plan("freeclimb", call_id, fate, is_answered, simple, first_us=at_us, sendings=sendings)
        plan.stream = call_id
        return plan

    def early(self, at_us: int, basic: dict[str, Any], is_answered: bool) -> list[Sending]:
        """What an application is asked before the end; most receivers of the end never see it."""
        dice = self.dice
        if basic["direction"] == "inbound" and dice.happens(0.4):
            return [self.sending(at_us, basic | {"callStatus": "ringing", "requestType": "inboundCall"})]
        if is_answered and basic["direction"] == "outboundAPI" and dice.happens(0.4):
            status = "transferring" if dice.happens(0.03) else "inProgress"
            return [
                self.sending(
                    at_us + 6 * SECOND, basic | {"callStatus": status, "requestType": "outDialApiConnect"}
                )
            ]
        return []

    def end(self, fate: str, lasted_us: int) -> dict[str, Any]:
        """The fields that only the terminal webhook has."""
        dice = self.dice
        seconds = lasted_us // SECOND
        fields: dict[str, Any] = {"callStatus": _STATUS.get(fate, fate), "requestType": "callStatus"}
        has_duration = fate in ("completed", "voicemail") or dice.happens(0.5)
        fields["callDuration"] = str(seconds) if has_duration else ""
        if fate == "voicemail" or dice.happens(0.7):
            fields["callEndedReason"] = dice.pick(_REASONS[fate])
        if fate == "completed" and dice.happens(0.5):
            recording = f"RE{dice.hex(40)}"
            url = f"https://api.example.com/apiserver/Accounts/{self.account}/Recordings/{recording}/Download"
            fields |= {
                "recordingId": recording,
                "recordingUrl": url,
                "recordingDurationSec": str(seconds + 1),
            }
        elif dice.happens(0.2):
            fields |= {"recordingId": "", "recordingUrl": "", "recordingDurationSec": "0"}
        return fields

    def sending(self, at_us: int, body: dict[str, Any]) -> Sending:
        """A webhook with its keys in order, as the provider writes them."""
        signed_at = at_us // SECOND if self.dice.happens(0.9) else None
        return Sending(at_us, encode(dict(sorted(body.items()))), signed_at=signed_at)
