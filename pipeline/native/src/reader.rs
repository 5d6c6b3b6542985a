//! Records of `webhooks.<provider>` as events: what `stream/messages.WebhookReader` and `normalise.Normaliser.events`
//! do together, for ordinary webhooks whose numbers are kept.

use std::cell::Cell;
use std::sync::Arc;

use ahash::AHashMap;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::decode::{Decoder, Plain, Sure, Webhook, decoder, text_instant};
use crate::events::Events;
use crate::model::{Event, Text, Value};
use crate::records::{Records, Slices};

/// `messages.HTTP_HEADER`.
const HTTP_HEADER: &str = "http.";
/// The collector's own form of an instant: `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
const RECEIVED_AT_BYTES: usize = 27;
/// Reasons are words of a list. Senders that make up new ones may not fill the memory with them.
const MOST_REASONS: usize = 1024;
const LONGEST_REASON: usize = 64;

/// Is shown name and value of each header.
type See<'a> = &'a mut dyn FnMut(&str, Option<&[u8]>) -> Sure<()>;

/// Reads the webhooks of one provider. What it is not made for it leaves to Python: it says where that stands.
#[pyclass(module = "pipeline.native._native")]
pub struct Reader {
    provider: String,
    decoder: Option<Decoder>,
    /// `without_credentials`, told which are our own.
    clean: Py<PyAny>,
    cleaned_reasons: AHashMap<Text, Text>,
}

#[pymethods]
impl Reader {
    /// Of a provider without a decoder everything is left.
    #[new]
    pub fn new(provider: &str, clean: Py<PyAny>) -> Reader {
        Reader {
            provider: provider.to_owned(),
            decoder: decoder(provider),
            clean,
            cleaned_reasons: AHashMap::new(),
        }
    }

    /// The events of Kafka's records, and the places of the records that are left.
    fn read(&mut self, records: &Bound<'_, PyAny>) -> PyResult<(Events, Vec<usize>)> {
        let py = records.py();
        if let Ok(fetched) = records.cast::<Records>() {
            return self
                .read_each(py, fetched.get().each(py), |_, decoder, record| of_slices(decoder, &record));
        }
        self.read_each(py, records.cast::<PyList>()?.iter(), |_, decoder, record| of_record(decoder, &record))
    }

    /// The same of `Webhook`s.
    fn read_webhooks(&mut self, webhooks: &Bound<'_, PyList>) -> PyResult<(Events, Vec<usize>)> {
        self.read_each(webhooks.py(), webhooks.iter(), of_webhook)
    }
}

impl Reader {
    fn read_each<T>(
        &mut self,
        py: Python<'_>,
        items: impl ExactSizeIterator<Item = T>,
        of_item: impl Fn(&str, Decoder, T) -> Sure<Option<Arc<Event>>>,
    ) -> PyResult<(Events, Vec<usize>)> {
        let Some(decoder) = self.decoder else {
            return Ok((Events::default(), (0..items.len()).collect()));
        };
        let mut found = Events { events: Vec::with_capacity(items.len()), others: 0 };
        let mut left = Vec::new();
        for (place, item) in items.enumerate() {
            match of_item(&self.provider, decoder, item) {
                Ok(Some(mut event)) => {
                    if self.is_cleaned(py, &mut event)? {
                        found.events.push(event);
                    } else {
                        left.push(place);
                    }
                }
                Ok(None) => found.others += 1,
                Err(Plain) => left.push(place),
            }
        }
        Ok((found, left))
    }

