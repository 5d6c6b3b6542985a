//! Cutting an agent's stream into calls: a fold too, over the set of the agent's events. `pipeline/assemble/cut.py`.
//!
//! Wherever Python looks an event up by its id, it is looked up here by its place: no id is there twice.

use std::cmp::Ordering;
use std::sync::Arc;

use ahash::AHashMap;

use crate::decode::digest;
use crate::facts::is_apart;
use crate::fold::{FOREVER_US, fold};
use crate::model::{Event, FORGOTTEN, Record, Text};
use crate::told::told;
use crate::word::{self, Word};

/// As many events as most calls have.
const USUAL_EVENTS: usize = 8;

/// One call of the stream, and where it stands in it.
pub struct Cut {
    pub call_id: Text,
    pub events: Vec<Arc<Event>>,
    /// Index of its first event in the ordered stream.
    pub start: usize,
    /// Index of the event that began the next call.
    pub closer: Option<usize>,
}

/// An event of the stream and the time that it is put at.
struct Placed<'a> {
    clock_us: i64,
    /// Its session and its place in it; of an event that is in none how far the call has come is told instead.
    session: Option<(&'a str, i64)>,
    event: &'a Arc<Event>,
}

impl<'a> Placed<'a> {
    fn of(event: &'a Arc<Event>) -> Placed<'a> {
        let session = event.session_id.as_deref().zip(event.seq);
        Placed { clock_us: event.at_us, session, event }
    }

    /// By session and by the place in it; before them those that are in none, as they are given.
    fn in_sessions(&self, other: &Placed<'_>) -> Ordering {
        self.session.cmp(&other.session).then_with(|| match self.session {
            Some(_) => self.event.event_id.cmp(&other.event.event_id),
            None => Ordering::Equal,
        })
    }

    /// By time, and across sessions.
    fn as_happened(&self, other: &Placed<'_>) -> Ordering {
        let rank = |placed: &Placed<'_>| match placed.session {
            Some(_) => 0,
            None => placed.event.state.map_or(0, Word::state_rank),
        };
        self.clock_us
            .cmp(&other.clock_us)
            .then_with(|| self.session.unwrap_or_default().cmp(&other.session.unwrap_or_default()))
            .then_with(|| rank(self).cmp(&rank(other)))
            .then_with(|| self.event.event_id.cmp(&other.event.event_id))
    }
}

/// The agent's events as they happened: by `seq` within a session of the relay, by time across sessions.
///
/// A browser's clock may be set back; within a session it is then taken to stand still until it has caught up.
pub fn in_stream_order<'a>(events: impl Iterator<Item = &'a Arc<Event>>) -> Vec<Arc<Event>> {
    let mut placed: Vec<Placed<'_>> = events.map(Placed::of).collect();
    placed.sort_by(Placed::in_sessions);
    let session = |placed: &Placed<'a>| placed.session.map(|(session, _)| session);
    let is_one_session = match (placed.first(), placed.last()) {
        (Some(first), Some(last)) => session(first).is_some() && session(first) == session(last),
        _ => true,
    };
    if !is_one_session {
        let (mut current, mut clock_us) = (None, 0);
        for one in placed.iter_mut().filter(|one| one.session.is_some()) {
            if session(one) != current {
                (current, clock_us) = (session(one), 0);
            }
            clock_us = clock_us.max(one.clock_us);
            one.clock_us = clock_us;
        }
        placed.sort_by(Placed::as_happened);
    }
    placed.into_iter().map(|placed| placed.event.clone()).collect()
}

