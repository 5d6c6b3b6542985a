//! Records of `webhooks.<provider>` as events: what `stream/messages.WebhookReader` and `normalise.Normaliser.events`
//! do together, for ordinary webhooks whose numbers are kept.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::credentials::Cleaner;
use crate::decode::{Decoder, Plain, Sure, Webhook, decoder, shaped, text_instant};
use crate::events::Events;
use crate::model::Event;
use crate::records::{Records, Slices};

/// `messages.HTTP_HEADER`.
const HTTP_HEADER: &str = "http.";
/// The collector's own form of an instant: `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
const RECEIVED_AT_BYTES: usize = 27;

/// Is shown name and value of each header.
type See<'a> = &'a mut dyn FnMut(&str, Option<&[u8]>) -> Sure<()>;

/// Reads the webhooks of one provider. What it is not made for it leaves to Python: it says where that stands.
#[pyclass(module = "pipeline.native._native")]
pub struct Reader {
    provider: String,
    decoder: Option<Decoder>,
    cleaner: Cleaner,
}

#[pymethods]
impl Reader {
    /// `clean` is `without_credentials`, told which are our `own`. Of a provider without a decoder everything is left.
    #[new]
    #[pyo3(signature = (provider, clean, own=Vec::new()))]
    fn new(provider: &str, clean: Py<PyAny>, own: Vec<Bound<'_, PyAny>>) -> Reader {
        Reader {
            provider: provider.to_owned(),
            decoder: decoder(provider),
            cleaner: Cleaner::new(clean, &own),
        }
    }

    /// The events of Kafka's records, and the places of the records that are left.
    fn read(&self, records: &Bound<'_, PyAny>) -> PyResult<(Events, Vec<usize>)> {
        let py = records.py();
        if let Ok(fetched) = records.cast::<Records>() {
            return self
                .read_each(py, fetched.get().each(py), |_, decoder, record| of_slices(decoder, &record));
        }
        self.read_each(py, records.cast::<PyList>()?.iter(), |_, decoder, record| of_record(decoder, &record))
    }

    /// The same of `Webhook`s.
    fn read_webhooks(&self, webhooks: &Bound<'_, PyList>) -> PyResult<(Events, Vec<usize>)> {
        self.read_each(webhooks.py(), webhooks.iter(), of_webhook)
    }
}

impl Reader {
    fn read_each<T>(
        &self,
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

    /// Whether the event is as it may be kept, without credentials. Nearly always that is seen without a look at Python.
    fn is_cleaned(&self, py: Python<'_>, event: &mut Arc<Event>) -> PyResult<bool> {
        if self.cleaner.is_asked_of(event) { self.cleaner.clean(py, event) } else { Ok(true) }
    }
}

/// `WebhookReader.webhook` and the event of what it gives.
fn of_record(decoder: Decoder, record: &Bound<'_, PyAny>) -> Sure<Option<Arc<Event>>> {
    let py = record.py();
    let value = attribute(record, intern!(py, "value"))?;
    let headers = attribute(record, intern!(py, "headers"))?;
    let received_us = received_us(|see| each_header(&headers, see))?;
    let header = |asked: &str| header_of_record(|see| each_header(&headers, see), asked);
    let parameter = |asked: &str| parameter_of_record(|see| each_header(&headers, see), asked);
    decoded(decoder, received_us, body_of(&value)?, header, parameter)
}

/// The same of a record that is no object of Python's.
fn of_slices(decoder: Decoder, record: &Slices<'_>) -> Sure<Option<Arc<Event>>> {
    let each = |see: See<'_>| record.headers.clone().try_for_each(|(name, value)| see(name, value));
    let body = std::str::from_utf8(record.value.ok_or(Plain)?).map_err(|_| Plain)?;
    let header = |asked: &str| header_of_record(each, asked);
    decoded(decoder, received_us(each)?, body, header, |asked| parameter_of_record(each, asked))
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
    let text_in = |name: &Bound<'_, PyString>, asked: &str| {
        let texts = attribute(&webhook, name)?;
        let found = texts.cast::<PyDict>().map_err(|_| Plain)?.get_item(asked).map_err(|_| Plain)?;
        found.map(|found| text_of(&found).map(str::to_owned)).transpose()
    };
    let header = |asked: &str| text_in(intern!(py, "headers"), asked);
    decoded(decoder, received_us, body_of(&body)?, header, |asked| text_in(intern!(py, "query"), asked))
}

/// The event of a body; `header` looks a request header up, and `parameter` one of the query, if it is asked for one.
pub fn decoded(
    decoder: Decoder,
    received_us: i64,
    body: &str,
    header: impl Fn(&str) -> Sure<Option<String>>,
    parameter: impl Fn(&str) -> Sure<Option<String>>,
) -> Sure<Option<Arc<Event>>> {
    let is_understood = Cell::new(true);
    let sure = |found: Sure<Option<String>>| {
        found.unwrap_or_else(|Plain| {
            is_understood.set(false);
            None
        })
    };
    let (header, parameter) = (|asked: &str| sure(header(asked)), |asked: &str| sure(parameter(asked)));
    let found = decoder(&Webhook { received_us, body, header: &header, parameter: &parameter })?;
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

/// A parameter of the query, which the collector's header tells as an object of texts: the last of several.
fn parameter_of_record(each: impl Fn(See<'_>) -> Sure<()>, asked: &str) -> Sure<Option<String>> {
    let mut found = None;
    each(&mut |name, value| {
        if name == "query" {
            found = Some(std::str::from_utf8(value.ok_or(Plain)?).map_err(|_| Plain)?.to_owned());
        }
        Ok(())
    })?;
    found.map_or(Ok(None), |query| text_told(&query, asked))
}

/// The text of a name in an object of nothing but texts.
pub fn text_told(object: &str, asked: &str) -> Sure<Option<String>> {
    Ok(shaped::<HashMap<String, String>>(object)?.remove(asked))
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
