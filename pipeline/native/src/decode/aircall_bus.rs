//! Aircall Bus: the exact way of `pipeline/providers/aircall_bus.py`, for events in the relay's envelope, and the plain
//! way for those without it.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::{Map, RawValue, Value};
use smol_str::format_smolstr;

use super::shape::{Identity, Object, Told};
use super::{LONGEST_TEXT, Loose, Plain, Sure, Webhook, instant, loose_text, shaped, short_text};
use crate::model::{Event, Text};
use crate::word::{self, Word};

/// As whole floats they are the same numbers.
const LARGEST: u64 = 1 << 53;
/// `REDACTED.numbers`.
const NUMBERS: [&str; 6] = ["from", "to", "external", "transferer", "number", "normalized"];

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: Object<BusEvent<'a>>,
    #[serde(borrow)]
    agent_id: Loose<'a>,
    #[serde(borrow)]
    session_id: Told<'a>,
    seq: i64,
    #[serde(borrow, default)]
    sent_at: Loose<'a>,
}

#[derive(Deserialize)]
struct BusEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Told<'a>,
    #[serde(borrow)]
    payload: Object<Payload<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Payload<'a> {
    #[serde(borrow)]
    status: Loose<'a>,
    #[serde(borrow)]
    flow: Loose<'a>,
    #[serde(rename = "type", borrow)]
    kind: Loose<'a>,
    #[serde(rename = "callUuid", borrow)]
    uuid: Loose<'a>,
    #[serde(borrow)]
    from: Loose<'a>,
    #[serde(borrow)]
    to: Loose<'a>,
    /// Looked into if the event is one that is about it.
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata<'a> {
    #[serde(rename = "callUuid", borrow)]
    uuid: Loose<'a>,
    #[serde(borrow)]
    from: Loose<'a>,
    #[serde(borrow)]
    to: Loose<'a>,
}

/// What a status does to the call and to the cut.
struct Step {
    state: Option<Word>,
    cut: Option<Word>,
    direction: Option<Word>,
}

/// `STEP`, and `TRANSFER_STEP` for flow `warmTransfer`: there the ringing is that of the second leg, not the call's.
fn step(status: &str, is_transfer: bool) -> Option<Step> {
    let (state, cut, direction) = match status {
        "connecting" => (Some(word::QUEUED), Some(word::BEGIN), Some(word::OUTBOUND)),
        "accepting" => (Some(word::RINGING), Some(word::BEGIN), Some(word::INBOUND)),
        "ringing" if is_transfer => (None, None, None),
        "ringing" => (Some(word::RINGING), None, None),
        "connected" => (Some(word::IN_PROGRESS), Some(word::CONNECTED), None),
        "hanging" | "mandatoryTagging" => (Some(word::WRAP_UP), None, None),
        "merging" => (None, Some(word::MERGING), None),
        "ended" | "idle" => (Some(word::ENDED), Some(word::END), None),
        _ => return None,
    };
    Some(Step { state, cut, direction })
}

/// `aircall_bus.events`.
pub fn event(webhook: &Webhook<'_>) -> Sure<Option<Arc<Event>>> {
    if webhook.body.len() > LONGEST_TEXT || !webhook.body.is_ascii() {
        return Err(Plain);
    }
    let Ok(Object(envelope)) = shaped::<Object<Envelope<'_>>>(webhook.body) else {
        return bare_event(webhook);
    };
    let agent_id = agent_id(&envelope.agent_id)?;
    let session_id = envelope.session_id.text()?.ok_or(Plain)?;
    let seq = envelope.seq;
    if seq.unsigned_abs() > LARGEST {
        return Err(Plain);
    }
    let sent_us = instant(&envelope.sent_at)?;
    let identity = Identity::of(word::AIRCALL_BUS).text(&agent_id).text(&session_id).whole(Some(seq)).id();
    let mut event = event_of(webhook, envelope.event, identity, agent_id, sent_us)?;
    event.session_id = Some(session_id);
    event.seq = Some(seq);
    Ok(Some(Arc::new(event)))
}

/// `_plain_events`, of an event without the relay's envelope whose agent the query names.
fn bare_event(webhook: &Webhook<'_>) -> Sure<Option<Arc<Event>>> {
    let Object(told) = shaped::<Object<BusEvent<'_>>>(webhook.body)?;
    let mut whole = shaped::<Map<String, Value>>(webhook.body)?;
    if whole.contains_key("event") || whole.contains_key("agent_id") {
        return Err(Plain);
    }
    let named = (webhook.parameter)("agent_id").ok_or(Plain)?;
    let agent_id = Text::new(short_text(&named)?.ok_or(Plain)?);
    take_numbers_out(&mut whole)?;
    let canonical = serde_json::to_string(&whole).map_err(|_| Plain)?;
    let received_us = Some(webhook.received_us);
    let identity = Identity::of(word::AIRCALL_BUS).text(&agent_id).whole(received_us).text(&canonical).id();
    event_of(webhook, Object(told), identity, agent_id, None).map(|event| Some(Arc::new(event)))
}

/// `_without_numbers`. What is left is written as `canonical` does; how floats are written is Python's to say.
fn take_numbers_out(object: &mut Map<String, Value>) -> Sure<()> {
    object.retain(|name, _| !NUMBERS.contains(&name.as_str()));
    object.values_mut().try_for_each(take_numbers_out_of)
}

fn take_numbers_out_of(value: &mut Value) -> Sure<()> {
    match value {
        Value::Object(object) => take_numbers_out(object),
        Value::Array(items) => items.iter_mut().try_for_each(take_numbers_out_of),
        Value::Number(number) if number.is_f64() => Err(Plain),
        _ => Ok(()),
    }
}