/// The calls of an agent's stream, in their order. `ordered` starts at the stream's or at a call's start.
pub fn cut(ordered: &[Arc<Event>], idle_us: i64) -> Vec<Cut> {
    let mut calls: Vec<Cut> = Vec::new();
    let mut uuids: Vec<Option<&Text>> = Vec::new();
    let (mut is_open, mut last_us) = (false, 0);
    for (index, event) in ordered.iter().enumerate() {
        let is_silent = index > 0 && is_apart(last_us, event.at_us, idle_us);
        last_us = last_us.max(event.at_us);
        let uuid = event.provider_call_id.as_ref();
        if event.cut == Some(word::BEGIN) && (!is_open || is_silent) {
            if let Some(before) = calls.last_mut() {
                before.closer = Some(index);
            }
            let is_taken = uuids.last() == Some(&uuid);
            let own = uuid.filter(|uuid| !uuid.is_empty() && !is_taken);
            let call_id = own.cloned().unwrap_or_else(|| derived_id(event));
            let mut events = Vec::with_capacity(USUAL_EVENTS);
            events.push(event.clone());
            calls.push(Cut { call_id, events, start: index, closer: None });
            uuids.push(uuid);
            is_open = true;
            continue;
        }
        let is_sync = event.cut == Some(word::SYNC);
        let back = if is_sync { sync_place(uuid, &uuids) } else { 1 };
        let place = calls.len().checked_sub(back).filter(|_| is_sync || is_open);
        if let Some(place) = place {
            calls[place].events.push(event.clone());
            uuids[place] = uuids[place].filter(|known| !known.is_empty()).or(uuid);
            is_open = is_open && (is_sync || event.cut != Some(word::END));
        }
    }
    calls
}

/// How far back the call is that details belong to: they keep coming after its end, at times when the next one has
/// already begun.
fn sync_place(uuid: Option<&Text>, uuids: &[Option<&Text>]) -> usize {
    match uuids {
        [.., before, last] if uuid.is_some() && uuid == *before && uuid != *last => 2,
        _ => 1,
    }
}

fn derived_id(first: &Event) -> Text {
    smol_str::format_smolstr!("bus-{}", digest(first.event_id.as_bytes()))
}

/// The record of a call that can change by its events only, no longer by time, and what it was folded from.
pub struct Settled {
    pub events: Vec<Arc<Event>>,
    pub shaped_by: i64,
    pub record: Record,
}

/// The records of all calls in an agent's stream, each with the events that belong to it.
///
/// `settled`, by call id, spares the calls of an earlier fold of the same stream that are as they were; it is
/// brought up to date.
pub fn fold_stream<'a>(
    events: impl Iterator<Item = &'a Arc<Event>>,
    as_of_us: i64,
    idle_us: i64,
    mut settled: Option<&mut AHashMap<Text, Settled>>,
) -> Vec<(Record, Vec<Arc<Event>>)> {
    let stream = Stream::of(in_stream_order(events));
    let calls = cut(&stream.ordered, idle_us);
    let mut still = AHashMap::with_capacity(settled.as_ref().map_or(0, |_| calls.len()));
    let mut folded: Vec<(Record, Vec<Arc<Event>>)> = Vec::with_capacity(calls.len());
    for (index, call) in calls.iter().enumerate() {
        if is_forgotten(call) {
            continue;
        }
        let before = index.checked_sub(1).map(|before| &calls[before]);
        let shaped_by = stream.shaped_by(call, before);
        let known = settled.as_deref_mut().and_then(|settled| as_it_was(call, shaped_by, settled));
        let record = match &known {
            Some(known) => known.record.clone(),
            None => fold_call(call, shaped_by, as_of_us, idle_us),
        };
        if settled.is_some() && !can_time_out(call, &record) {
            let settle = || Settled { events: call.events.clone(), shaped_by, record: record.clone() };
            still.insert(call.call_id.clone(), known.unwrap_or_else(settle));
        }
        folded.push((record, Vec::new()));
    }
    if let Some(settled) = settled {
        *settled = still;
    }
    // Only now, since a call's events tell how the next one took its shape.
    for ((_, events), call) in folded.iter_mut().zip(calls.into_iter().filter(|call| !is_forgotten(call))) {
        *events = call.events;
    }
    folded
}

/// Whether the call was erased. What is left of it keeps the place of its neighbours' events, and is told to nobody.
fn is_forgotten(call: &Cut) -> bool {
    call.events.first().is_some_and(|first| first.event_type == FORGOTTEN)
}

/// What is known of the call, taken out, if nothing about it has changed. No other call will ask for it: of the same id
/// there may be one, but they have no event in common.
fn as_it_was(call: &Cut, shaped_by: i64, settled: &mut AHashMap<Text, Settled>) -> Option<Settled> {
    let is_same = |(one, other): (&Arc<Event>, &Arc<Event>)| Arc::ptr_eq(one, other) || one == other;
    let known = settled.get(&call.call_id)?;
    let is_as_it_was = !can_time_out(call, &known.record)
        && known.shaped_by == shaped_by
        && known.events.len() == call.events.len()
        && known.events.iter().zip(&call.events).all(is_same);
    if is_as_it_was { settled.remove(&call.call_id) } else { None }
}

