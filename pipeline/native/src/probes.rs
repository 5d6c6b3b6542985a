//! Each part of the hot path by itself, as functions of Python: for tests that hold it to be what Python's is.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::batches::Messages;
use crate::model::{Event, Record, Value};
use crate::{columns, credentials, cut, decode, fold, messages};

/// The event as this side sees it and gives it back: for tests of the way there and back.
#[pyfunction]
fn event_there_and_back<'py>(event: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    Event::from_python(event)?.to_python(event.py())
}

/// The same for a record.
#[pyfunction]
fn record_there_and_back<'py>(record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    Record::from_python(record)?.to_python(record.py())
}

/// The event of a webhook; None if it is left to Python, or is about no call.
#[pyfunction]
#[pyo3(name = "decode", signature = (provider, received_us, body, headers, query=BTreeMap::new()))]
fn decoded<'py>(
    py: Python<'py>,
    provider: &str,
    received_us: i64,
    body: &[u8],
    headers: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (Some(decoder), Ok(body)) = (decode::decoder(provider), std::str::from_utf8(body)) else {
        return Ok(None);
    };
    let header = |name: &str| headers.get(name).cloned();
    let parameter = |name: &str| query.get(name).cloned();
    match decoder(&decode::Webhook { received_us, body, header: &header, parameter: &parameter }) {
        Ok(Some(event)) => event.to_python(py).map(Some),
        _ => Ok(None),
    }
}

/// `normalise.credentials.may_hold_credentials`.
#[pyfunction]
fn may_hold_credentials(text: &str) -> bool {
    credentials::may_hold_credentials(text)
}

fn events_of(found: &[Bound<'_, PyAny>]) -> PyResult<Vec<Arc<Event>>> {
    found.iter().map(|event| Event::from_python(event).map(Arc::new)).collect()
}

/// `pipeline.assemble.fold.fold`: for tests.
#[pyfunction]
#[pyo3(name = "fold", signature = (events, as_of_us, idle_us, call_id=None, shaped_by=None))]
fn fold_events<'py>(
    py: Python<'py>,
    events: Vec<Bound<'py, PyAny>>,
    as_of_us: i64,
    idle_us: i64,
    call_id: Option<&str>,
    shaped_by: Option<i64>,
) -> PyResult<Bound<'py, PyAny>> {
    let events = events_of(&events)?;
    let events: Vec<&Event> = events.iter().map(|event| &**event).collect();
    if events.is_empty() || (call_id.is_none() && shaped_by.is_some()) {
        return Err(PyValueError::new_err("no event, or shaped by others but not cut from a stream"));
    }
    let cut = call_id.map(|call_id| (call_id, shaped_by.unwrap_or(0)));
    fold::fold(&events, as_of_us, idle_us, cut).to_python(py)
}

/// A call's record, and the ids of its events in their order.
type Told<'py> = (Bound<'py, PyAny>, Vec<String>);

fn calls_told<'py>(py: Python<'py>, folded: &[(Record, Vec<Arc<Event>>)]) -> PyResult<Vec<Told<'py>>> {
    let told = |(record, events): &(Record, Vec<Arc<Event>>)| {
        let ids = events.iter().map(|event| event.event_id.to_string()).collect();
        Ok((record.to_python(py)?, ids))
    };
    folded.iter().map(told).collect()
}

/// `pipeline.assemble.cut.fold_stream`: for tests.
#[pyfunction]
fn fold_stream<'py>(
    py: Python<'py>,
    events: Vec<Bound<'py, PyAny>>,
    as_of_us: i64,
    idle_us: i64,
) -> PyResult<Vec<Told<'py>>> {
    calls_told(py, &cut::fold_stream(events_of(&events)?.iter(), as_of_us, idle_us, None))
}

