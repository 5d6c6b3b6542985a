//! Rows as columns of the declared schemas: what `events_table` and `calls_table` of `pipeline/lake/rows.py` make of
//! them. Python makes the table of them (`table_of_buffers` there): the types are declared in `schemas.py` alone.

mod filling;

use std::sync::Arc;

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use self::filling::{Buffers, Column, ROWS_TURNED, TooLarge};
use self::filling::{day, flag, hash, instant, int, long, real, text, texts, word};
use crate::model::{DAY_US, Event, Record, Text};

/// An event, and the key of the call that it is of.
type Placed = (Arc<Event>, Option<Text>);
/// The stream that a record's call is in, the record, and whether it is retracted.
type Told = (Text, Arc<Record>, bool);

/// The columns of `call_events`, in the order of the schema: of each how many values are NULL, and its buffers.
/// OverflowError if a column cannot hold a value, or not all of its texts: Python's way is to be taken.
pub fn event_columns<'py>(
    py: Python<'py>,
    rows: &[Placed],
    published_us: i64,
) -> PyResult<Bound<'py, PyList>> {
    told(py, py.detach(|| filled(event_fields(published_us), rows)))
}

/// The same for the columns of `calls`.
pub fn record_columns<'py>(
    py: Python<'py>,
    rows: &[Told],
    published_us: i64,
) -> PyResult<Bound<'py, PyList>> {
    told(py, py.detach(|| filled(record_fields(published_us), rows)))
}

/// `rows.key_hash`: 64 bits of a key, for joins.
pub fn key_hash(key: &str) -> u64 {
    let hashed = blake2b_simd::Params::new().hash_length(8).hash(key.as_bytes());
    hashed.as_bytes().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn filled<R>(mut columns: Vec<Box<dyn Column<R>>>, rows: &[R]) -> Result<Vec<Buffers>, TooLarge> {
    columns.iter_mut().for_each(|column| column.reserve(rows.len()));
    for part in rows.chunks(ROWS_TURNED) {
        for column in &mut columns {
            column.take(part)?;
        }
    }
    Ok(columns.into_iter().map(Column::buffers).collect())
}

fn told(py: Python<'_>, columns: Result<Vec<Buffers>, TooLarge>) -> PyResult<Bound<'_, PyList>> {
    let columns = columns.map_err(|TooLarge(what)| PyOverflowError::new_err(what))?;
    let told = columns.into_iter().map(|column| {
        let parts = column.parts.iter().map(|part| part.as_ref().map(|bytes| PyBytes::new(py, bytes)));
        (column.nulls, parts.collect::<Vec<_>>())
    });
    PyList::new(py, told.collect::<Vec<_>>())
}

macro_rules! columns {
    ($row:pat in $kind:ty => $($column:ident($value:expr),)*) => {
        vec![$(Box::new($column(move |$row: &$kind| $value)),)*]
    };
}

#[allow(unused_variables)] // no column takes all of a row
fn event_fields(published_us: i64) -> Vec<Box<dyn Column<Placed>>> {
    columns! {
        (event, call) in Placed =>
        text(Some(&event.event_id)),
        text(call.as_deref()),
        word(Some(event.provider)),
        text(Some(&event.stream_key)),
        text(event.call_id.as_deref()),
        text(Some(&event.event_type)),
        text(event.raw_status.as_deref()),
        flag(Some(event.is_unknown)),
        word(event.state),
        instant(Some(event.at_us)),
        instant(Some(event.received_us)),
        word(Some(event.at_source)),
        instant(event.queued_us),
        instant(event.ringing_us),
        instant(event.started_us),
        instant(event.answered_us),
        instant(event.hangup_us),
        instant(event.ended_us),
        flag(Some(event.start_is_first_event)),
        int(event.end_rank),
        word(event.outcome),
        word(event.unanswered_outcome),
        text(event.failure_reason.as_deref()),
        word(event.end_trigger),
        flag(event.answer_evidence),
        flag(Some(event.transferred)),
        text(event.attempt_id.as_deref()),
        text(event.leg.as_deref()),
        texts(&event.errors),
        real(event.reported_seconds),
        int(event.fact_rank),
        flag(Some(event.talk_is_reported)),
        flag(Some(event.total_is_reported)),
        text(event.provider_call_id.as_deref()),
        text(event.parent_call_id.as_deref()),
        text(event.account_id.as_deref()),
        text(event.agent_id.as_deref()),
        word(event.direction),
        word(event.channel),
        text(event.from_number.as_deref()),
        text(event.to_number.as_deref()),
        text(event.recording_url.as_deref()),
        flag(Some(event.has_analysis)),
        text(event.success_evaluation.as_deref()),
        real(event.cost_total),
        word(event.cut),
        text(event.session_id.as_deref()),
        long(event.seq),
        day(event.at_us.div_euclid(DAY_US)),
        hash(call.as_deref().filter(|call| !call.is_empty()).unwrap_or(&event.stream_key)),
        instant(Some(published_us)),
    }
}

#[allow(unused_variables)] // as above
fn record_fields(published_us: i64) -> Vec<Box<dyn Column<Told>>> {
    columns! {
        (stream_key, record, is_retracted) in Told =>
        text(Some(&record.call_key)),
        word(Some(record.provider)),
        text(Some(&record.call_id)),
        text(record.provider_call_id.as_deref()),
        text(record.parent_call_id.as_deref()),
        flag(Some(record.is_root)),
        text(record.account_id.as_deref()),
        text(record.agent_id.as_deref()),
        word(Some(record.direction)),
        word(Some(record.channel)),
        text(record.from_number.as_deref()),
        text(record.to_number.as_deref()),
        word(Some(record.state)),
        word(record.outcome),
        word(record.failure_class),
        text(record.failure_reason.as_deref()),
        text(record.raw_status.as_deref()),
        word(record.end_trigger),
        flag(record.is_answered),
        word(record.answered_by),
        flag(Some(record.is_transferred)),
        int(record.attempts),
        int(record.error_count),
        instant(record.queued_us),
        instant(record.ringing_us),
        instant(record.started_us),
        instant(record.answered_us),
        instant(record.ended_us),
        real(record.ring_seconds),
        real(record.talk_seconds),
        real(record.wrap_up_seconds),
        real(record.total_seconds),
        real(record.reported_seconds),
        word(Some(record.time_source)),
        text(record.recording_url.as_deref()),
        flag(Some(record.has_analysis)),
        text(record.success_evaluation.as_deref()),
        real(record.cost_total),
        instant(Some(record.first_event_us)),
        instant(Some(record.last_event_us)),
        int(record.event_count),
        int(record.revision),
        word(record.closed_by),
        day(record.date_day),
        hash(&record.call_key),
        instant(Some(published_us)),
        flag(Some(*is_retracted)),
        text(Some(stream_key)),
    }
}
