//! FreeClimb: the exact way of `pipeline/providers/freeclimb.py`.

use std::sync::Arc;

use serde::Deserialize;

use super::shape::{Identity, Object, Told};
use super::{Loose, Plain, Sure, Webhook, instant, seconds, shaped, text_instant};
use crate::model::{Event, Text, call_key};
use crate::word::{self, Word};

const SIGNATURE_HEADER: &str = "freeclimb-signature";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Body<'a> {
    request_type: Told<'a>,
    call_id: Told<'a>,
    account_id: Told<'a>,
    #[serde(rename = "from")]
    from_number: Told<'a>,
    to: Told<'a>,
    call_status: Told<'a>,
    direction: Told<'a>,
    call_ended_reason: Told<'a>,
    parent_call_id: Told<'a>,
    recording_url: Told<'a>,
    call_duration: Loose<'a>,
}

/// `OUTCOME`.
fn outcome(status: &str) -> Option<Word> {
    Some(match status {
        "completed" => word::COMPLETED,
        "busy" => word::BUSY,
        "failed" => word::FAILED,
        "noAnswer" => word::NO_ANSWER,
        "canceled" => word::CANCELED,
        _ => return None,
    })
}

/// `STATE`.
fn state(status: &str) -> Option<Word> {
    Some(match status {
        "queued" => word::QUEUED,
        "ringing" => word::RINGING,
        "inProgress" => word::IN_PROGRESS,
        _ => return None,
    })
}

/// `END_TRIGGER`; of the others it is the system.
fn end_trigger(reason: &str) -> Word {
    match reason {
        "farEndHangup" => word::CUSTOMER,
        "appHangup" | "appReject" => word::AGENT,
        _ => word::SYSTEM,
    }
}

/// `DIRECTION`.
fn direction(told: &str) -> Option<Word> {
    Some(match told {
        "inbound" => word::INBOUND,
        "outbound" | "outboundAPI" | "outboundDial" => word::OUTBOUND,
        _ => return None,
    })
}

/// `OTHER_REQUESTS`.
const OTHER_REQUESTS: [&str; 21] = [
    "inboundCall",
    "record",
    "getDigits",
    "getSpeech",
    "redirect",
    "pause",
    "outDialStart",
    "outDialConnect",
    "outDialApiConnect",
    "machineDetected",
    "dequeue",
    "queueWait",
    "addToQueueNotification",
    "removeFromQueueNotification",
    "createConference",
    "conferenceStatus",
    "leaveConference",
    "addToConferenceNotification",
    "conferenceRecordingStatus",
    "conferenceCallControl",
    "callControl",
];

/// `freeclimb.events`.
pub fn event(webhook: &Webhook<'_>) -> Sure<Option<Arc<Event>>> {
    let Object(body) = shaped::<Object<Body<'_>>>(webhook.body)?;
    let call_id = body.call_id.text()?.ok_or(Plain)?;
    let (kind, status, reason) =
        (body.request_type.text()?, body.call_status.text()?, body.call_ended_reason.text()?);
    let (account_id, direction_told) = (body.account_id.text()?, body.direction.text()?);
    let (parent_call_id, recording_url) = (body.parent_call_id.text()?, body.recording_url.text()?);
    let duration = duration(&body.call_duration)?;
    let signed_us = signed_us(webhook)?;
    let identity = Identity::of(word::FREECLIMB)
        .text(&call_id)
        .text(or_nothing(&kind))
        .text(or_nothing(&status))
        .text(or_nothing(&reason))
        .float(duration)?
        .text(or_nothing(&recording_url))
        .text(or_nothing(&account_id))
        .text(or_nothing(&direction_told))
        .text(or_nothing(&parent_call_id))
        .whole(signed_us)
        .id();
    let kind = kind.unwrap_or(Text::new_static("unknown"));
    let ends_as = if kind == "callStatus" { status.as_deref().and_then(outcome) } else { None };
    let stream_key = call_key(word::FREECLIMB, &call_id);
    let at_us = signed_us.unwrap_or(webhook.received_us);
    let is_other = OTHER_REQUESTS.contains(&kind.as_str());
    let mut event = Event::new(identity, word::FREECLIMB, stream_key, kind, at_us, webhook.received_us);
    event.call_id = Some(call_id);
    if signed_us.is_none() {
        event.at_source = word::RECEIVED;
    }
    event.is_unknown = ends_as.is_none() && !is_other;
    event.state = if ends_as.is_some() { Some(word::ENDED) } else { status.as_deref().and_then(state) };
    event.account_id = account_id;
    event.direction = direction_told.as_deref().and_then(direction);
    event.channel = Some(word::PHONE);
    event.from_number = body.from_number.text()?;
    event.to_number = body.to.text()?;
    event.parent_call_id = parent_call_id;
    if status.as_deref() == Some("inProgress") {
        event.answer_evidence = Some(true);
    }
    if let Some(ends_as) = ends_as {
        event.recording_url = recording_url;
        add_end(&mut event, ends_as, status.clone(), reason, duration)?;
    }
    event.raw_status = status;
    Ok(Some(Arc::new(event)))
}

/// `_add_end`.
fn add_end(
    event: &mut Event,
    ends_as: Word,
    status: Option<Text>,
    reason: Option<Text>,
    duration: Option<f64>,
) -> Sure<()> {
    event.ended_us = Some(event.at_us);
    if let Some(duration) = duration {
        let lasted_us = duration * 1_000_000.0;
        if lasted_us >= 9e18 {
            return Err(Plain);
        }
        let start_us = event.at_us.checked_sub(lasted_us.round_ties_even() as i64).ok_or(Plain)?;
        event.started_us = instant(&Loose::Int(start_us))?;
    }
    event.reported_seconds = duration;
    event.total_is_reported = true;
    let is_voicemail = ends_as == word::COMPLETED && reason.as_deref() == Some("machineDetected");
    event.outcome = Some(if is_voicemail { word::VOICEMAIL } else { ends_as });
    event.end_trigger = reason.as_deref().map(end_trigger);
    if event.outcome != Some(word::COMPLETED) {
        event.failure_reason = reason.or(status);
    }
    Ok(())
}

fn duration(told: &Loose<'_>) -> Sure<Option<f64>> {
    match told {
        // Of a call that came to nothing.
        Loose::Text(told) if told.is_empty() => Ok(None),
        told => seconds(told, 1.0),
    }
}

/// `_signed_us`: `t=<unix seconds>,v1=<hex>[,v1=<hex>]`.
fn signed_us(webhook: &Webhook<'_>) -> Sure<Option<i64>> {
    let Some(signature) = (webhook.header)(SIGNATURE_HEADER) else { return Ok(None) };
    // What else there is that may be stripped off need not be known here.
    if !signature.bytes().all(|sign| (b' '..=b'~').contains(&sign)) {
        return Err(Plain);
    }
    let time = signature.split(',').find_map(|part| {
        let part = part.trim_matches(' ');
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name == "t").then_some(value)
    });
    time.map_or(Ok(None), text_instant)
}

fn or_nothing(found: &Option<Text>) -> &str {
    found.as_deref().unwrap_or("")
}
