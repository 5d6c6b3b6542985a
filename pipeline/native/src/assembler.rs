//! The open calls of a worker: `pipeline/assemble/assembler.py: Assembler`, with the same interface.

use std::sync::Arc;

use ahash::AHashSet;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::changes::{Changes, remembered};
use crate::departed::{Departed, MOST_DEPARTED};
use crate::events::Events;
use crate::memory::Streams;
use crate::model::{Event, Text};
use crate::settle::settle;
use crate::stream::{Remembered, Stream};
use crate::timetable::{Timetable, bucket_of};
use crate::word::{self, Word};

/// What is kept of a partition: Python's own object, when its streams want to be looked at, and how many there are.
struct Partition {
    object: Py<PyAny>,
    timetable: Timetable,
    streams: usize,
}

/// Folds events by stream. `agent_providers` are those whose streams are cut into calls; `departed` says how many streams
/// that left memory can come back without the history.
#[pyclass(module = "pipeline.native._native")]
pub struct Assembler {
    idle_us: i64,
    grace_us: i64,
    agent_providers: Vec<Word>,
    history: Option<Py<PyAny>>,
    streams: Streams,
    partitions: Vec<Partition>,
    places: Py<PyDict>,
    dirty: Vec<u32>,
    to_remember: AHashSet<u32>,
    /// Streams that left memory at the last `collect`: the history may not know all of them yet.
    just_gone: AHashSet<Text>,
    departed: Departed,
}

#[pymethods]
impl Assembler {
    #[new]
    #[pyo3(signature = (*, idle_us, grace_us, agent_providers, history=None, departed=MOST_DEPARTED))]
    fn new(
        py: Python<'_>,
        idle_us: i64,
        grace_us: i64,
        agent_providers: Vec<String>,
        history: Option<Py<PyAny>>,
        departed: usize,
    ) -> Assembler {
        Assembler {
            idle_us,
            grace_us,
            agent_providers: agent_providers.iter().filter_map(|name| Word::of(name)).collect(),
            history,
            streams: Streams::default(),
            partitions: Vec::new(),
            places: PyDict::new(py).unbind(),
            dirty: Vec::new(),
            to_remember: AHashSet::new(),
            just_gone: AHashSet::new(),
            departed: Departed::new(departed),
        }
    }

    /// Streams in memory.
    fn __len__(&self) -> usize {
        self.streams.len()
    }

    /// Calls in memory that were published and have not ended.
    fn open_calls(&self) -> usize {
        let records = self.streams.iter().flat_map(|(_, stream)| &stream.published);
        records.filter(|record| record.state != word::ENDED).count()
    }

    /// Takes events of a partition, in any order and with repeats: `Events`, which are empty then, or Python's.
    fn add(&mut self, partition: &Bound<'_, PyAny>, events: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, partition) = (partition.py(), self.partition(partition)?);
        let mut own = Events::default();
        let mut given;
        let taken = if let Ok(events) = events.cast::<Events>() {
            given = events.borrow_mut();
            &mut given.events
        } else {
            for event in events.try_iter()? {
                own.events.push(Arc::new(Event::from_python(&event?)?));
            }
            &mut own.events
        };
        // All that may fail comes before anything changes.
        let known = self.known(py, partition, taken)?;
        let taken = std::mem::take(taken);
        py.detach(|| taken.into_iter().for_each(|event| self.take(partition, event, &known)));
        Ok(())
    }

