//! `CallEvent` and `CallRecord` as this side holds them, and the way to Python's and back.
//!
//! What the fields mean is told where they are declared: `pipeline/model/event.py` and `pipeline/model/call.py`.

use std::cell::RefCell;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple, PyType};
use smol_str::SmolStr;

use crate::word::Word;

pub type Text = SmolStr;

/// The type of what is left of an event that was erased from a stream that calls are cut out of.
pub const FORGOTTEN: &str = "callfold.forgotten";
pub const DAY_US: i64 = 86_400_000_000;

/// A value of a field, from Python and to it. Errors: of the wrong type, or too large for any sender.
pub trait Value: Sized {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self>;
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
}

impl Value for Text {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Text::new(found.cast::<PyString>()?.to_cow()?))
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyString::new(py, self).into_any())
    }
}

impl Value for Word {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        let text = found.cast::<PyString>()?.to_cow()?;
        Word::of(&text).ok_or_else(|| PyValueError::new_err("too many different words"))
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyString::intern(py, self.text()).into_any())
    }
}

impl Value for bool {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(found.cast::<PyBool>()?.is_true())
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBool::new(py, *self).to_owned().into_any())
    }
}

impl Value for i64 {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        found.extract()
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyInt::new(py, *self).into_any())
    }
}

impl Value for f64 {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        found.extract()
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyFloat::new(py, *self).into_any())
    }
}

impl<T: Value> Value for Option<T> {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        if found.is_none() { Ok(None) } else { T::read(found).map(Some) }
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            None => Ok(py.None().into_bound(py)),
            Some(value) => value.write(py),
        }
    }
}

/// A tuple of texts.
impl Value for Box<[Text]> {
    fn read(found: &Bound<'_, PyAny>) -> PyResult<Self> {
        found.try_iter()?.map(|item| Text::read(&item?)).collect()
    }
    fn write<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyTuple::new(py, self.iter().map(SmolStr::as_str))?.into_any())
    }
}

macro_rules! model {
    ($name:ident, $python:literal, { $($field:ident: $kind:ty,)* }) => {
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $(pub $field: $kind,)* }

        impl $name {
            /// From Python's struct of the same fields.
            pub fn from_python(found: &Bound<'_, PyAny>) -> PyResult<$name> {
                let py = found.py();
                Ok($name { $($field: Value::read(&found.getattr(pyo3::intern!(py, stringify!($field)))?)?,)* })
            }

            /// Python's struct of the same fields.
            pub fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
                let class = CLASS.import(py, "pipeline.model", $python)?;
                let fields = PyDict::new(py);
                $(fields.set_item(pyo3::intern!(py, stringify!($field)), self.$field.write(py)?)?;)*
                class.call((), Some(&fields))
            }
        }
    };
}

model!(Event, "CallEvent", {
    event_id: Text,
    provider: Word,
    stream_key: Text,
    event_type: Text,
    at_us: i64,
    received_us: i64,
    call_id: Option<Text>,
    at_source: Word,
    raw_status: Option<Text>,
    is_unknown: bool,
    state: Option<Word>,
    queued_us: Option<i64>,
    ringing_us: Option<i64>,
    started_us: Option<i64>,
    answered_us: Option<i64>,
    hangup_us: Option<i64>,
    ended_us: Option<i64>,
    start_is_first_event: bool,
    end_rank: i64,
    outcome: Option<Word>,
    unanswered_outcome: Option<Word>,
    failure_reason: Option<Text>,
    end_trigger: Option<Word>,
    answer_evidence: Option<bool>,
    transferred: bool,
    attempt_id: Option<Text>,
    leg: Option<Text>,
    errors: Box<[Text]>,
    reported_seconds: Option<f64>,
    fact_rank: i64,
    talk_is_reported: bool,
    total_is_reported: bool,
    provider_call_id: Option<Text>,
    parent_call_id: Option<Text>,
    account_id: Option<Text>,
    agent_id: Option<Text>,
    direction: Option<Word>,
    channel: Option<Word>,
    from_number: Option<Text>,
    to_number: Option<Text>,
    recording_url: Option<Text>,
    has_analysis: bool,
    success_evaluation: Option<Text>,
    cost_total: Option<f64>,
    cut: Option<Word>,
    session_id: Option<Text>,
    seq: Option<i64>,
});

impl Event {
    /// An event that says nothing but that it happened.
    pub fn new(
        event_id: Text,
        provider: Word,
        stream_key: Text,
        event_type: Text,
        at_us: i64,
        received_us: i64,
    ) -> Event {
        Event {
            event_id,
            provider,
            stream_key,
            event_type,
            at_us,
            received_us,
            call_id: None,
            at_source: crate::word::PROVIDER,
            raw_status: None,
            is_unknown: false,
            state: None,
            queued_us: None,
            ringing_us: None,
            started_us: None,
            answered_us: None,
            hangup_us: None,
            ended_us: None,
            start_is_first_event: false,
            end_rank: 0,
            outcome: None,
            unanswered_outcome: None,
            failure_reason: None,
            end_trigger: None,
            answer_evidence: None,
            transferred: false,
            attempt_id: None,
            leg: None,
            errors: Box::default(),
            reported_seconds: None,
            fact_rank: 0,
            talk_is_reported: false,
            total_is_reported: false,
            provider_call_id: None,
            parent_call_id: None,
            account_id: None,
            agent_id: None,
            direction: None,
            channel: None,
            from_number: None,
            to_number: None,
            recording_url: None,
            has_analysis: false,
            success_evaluation: None,
            cost_total: None,
            cut: None,
            session_id: None,
            seq: None,
        }
    }
}

model!(Record, "CallRecord", {
    call_key: Text,
    provider: Word,
    call_id: Text,
    provider_call_id: Option<Text>,
    parent_call_id: Option<Text>,
    is_root: bool,
    account_id: Option<Text>,
    agent_id: Option<Text>,
    direction: Word,
    channel: Word,
    from_number: Option<Text>,
    to_number: Option<Text>,
    state: Word,
    outcome: Option<Word>,
    failure_class: Option<Word>,
    failure_reason: Option<Text>,
    raw_status: Option<Text>,
    end_trigger: Option<Word>,
    is_answered: Option<bool>,
    answered_by: Option<Word>,
    is_transferred: bool,
    attempts: i64,
    error_count: i64,
    queued_us: Option<i64>,
    ringing_us: Option<i64>,
    started_us: Option<i64>,
    answered_us: Option<i64>,
    ended_us: Option<i64>,
    ring_seconds: Option<f64>,
    talk_seconds: Option<f64>,
    wrap_up_seconds: Option<f64>,
    total_seconds: Option<f64>,
    reported_seconds: Option<f64>,
    time_source: Word,
    recording_url: Option<Text>,
    has_analysis: bool,
    success_evaluation: Option<Text>,
    cost_total: Option<f64>,
    first_event_us: i64,
    last_event_us: i64,
    event_count: i64,
    revision: i64,
    closed_by: Option<Word>,
    date_day: i64,
});

/// `provider:call_id`, the key everywhere.
pub fn call_key(provider: Word, call_id: &str) -> Text {
    // Joined in memory that is there: what is formatted piece by piece is allocated three times.
    thread_local! { static JOINED: RefCell<String> = const { RefCell::new(String::new()) } }
    JOINED.with_borrow_mut(|joined| {
        joined.clear();
        joined.extend([provider.text(), ":", call_id]);
        Text::new(&*joined)
    })
}
