//! Which end decides, and whether a call that had ended is being dialled again: `pipeline/assemble/redial.py`.

use std::borrow::Cow;

use ahash::AHashMap;

use crate::model::Event;
use crate::word::{self, Word};

/// Ends of the whole call, whatever leg they happen to name.
const FINAL: [Option<Word>; 3] = [Some(word::MAX_ATTEMPTS), Some(word::EXPIRED), Some(word::CANCELED)];

/// The events of the last attempt, and the end that decides; no end while the call is going on.
pub fn last_attempt<'o, 'e>(ordered: &'o [&'e Event]) -> (Cow<'o, [&'e Event]>, Option<&'e Event>) {
    let Some(end) = ends(ordered).next_back() else {
        return (ordered.into(), None);
    };
    if ordered.iter().all(|event| event.attempt_id.is_none() && event.leg.is_none()) {
        // The last of equals: the one that stands furthest on, since no event is there twice.
        return (ordered.into(), ends(ordered).max_by_key(|event| (event.end_rank, event.fact_rank)));
    }
    if is_redialling(ordered, end) {
        let goes_on = |event: &&Event| event.at_us >= end.at_us && !is_end(event);
        return (ordered.iter().copied().filter(goes_on).collect(), None);
    }
    (of_last_end(ordered, end), Some(end))
}

fn is_end(event: &Event) -> bool {
    event.state == Some(word::ENDED)
}

fn ends<'e>(ordered: &[&'e Event]) -> impl DoubleEndedIterator<Item = &'e Event> {
    ordered.iter().copied().filter(|event| is_end(event))
}

/// Events that ask for a dial attempt, or tell of one.
fn starts<'e>(ordered: &[&'e Event]) -> impl DoubleEndedIterator<Item = &'e Event> {
    let is_start = |event: &&Event| {
        event.attempt_id.is_some()
            || (event.state == Some(word::RINGING) && event.direction == Some(word::OUTBOUND))
    };
    ordered.iter().copied().filter(is_start)
}

/// The events of the attempt that the last end ended; one leg may report an error and then its end.
fn of_last_end<'o, 'e>(ordered: &'o [&'e Event], end: &'e Event) -> Cow<'o, [&'e Event]> {
    let Some(before) = ends(ordered).nth_back(1) else {
        return ordered.into();
    };
    if end.direction != Some(word::OUTBOUND) {
        return ordered.into();
    }
    if end.leg.is_some() {
        return ordered.iter().copied().filter(|event| event.leg == end.leg).collect();
    }
    let after: Vec<_> = ordered.iter().copied().filter(|event| event.at_us > before.at_us).collect();
    if after.is_empty() { vec![end].into() } else { after.into() }
}

fn is_redialling(ordered: &[&Event], end: &Event) -> bool {
    let Some(last) = starts(ordered).next_back() else {
        return false;
    };
    if ends(ordered).any(|event| event.at_us >= last.at_us && FINAL.contains(&event.outcome)) {
        return false;
    }
    let mut legs: AHashMap<&str, i64> = AHashMap::new();
    for event in starts(ordered) {
        if let Some(leg) = &event.leg {
            legs.entry(leg).or_insert(event.at_us);
        }
    }
    if let Some((leg, since_us)) = legs.into_iter().max_by_key(|(leg, since_us)| (*since_us, *leg)) {
        return !ends(ordered).any(|event| match &event.leg {
            Some(ended) => ended == leg,
            None => event.at_us >= since_us,
        });
    }
    let (all, ended) = (starts(ordered).count(), ends(ordered).count());
    let asked = starts(ordered).filter(|event| event.attempt_id.is_some()).count();
    asked.max(all - asked) > ended && last.at_us > end.at_us
}
