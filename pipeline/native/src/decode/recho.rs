//! Recho: `providers/recho.py`.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::shape::{Object, Told, Written, present};
use super::{Plain, Sure, Webhook, digest, shaped};
use crate::model::{Event, Text, call_key};
use crate::word::{self, Word};

/// A webhook with every field that one has, in the order of their names: written out again it is the identity.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct Payload<'a> {
    body: Object<Body<'a>>,
    event_type: Told<'a>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    project_id: Option<Told<'a>>,
    // Two endpoints of one project deliver the same event, each with its own configuration beside it.
    #[serde(default, rename = "webhookEndpoint", skip_serializing)]
    _endpoint: Option<IgnoredAny>,
    #[serde(default, rename = "authConfig", skip_serializing)]
    _auth_config: Option<IgnoredAny>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct Body<'a> {
    data: Object<Data<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Object<Problem<'a>>>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    subject: Option<Written<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    text: Option<Written<'a>>,
}

/// One of the errors.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct Problem<'a> {
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    code: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    message: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    phase: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    stacktrace: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    timestamp: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    r#where: Option<Told<'a>>,
}

/// What is told of an error: `recho._errors`.
#[derive(Serialize)]
struct Reported<'a> {
    code: Option<&'a str>,
    message: Option<&'a str>,
    phase: Option<&'a str>,
    timestamp: Option<&'a str>,
    r#where: Option<&'a str>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct Data<'a> {
    call_id: Told<'a>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    call_sid: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    call_status: Option<Told<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    client_id: Option<Told<'a>>,
}

/// The event of a webhook.
pub fn event(webhook: &Webhook<'_>) -> Sure<Option<Arc<Event>>> {
    let Object(payload) = shaped::<Object<Payload>>(webhook.body)?;
    let data = &payload.body.0.data.0;
    let call_id = data.call_id.text()?.ok_or(Plain)?;
    let kind = payload.event_type.text()?.ok_or(Plain)?;
    let (status, leg, project) =
        (optional(&data.call_status)?, optional(&data.call_sid)?, optional(&payload.project_id)?);
    let (errors, first_code) = errors(payload.body.0.errors.as_deref().unwrap_or_default())?;
    let (identity, at_us) = (identity(&payload)?, webhook.received_us);
    let stream_key = call_key(word::RECHO, &call_id);
    let mut event = Event::new(identity, word::RECHO, stream_key, kind.clone(), at_us, at_us);
    event.call_id = Some(call_id);
    event.at_source = word::RECEIVED;
    event.start_is_first_event = true;
    event.direction = direction(&kind);
    event.channel = Some(word::PHONE);
    event.account_id = project;
    event.errors = errors;
    if let Some(outcome) = outcome(&kind) {
        add_end(&mut event, outcome, status.as_ref(), first_code);
    } else if let Some(state) = state(&kind) {
        add_progress(&mut event, state, leg.as_ref());
    } else {
        event.is_unknown = true;
    }
    event.raw_status = Some(status.unwrap_or(kind));
    event.leg = leg;
    Ok(Some(Arc::new(event)))
}

fn short<'a>(found: &'a Option<Told<'_>>) -> Sure<Option<&'a str>> {
    found.as_ref().map_or(Ok(None), Told::read)
}

fn optional(found: &Option<Told<'_>>) -> Sure<Option<Text>> {
    Ok(short(found)?.map(Text::new))
}

