//! What a folded stream has to make durable: `assembler.Assembler._settle` and `_settle_agent`.

use std::sync::Arc;

use ahash::AHashSet;

use crate::changes::Changes;
use crate::model::{Record, Text};
use crate::stream::{Folded, Placed, Stream, is_change, places, published, put};

/// Notes what a stream was folded to as changes, and in the stream that it is written now.
pub fn settle(stream: &mut Stream, folded: &[Folded], changes: &mut Changes) {
    if stream.is_agent {
        settle_agent(stream, folded, changes);
    } else if let Some((record, _)) = folded.first() {
        let call = record.call_key.clone();
        for slot in stream.slots.iter().filter(|slot| slot.is_fresh) {
            changes.placed.push((slot.event.clone(), Some(call.clone())));
        }
        publish(stream, record.clone(), changes);
        if stream.published.len() > 1 {
            retract(stream, &AHashSet::from([call]), changes);
        }
    }
    stream.is_settled(folded);
}

/// Publishes a record if it says something new; the one to be published, and whether it does.
fn publish(stream: &mut Stream, mut record: Record, changes: &mut Changes) -> (Arc<Record>, bool) {
    let before = published(&stream.published, &record.call_key).cloned();
    if before.is_none() {
        stream.bring_back(&mut record);
    }
    let is_news = is_change(&mut record, before.as_deref());
    let record = Arc::new(record);
    if is_news {
        put(&mut stream.published, record.clone());
        changes.changed.push((stream.key.clone(), record.clone()));
    }
    (record, is_news)
}

fn settle_agent(stream: &mut Stream, folded: &[Folded], changes: &mut Changes) {
    let places = places(folded);
    let mut is_new = false;
    for slot in &stream.slots {
        let call = places.get(&Arc::as_ptr(&slot.event)).map(|place| folded[*place].0.call_key.clone());
        is_new |= slot.is_fresh;
        // A moved border may have put an event that is durable already into another call.
        let has_moved = matches!(&slot.placed, Placed::In(before) if *before != call);
        if slot.is_fresh || has_moved {
            changes.placed.push((slot.event.clone(), call));
        }
    }
    let again = told_of_again(stream, folded);
    for (record, _) in folded {
        let (record, is_news) = publish(stream, record.clone(), changes);
        if is_news && is_new {
            changes.unsure.insert(record.call_key.clone());
        } else if !is_news && again.contains(&record.call_key) {
            changes.again.push((record.call_key.clone(), Some(record)));
        }
    }
    let standing: AHashSet<Text> = folded.iter().map(|(record, _)| record.call_key.clone()).collect();
    retract(stream, &standing, changes);
    if !stream.taken_again.is_empty() {
        let gone = stream.retracted.iter().map(|record| &record.call_key);
        changes.again.extend(gone.filter(|call| !standing.contains(*call)).map(|call| (call.clone(), None)));
    }
}

fn retract(stream: &mut Stream, standing: &AHashSet<Text>, changes: &mut Changes) {
    let mut place = 0;
    while place < stream.published.len() {
        if standing.contains(&stream.published[place].call_key) {
            place += 1;
        } else {
            let record = stream.retract(place);
            changes.gone.push((stream.key.clone(), record));
        }
    }
}

/// Calls with an event that was taken again, and their neighbours: a border may have moved between them.
fn told_of_again(stream: &Stream, folded: &[Folded]) -> AHashSet<Text> {
    let mut near = AHashSet::new();
    if stream.taken_again.is_empty() {
        return near;
    }
    for (place, (_, events)) in folded.iter().enumerate() {
        if events.iter().any(|event| stream.taken_again.contains(&event.event_id)) {
            let neighbours = &folded[place.saturating_sub(1)..folded.len().min(place + 2)];
            near.extend(neighbours.iter().map(|(record, _)| record.call_key.clone()));
        }
    }
    near
}
