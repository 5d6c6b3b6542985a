//! The fold: a call record as a pure function of the set of the call's events. `pipeline/assemble/fold.py`.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::facts::{Believed, Counted, Times, between, is_apart};
use crate::model::{DAY_US, Event, Record, Text, call_key};
use crate::redial::last_attempt;
use crate::word::{self, Word};

/// An `as_of` by which every call that has not ended is closed by timeout.
pub const FOREVER_US: i64 = 1 << 62;

/// The events as they happened; the same list whatever order they are given in.
fn in_order<'o, 'e>(events: &'o [&'e Event]) -> Cow<'o, [&'e Event]> {
    if events.is_sorted_by(|before, after| as_happened(before, after).is_le()) {
        return events.into();
    }
    let mut ordered = events.to_vec();
    ordered.sort_by(|one, other| as_happened(one, other));
    ordered.into()
}

fn as_happened(one: &Event, other: &Event) -> Ordering {
    one.at_us.cmp(&other.at_us).then_with(|| {
        let rank = |event: &Event| event.state.map_or(0, Word::state_rank);
        rank(one).cmp(&rank(other)).then_with(|| one.event_id.cmp(&other.event_id))
    })
}

/// How many times the call had been closed by timeout before an event reopened it.
fn idle_gaps(ordered: &[&Event], newest_us: i64, idle_us: i64) -> i64 {
    let oldest_us = ordered.iter().map(|event| event.received_us).min().unwrap_or(newest_us);
    if !is_apart(oldest_us, newest_us, idle_us) {
        return 0;
    }
    let mut received: Vec<i64> = ordered.iter().map(|event| event.received_us).collect();
    received.sort_unstable();
    received.windows(2).filter(|pair| is_apart(pair[0], pair[1], idle_us)).count() as i64
}

/// The record of one call from its distinct events (at least one), seen at `as_of_us`.
///
/// `cut` names a call that was cut from a stream, whose events are then given in their order, and tells the number of
/// events that shaped it. Without an end a call is closed by timeout once `idle_us` have passed since an event was last
/// received.
///
/// Of a state or an outcome that is on no list Python makes no record but raises; here such a state says nothing, and
/// what class of failure such an outcome is is unknown.
pub fn fold(events: &[&Event], as_of_us: i64, idle_us: i64, cut: Option<(&str, i64)>) -> Record {
    let ordered = if cut.is_some() { events.into() } else { in_order(events) };
    let first = ordered[0];
    let newest_us = ordered.iter().map(|event| event.received_us).max().unwrap_or(first.received_us);
    let (attempt, end) = last_attempt(&ordered);
    let is_over = end.is_some();
    let is_timeout = !is_over && is_apart(newest_us, as_of_us, idle_us);
    let has_evidence = attempt.iter().any(|event| event.answer_evidence == Some(true));

    let outcome = outcome(end, is_timeout, has_evidence);
    let is_answered = is_answered(outcome, end, has_evidence);
    let (believed, counted) = (Believed::of(&ordered), Counted::of(&ordered));
    let times = Times::of(&ordered, &attempt, is_over, is_answered);
    let failure_class = outcome.and_then(failure_class);
    let started_us = if counted.starts_with_first { Some(first.at_us) } else { believed.started_us };
    let (first_us, last_us) = borders(&ordered);
    let is_closed = is_over || is_timeout;
    let (named, shaped_by) = cut.unwrap_or_default();
    let shaped_by = if shaped_by == 0 { ordered.len() as i64 } else { shaped_by };
    let call_id = told_text(named).or(told_text(first.call_id.as_deref().unwrap_or_default()));
    let call_id = call_id.unwrap_or_default();
    let own_id = first.call_id.as_ref().filter(|own| !own.is_empty());
    Record {
        call_key: call_key(first.provider, &call_id),
        provider: first.provider,
        call_id,
        provider_call_id: own_id.or(believed.provider_call_id).cloned(),
        parent_call_id: believed.parent_call_id.cloned(),
        is_root: believed.parent_call_id.is_none(),
        account_id: believed.account_id.cloned(),
        agent_id: believed.agent_id.cloned(),
        direction: told_word(believed.direction).unwrap_or(word::UNKNOWN),
        channel: told_word(believed.channel).unwrap_or(word::UNKNOWN),
        from_number: believed.from_number.cloned(),
        to_number: believed.to_number.cloned(),
        state: if is_closed { word::ENDED } else { open_state(&attempt) },
        outcome,
        failure_class,
        failure_reason: end.and_then(|end| end.failure_reason.clone()).filter(|_| failure_class.is_some()),
        raw_status: last_status(if is_over { &attempt } else { &ordered }, is_over),
        end_trigger: end_trigger(&attempt, end, is_timeout),
        is_answered,
        answered_by: (is_answered == Some(true)).then(|| answered_by(outcome)),
        is_transferred: counted.transferred,
        attempts: counted.attempts.max(1),
        error_count: counted.errors,
        queued_us: counted.queued_us,
        ringing_us: times.ringing_us,
        started_us,
        answered_us: times.answered_us,
        ended_us: times.ended_us,
        ring_seconds: times.ring_seconds(is_over),
        talk_seconds: talk_seconds(&times, is_answered, &believed, &counted),
        wrap_up_seconds: times.wrap_up_seconds(),
        total_seconds: total_seconds(end, started_us, times.ended_us, believed.reported_seconds),
        reported_seconds: believed.reported_seconds,
        time_source: if counted.is_from_receipt { time_source(&ordered) } else { word::PROVIDER },
        recording_url: believed.recording_url.cloned(),
        has_analysis: counted.has_analysis,
        success_evaluation: believed.success_evaluation.cloned(),
        cost_total: believed.cost_total,
        first_event_us: first_us,
        last_event_us: last_us,
        event_count: ordered.len() as i64,
        revision: shaped_by
            .saturating_add(idle_gaps(&ordered, newest_us, idle_us))
            .saturating_add(i64::from(is_timeout)),
        closed_by: if is_over { Some(word::TERMINAL) } else { is_timeout.then_some(word::TIMEOUT) },
        date_day: started_us.unwrap_or(first_us).div_euclid(DAY_US),
    }
}