fn can_time_out(call: &Cut, record: &Record) -> bool {
    call.closer.is_none() && record.closed_by != Some(word::TERMINAL)
}

fn fold_call(call: &Cut, shaped_by: i64, as_of_us: i64, idle_us: i64) -> Record {
    let told = told(&call.events);
    let events: Vec<&Event> = told.iter().map(|event| &**event).collect();
    // Another call began, so this one, if it never ended, was closed by silence.
    let as_of_us = if call.closer.is_some() { FOREVER_US } else { as_of_us };
    fold(&events, as_of_us, idle_us, Some((&call.call_id, shaped_by)))
}

/// The ordered stream.
struct Stream {
    ordered: Vec<Arc<Event>>,
    /// The earliest receipt from each event on: where nothing can follow any more that was there in time.
    earliest: Vec<i64>,
}

impl Stream {
    fn of(ordered: Vec<Arc<Event>>) -> Stream {
        let mut earliest: Vec<i64> = ordered.iter().map(|event| event.received_us).collect();
        let mut earliest_us = i64::MAX;
        for received_us in earliest.iter_mut().rev() {
            earliest_us = earliest_us.min(*received_us);
            *received_us = earliest_us;
        }
        Stream { ordered, earliest }
    }

    /// The events from one place on, each with the earliest receipt from it on.
    fn from(&self, start: usize) -> impl Iterator<Item = (&Event, i64)> {
        let there = self.ordered[start..].iter().zip(&self.earliest[start..]);
        there.map(|(event, earliest_us)| (&**event, *earliest_us))
    }

    /// How many of the agent's events, from the call's first on, were there when the call took its shape.
    ///
    /// In an undisturbed stream that is the number of its own events. A late event that moves a border between calls
    /// can leave a call with fewer events than before; this number rises all the same, because the late event was
    /// received after those that it displaced. `before` is the call before.
    fn shaped_by(&self, call: &Cut, before: Option<&Cut>) -> i64 {
        let handed_back_us = before.map_or(0, |before| self.last_handing_back_us(call, before));
        let lost_us = call.closer.map_or(i64::MIN, |closer| self.last_loss_us(call, closer));
        let received = call.events.iter().map(|event| event.received_us);
        let shaped_us = received.fold(handed_back_us.max(lost_us), i64::max);
        let there = self.from(call.start).take_while(|(_, earliest_us)| *earliest_us <= shaped_us);
        let count = there.filter(|(event, _)| event.received_us <= shaped_us).count() as i64;
        // What made it hand details back stands before it, and is not among its events.
        count + i64::from(handed_back_us > 0)
    }

    /// When the call last lost an event to a later call, because a begin came late; 0 if it never did.
    ///
    /// An event that follows belonged to this call from its receipt until the first receipt of any begin between them.
    fn last_loss_us(&self, call: &Cut, closer: usize) -> i64 {
        let has_ended = call.events.iter().any(|event| event.cut == Some(word::END));
        let (mut begun_us, mut lost_us) = (self.ordered[closer].received_us, 0);
        for (event, earliest_us) in self.from(closer + 1) {
            if earliest_us >= begun_us {
                break;
            }
            if event.cut == Some(word::BEGIN) {
                begun_us = begun_us.min(event.received_us);
            } else if event.received_us < begun_us && (event.cut == Some(word::SYNC) || !has_ended) {
                lost_us = lost_us.max(begun_us);
            }
        }
        lost_us
    }

    /// When the call last lost details to the call before it, because that one's id came late; 0 if it never did.
    fn last_handing_back_us(&self, call: &Cut, before: &Cut) -> i64 {
        // Those that stand before the first event of this one, and those that stand after it.
        let stretch = &self.ordered[before.start..call.start];
        let is_next =
            |count: usize, event| before.events.get(count).is_some_and(|next| Arc::ptr_eq(next, event));
        let count = stretch.iter().fold(0, |count, event| count + usize::from(is_next(count, event)));
        let (own, handed_back) = before.events.split_at(count);
        let Some(last) = handed_back.last() else {
            return 0;
        };
        let telling = own.iter().filter(|event| event.provider_call_id == last.provider_call_id);
        let told_us = telling.map(|event| event.received_us).min().unwrap_or(0);
        if handed_back.iter().any(|event| event.received_us < told_us) { told_us } else { 0 }
    }
}
