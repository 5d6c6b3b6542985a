//! Lines of an archive as events: what `pipeline/archive.py` and `normalise.Normaliser.events` do together, for ordinary
//! lines of ordinary webhooks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use ahash::AHashMap;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Deserialize;
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::credentials::Cleaner;
use crate::decode::{Decoder, Plain, Sure, decoder, is_too_deep, shaped, text_instant};
use crate::events::Events;
use crate::model::Event;
use crate::reader::{decoded, text_told};

/// Any line that is a webhook.
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
    #[serde(borrow, default)]
    query: Option<&'a RawValue>,
}

/// What was taken of some lines of a block.
#[pyclass(module = "pipeline.native._native", get_all, frozen)]
pub struct Taken {
    events: Py<Events>,
    /// Lines that are left to Python: the place of each, and the line itself.
    left: Vec<(usize, Py<PyBytes>)>,
    webhooks: usize,
    /// The newest receipt, that of a line included which is left because its texts could not be cleaned.
    newest_us: Option<i64>,
    lines: usize,
    /// Where in the block they end.
    end: usize,
}

/// Reads the lines of an archive, of whatever provider. While it does, other threads may go on with theirs.
#[pyclass(module = "pipeline.native._native")]
pub struct LineReader {
    decoders: AHashMap<String, Decoder>,
    cleaner: Cleaner,
}

#[pymethods]
impl LineReader {
    #[new]
    #[pyo3(signature = (providers, clean, own=Vec::new()))]
    fn new(providers: Vec<String>, clean: Py<PyAny>, own: Vec<Bound<'_, PyAny>>) -> LineReader {
        let decoders = providers.into_iter().filter_map(|name| decoder(&name).map(|found| (name, found)));
        LineReader { decoders: decoders.collect(), cleaner: Cleaner::new(clean, &own) }
    }

    /// Reads lines of a block from `start` on, `most` at most. The first line of all begins in `head`; what comes
    /// behind the last line end is none yet. A block without any line end is one line.
    #[pyo3(signature = (head, block, start=0, most=usize::MAX))]
    fn read(&self, py: Python<'_>, head: &[u8], block: &[u8], start: usize, most: usize) -> PyResult<Taken> {
        let lines = Lines { head: if start == 0 { head } else { &[] }, block, end: start };
        let mut found = py.detach(|| Found::of(self, lines, most));
        found.clean(py, &self.cleaner)?;
        let left = found.left.into_iter().map(|(place, line)| (place, PyBytes::new(py, &line).unbind()));
        Ok(Taken {
            left: left.collect(),
            events: Py::new(py, Events { events: found.events, others: found.others })?,
            webhooks: found.webhooks,
            newest_us: found.newest_us,
            lines: found.lines,
            end: found.end,
        })
    }
}

/// The lines of a block, with their ends; `end` is where the last one ended.
struct Lines<'a> {
    head: &'a [u8],
    block: &'a [u8],
    end: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Cow<'a, [u8]>> {
        let mut rest = self.block.get(self.end..).filter(|rest| !rest.is_empty())?;
        let line = rest;
        // Of a slice this cannot fail.
        let size = rest.skip_until(b'\n').unwrap_or_default();
        let line = &line[..size];
        if self.end > 0 && !line.ends_with(b"\n") {
            return None;
        }
        self.end += size;
        let head = std::mem::take(&mut self.head);
        Some(if head.is_empty() { line.into() } else { [head, line].concat().into() })
    }
}