    /// Whether the event is as it may be kept. If that fails it is Python's, where a failure of ours is quarantined.
    pub fn is_cleaned(&mut self, py: Python<'_>, event: &mut Arc<Event>) -> PyResult<bool> {
        match self.without_credentials(py, event) {
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// `Normaliser._told`: a text of the sender's is what credentials may hide in.
    fn without_credentials(&mut self, py: Python<'_>, event: &mut Arc<Event>) -> PyResult<()> {
        if !has_texts(event) {
            return Ok(());
        }
        let event = Arc::make_mut(event);
        if let Some(url) = &event.recording_url {
            event.recording_url = Some(self.cleaned(py, url)?);
        }
        if let Some(reason) = &event.failure_reason {
            event.failure_reason = Some(self.cleaned_reason(py, reason)?);
        }
        for error in &mut event.errors {
            *error = self.cleaned(py, error)?;
        }
        Ok(())
    }

    fn cleaned_reason(&mut self, py: Python<'_>, reason: &Text) -> PyResult<Text> {
        if let Some(cleaned) = self.cleaned_reasons.get(reason) {
            return Ok(cleaned.clone());
        }
        let cleaned = self.cleaned(py, reason)?;
        if reason.len() <= LONGEST_REASON {
            if self.cleaned_reasons.len() >= MOST_REASONS {
                self.cleaned_reasons.clear();
            }
            self.cleaned_reasons.insert(reason.clone(), cleaned.clone());
        }
        Ok(cleaned)
    }

    fn cleaned(&self, py: Python<'_>, text: &Text) -> PyResult<Text> {
        Text::read(&self.clean.bind(py).call1((text.as_str(),))?)
    }
}

/// Whether the event has any text of the sender's own.
pub fn has_texts(event: &Event) -> bool {
    event.recording_url.is_some() || event.failure_reason.is_some() || !event.errors.is_empty()
}

/// `WebhookReader.webhook` and the event of what it gives. The query decides nothing of what is ordinary.
fn of_record(decoder: Decoder, record: &Bound<'_, PyAny>) -> Sure<Option<Arc<Event>>> {
    let py = record.py();
    let value = attribute(record, intern!(py, "value"))?;
    let headers = attribute(record, intern!(py, "headers"))?;
    let received_us = received_us(|see| each_header(&headers, see))?;
    let header = |asked: &str| header_of_record(|see| each_header(&headers, see), asked);
    decoded(decoder, received_us, body_of(&value)?, header)
}

/// The same of a record that is no object of Python's.
fn of_slices(decoder: Decoder, record: &Slices<'_>) -> Sure<Option<Arc<Event>>> {
    let each = |see: See<'_>| record.headers.clone().try_for_each(|(name, value)| see(name, value));
    let body = std::str::from_utf8(record.value.ok_or(Plain)?).map_err(|_| Plain)?;
    decoded(decoder, received_us(each)?, body, |asked| header_of_record(each, asked))
}

/// The event of a `Webhook` of the provider.
fn of_webhook(provider: &str, decoder: Decoder, webhook: Bound<'_, PyAny>) -> Sure<Option<Arc<Event>>> {
    let py = webhook.py();
    let found = attribute(&webhook, intern!(py, "provider"))?;
    if text_of(&found)? != provider {
        return Err(Plain);
    }
    let received_us = attribute(&webhook, intern!(py, "received_us"))?.extract().map_err(|_| Plain)?;
    let body = attribute(&webhook, intern!(py, "body"))?;
    decoded(decoder, received_us, body_of(&body)?, |asked| {
        let headers = attribute(&webhook, intern!(py, "headers"))?;
        let found = headers.cast::<PyDict>().map_err(|_| Plain)?.get_item(asked).map_err(|_| Plain)?;
        found.map(|found| text_of(&found).map(str::to_owned)).transpose()
    })
}

/// The event of a body; `header` looks a request header up, if it is asked for one.
pub fn decoded(
    decoder: Decoder,
    received_us: i64,
    body: &str,
    header: impl Fn(&str) -> Sure<Option<String>>,
) -> Sure<Option<Arc<Event>>> {
    let is_understood = Cell::new(true);
    let header = |asked: &str| {
        header(asked).unwrap_or_else(|Plain| {
            is_understood.set(false);
            None
        })
    };
    let found = decoder(&Webhook { received_us, body, header: &header })?;
    if is_understood.get() { Ok(found) } else { Err(Plain) }
}

fn body_of<'a>(found: &'a Bound<'_, PyAny>) -> Sure<&'a str> {
    let body = found.cast::<PyBytes>().map_err(|_| Plain)?.as_bytes();
    std::str::from_utf8(body).map_err(|_| Plain)
}

/// When the collector took it; `Plain` if somebody else put it there.
fn received_us(each: impl Fn(See<'_>) -> Sure<()>) -> Sure<i64> {
    let mut received_us = None;
    each(&mut |name, value| {
        if name == "received-at" {
            let told = std::str::from_utf8(value.ok_or(Plain)?).map_err(|_| Plain)?;
            received_us = if told.len() == RECEIVED_AT_BYTES { text_instant(told)? } else { None };
        }
        Ok(())
    })?;
    received_us.ok_or(Plain)
}

/// The last one of the name, as in the dictionary that `WebhookReader` makes of them. Nobody asks for one of ours.
fn header_of_record(each: impl Fn(See<'_>) -> Sure<()>, asked: &str) -> Sure<Option<String>> {
    let mut found = None;
    each(&mut |name, value| {
        if is_named(name.strip_prefix(HTTP_HEADER).unwrap_or(name), asked) {
            found = Some(String::from_utf8(value.unwrap_or_default().to_vec()).map_err(|_| Plain)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a name is the one asked for, in lower case.
fn is_named(name: &str, asked: &str) -> bool {
    if name.is_ascii() { name.eq_ignore_ascii_case(asked) } else { name.to_lowercase() == asked }
}

/// Name and value of each header in Python's list of them.
fn each_header(headers: &Bound<'_, PyAny>, see: See<'_>) -> Sure<()> {
    let mut see_pair = |pair: Bound<'_, PyAny>| {
        let pair = pair.cast::<PyTuple>().map_err(|_| Plain)?;
        if pair.len() != 2 {
            return Err(Plain);
        }
        let name = pair.get_borrowed_item(0).map_err(|_| Plain)?;
        let value = pair.get_borrowed_item(1).map_err(|_| Plain)?;
        if value.is_none() {
            return see(text_of(&name)?, None);
        }
        see(text_of(&name)?, Some(value.cast::<PyBytes>().map_err(|_| Plain)?.as_bytes()))
    };
    if let Ok(list) = headers.cast::<PyList>() {
        list.iter().try_for_each(&mut see_pair)
    } else {
        headers.cast::<PyTuple>().map_err(|_| Plain)?.iter().try_for_each(&mut see_pair)
    }
}

/// What Python cannot tell us either is Python's to complain of.
fn attribute<'py>(found: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Sure<Bound<'py, PyAny>> {
    found.getattr(name).map_err(|_| Plain)
}

fn text_of<'a>(found: &'a Bound<'_, PyAny>) -> Sure<&'a str> {
    found.cast::<PyString>().map_err(|_| Plain)?.to_str().map_err(|_| Plain)
}