/// The first and the last instant. Events cut from a stream stand in its order, in which a clock may go back.
fn borders(ordered: &[&Event]) -> (i64, i64) {
    ordered.iter().fold((i64::MAX, i64::MIN), |(first_us, last_us), event| {
        (first_us.min(event.at_us), last_us.max(event.at_us))
    })
}

/// A text that says something: to Python's `or` an empty one does not.
fn told_text(found: &str) -> Option<Text> {
    (!found.is_empty()).then(|| Text::new(found))
}

fn told_word(found: Option<Word>) -> Option<Word> {
    found.filter(|found| !found.text().is_empty())
}

fn outcome(end: Option<&Event>, is_timeout: bool, has_evidence: bool) -> Option<Word> {
    let Some(end) = end else {
        return is_timeout.then_some(word::UNKNOWN);
    };
    let by_evidence = || if has_evidence { Some(word::COMPLETED) } else { told_word(end.unanswered_outcome) };
    end.outcome.or_else(by_evidence).or(Some(word::UNKNOWN))
}

/// `FAILURE_CLASS`: whose side the call failed on; None where it did not fail.
fn failure_class(outcome: Word) -> Option<Word> {
    match outcome {
        word::COMPLETED | word::FORWARDED => None,
        word::NO_ANSWER | word::BUSY | word::REJECTED | word::UNREACHABLE => Some(word::RECIPIENT),
        word::VOICEMAIL | word::MAX_ATTEMPTS => Some(word::RECIPIENT),
        word::CANCELED | word::EXPIRED | word::ABANDONED => Some(word::CALLER),
        word::LIMIT_REACHED => Some(word::CAPACITY),
        word::FAILED => Some(word::TECHNICAL),
        _ => Some(word::UNKNOWN),
    }
}

fn is_answered(outcome: Option<Word>, end: Option<&Event>, has_evidence: bool) -> Option<bool> {
    match outcome {
        Some(word::COMPLETED | word::FORWARDED | word::VOICEMAIL) => Some(true),
        None | Some(word::UNKNOWN) => has_evidence.then_some(true),
        Some(word::FAILED) => Some(has_evidence && end.is_none_or(|end| end.answer_evidence != Some(false))),
        Some(_) => Some(false),
    }
}

fn answered_by(outcome: Option<Word>) -> Word {
    if outcome == Some(word::VOICEMAIL) { word::MACHINE } else { word::UNKNOWN }
}

fn open_state(attempt: &[&Event]) -> Word {
    let known = attempt.iter().filter_map(|event| event.state);
    let furthest = known.filter(|state| *state != word::ENDED).max_by_key(|state| state.state_rank());
    furthest.filter(|state| state.state_rank() > 0).unwrap_or(word::QUEUED)
}

fn end_trigger(attempt: &[&Event], end: Option<&Event>, is_timeout: bool) -> Option<Word> {
    let Some(end) = end else {
        return is_timeout.then_some(word::UNKNOWN);
    };
    let of_ends = || {
        let mut ends = attempt.iter().rev().filter(|event| event.state == Some(word::ENDED));
        ends.find_map(|event| event.end_trigger)
    };
    told_word(end.end_trigger).or_else(of_ends).or(Some(word::UNKNOWN))
}

/// The last status that any of them tells; of the ends only, once there is one that decides.
fn last_status(ordered: &[&Event], of_ends: bool) -> Option<Text> {
    let mut telling = ordered.iter().rev().filter(|event| !of_ends || event.state == Some(word::ENDED));
    telling.find_map(|event| event.raw_status.clone())
}

fn talk_seconds(
    times: &Times,
    is_answered: Option<bool>,
    believed: &Believed<'_>,
    counted: &Counted,
) -> Option<f64> {
    if is_answered != Some(true) {
        return None;
    }
    let reported = believed.reported_seconds.filter(|_| counted.talk_is_reported);
    reported.or_else(|| between(times.answered_us, times.hangup_us))
}

fn total_seconds(
    end: Option<&Event>,
    started_us: Option<i64>,
    ended_us: Option<i64>,
    reported: Option<f64>,
) -> Option<f64> {
    let is_reported = end.is_some_and(|end| end.total_is_reported);
    reported.filter(|_| is_reported).or_else(|| between(started_us, ended_us))
}

fn time_source(ordered: &[&Event]) -> Word {
    let is_timed = |event: &&&Event| event.start_is_first_event || states_a_time(event);
    let has_timed = ordered.iter().any(|event| is_timed(&event));
    if !has_timed && ordered.iter().any(|event| event.started_us.is_some()) {
        return word::PROVIDER;
    }
    let mut asked = ordered.iter().filter(|event| !has_timed || is_timed(event));
    if asked.any(|event| event.at_source == word::RECEIVED) { word::RECEIVED } else { word::PROVIDER }
}

fn states_a_time(event: &Event) -> bool {
    let stated = [event.queued_us, event.ringing_us, event.answered_us, event.hangup_us, event.ended_us];
    stated.iter().any(Option::is_some)
}