/// What a block came to, before anything of it was made Python's.
#[derive(Default)]
struct Found<'a> {
    events: Vec<Arc<Event>>,
    others: usize,
    left: Vec<(usize, Cow<'a, [u8]>)>,
    webhooks: usize,
    newest_us: Option<i64>,
    lines: usize,
    end: usize,
    /// Events with texts that Python has to look through: where they are, and their lines.
    told: Vec<(usize, usize, Cow<'a, [u8]>)>,
}

impl<'a> Found<'a> {
    fn of(reader: &LineReader, mut lines: Lines<'a>, most: usize) -> Found<'a> {
        let mut found = Found::default();
        let mut is_body_last = true;
        while found.lines < most {
            let Some(line) = lines.next() else { break };
            let place = found.lines;
            found.lines += 1;
            let Ok((received_us, event)) = event(&reader.decoders, &line, &mut is_body_last) else {
                found.left.push((place, line));
                continue;
            };
            match event {
                Some(event) => {
                    if reader.cleaner.is_asked_of(&event) {
                        found.told.push((found.events.len(), place, line));
                    }
                    found.events.push(event);
                }
                None => found.others += 1,
            }
            found.webhooks += 1;
            found.newest_us = found.newest_us.max(Some(received_us));
        }
        found.end = lines.end;
        found
    }

    /// Cleans texts of the senders. Where that fails, the line is left.
    fn clean(&mut self, py: Python<'_>, cleaner: &Cleaner) -> PyResult<()> {
        let mut failed = Vec::new();
        for (number, place, line) in std::mem::take(&mut self.told) {
            if !cleaner.clean(py, &mut self.events[number])? {
                failed.push(number);
                self.left.push((place, line));
            }
        }
        if !failed.is_empty() {
            self.left.sort_unstable_by_key(|(place, _)| *place);
            self.webhooks -= failed.len();
            failed.iter().rev().for_each(|number| drop(self.events.remove(*number)));
        }
        Ok(())
    }
}

/// When an ordinary line was received, and its event. `is_body_last` says whether lines have their bodies last.
fn event(
    decoders: &AHashMap<String, Decoder>,
    line: &[u8],
    is_body_last: &mut bool,
) -> Sure<(i64, Option<Arc<Event>>)> {
    let line = std::str::from_utf8(line).map_err(|_| Plain)?;
    if *is_body_last
        && let Some(parts) = apart(line)
        && let Ok(found) = parts.event(decoders)
    {
        return Ok(found);
    }
    let Line { provider, received_at, body, headers, query } = &shaped::<Line<'_>>(line)?;
    let (headers, query) = (headers.map(RawValue::get), query.map(RawValue::get));
    let found = Parts { provider, received_at, body: body.get(), headers, query }.event(decoders)?;
    // Such lines would be read twice each time.
    *is_body_last = false;
    Ok(found)
}

/// What a line says, as JSON but for the two texts.
struct Parts<'a> {
    provider: &'a str,
    received_at: &'a str,
    body: &'a str,
    headers: Option<&'a str>,
    query: Option<&'a str>,
}

impl Parts<'_> {
    fn event(&self, decoders: &AHashMap<String, Decoder>) -> Sure<(i64, Option<Arc<Event>>)> {
        let decoder = *decoders.get(self.provider).ok_or(Plain)?;
        let received_us = text_instant(self.received_at)?.ok_or(Plain)?;
        if self.body.starts_with('"') {
            // The raw body as a string: what the provider sent was not JSON, or was to be kept to the letter.
            return Err(Plain);
        }
        let parameter = |asked: &str| self.query.map_or(Ok(None), |query| text_told(query, asked));
        let event = decoded(decoder, received_us, self.body, |asked| header(self.headers, asked), parameter)?;
        Ok((received_us, event))
    }
}

/// The parts of a line that has its body last, which is not looked into: that it is one value, and so that the line is
/// one, is seen by whoever reads it. To find the end of a body costs nearly as much as to read it.
fn apart(line: &str) -> Option<Parts<'_>> {
    let mut rest = Rest(line);
    let (mut provider, mut received_at, mut headers, mut query) = (None, None, None, None);
    rest.sign('{')?;
    loop {
        let name = rest.text()?;
        rest.sign(':')?;
        let is_first = match name {
            "provider" => provider.replace(rest.text()?).is_none(),
            "received_at" => received_at.replace(rest.text()?).is_none(),
            "headers" => headers.replace(rest.value()?).is_none(),
            "query" => query.replace(rest.value()?).is_none(),
            "body" => break,
            _ => rest.value().is_some(),
        };
        if !is_first {
            return None;
        }
        rest.sign(',')?;
    }
    if is_too_deep(&line[..line.len() - rest.0.len()]) {
        return None;
    }
    let body = rest.0.trim_end_matches(SPACE).strip_suffix('}')?.trim_matches(SPACE);
    Some(Parts { provider: provider?, received_at: received_at?, body, headers, query })
}

/// What JSON takes for space.
const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// What of a line has not been read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn sign(&mut self, sign: char) -> Option<()> {
        self.0 = self.0.trim_start_matches(SPACE).strip_prefix(sign)?;
        Some(())
    }

    /// A text in which nothing is escaped.
    fn text(&mut self) -> Option<&'a str> {
        self.sign('"')?;
        let (found, rest) = self.0.split_once('"')?;
        self.0 = rest;
        let is_plain = found.bytes().all(|sign| sign >= b' ' && sign != b'\\');
        is_plain.then_some(found)
    }

    fn value(&mut self) -> Option<&'a str> {
        let mut values = Deserializer::from_str(self.0).into_iter::<&'a RawValue>();
        let found = values.next()?.ok()?;
        self.0 = &self.0[values.byte_offset()..];
        Some(found.get())
    }
}

fn header(headers: Option<&str>, asked: &str) -> Sure<Option<String>> {
    let Some(headers) = headers else { return Ok(None) };
    let headers: Option<HashMap<String, String>> = shaped(headers)?;
    let mut found = headers.into_iter().flatten().filter(|(name, _)| name.to_lowercase() == asked);
    let first = found.next().map(|(_, value)| value);
    // Which of two counts hangs on their order.
    if found.next().is_some() { Err(Plain) } else { Ok(first) }
}
