//! One stream as a worker holds it in memory: `pipeline/assemble/memory.py: Stream`.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use crate::cut::{Settled, cut, fold_stream, in_stream_order};
use crate::fold::{FOREVER_US, fold};
use crate::model::{Event, FORGOTTEN, Record, Text, call_key};
use crate::word;

/// Events that are looked through one by one for an id; with more an index is kept.
const FEW_EVENTS: usize = 16;

/// A record with the events that it was folded from.
pub type Folded = (Record, Vec<Arc<Event>>);

/// What was made durable of a stream before (`pipeline/model/remembered.py`).
pub struct Remembered {
    pub events: Vec<Arc<Event>>,
    pub records: Vec<Record>,
    pub retracted: Vec<Record>,
}

/// The call that a durable event of an agent was last written under.
#[derive(Clone, PartialEq)]
pub enum Placed {
    Never,
    In(Option<Text>),
}

/// An event in memory. It is fresh while it is not durable.
pub struct Slot {
    pub event: Arc<Event>,
    pub is_fresh: bool,
    pub placed: Placed,
}

pub struct Stream {
    pub key: Text,
    pub partition: usize,
    pub is_agent: bool,
    pub idle_us: i64,
    /// In the order in which they were first taken, an id once.
    pub slots: Vec<Slot>,
    pub index: AHashMap<Text, usize>,
    /// By call key, in the order in which they were first published.
    pub published: Vec<Arc<Record>>,
    /// Agents only: calls that need not be folded again, unless their events change.
    pub settled: AHashMap<Text, Settled>,
    /// Agents only: the last record of each call that, by a late event, never was.
    pub retracted: Vec<Arc<Record>>,
    /// Agents only: events that came again though they are durable: a worker before us did not commit them.
    pub taken_again: AHashSet<Text>,
    pub last_us: i64,
    /// When the call that is going on will have been silent for too long.
    pub due_us: Option<i64>,
    /// Where the stream stands in its assembler's timetable.
    pub bucket: Option<i64>,
    /// Whether it has news that were not collected.
    pub is_dirty: bool,
    pub is_trimmed: bool,
    /// Agents only: the first event in memory, if older ones were let go of; the newest `seq` of each session among
    /// those; and the provider's id of the last call among them.
    pub kept_from: Option<Arc<Event>>,
    pub let_go: AHashMap<Text, i64>,
    pub uuid_before: Option<Text>,
}

impl Stream {
    pub fn new(key: Text, partition: usize, is_agent: bool, idle_us: i64) -> Stream {
        Stream {
            key,
            partition,
            is_agent,
            idle_us,
            slots: Vec::new(),
            index: AHashMap::new(),
            published: Vec::new(),
            settled: AHashMap::new(),
            retracted: Vec::new(),
            taken_again: AHashSet::new(),
            last_us: 0,
            due_us: None,
            bucket: None,
            is_dirty: false,
            is_trimmed: false,
            kept_from: None,
            let_go: AHashMap::new(),
            uuid_before: None,
        }
    }

    fn place_of(&self, event_id: &str) -> Option<usize> {
        if self.slots.len() <= FEW_EVENTS {
            return self.slots.iter().position(|slot| slot.event.event_id == event_id);
        }
        self.index.get(event_id).copied()
    }