    /// Takes up calls that were going on when this partition was last made durable.
    fn restore(&mut self, partition: &Bound<'_, PyAny>, found: &Bound<'_, PyAny>) -> PyResult<()> {
        let partition_number = self.partition(partition)?;
        for item in found.call_method0("items")?.try_iter()? {
            let (key, past): (String, Bound<'_, PyAny>) = item?.extract()?;
            let past = remembered(&past)?;
            let Some(first) = past.events.first() else { continue };
            let is_agent = self.agent_providers.contains(&first.provider);
            let known = self.streams.number_of(&key);
            let number = known.unwrap_or_else(|| self.open(Text::new(&key), partition_number, is_agent));
            let told = past.records.iter().map(|record| record.event_count).sum::<i64>();
            let is_whole = told == i64::try_from(past.events.len()).unwrap_or(i64::MAX);
            let stream = self.stream(number);
            stream.merge(past);
            if stream.is_agent || !is_whole {
                // A crash came between an event and its record: when the event comes again it is no news.
                self.make_dirty(number);
            }
            self.schedule(number);
        }
        Ok(())
    }

    /// Forgets the streams of partitions that another worker has taken over.
    fn drop(&mut self, partitions: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut gone = AHashSet::new();
        for partition in partitions.try_iter()? {
            gone.insert(self.partition(&partition?)?);
        }
        let of_these = self.streams.iter().filter(|(_, stream)| gone.contains(&stream.partition));
        for number in of_these.map(|(number, _)| number).collect::<Vec<_>>() {
            self.to_remember.remove(&number);
            self.remove(number);
        }
        self.dirty.retain(|number| self.streams.find(*number).is_some());
        self.departed.forget(|stream| gone.contains(&stream.partition));
        for number in gone {
            self.partitions[number].timetable = Timetable::default();
        }
        Ok(())
    }

    /// The changes since the last call, seen at a partition's time; calls that are long over leave memory.
    ///
    /// `only_settled` leaves alone what is still going on or within its grace (a backfill's halfway flush), but for
    /// agents' streams: around the clock there may always be a call, and they would be held from end to end.
    #[pyo3(signature = (as_of_us, *, only_settled=false))]
    fn collect(
        &mut self,
        py: Python<'_>,
        as_of_us: &Bound<'_, PyAny>,
        only_settled: bool,
    ) -> PyResult<Changes> {
        // All that may fail comes before anything changes: asked again, it is as if it had not been asked.
        let now_us = self.times(as_of_us)?;
        let past = self.remember(py)?;
        Ok(py.detach(|| self.changes(&now_us, past, only_settled)))
    }
}

impl Assembler {
    /// What `collect` gives, once it is known what the time is and what of the past is wanted.
    fn changes(
        &mut self,
        now_us: &[Option<i64>],
        past: Vec<(u32, Remembered)>,
        only_settled: bool,
    ) -> Changes {
        let mut looked_at = std::mem::take(&mut self.dirty);
        let mut is_looked_at: AHashSet<u32> = looked_at.iter().copied().collect();
        for (number, past) in past {
            self.stream(number).merge(past);
            if is_looked_at.insert(number) {
                looked_at.push(number);
            }
        }
        self.to_remember.clear();
        self.just_gone.clear();
        self.departed.look();
        for (place, now_us) in now_us.iter().enumerate() {
            let Some(now_us) = now_us else { continue };
            for number in self.partitions[place].timetable.take_due(*now_us) {
                self.stream(number).bucket = None;
                if is_looked_at.insert(number) {
                    looked_at.push(number);
                }
            }
        }
        let mut changes = Changes::default();
        for number in &looked_at {
            let now_us = now_us[self.stream(*number).partition].unwrap_or(0);
            self.look_at(*number, now_us, only_settled, &mut changes);
        }
        looked_at.retain(|number| self.streams.find(*number).is_some_and(|stream| stream.is_dirty));
        self.dirty = looked_at;
        changes
    }

    fn stream(&mut self, number: u32) -> &mut Stream {
        self.streams.get(number)
    }

    fn partition(&mut self, object: &Bound<'_, PyAny>) -> PyResult<usize> {
        let places = self.places.bind(object.py());
        if let Some(place) = places.get_item(object)? {
            return place.extract();
        }
        places.set_item(object, self.partitions.len())?;
        self.partitions.push(Partition {
            object: object.clone().unbind(),
            timetable: Timetable::default(),
            streams: 0,
        });
        Ok(self.partitions.len() - 1)
    }

    /// The time of each partition that has any streams.
    fn times(&self, as_of_us: &Bound<'_, PyAny>) -> PyResult<Vec<Option<i64>>> {
        let time = |partition: &Partition| match partition.streams {
            0 => Ok(None),
            _ => as_of_us.call1((partition.object.bind(as_of_us.py()),))?.extract().map(Some),
        };
        self.partitions.iter().map(time).collect()
    }

