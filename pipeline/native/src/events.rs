//! Events on their way from the reader to the fold, without Python's objects of them.

use std::sync::Arc;

use pyo3::exceptions::PyZeroDivisionError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::model::Event;

/// Events, in the order of their receipt.
#[pyclass(module = "pipeline.native._native")]
#[derive(Default)]
pub struct Events {
    pub events: Vec<Arc<Event>>,
    /// Webhooks about no call.
    pub others: usize,
}

#[pymethods]
impl Events {
    fn __len__(&self) -> usize {
        self.events.len()
    }

    /// How many are on no list.
    #[getter]
    fn unknown(&self) -> usize {
        self.events.iter().filter(|event| event.is_unknown).count()
    }

    #[getter]
    fn others(&self) -> usize {
        self.others
    }

    /// The newest receipt.
    #[getter]
    fn newest_us(&self) -> Option<i64> {
        self.events.iter().map(|event| event.received_us).max()
    }

    /// As Python's `CallEvent`s.
    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        listed(py, &self.events)
    }

    /// From Python's; what no event can be is an error of the conversion.
    #[staticmethod]
    fn of(events: &Bound<'_, PyList>) -> PyResult<Events> {
        let events =
            events.iter().map(|event| Event::from_python(&event).map(Arc::new)).collect::<PyResult<_>>()?;
        Ok(Events { events, others: 0 })
    }

    /// Takes what the other holds, which is empty then.
    fn extend(&mut self, other: &mut Events) {
        self.events.append(&mut other.events);
        self.others += std::mem::take(&mut other.others);
    }

    /// Takes out the events that are at home in another partition than this one (`topic_names.home_partition`).
    fn split<'py>(&mut self, py: Python<'py>, partitions: u32, number: u32) -> PyResult<Bound<'py, PyList>> {
        self.split_by(py, partitions, number, |stream_key| stream_key)
    }

    /// Takes out the events that belong to other shares of a backfill than this one (`backfill_route.share_of`).
    fn split_share<'py>(&mut self, py: Python<'py>, shares: u32, share: u32) -> PyResult<Bound<'py, PyList>> {
        self.split_by(py, shares, share, |stream_key| stream_key.rsplit(':').next().unwrap_or_default())
    }
}

impl Events {
    fn split_by<'py>(
        &mut self,
        py: Python<'py>,
        parts: u32,
        number: u32,
        told_by: impl Fn(&str) -> &str,
    ) -> PyResult<Bound<'py, PyList>> {
        if parts == 0 {
            return Err(PyZeroDivisionError::new_err("there is no part"));
        }
        let is_stray =
            |event: &mut Arc<Event>| crc32fast::hash(told_by(&event.stream_key).as_bytes()) % parts != number;
        let strays: Vec<Arc<Event>> = self.events.extract_if(.., is_stray).collect();
        listed(py, &strays)
    }
}

fn listed<'py>(py: Python<'py>, events: &[Arc<Event>]) -> PyResult<Bound<'py, PyList>> {
    let found = PyList::empty(py);
    for event in events {
        found.append(event.to_python(py)?)?;
    }
    Ok(found)
}
