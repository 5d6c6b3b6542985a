//! Texts of senders in which credentials may hide: the quick look of `normalise/credentials.py`, which finds that nearly
//! all of them hold none. What may hold one is Python's to look through.

use std::sync::Arc;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::model::{Event, Text, Value};

/// `credentials._HINTS` of two letters or more, by what they begin with.
fn hints(first: u8, second: u8) -> &'static [&'static str] {
    match (first.to_ascii_lowercase(), second.to_ascii_lowercase()) {
        (b'a', b's') => &["assistant"],
        (b'a', b'u') => &["auth"],
        (b'b', b'e') => &["bearer"],
        (b'c', b'o') => &["cookie", "code="],
        (b'c', b'r') => &["credential"],
        (b'j', b'w') => &["jwt="],
        (b'k', b'e') => &["key"],
        (b'p', b'a') => &["passw", "passp"],
        (b's', b'e') => &["secret"],
        (b's', b'i') => &["signature", "sig="],
        (b't', b'o') => &["token"],
        _ => &[],
    }
}

/// `credentials.may_hold_credentials`.
pub fn may_hold_credentials(text: &str) -> bool {
    if !text.bytes().any(|sign| matches!(sign, b'=' | b':')) {
        return text.contains("earer") || text.contains("EARER");
    }
    if text.is_ascii() {
        has_hint(text.as_bytes())
    } else {
        // There are letters that in lower case are of ASCII.
        has_hint(text.to_lowercase().as_bytes())
    }
}

fn has_hint(text: &[u8]) -> bool {
    let begins_with = |rest: &[u8], hint: &str| {
        rest.get(..hint.len()).is_some_and(|start| start.eq_ignore_ascii_case(hint.as_bytes()))
    };
    let pairs = text.windows(2).enumerate();
    text.contains(&b'@')
        || pairs
            .into_iter()
            .any(|(at, pair)| hints(pair[0], pair[1]).iter().any(|hint| begins_with(&text[at..], hint)))
}

/// How credentials are taken out of events: by `without_credentials`.
pub struct Cleaner {
    clean: Py<PyAny>,
    /// Our own credentials, as `clean` knows them.
    own: Vec<String>,
}

impl Cleaner {
    /// One of our own that is no Unicode is in no text.
    pub fn new(clean: Py<PyAny>, own: &[Bound<'_, PyAny>]) -> Cleaner {
        Cleaner { clean, own: own.iter().filter_map(|secret| secret.extract().ok()).collect() }
    }

    /// Whether there is a text in the event that Python has to look through. Seldom; and this can be told without it.
    pub fn is_asked_of(&self, event: &Event) -> bool {
        let of_senders = event.recording_url.iter().chain(&event.failure_reason).chain(&event.errors);
        of_senders.into_iter().any(|text| self.is_asked(text))
    }

    fn is_asked(&self, text: &str) -> bool {
        may_hold_credentials(text) || self.own.iter().any(|secret| text.contains(secret))
    }

    /// `Normaliser._told`. Whether the event is as it may be kept: where that fails it is Python's, and is quarantined.
    pub fn clean(&self, py: Python<'_>, event: &mut Arc<Event>) -> PyResult<bool> {
        match self.clean_texts(py, Arc::make_mut(event)) {
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn clean_texts(&self, py: Python<'_>, event: &mut Event) -> PyResult<()> {
        let of_senders =
            event.recording_url.iter_mut().chain(&mut event.failure_reason).chain(&mut event.errors);
        for text in of_senders.into_iter().filter(|text| self.is_asked(text)) {
            *text = Text::read(&self.clean.bind(py).call1((text.as_str(),))?)?;
        }
        Ok(())
    }
}