/// `_event`, with what the payload says.
fn event_of(
    webhook: &Webhook<'_>,
    Object(told): Object<BusEvent<'_>>,
    identity: Text,
    agent_id: Text,
    sent_us: Option<i64>,
) -> Sure<Event> {
    let kind = told.kind.text()?.ok_or(Plain)?;
    // Two colons: no call key of a `callUuid` looks like it.
    let stream_key = format_smolstr!("aircall_bus:agent:{agent_id}");
    let at_us = sent_us.unwrap_or(webhook.received_us);
    let mut event = Event::new(identity, word::AIRCALL_BUS, stream_key, kind, at_us, webhook.received_us);
    if sent_us.is_none() {
        event.at_source = word::RECEIVED;
    }
    event.start_is_first_event = true;
    event.agent_id = Some(agent_id);
    event.channel = Some(word::PHONE);
    add_payload(&mut event, &told.payload.0)?;
    Ok(event)
}

/// What `text` makes of it.
fn agent_id(told: &Loose<'_>) -> Sure<Text> {
    match told {
        Loose::Int(number) if number.unsigned_abs() > LARGEST => Err(Plain),
        Loose::Int(_) | Loose::Text(_) => loose_text(told)?.ok_or(Plain),
        _ => Err(Plain),
    }
}

/// `_add_payload`.
fn add_payload(event: &mut Event, payload: &Payload<'_>) -> Sure<()> {
    match event.event_type.as_str() {
        "DIALER.CALL_STATUS" => {
            let flow = loose_text(&payload.flow)?;
            add_status(event, loose_text(&payload.status)?, flow.as_deref() == Some("warmTransfer"));
        }
        "DIALER.DIALING" => {
            event.cut = Some(word::BEGIN);
            event.state = Some(word::QUEUED);
            event.direction = Some(word::OUTBOUND);
            add_addresses(event, &payload.from, &payload.to)?;
        }
        "DIALER.INCOMING" => {
            event.cut = Some(word::BEGIN);
            event.state = Some(word::RINGING);
            event.ringing_us = Some(event.at_us);
            add_addresses(event, &payload.from, &payload.to)?;
            let is_internal = loose_text(&payload.kind)?.as_deref() == Some("internal");
            event.direction = Some(if is_internal { word::INTERNAL } else { word::INBOUND });
            event.provider_call_id = loose_text(&payload.uuid)?;
        }
        "DIALER.SYNC" => {
            event.cut = Some(word::SYNC);
            // "You should NOT rely on the metadata to determine the status of the call."
            let call = metadata(payload)?;
            let (uuid, from, to) = call.as_ref().map_or_else(
                || (&payload.uuid, &payload.from, &payload.to),
                |call| (&call.uuid, &call.from, &call.to),
            );
            event.provider_call_id = loose_text(uuid)?;
            add_addresses(event, from, to)?;
        }
        // `OTHER_EVENTS`: about the agent.
        "USER.AVAILABILITY_CHANGED" => {}
        _ => event.is_unknown = true,
    }
    Ok(())
}

/// The metadata, if there is any.
fn metadata<'a>(payload: &Payload<'a>) -> Sure<Option<Metadata<'a>>> {
    let within = payload.metadata.and_then(|told| told.get().strip_prefix('{')?.strip_suffix('}'));
    match (within, payload.metadata) {
        (Some(within), Some(told)) if !within.trim_ascii().is_empty() => {
            shaped::<Object<Metadata<'a>>>(told.get()).map(|Object(found)| Some(found))
        }
        _ => Ok(None),
    }
}

/// `_add_status`.
fn add_status(event: &mut Event, status: Option<Text>, is_transfer: bool) {
    match status.as_deref().and_then(|status| step(status, is_transfer)) {
        Some(step) => take_step(event, &step, status.as_deref() == Some("ringing"), is_transfer),
        // `TRANSFER_STATUSES`: on the way of a transfer, which change nothing for the call itself.
        None => event.is_unknown = !matches!(status.as_deref(), Some("startingWarmTransfer" | "swapping")),
    }
    event.raw_status = status;
}

fn take_step(event: &mut Event, step: &Step, is_ringing: bool, is_transfer: bool) {
    event.state = step.state;
    event.cut = step.cut;
    event.direction = step.direction;
    let at_us = Some(event.at_us);
    if is_ringing {
        event.ringing_us = at_us.filter(|_| step.state == Some(word::RINGING));
    } else if step.cut == Some(word::CONNECTED) {
        // A second leg is connected only to a call that was: evidence, but not the time of its answer.
        event.answer_evidence = Some(true);
        event.answered_us = at_us.filter(|_| !is_transfer);
    } else if step.state == Some(word::WRAP_UP) {
        event.hangup_us = at_us;
    } else if step.state == Some(word::ENDED) {
        // `ended` covers hang-up, reject and lost connection alike; no reason is given.
        (event.ended_us, event.hangup_us) = (at_us, at_us);
        event.unanswered_outcome = Some(word::NO_ANSWER);
    }
}

fn add_addresses(event: &mut Event, from: &Loose<'_>, to: &Loose<'_>) -> Sure<()> {
    event.from_number = address(from)?;
    event.to_number = address(to)?;
    Ok(())
}

/// `_address`: agents are addressed as `client:<agent id>`, which is nobody's telephone number.
fn address(told: &Loose<'_>) -> Sure<Option<Text>> {
    Ok(loose_text(told)?.filter(|found| !found.starts_with("client:")))
}
