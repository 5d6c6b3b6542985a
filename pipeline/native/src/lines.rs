//! Lines of an archive as events: what `pipeline/archive.py` and `normalise.Normaliser.events` do together, for ordinary
//! lines of ordinary webhooks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use ahash::AHashMap;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::{Plain, Sure, shaped, text_instant};
use crate::events::Events;
use crate::model::Event;
use crate::reader::{Reader, decoded};

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    provider: Cow<'a, str>,
    #[serde(borrow)]
    received_at: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
}

/// What was taken of some lines, and the places of those that are left to Python.
#[pyclass(module = "pipeline.native._native", get_all)]
pub struct Taken {
    events: Py<Events>,
    left: Vec<usize>,
    webhooks: usize,
    /// The newest receipt of a webhook that was taken.
    newest_us: Option<i64>,
}

/// Reads the lines of an archive, of whatever provider.
#[pyclass(module = "pipeline.native._native")]
pub struct LineReader {
    readers: AHashMap<String, Reader>,
}

#[pymethods]
impl LineReader {
    #[new]
    fn new(py: Python<'_>, providers: Vec<String>, clean: Py<PyAny>) -> LineReader {
        let readers = providers.into_iter().map(|name| {
            let reader = Reader::new(&name, clean.clone_ref(py));
            (name, reader)
        });
        LineReader { readers: readers.collect() }
    }

    /// Reads lines, with their ends or without.
    fn read(&mut self, py: Python<'_>, lines: &Bound<'_, PyList>) -> PyResult<Taken> {
        let mut events = Events { events: Vec::with_capacity(lines.len()), others: 0 };
        let (mut left, mut webhooks, mut newest_us) = (Vec::new(), 0, None);
        for (place, line) in lines.iter().enumerate() {
            let bytes = line.cast::<PyBytes>()?.as_bytes();
            let Ok((provider, received_us, event)) = self.event(bytes) else {
                left.push(place);
                continue;
            };
            match (event, self.readers.get_mut(&*provider)) {
                (Some(mut event), Some(reader)) => {
                    if !reader.is_cleaned(py, &mut event)? {
                        left.push(place);
                        continue;
                    }
                    events.events.push(event);
                }
                _ => events.others += 1,
            }
            webhooks += 1;
            newest_us = newest_us.max(Some(received_us));
        }
        Ok(Taken { events: Py::new(py, events)?, left, webhooks, newest_us })
    }
}

impl LineReader {
    fn event<'a>(&self, line: &'a [u8]) -> Sure<(Cow<'a, str>, i64, Option<Arc<Event>>)> {
        let line: Line<'a> = shaped(std::str::from_utf8(line).map_err(|_| Plain)?)?;
        let decoder = self.readers.get(&*line.provider).and_then(|reader| reader.decoder).ok_or(Plain)?;
        let received_us = text_instant(&line.received_at)?.ok_or(Plain)?;
        let body = line.body.get();
        if body.starts_with('"') {
            // The raw body as a string: what the provider sent was not JSON, or was to be kept to the letter.
            return Err(Plain);
        }
        let event = decoded(decoder, received_us, body, |asked| header(line.headers, asked))?;
        Ok((line.provider, received_us, event))
    }
}

fn header(headers: Option<&RawValue>, asked: &str) -> Sure<Option<String>> {
    let Some(headers) = headers else { return Ok(None) };
    let headers: Option<HashMap<String, String>> = shaped(headers.get())?;
    let mut found = headers.into_iter().flatten().filter(|(name, _)| name.to_lowercase() == asked);
    let first = found.next().map(|(_, value)| value);
    // Which of two counts hangs on their order.
    if found.next().is_some() { Err(Plain) } else { Ok(first) }
}