    pub fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
        let count = self.slots.len();
        if count == FEW_EVENTS + 1 {
            self.make_index();
        } else if count > FEW_EVENTS {
            self.index.insert(self.slots[count - 1].event.event_id.clone(), count - 1);
        }
    }

    fn make_index(&mut self) {
        let ids = self.slots.iter().enumerate();
        self.index = ids.map(|(place, slot)| (slot.event.event_id.clone(), place)).collect();
    }

    /// Adds an event; whether it was news.
    pub fn take(&mut self, mut event: Arc<Event>) -> bool {
        let place = self.place_of(&event.event_id);
        if let Some(known) = place.map(|place| &self.slots[place])
            && known.event.received_us <= event.received_us
        {
            if self.is_agent && !known.is_fresh {
                self.taken_again.insert(event.event_id.clone());
            }
            return false;
        }
        self.share_texts(Arc::make_mut(&mut event));
        self.last_us = self.last_us.max(event.received_us);
        match place {
            Some(place) => {
                self.slots[place].event = event;
                self.slots[place].is_fresh = true;
            }
            None => self.push(Slot { event, is_fresh: true, placed: Placed::Never }),
        }
        true
    }

    /// Each event comes with texts of its own, and most events of a call repeat these.
    fn share_texts(&self, event: &mut Event) {
        event.stream_key = self.key.clone();
        if let Some(other) = self.slots.first().map(|slot| &slot.event) {
            if event.call_id == other.call_id {
                event.call_id.clone_from(&other.call_id);
            }
            if event.account_id == other.account_id {
                event.account_id.clone_from(&other.account_id);
            }
        }
    }

    /// Whether the event's place, and the call that it belongs to, are surely in memory.
    pub fn reaches_back_to(&self, event: &Event) -> bool {
        let Some(kept) = &self.kept_from else { return true };
        if self.place_of(&event.event_id).is_some() {
            return true;
        }
        let names_a_call = event.provider_call_id.as_ref().is_some_and(|id| !id.is_empty());
        if event.cut == Some(word::SYNC) && names_a_call && event.provider_call_id == self.uuid_before {
            return false;
        }
        if let (Some(session), Some(seq)) = (&event.session_id, event.seq) {
            if let Some(kept_seq) = kept.seq
                && kept.session_id.as_ref() == Some(session)
            {
                return seq >= kept_seq;
            }
            if seq <= self.let_go.get(session).copied().unwrap_or(-1) {
                return false;
            }
        }
        event.at_us > kept.at_us
    }

    /// The stream is in memory again for an event, for as long as if it had been read from the lake.
    pub fn comes_back(&mut self, event: &Event) {
        let newest_us = self.slots.iter().map(|slot| slot.event.received_us).max();
        self.last_us = newest_us.map_or(event.received_us, |us| us.max(event.received_us));
    }

    /// Takes up what is durable of the stream.
    pub fn merge(&mut self, past: Remembered) {
        let events = past.events;
        for event in &events {
            self.last_us = self.last_us.max(event.received_us);
            let Some(place) = self.place_of(&event.event_id) else {
                self.push(Slot { event: event.clone(), is_fresh: false, placed: Placed::Never });
                continue;
            };
            let slot = &mut self.slots[place];
            if event.received_us <= slot.event.received_us {
                // What is durable already, and no newer than what just came, need not be written again.
                slot.event = event.clone();
                if std::mem::take(&mut slot.is_fresh) && self.is_agent {
                    self.taken_again.insert(event.event_id.clone());
                }
            }
        }
        for record in past.records {
            put(&mut self.published, Arc::new(record));
        }
        self.retracted.clear();
        for record in past.retracted {
            put(&mut self.retracted, Arc::new(record));
        }
        (self.kept_from, self.uuid_before, self.is_trimmed) = (None, None, false);
        self.let_go.clear();
        if self.is_agent {
            self.take_up_places(&events);
        } else {
            self.note_due(&events);
        }
    }

    fn take_up_places(&mut self, past: &[Arc<Event>]) {
        let calls = cut(&in_stream_order(past.iter()), self.idle_us);
        let mut placed: AHashMap<&str, Option<Text>> =
            past.iter().map(|e| (e.event_id.as_str(), None)).collect();
        for call in calls.iter().filter(|call| call.events[0].event_type != FORGOTTEN) {
            let key = call_key(call.events[0].provider, &call.call_id);
            for event in &call.events {
                placed.insert(&event.event_id, Some(key.clone()));
            }
        }
        for slot in &mut self.slots {
            let place = placed.get(slot.event.event_id.as_str());
            slot.placed = place.map_or(Placed::Never, |call| Placed::In(call.clone()));
        }
        let last = calls.last().map_or_else(Vec::new, |call| call.events.clone());
        self.note_due(&last);
    }

    /// The records of the calls in memory, each with its events (`memory.fold_events`).
    pub fn fold(&mut self, as_of_us: i64) -> Vec<Folded> {
        let folded = self.fold_at(as_of_us);
        let is_reopened = folded.iter().any(|(record, _)| {
            record.state != word::ENDED
                && published(&self.published, &record.call_key).is_some_and(|before| {
                    before.closed_by == Some(word::TIMEOUT) && before.event_count == record.event_count
                })
        });
        // At most the last call of a stream is open, so this closes no other.
        if is_reopened { self.fold_at(FOREVER_US) } else { folded }
    }

    fn fold_at(&mut self, as_of_us: i64) -> Vec<Folded> {
        let events = self.slots.iter().map(|slot| &slot.event);
        if self.is_agent {
            return fold_stream(events, as_of_us, self.idle_us, Some(&mut self.settled));
        }
        let told: Vec<&Event> = events.clone().map(|event| &**event).collect();
        vec![(fold(&told, as_of_us, self.idle_us, None), events.cloned().collect())]
    }

    /// Takes note of what `fold` gave: it is written now.
    pub fn is_settled(&mut self, folded: &[Folded]) {
        self.taken_again.clear();
        if self.is_agent {
            let places = places(folded);
            for slot in &mut self.slots {
                let call =
                    places.get(&Arc::as_ptr(&slot.event)).map(|place| folded[*place].0.call_key.clone());
                slot.placed = Placed::In(call);
            }
        }
        for slot in &mut self.slots {
            slot.is_fresh = false;
        }
        self.note_due(folded.last().map_or(&[], |(_, events)| events));
        self.is_trimmed = false;
    }

    /// A published call never was: its record, which is remembered in case that the call comes back.
    pub fn retract(&mut self, place: usize) -> Arc<Record> {
        let record = self.published.remove(place);
        put(&mut self.retracted, record.clone());
        record
    }

    /// A call is there that is not published: perhaps again, and then readers must see that it is.
    pub fn bring_back(&mut self, record: &mut Record) {
        if let Some(place) = self.retracted.iter().position(|gone| gone.call_key == record.call_key) {
            let gone = self.retracted.remove(place);
            if record.revision < gone.revision {
                raise(record, &gone);
            }
        }
    }

    /// When time alone will change something, if nothing is received: a timeout, or leaving memory.
    pub fn next_us(&self, grace_us: i64) -> Option<i64> {
        if self.due_us.is_some() || self.is_agent {
            self.due_us
        } else {
            Some(self.last_us.saturating_add(grace_us))
        }
    }

    fn note_due(&mut self, last_call: &[Arc<Event>]) {
        let is_open = self.published.iter().any(|record| record.state != word::ENDED);
        let newest_us = last_call.iter().map(|event| event.received_us).max().unwrap_or(self.last_us);
        self.due_us = is_open.then(|| newest_us.saturating_add(self.idle_us));
    }
}

