//! Interactly: `providers/interactly.py`.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::repeated::Repeated;
use super::shape::{Identity, IsTold, Object, Told};
use super::{Loose, Plain, Sure, Webhook, instant, loose_text, number, seconds, shaped};
use crate::model::{Event, Text, call_key};
use crate::word::{self, Word};

const KINDS: &[&str] = &["status-update", "conversation-update", "end-of-call-report", "hang", "error"];
const STATUSES: &[&str] = &["queued", "ongoing", "finished", "forwarded"];
const PHONE_STATUSES: &[&str] =
    &["", "queued", "ringing", "in-progress", "completed", "busy", "no-answer", "failed", "canceled"];
const TRIGGERS: &[&str] = &["", "bot", "user", "system"];

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Body<'a> {
    message: Option<Object<Message<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Message<'a> {
    timestamp: Loose<'a>,
    #[serde(rename = "type")]
    kind: Told<'a>,
    call: Option<Object<Call<'a>>>,
    error: Option<Object<Error<'a>>>,
    analysis: Option<Object<Analysis<'a>>>,
    /// Its configuration, of which nothing is read: most of a status update, and the same in all of them.
    #[serde(borrow)]
    assistant: Option<&'a RawValue>,
}

thread_local! {
    static ASSISTANTS: RefCell<Repeated> = RefCell::new(Repeated::of(",\"assistant\":"));
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Call<'a> {
    id: Told<'a>,
    team_id: Told<'a>,
    assistant_id: Told<'a>,
    call_type: Told<'a>,
    direction: Told<'a>,
    user_number: Told<'a>,
    assistant_number: Told<'a>,
    status: Told<'a>,
    phone_call_status: Told<'a>,
    phone_call_status_reason: Told<'a>,
    call_end_trigger_by: Told<'a>,
    start_at: Loose<'a>,
    end_at: Loose<'a>,
    assistant_call_duration: Loose<'a>,
    recording: Option<Object<Recording<'a>>>,
    cost: Option<Object<Cost<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Error<'a> {
    #[serde(rename = "type")]
    kind: Loose<'a>,
    code: Loose<'a>,
    message: Loose<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Analysis<'a> {
    success_evaluation: Loose<'a>,
    summary: IsTold,
    outcome: IsTold,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Recording<'a> {
    #[serde(rename = "s3Bucket")]
    bucket: Loose<'a>,
    path: Loose<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Cost<'a> {
    total_cost: Loose<'a>,
    call_duration: Loose<'a>,
}

/// What is read of the call before its event is made.
struct Known<'a> {
    kind: Option<&'static str>,
    status: Option<&'static str>,
    phone_status: &'static str,
    trigger: &'static str,
    reason: &'a str,
    state: Option<Word>,
    sent_us: Option<i64>,
    start_us: Option<i64>,
    end_us: Option<i64>,
    reported: Option<f64>,
    total: Option<f64>,
}

/// The event of a webhook.
pub fn event(webhook: &Webhook<'_>) -> Sure<Option<Arc<Event>>> {
    ASSISTANTS.with_borrow_mut(|assistants| {
        if let Some(shortened) = assistants.shortened(webhook.body) {
            let Object(body) = serde_json::from_str::<Object<Body>>(shortened).map_err(|_| Plain)?;
            return event_of(webhook, &body);
        }
        let Object(body) = shaped::<Object<Body>>(webhook.body)?;
        if let Some(assistant) = body.message.as_ref().and_then(|Object(message)| message.assistant) {
            assistants.remember(assistant.get());
        }
        event_of(webhook, &body)
    })
}