    fn remember(&mut self, py: Python<'_>) -> PyResult<Vec<(u32, Remembered)>> {
        let (Some(history), false) = (&self.history, self.to_remember.is_empty()) else {
            return Ok(Vec::new());
        };
        let wanted = self.to_remember.iter().filter_map(|number| self.streams.find(*number));
        let mut keys: Vec<&str> = wanted.map(|stream| stream.key.as_str()).collect();
        keys.sort_unstable();
        let found = history.bind(py).call_method1("remember", (PyList::new(py, keys)?,))?;
        let mut past = Vec::new();
        for item in found.call_method0("items")?.try_iter()? {
            let (key, told): (String, Bound<'_, PyAny>) = item?.extract()?;
            if let Some(number) = self.streams.number_of(&key) {
                past.push((number, remembered(&told)?));
            }
        }
        Ok(past)
    }

    /// Of the streams of these events that are not in memory: those of which something is durable.
    fn known(&self, py: Python<'_>, partition: usize, events: &[Arc<Event>]) -> PyResult<AHashSet<Text>> {
        let is_stranger =
            |key: &Text| self.streams.number_of(key).is_none() && !self.departed.holds(key, partition);
        let strangers: AHashSet<Text> = py.detach(|| {
            let keys = events.iter().map(|event| &event.stream_key);
            keys.filter(|key| is_stranger(key)).cloned().collect()
        });
        let known = |key: &Text| Ok(self.just_gone.contains(key) || self.is_in_the_lake(py, key)?);
        strangers
            .into_iter()
            .filter_map(|key| known(&key).map(|yes| yes.then_some(key)).transpose())
            .collect()
    }

    fn is_in_the_lake(&self, py: Python<'_>, key: &Text) -> PyResult<bool> {
        let Some(history) = &self.history else { return Ok(false) };
        history.bind(py).call_method1(pyo3::intern!(py, "knows"), (key.as_str(),))?.extract()
    }

    fn take(&mut self, partition: usize, event: Arc<Event>, known: &AHashSet<Text>) {
        let number = match self.streams.number_of(&event.stream_key) {
            Some(number) => {
                if !self.stream(number).reaches_back_to(&event) {
                    // Older than what was kept of the agent's stream: the cut needs all of it again.
                    self.to_remember.insert(number);
                }
                number
            }
            None => self.meet(partition, &event, known),
        };
        let stream = self.stream(number);
        if stream.take(event) || !stream.taken_again.is_empty() {
            self.make_dirty(number);
        }
    }

    /// The number of a stream that is not in memory, for an event of it.
    fn meet(&mut self, partition: usize, event: &Event, known: &AHashSet<Text>) -> u32 {
        if let Some(mut stream) = self.departed.take(&event.stream_key, partition) {
            stream.comes_back(event);
            let number = self.put(stream);
            // If the event is no news, nothing but its time makes it leave again.
            self.schedule(number);
            return number;
        }
        let is_agent = self.agent_providers.contains(&event.provider);
        let number = self.open(event.stream_key.clone(), partition, is_agent);
        if known.contains(&event.stream_key) {
            self.to_remember.insert(number);
        }
        number
    }

    fn open(&mut self, key: Text, partition: usize, is_agent: bool) -> u32 {
        self.put(Box::new(Stream::new(key, partition, is_agent, self.idle_us)))
    }

    fn put(&mut self, stream: Box<Stream>) -> u32 {
        self.partitions[stream.partition].streams += 1;
        self.streams.put(stream)
    }

    /// Takes a stream out of memory; its number is free from now on.
    fn remove(&mut self, number: u32) -> Option<Box<Stream>> {
        let mut stream = self.streams.remove(number)?;
        let partition = &mut self.partitions[stream.partition];
        partition.streams -= 1;
        if let Some(bucket) = stream.bucket.take() {
            partition.timetable.discard(number, bucket);
        }
        Some(stream)
    }

    fn make_dirty(&mut self, number: u32) {
        let stream = self.stream(number);
        if !std::mem::replace(&mut stream.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    fn look_at(&mut self, number: u32, now_us: i64, only_settled: bool, changes: &mut Changes) {
        let grace_us = self.grace_us;
        let stream = self.stream(number);
        let only_settled = only_settled && !stream.is_agent;
        let is_silent = now_us.saturating_sub(stream.last_us) >= grace_us;
        let is_due = stream.due_us.is_some_and(|due_us| now_us >= due_us);
        let mut is_settled = true;
        let mut folded = None;
        if (stream.is_dirty || is_due) && (is_silent || !only_settled) {
            let found = stream.fold(now_us);
            is_settled = !only_settled || found.iter().all(|(record, _)| record.state == word::ENDED);
            if is_settled {
                settle(stream, &found, changes);
                stream.is_dirty = false;
            }
            folded = Some(found);
        }
        if is_settled && !stream.is_dirty {
            if stream.is_agent {
                if !stream.is_trimmed {
                    stream.trim(now_us.saturating_sub(grace_us), folded.as_deref());
                }
            } else if is_silent && stream.due_us.is_none() {
                if let Some(stream) = self.remove(number) {
                    self.just_gone.insert(stream.key.clone());
                    self.departed.put(stream);
                }
                return;
            }
        }
        self.schedule(number);
    }

    /// Notes when the stream wants to be looked at next; one that is dirty is looked at in any case.
    fn schedule(&mut self, number: u32) {
        let grace_us = self.grace_us;
        let stream = self.stream(number);
        let next_us = if stream.is_dirty { None } else { stream.next_us(grace_us) };
        let (partition, before, bucket) = (stream.partition, stream.bucket, next_us.map(bucket_of));
        if bucket == before {
            return;
        }
        stream.bucket = bucket;
        let timetable = &mut self.partitions[partition].timetable;
        if let Some(before) = before {
            timetable.discard(number, before);
        }
        if let Some(bucket) = bucket {
            timetable.put(number, bucket);
        }
    }
}