/// The calls of `second`, a later state of the stream that `first` is an earlier one of, and the ids of those that are
/// settled after it. What was settled by `first` is marked by a revision of 0: so it shows which were not folded again.
#[pyfunction]
fn fold_stream_twice<'py>(
    py: Python<'py>,
    first: Vec<Bound<'py, PyAny>>,
    second: Vec<Bound<'py, PyAny>>,
    as_of_us: i64,
    idle_us: i64,
) -> PyResult<(Vec<Told<'py>>, Vec<String>)> {
    let mut settled = AHashMap::new();
    cut::fold_stream(events_of(&first)?.iter(), as_of_us, idle_us, Some(&mut settled));
    settled.values_mut().for_each(|settled| settled.record.revision = 0);
    let folded = cut::fold_stream(events_of(&second)?.iter(), as_of_us, idle_us, Some(&mut settled));
    Ok((calls_told(py, &folded)?, settled.keys().map(ToString::to_string).collect()))
}

/// The columns of `call_events`, of (event, call key) pairs.
#[pyfunction]
fn event_columns<'py>(
    py: Python<'py>,
    placed: Vec<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)>,
    published_us: i64,
) -> PyResult<Bound<'py, PyList>> {
    let rows = placed.iter().map(|(event, call)| {
        let call = call.as_ref().map(Value::read).transpose()?;
        Ok((Arc::new(Event::from_python(event)?), call))
    });
    columns::event_columns(py, &rows.collect::<PyResult<Vec<_>>>()?, published_us)
}

/// The columns of `calls`, of (stream key, record, is retracted).
#[pyfunction]
fn record_columns<'py>(
    py: Python<'py>,
    told: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>, bool)>,
    published_us: i64,
) -> PyResult<Bound<'py, PyList>> {
    let rows = told.iter().map(|(stream_key, record, is_retracted)| {
        let record = Arc::new(Record::from_python(record)?);
        Ok((Value::read(stream_key)?, record, *is_retracted))
    });
    columns::record_columns(py, &rows.collect::<PyResult<Vec<_>>>()?, published_us)
}

/// `messages.record_message`.
#[pyfunction]
fn record_message<'py>(record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let (found, mut room) = (Record::from_python(record)?, Vec::new());
    let told = messages::write_value(Some(&found), &mut room)?;
    Ok(PyBytes::new(record.py(), told.unwrap_or_default()))
}

/// Any messages, of records and tombstones under any key.
#[pyfunction]
#[pyo3(name = "messages")]
fn messages_of(told: Vec<(Bound<'_, PyAny>, Option<Bound<'_, PyAny>>)>) -> PyResult<Messages> {
    let one = |(key, record): &(Bound<'_, PyAny>, Option<Bound<'_, PyAny>>)| {
        let record = record.as_ref().map(Record::from_python).transpose()?;
        Ok((Value::read(key)?, record.map(Arc::new)))
    };
    Ok(Messages(told.iter().map(one).collect::<PyResult<_>>()?))
}

/// `rows.key_hash`, of a key with half a surrogate pair in it, too.
#[pyfunction]
fn key_hash(key: &Bound<'_, PyString>) -> PyResult<u64> {
    if let Ok(key) = key.to_cow() {
        return Ok(columns::key_hash(&key));
    }
    let replaced = key.call_method1("encode", ("utf-8", "replace"))?.extract::<Vec<u8>>()?;
    Ok(columns::key_hash(&String::from_utf8_lossy(&replaced)))
}

/// Puts all of them into the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(event_there_and_back, module)?)?;
    module.add_function(wrap_pyfunction!(record_there_and_back, module)?)?;
    module.add_function(wrap_pyfunction!(decoded, module)?)?;
    module.add_function(wrap_pyfunction!(may_hold_credentials, module)?)?;
    module.add_function(wrap_pyfunction!(fold_events, module)?)?;
    module.add_function(wrap_pyfunction!(fold_stream, module)?)?;
    module.add_function(wrap_pyfunction!(fold_stream_twice, module)?)?;
    module.add_function(wrap_pyfunction!(event_columns, module)?)?;
    module.add_function(wrap_pyfunction!(record_columns, module)?)?;
    module.add_function(wrap_pyfunction!(record_message, module)?)?;
    module.add_function(wrap_pyfunction!(messages_of, module)?)?;
    module.add_function(wrap_pyfunction!(key_hash, module)?)?;
    Ok(())
}
