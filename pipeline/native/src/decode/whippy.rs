//! Whippy: `providers/whippy.py`.

use std::sync::Arc;

use serde::Deserialize;

use super::shape::{Identity, Object, Told};
use super::{Loose, Plain, Sure, Webhook, instant, loose_text, seconds, shaped};
use crate::model::{Event, Text, call_key};
use crate::word::{self, Word};

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Body<'a> {
    data: Option<Object<Data<'a>>>,
    event: Told<'a>,
    request_id: Told<'a>,
    created_at: Loose<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Data<'a> {
    id: Told<'a>,
    delivery_status: Told<'a>,
    direction: Told<'a>,
    from: Told<'a>,
    to: Told<'a>,
    channel_id: Told<'a>,
    created_at: Loose<'a>,
    updated_at: Loose<'a>,
    user_id: Loose<'a>,
    metadata: Option<Object<Metadata<'a>>>,
    attachments: Option<Vec<Object<Attachment<'a>>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Metadata<'a> {
    duration: Loose<'a>,
    #[serde(rename = "type")]
    kind: Loose<'a>,
    agent_id: Loose<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Attachment<'a> {
    content_type: Told<'a>,
    url: Told<'a>,
}

/// The event of a `call.*` webhook; any other is no call.
pub fn event(webhook: &Webhook<'_>) -> Sure<Option<Arc<Event>>> {
    let Object(body) = shaped::<Object<Body>>(webhook.body)?;
    let kind = body.event.read()?.ok_or(Plain)?;
    if !kind.starts_with("call.") {
        return Ok(None);
    }
    let Object(data) = body.data.ok_or(Plain)?;
    let Object(metadata) = data.metadata.unwrap_or(Object(Metadata::default()));
    let call_id = data.id.text()?.ok_or(Plain)?;
    let status = data.delivery_status.text()?;
    let (sent_us, created_us) = (instant(&body.created_at)?, instant(&data.created_at)?);
    let updated_us = instant(&data.updated_at)?;
    let identity = Identity::of(word::WHIPPY)
        .text(&call_id)
        .text(body.request_id.read()?.unwrap_or_default())
        .text(kind)
        .text(status.as_deref().unwrap_or_default())
        .whole(updated_us)
        .whole(sent_us);
    let at_us = sent_us.unwrap_or(webhook.received_us);
    let stream_key = call_key(word::WHIPPY, &call_id);
    let mut event =
        Event::new(identity.id(), word::WHIPPY, stream_key, Text::new(kind), at_us, webhook.received_us);
    event.call_id = Some(call_id);
    if sent_us.is_none() {
        event.at_source = word::RECEIVED;
    }
    event.started_us = created_us;
    event.reported_seconds = seconds(&metadata.duration, 1000.0)?;
    event.direction = direction(data.direction.as_is())?;
    event.channel = Some(channel(&metadata.kind));
    event.from_number = data.from.text()?;
    event.to_number = data.to.text()?;
    event.account_id = data.channel_id.text()?;
    event.agent_id = match loose_text(&metadata.agent_id)? {
        None => loose_text(&data.user_id)?,
        found => found,
    };
    match kind {
        "call.started" => {
            event.state = Some(word::IN_PROGRESS);
            (event.answered_us, event.answer_evidence) = (Some(at_us), Some(true));
        }
        "call.ended" => add_end(&mut event, updated_us, status.as_deref().unwrap_or_default()),
        "call.analyzed" => event.has_analysis = true,
        _ => event.is_unknown = true,
    }
    event.raw_status = status;
    event.recording_url = recording_url(&data.attachments.unwrap_or_default())?;
    Ok(Some(Arc::new(event)))
}

fn direction(found: &str) -> Sure<Option<Word>> {
    if !found.is_ascii() {
        // There are letters that only as capitals are of ASCII.
        return Err(Plain);
    }
    Ok(if found.eq_ignore_ascii_case("INBOUND") {
        Some(word::INBOUND)
    } else if found.eq_ignore_ascii_case("OUTBOUND") {
        Some(word::OUTBOUND)
    } else {
        None
    })
}

fn channel(found: &Loose<'_>) -> Word {
    match found {
        Loose::Text(found) if found == "web" || found == "web_call" => word::WEB,
        _ => word::PHONE,
    }
}

fn add_end(event: &mut Event, updated_us: Option<i64>, status: &str) {
    event.state = Some(word::ENDED);
    event.ended_us = Some(event.at_us);
    if let (Some(updated_us), Some(created_us)) = (updated_us, event.started_us)
        && updated_us > created_us
    {
        // The row's last change is the hang-up, on this event only: the analysis changes the row again.
        (event.ended_us, event.at_source) = (Some(updated_us), word::PROVIDER);
    }
    event.hangup_us = event.ended_us;
    let reason = status.split_once('.').map_or("", |(_, reason)| reason);
    let meaning = meaning(reason);
    let (outcome, trigger, is_answered) = meaning.unwrap_or((word::COMPLETED, word::UNKNOWN, Some(true)));
    event.outcome = Some(outcome);
    event.end_trigger = Some(trigger);
    event.answer_evidence = is_answered;
    event.transferred = outcome == word::FORWARDED;
    event.failure_reason = (!reason.is_empty()).then(|| Text::new(reason));
    event.is_unknown = !reason.is_empty() && meaning.is_none();
}

/// What a reason says, and who hung up: `whippy.REASON`, and errors.
fn meaning(reason: &str) -> Option<(Word, Word, Option<bool>)> {
    let (outcome, trigger, is_answered) = match reason {
        "user_hangup" => (word::COMPLETED, word::CUSTOMER, true),
        "agent_hangup" => (word::COMPLETED, word::AGENT, true),
        "inactivity" | "max_duration_reached" => (word::COMPLETED, word::SYSTEM, true),
        "call_transfer" => (word::FORWARDED, word::UNKNOWN, true),
        "dial_busy" => (word::BUSY, word::UNKNOWN, false),
        "dial_no_answer" => (word::NO_ANSWER, word::UNKNOWN, false),
        "dial_failed" | "invalid_destination" => (word::FAILED, word::UNKNOWN, false),
        "voicemail_reached" => (word::VOICEMAIL, word::UNKNOWN, true),
        "user_declined" => (word::REJECTED, word::UNKNOWN, false),
        "concurrency_limit_reached" => (word::LIMIT_REACHED, word::UNKNOWN, false),
        _ if reason.starts_with("error_") => return Some((word::FAILED, word::UNKNOWN, None)),
        _ => return None,
    };
    Some((outcome, trigger, Some(is_answered)))
}

/// The first file with sound: the paths' UUIDs are the files' own, so it is told by its content type.
fn recording_url(attachments: &[Object<Attachment<'_>>]) -> Sure<Option<Text>> {
    for Object(attachment) in attachments {
        if attachment.content_type.read()?.is_some_and(|kind| kind.starts_with("audio/")) {
            let url = attachment.url.as_is();
            return Ok((!url.is_empty()).then(|| Text::new(url)));
        }
    }
    Ok(None)
}