fn event_of(webhook: &Webhook<'_>, body: &Body<'_>) -> Sure<Option<Arc<Event>>> {
    let Object(message) = body.message.as_ref().ok_or(Plain)?;
    let Object(call) = message.call.as_ref().ok_or(Plain)?;
    let call_id = call.id.text()?.ok_or(Plain)?;
    let known = known(message, call)?;
    let error = if known.kind == Some("error") { error_told(&message.error)? } else { None };
    let identity = identity(&call_id, &known, error.as_deref())?;
    let at_us = known.sent_us.unwrap_or(webhook.received_us);
    let stream_key = call_key(word::INTERACTLY, &call_id);
    let kind = Text::new_static(known.kind.unwrap_or("unknown"));
    let mut event = Event::new(identity, word::INTERACTLY, stream_key, kind, at_us, webhook.received_us);
    event.call_id = Some(call_id);
    if known.sent_us.is_none() {
        event.at_source = word::RECEIVED;
    }
    event.raw_status = known.status.map(Text::new_static);
    event.is_unknown = known.kind.is_none() || known.status.is_none();
    event.state = known.state;
    event.started_us = known.start_us;
    event.channel = channel(call.call_type.as_is());
    event.account_id = call.team_id.text()?;
    event.cost_total = known.total;
    if let Some(reported) = known.reported {
        (event.reported_seconds, event.talk_is_reported) = (Some(reported), true);
        event.answer_evidence = (reported > 0.0).then_some(true);
    }
    if error.is_some() {
        event.errors = Box::new([event.event_id.clone()]);
    }
    if let Some(Object(recording)) = &call.recording {
        event.recording_url = recording_url(recording)?;
    }
    if let Some(Object(analysis)) = &message.analysis {
        // The filled analysis is `message.analysis`; `message.call.analysis` stays empty in the same report.
        event.success_evaluation = loose_text(&analysis.success_evaluation)?;
        event.has_analysis = event.success_evaluation.is_some() || analysis.summary.0 || analysis.outcome.0;
    }
    add_parties(&mut event, call)?;
    add_state(&mut event, &known);
    Ok(Some(Arc::new(event)))
}

fn known<'a>(message: &Message<'_>, call: &'a Call<'_>) -> Sure<Known<'a>> {
    let (kind, status) = (message.kind.listed(KINDS)?, call.status.listed(STATUSES)?);
    let state = if kind.is_some() { status.map(state) } else { None };
    let cost = call.cost.as_ref().map(|Object(cost)| cost);
    Ok(Known {
        kind,
        status,
        phone_status: call.phone_call_status.listed(PHONE_STATUSES)?.unwrap_or_default(),
        trigger: call.call_end_trigger_by.listed(TRIGGERS)?.unwrap_or_default(),
        reason: call.phone_call_status_reason.read()?.unwrap_or_default(),
        state,
        sent_us: instant(&message.timestamp)?,
        start_us: instant(&call.start_at)?,
        end_us: instant(&call.end_at)?,
        reported: reported_seconds(&call.assistant_call_duration, cost, state == Some(word::ENDED))?,
        total: cost.map_or(Ok(None), |cost| number(&cost.total_cost))?,
    })
}

/// No event id is sent. Numbers are left out: they tell no two events apart, and privacy settings change them.
fn identity(call_id: &str, known: &Known<'_>, error: Option<&str>) -> Sure<Text> {
    let told = Identity::of(word::INTERACTLY)
        .text(call_id)
        .text(known.kind.unwrap_or_default())
        .whole(known.sent_us)
        .text(known.status.unwrap_or_default())
        .text(known.phone_status)
        .text(known.reason)
        .text(known.trigger)
        .whole(known.start_us)
        .whole(known.end_us)
        .float(known.reported)?
        .float(known.total)?
        .text(error.unwrap_or_default());
    Ok(told.id())
}

/// `interactly._error_told`. An error with none of these fields may be an empty one, which is none.
fn error_told(error: &Option<Object<Error<'_>>>) -> Sure<Option<String>> {
    let Some(Object(error)) = error else { return Ok(None) };
    let told = [&error.kind, &error.code, &error.message];
    if told.iter().all(|part| **part == Loose::Null) {
        return Err(Plain);
    }
    let [kind, code, message] = told.map(loose_text);
    let (kind, code, message) = (kind?, code?, message?);
    let told = [kind.as_deref(), code.as_deref(), message.as_deref()];
    serde_json::to_string(&told).map(Some).map_err(|_| Plain)
}