/// The place in `folded` of each event's call, by the event's address.
pub fn places(folded: &[Folded]) -> AHashMap<*const Event, usize> {
    let mut places = AHashMap::new();
    for (place, (_, events)) in folded.iter().enumerate() {
        for event in events {
            places.insert(Arc::as_ptr(event), place);
        }
    }
    places
}

/// The record of a call among others.
pub fn published<'a>(records: &'a [Arc<Record>], call_key: &str) -> Option<&'a Arc<Record>> {
    records.iter().find(|record| record.call_key == call_key)
}

/// Puts a record in the place of that of the same call, or at the end, as a dict does.
pub fn put(records: &mut Vec<Arc<Record>>, record: Arc<Record>) {
    match records.iter_mut().find(|known| known.call_key == record.call_key) {
        Some(known) => *known = record,
        None => records.push(record),
    }
}

/// Whether the record says something new; then its revision is made to say so as well (`changes.is_change`).
pub fn is_change(record: &mut Record, before: Option<&Record>) -> bool {
    let Some(before) = before else { return true };
    if record.revision < before.revision {
        // Only when receipts contradict the order of arrival: the number never goes down, and readers must see the
        // newer state all the same.
        return raise(record, before);
    }
    record != before
}

/// Raises a revision to that of an older row, and beyond it if it says something else; whether it does.
fn raise(record: &mut Record, before: &Record) -> bool {
    record.revision = before.revision;
    let is_other = record != before;
    if is_other {
        record.revision = record.revision.saturating_add(1);
    }
    is_other
}