/// Each as its canonical JSON, and the first code among them.
fn errors(listed: &[Object<Problem<'_>>]) -> Sure<(Box<[Text]>, Option<Text>)> {
    let mut first_code = None;
    let told = listed.iter().map(|Object(problem)| {
        let reported = Reported {
            code: short(&problem.code)?,
            message: short(&problem.message)?,
            phase: short(&problem.phase)?,
            timestamp: short(&problem.timestamp)?,
            r#where: short(&problem.r#where)?,
        };
        first_code = first_code.or(reported.code);
        serde_json::to_string(&reported).map(Text::from).map_err(|_| Plain)
    });
    let told = told.collect::<Sure<_>>()?;
    Ok((told, first_code.map(Text::new)))
}

/// The digest of all that is told. msgspec writes texts as serde_json does: nothing is escaped that need not be.
fn identity(payload: &Payload<'_>) -> Sure<Text> {
    let mut told = Vec::with_capacity(1024);
    told.extend_from_slice(b"recho\x1f");
    serde_json::to_writer(&mut told, payload).map_err(|_| Plain)?;
    Ok(digest(&told))
}

fn direction(kind: &str) -> Option<Word> {
    match kind.split_once('_').map_or(kind, |(side, _)| side) {
        "INBOUND" => Some(word::INBOUND),
        "OUTBOUND" => Some(word::OUTBOUND),
        _ => None,
    }
}

/// `recho.STATE`.
fn state(kind: &str) -> Option<Word> {
    Some(match kind {
        "OUTBOUND_CALL_PENDING" | "OUTBOUND_CALL_REQUESTED" => word::QUEUED,
        "OUTBOUND_CALL_CALLING" | "INBOUND_CALL_CONNECTING" => word::RINGING,
        "INBOUND_CALL_CALLING" => word::IN_PROGRESS,
        "OUTBOUND_CALL_CLOSING" | "INBOUND_CALL_CLOSING" => word::WRAP_UP,
        _ => return None,
    })
}

/// `recho.OUTCOME`.
fn outcome(kind: &str) -> Option<Word> {
    Some(match kind {
        "OUTBOUND_CALL_COMPLETED" | "INBOUND_CALL_COMPLETED" => word::COMPLETED,
        "OUTBOUND_CALL_NO_RESPONSE" => word::NO_ANSWER,
        "OUTBOUND_CALL_BUSY" => word::BUSY,
        "OUTBOUND_CALL_UNREACHABLE" => word::UNREACHABLE,
        "OUTBOUND_CALL_EXPIRED" => word::EXPIRED,
        "OUTBOUND_CALL_CANCELED" => word::CANCELED,
        "OUTBOUND_CALL_MAX_ATTEMPTS_REACHED" => word::MAX_ATTEMPTS,
        "INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED" => word::LIMIT_REACHED,
        "OUTBOUND_CALL_ERROR" | "INBOUND_CALL_ERROR" => word::FAILED,
        _ => return None,
    })
}

fn add_progress(event: &mut Event, state: Word, leg: Option<&Text>) {
    let at_us = Some(event.at_us);
    event.state = Some(state);
    match state {
        word::QUEUED if event.event_type == "OUTBOUND_CALL_PENDING" => event.queued_us = at_us,
        word::QUEUED => event.attempt_id = Some(leg.unwrap_or(&event.event_id).clone()),
        word::RINGING => event.ringing_us = at_us,
        word::IN_PROGRESS => (event.answered_us, event.answer_evidence) = (at_us, Some(true)),
        // There is no outbound "answered": that there was something to hang up is all the evidence there is.
        _ => (event.hangup_us, event.answer_evidence) = (at_us, Some(true)),
    }
}

fn add_end(event: &mut Event, outcome: Word, status: Option<&Text>, first_code: Option<Text>) {
    event.state = Some(word::ENDED);
    event.ended_us = Some(event.at_us);
    // `recho.ERROR_OUTCOME`: internal states that the ..._ERROR events stand for; any other is a failure.
    let outcome = match status.map_or("", Text::as_str) {
        "VOICEMAIL_REACHED" if outcome == word::FAILED => word::VOICEMAIL,
        "LIMIT_REACHED" | "CONCURRENCY_LIMIT_EXCEEDED" if outcome == word::FAILED => word::LIMIT_REACHED,
        _ => outcome,
    };
    event.outcome = Some(outcome);
    if outcome == word::FAILED && event.direction == Some(word::OUTBOUND) {
        // A hang-up of which only an error follows does not show that anybody had picked up.
        event.answer_evidence = Some(false);
    }
    if outcome != word::COMPLETED {
        event.failure_reason = first_code.or_else(|| status.cloned());
    }
}
