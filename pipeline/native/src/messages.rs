//! A call record as it stands on the topic: what `record_message` of `pipeline/stream/messages.py` writes.

use std::io::Write;

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;

use crate::decode::{Plain, Sure};
use crate::model::{DAY_US, Record, Text};
use crate::word::Word;

/// Writes the value of a message into some room; None is a tombstone's.
pub fn write_value<'a>(record: Option<&Record>, room: &'a mut Vec<u8>) -> PyResult<Option<&'a [u8]>> {
    room.clear();
    let Some(record) = record else { return Ok(None) };
    room.reserve(1_536);
    // As in Python: a date of no calendar is an error, and no event that is taken has one.
    write_record(record, room).map_err(|_| PyOverflowError::new_err("date value out of range"))?;
    Ok(Some(room))
}

/// 0001-01-01 and 9999-12-31: what Python has dates of.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// An instant in microseconds; written in ISO 8601.
struct At(i64);
/// A date in days; written in ISO 8601.
struct Day(i64);

/// A value of a column, as JSON.
trait Told {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()>;
}

impl Told for Text {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
        serde_json::to_writer(out, self.as_str()).map_err(|_| Plain)
    }
}

impl Told for Word {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
        serde_json::to_writer(out, self.text()).map_err(|_| Plain)
    }
}

macro_rules! told_as_it_is {
    ($($kind:ty)*) => {
        $(impl Told for $kind {
            fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
                serde_json::to_writer(out, self).map_err(|_| Plain)
            }
        })*
    };
}
told_as_it_is!(bool i64);

impl Told for f64 {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
        if self.is_finite() && self.abs() >= 1e16 {
            // The library of JSON would put a plus before the exponent.
            return write!(out, "{self:e}").map_err(|_| Plain);
        }
        serde_json::to_writer(out, self).map_err(|_| Plain)
    }
}

impl Told for At {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
        let of_day = self.0.rem_euclid(DAY_US);
        let (second, us) = (of_day / 1_000_000, of_day % 1_000_000);
        out.push(b'"');
        write_date(self.0.div_euclid(DAY_US), out)?;
        let mut told = *b"T00:00:00.000000Z\"";
        put(second / 3_600, &mut told[1..3]);
        put(second / 60 % 60, &mut told[4..6]);
        put(second % 60, &mut told[7..9]);
        put(us, &mut told[10..16]);
        out.extend_from_slice(&told);
        Ok(())
    }
}

impl Told for Day {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
        out.push(b'"');
        write_date(self.0, out)?;
        out.push(b'"');
        Ok(())
    }
}

impl<T: Told> Told for Option<T> {
    fn write(&self, out: &mut Vec<u8>) -> Sure<()> {
        match self {
            Some(value) => value.write(out),
            None => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }
}

fn write_date(day: i64, out: &mut Vec<u8>) -> Sure<()> {
    if !DAYS.contains(&day) {
        return Err(Plain);
    }
    let (year, month, day) = civil_from_days(day);
    let mut told = *b"0000-00-00";
    put(year, &mut told[0..4]);
    put(month, &mut told[5..7]);
    put(day, &mut told[8..10]);
    out.extend_from_slice(&told);
    Ok(())
}

/// A number in as many digits as there is room for: quicker than a format, and a record has up to eight times.
fn put(mut number: i64, room: &mut [u8]) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The way back of `days_from_civil`, by the same author.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

macro_rules! object {
    ($out:ident: $first:literal = $value:expr, $($name:literal = $rest:expr,)*) => {
        $out.extend_from_slice(concat!("{\"", $first, "\":").as_bytes());
        $value.write($out)?;
        $(
            $out.extend_from_slice(concat!(",\"", $name, "\":").as_bytes());
            $rest.write($out)?;
        )*
        $out.push(b'}');
    };
}

/// A call record as a JSON object with the columns of `calls`. `Plain` for a time before the year 1 or after 9999.
fn write_record(record: &Record, out: &mut Vec<u8>) -> Sure<()> {
    object! {
        out:
        "call_key" = record.call_key,
        "provider" = record.provider,
        "call_id" = record.call_id,
        "provider_call_id" = record.provider_call_id,
        "parent_call_id" = record.parent_call_id,
        "is_root" = record.is_root,
        "account_id" = record.account_id,
        "agent_id" = record.agent_id,
        "direction" = record.direction,
        "channel" = record.channel,
        "from_number" = record.from_number,
        "to_number" = record.to_number,
        "state" = record.state,
        "outcome" = record.outcome,
        "failure_class" = record.failure_class,
        "failure_reason" = record.failure_reason,
        "raw_status" = record.raw_status,
        "end_trigger" = record.end_trigger,
        "is_answered" = record.is_answered,
        "answered_by" = record.answered_by,
        "is_transferred" = record.is_transferred,
        "attempts" = record.attempts,
        "error_count" = record.error_count,
        "queued_at" = record.queued_us.map(At),
        "ringing_at" = record.ringing_us.map(At),
        "started_at" = record.started_us.map(At),
        "answered_at" = record.answered_us.map(At),
        "ended_at" = record.ended_us.map(At),
        "ring_seconds" = record.ring_seconds,
        "talk_seconds" = record.talk_seconds,
        "wrap_up_seconds" = record.wrap_up_seconds,
        "total_seconds" = record.total_seconds,
        "reported_seconds" = record.reported_seconds,
        "time_source" = record.time_source,
        "recording_url" = record.recording_url,
        "has_analysis" = record.has_analysis,
        "success_evaluation" = record.success_evaluation,
        "cost_total" = record.cost_total,
        "first_event_at" = At(record.first_event_us),
        "last_event_at" = At(record.last_event_us),
        "event_count" = record.event_count,
        "revision" = record.revision,
        "closed_by" = record.closed_by,
        "date" = Day(record.date_day),
    }
    Ok(())
}
