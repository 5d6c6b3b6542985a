//! Values that come again and again, word for word, in fields of which nothing is read: whoever has once seen that they
//! are JSON need not look through them again.

use memchr::memmem::Finder;

use super::shape::{DEEPEST, openings};

/// As many values are remembered, each of so many bytes at most: 4 MiB in all.
const MOST_VALUES: usize = 256;
const LONGEST_VALUE: usize = 16 << 10;
/// Shorter ones are looked through as quickly.
const SHORTEST_VALUE: usize = 256;
/// By its first bytes a value is looked up; the whole of it is compared then.
const TELLING_BYTES: usize = 64;

/// What was seen in one field.
pub struct Repeated {
    field: Finder<'static>,
    values: Vec<Value>,
    shortened: String,
}

#[derive(Clone, Default)]
struct Value {
    text: Box<str>,
    openings: usize,
}

impl Repeated {
    /// `field` as it is written behind another one, with the comma before it and the colon.
    pub fn of(field: &'static str) -> Repeated {
        Repeated {
            field: Finder::new(field),
            values: vec![Value::default(); MOST_VALUES],
            shortened: String::new(),
        }
    }

    /// The body with `{}` in place of a remembered value; none if it holds none, or may be nested too deep.
    ///
    /// It is JSON if and only if the body is. No text of a JSON document goes on with `,"field":`, for there the quote
    /// ends it. So behind that a value is to begin, or there was a mistake before; and where an object ends is told by
    /// itself alone.
    pub fn shortened(&mut self, body: &str) -> Option<&str> {
        let start = self.field.find(body.as_bytes())? + self.field.needle().len();
        let (before, rest) = body.split_at_checked(start)?;
        let value = &self.values[place(rest)];
        let after = rest.strip_prefix(&*value.text).filter(|_| !value.text.is_empty())?;
        if openings(before) + value.openings + openings(after) > DEEPEST {
            return None;
        }
        self.shortened.clear();
        self.shortened.extend([before, "{}", after]);
        Some(&self.shortened)
    }

    /// Remembers a value that is JSON, if it is an object of some size.
    pub fn remember(&mut self, value: &str) {
        if value.starts_with('{') && (SHORTEST_VALUE..=LONGEST_VALUE).contains(&value.len()) {
            self.values[place(value)] = Value { text: value.into(), openings: openings(value) };
        }
    }
}

fn place(value: &str) -> usize {
    let telling = &value.as_bytes()[..value.len().min(TELLING_BYTES)];
    crc32fast::hash(telling) as usize % MOST_VALUES
}
