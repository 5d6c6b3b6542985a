//! What a flush has to make durable: `pipeline/assemble/changes.py: Changes`.
//!
//! It is asked for columns and messages (`columns.rs`, `messages.rs`). Whoever needs Python's events and records, for
//! tests or to leave some of them out, gets them as well, made anew each time.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PySet, PyTuple, PyType};

use crate::batches::{Keyed, Messages};
use crate::columns::{event_columns, key_hash, record_columns};
use crate::model::{Event, Record, Text};

#[pyclass(module = "pipeline.native._native", frozen)]
#[derive(Default)]
pub struct Changes {
    pub placed: Vec<(Arc<Event>, Option<Text>)>,
    pub changed: Vec<(Text, Arc<Record>)>,
    pub gone: Vec<(Text, Arc<Record>)>,
    pub unsure: AHashSet<Text>,
    pub again: Vec<(Text, Option<Arc<Record>>)>,
}

fn pairs<'py>(py: Python<'py>, records: &[(Text, Arc<Record>)]) -> PyResult<Bound<'py, PyList>> {
    let made: PyResult<Vec<_>> =
        records.iter().map(|(key, record)| Ok((key.as_str(), record.to_python(py)?))).collect();
    PyList::new(py, made?)
}

impl Changes {
    fn is_unsure(&self, (_, record): &(Text, Arc<Record>)) -> bool {
        self.unsure.contains(&record.call_key)
    }
}

fn message((_, record): &(Text, Arc<Record>)) -> Keyed {
    (record.call_key.clone(), Some(record.clone()))
}

impl Drop for Changes {
    /// Python drops it with its lock held; what is in it, of a large flush, takes tens of milliseconds to be freed.
    fn drop(&mut self) {
        let events = std::mem::take(&mut self.placed);
        let records = (std::mem::take(&mut self.changed), std::mem::take(&mut self.gone));
        let again = std::mem::take(&mut self.again);
        Python::attach(|py| py.detach(|| drop((events, records, again))));
    }
}

#[pymethods]
impl Changes {
    /// Events to be made durable, each with the key of its call.
    #[getter]
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        static PLACED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let class = PLACED.import(py, "pipeline.assemble.changes", "PlacedEvent")?;
        let made: PyResult<Vec<_>> = self
            .placed
            .iter()
            .map(|(event, call)| class.call1((event.to_python(py)?, call.as_deref())))
            .collect();
        PyList::new(py, made?)
    }

    /// Stream key and record, of every record that is new or changed.
    #[getter]
    fn records<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        pairs(py, &self.changed)
    }

    /// Stream keys and records of calls that, by a late event, never were.
    #[getter]
    fn retracted<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        pairs(py, &self.gone)
    }

    /// Keys of calls, cut out of an agent's stream by new events, that may yet turn out never to have been.
    #[getter]
    fn uncertain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PySet>> {
        PySet::new(py, self.unsure.iter().map(|key| key.as_str()))
    }

    /// Call keys with the records (None: retracted) that are durable, but may not have been told to everybody.
    #[getter]
    fn repeated<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let made: PyResult<Vec<_>> = self
            .again
            .iter()
            .map(|(key, record)| {
                let record = record.as_ref().map(|record| record.to_python(py)).transpose()?;
                Ok((key.as_str(), record))
            })
            .collect();
        PyList::new(py, made?)
    }

    fn __bool__(&self) -> bool {
        !(self.placed.is_empty() && self.changed.is_empty() && self.gone.is_empty())
    }

    /// How many events, records and retracted records there are.
    fn counts(&self) -> (usize, usize, usize) {
        (self.placed.len(), self.changed.len(), self.gone.len())
    }

    /// How many records are to be told again.
    fn repeats(&self) -> usize {
        self.again.len()
    }

    /// The columns of the events' rows (`columns.event_columns`).
    fn event_columns<'py>(&self, py: Python<'py>, published_us: i64) -> PyResult<Bound<'py, PyList>> {
        event_columns(py, &self.placed, published_us)
    }

    /// The columns of the records' rows, the retracted ones behind the others.
    fn record_columns<'py>(&self, py: Python<'py>, published_us: i64) -> PyResult<Bound<'py, PyList>> {
        let rows = |records: &[(Text, Arc<Record>)], is_retracted: bool| {
            records
                .iter()
                .map(move |(key, record)| (key.clone(), record.clone(), is_retracted))
                .collect::<Vec<_>>()
        };
        let every = [rows(&self.changed, false), rows(&self.gone, true)].concat();
        record_columns(py, &every, published_us)
    }

    /// Messages of records of calls that are sure to be calls.
    fn messages_before_files(&self) -> Messages {
        Messages(self.changed.iter().filter(|told| !self.is_unsure(told)).map(message).collect())
    }

    /// Messages of the others, the tombstones, and what is to be told again.
    fn messages_after_files(&self) -> Messages {
        let unsure = self.changed.iter().filter(|told| self.is_unsure(told)).map(message);
        let tombstones = self.gone.iter().map(|(_, record)| (record.call_key.clone(), None));
        Messages(unsure.chain(tombstones).chain(self.again.iter().cloned()).collect())
    }

    /// The hashes of the streams that something is written of (`history.note`); and of those that `call_events` and
    /// `calls` get rows of, repeats left out where they stand together.
    fn stream_hashes(&self, py: Python<'_>) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        py.detach(|| {
            let mut hashes = Hashes::default();
            let of_records = self.changed.iter().map(|(key, _)| key);
            let without_call = self.placed.iter().filter(|(_, call)| call.is_none());
            (
                hashes.of(of_records.clone().chain(without_call.map(|(event, _)| &event.stream_key))),
                hashes.of(self.placed.iter().map(|(event, _)| &event.stream_key)),
                hashes.of(of_records.chain(self.gone.iter().map(|(key, _)| key))),
            )
        })
    }
}

/// Each stream's hash is made once.
#[derive(Default)]
struct Hashes<'a>(AHashMap<&'a Text, u64>);

impl<'a> Hashes<'a> {
    fn of(&mut self, keys: impl Iterator<Item = &'a Text>) -> Vec<u64> {
        let (mut hashes, mut last) = (Vec::new(), None);
        for key in keys {
            if last.replace(key) != Some(key) {
                hashes.push(*self.0.entry(key).or_insert_with(|| key_hash(key)));
            }
        }
        hashes
    }
}

/// `Remembered` of `pipeline/model/remembered.py`, taken apart.
pub fn remembered(found: &Bound<'_, PyAny>) -> PyResult<crate::stream::Remembered> {
    let (events, records, retracted): (Bound<PyAny>, Bound<PyAny>, Bound<PyAny>) =
        found.cast::<PyTuple>()?.extract()?;
    let records_of = |found: &Bound<'_, PyAny>| -> PyResult<Vec<Record>> {
        found.try_iter()?.map(|record| Record::from_python(&record?)).collect()
    };
    Ok(crate::stream::Remembered {
        events: events
            .try_iter()?
            .map(|event| Event::from_python(&event?).map(Arc::new))
            .collect::<PyResult<_>>()?,
        records: records_of(&records)?,
        retracted: records_of(&retracted)?,
    })
}