/// Milliseconds in one field, seconds in the other; 0 before the end stands for "not known yet".
fn reported_seconds(duration: &Loose<'_>, cost: Option<&Cost<'_>>, is_over: bool) -> Sure<Option<f64>> {
    let mut found = seconds(duration, 1000.0)?;
    let is_known = |found: Option<f64>| found.is_some_and(|found| found != 0.0 || is_over);
    if let Some(cost) = cost
        && !is_known(found)
    {
        found = seconds(&cost.call_duration, 1.0)?;
    }
    Ok(found.filter(|found| is_known(Some(*found))))
}

fn recording_url(recording: &Recording<'_>) -> Sure<Option<Text>> {
    let (bucket, path) = (loose_text(&recording.bucket)?, loose_text(&recording.path)?);
    Ok(match (bucket, path) {
        (Some(bucket), Some(path)) => Some(smol_str::format_smolstr!("s3://{bucket}/{path}")),
        // As long as nothing is recorded.
        _ => None,
    })
}

fn add_parties(event: &mut Event, call: &Call<'_>) -> Sure<()> {
    let (user, assistant) = (call.user_number.read()?, call.assistant_number.read()?);
    let assistant_id = call.assistant_id.read()?;
    event.agent_id = assistant_id.map(Text::new);
    // Web callers come as "web-<display name>" and assistants without a number as their own id: neither is a number.
    let number = |told: Option<&str>| {
        told.filter(|told| Some(*told) != assistant_id && !told.starts_with("web-")).map(Text::new)
    };
    match call.direction.as_is() {
        "outbound" => {
            event.direction = Some(word::OUTBOUND);
            (event.from_number, event.to_number) = (number(assistant), number(user));
        }
        "inbound" => {
            event.direction = Some(word::INBOUND);
            (event.from_number, event.to_number) = (number(user), number(assistant));
        }
        _ => {}
    }
    Ok(())
}

fn add_state(event: &mut Event, known: &Known<'_>) {
    if known.kind == Some("end-of-call-report") {
        event.fact_rank = 1;
    }
    // Only a status update tells of the change as it happens; a report comes seconds later, after post-processing.
    let changed_us = (known.kind == Some("status-update")).then_some(event.at_us);
    match known.state {
        Some(word::IN_PROGRESS) => (event.answer_evidence, event.answered_us) = (Some(true), changed_us),
        Some(word::QUEUED) => event.queued_us = changed_us,
        Some(word::ENDED) => {
            event.ended_us = known.end_us.or(changed_us);
            event.hangup_us = event.ended_us;
            event.end_trigger = end_trigger(known.trigger);
            add_end(event, known);
        }
        _ => {}
    }
}

fn add_end(event: &mut Event, known: &Known<'_>) {
    if known.status == Some("forwarded") {
        (event.outcome, event.end_rank) = (Some(word::FORWARDED), 1);
        (event.transferred, event.answer_evidence) = (true, Some(true));
        return;
    }
    event.unanswered_outcome = Some(unanswered(known.phone_status));
    let is_failure = !matches!(known.phone_status, "" | "completed" | "in-progress" | "ringing" | "queued");
    event.failure_reason = is_failure.then(|| Text::new_static(known.phone_status));
}

/// `interactly.STATE`.
fn state(status: &str) -> Word {
    match status {
        "queued" => word::QUEUED,
        "ongoing" => word::IN_PROGRESS,
        _ => word::ENDED,
    }
}

/// `interactly.UNANSWERED`.
fn unanswered(phone_status: &str) -> Word {
    match phone_status {
        "busy" => word::BUSY,
        "no-answer" => word::NO_ANSWER,
        "failed" => word::FAILED,
        "canceled" => word::CANCELED,
        _ => word::UNKNOWN,
    }
}

fn end_trigger(trigger: &str) -> Option<Word> {
    match trigger {
        "bot" => Some(word::AGENT),
        "user" => Some(word::CUSTOMER),
        "system" => Some(word::SYSTEM),
        _ => None,
    }
}

fn channel(found: &str) -> Option<Word> {
    match found {
        "phone" => Some(word::PHONE),
        "web" => Some(word::WEB),
        _ => None,
    }
}
