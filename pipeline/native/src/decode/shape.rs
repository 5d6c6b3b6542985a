//! What the shapes of payloads are made of, and identities of what was read into them.
//!
//! serde alone will not do: it takes an array for a struct, and `Option<Cow<str>>` copies what it could borrow. Shapes
//! say once for all their fields that they borrow of the body (`bound`).

use std::borrow::Cow;
use std::fmt::Write;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Error, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{Plain, Sure, digest, float_told, short_text};
use crate::model::Text;
use crate::word::Word;

/// `rejection.DEEPEST`: levels of arrays and objects that a body may have, one inside the other.
pub const DEEPEST: usize = 200;

/// `_decode.is_too_deep`, of JSON: what is skipped is not counted by the parser.
pub fn is_too_deep(body: &str) -> bool {
    // A level takes two bytes at least.
    if body.len() <= 2 * DEEPEST {
        return false;
    }
    if openings(body) <= DEEPEST {
        return false;
    }
    let (mut depth, mut signs) = (0_usize, body.bytes());
    while let Some(sign) = signs.next() {
        match sign {
            b'"' => skip_text(&mut signs),
            b'[' | b'{' if depth == DEEPEST => return true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// How many opening brackets and braces there are, in texts or not.
pub fn openings(body: &str) -> usize {
    // In runs whose count fits into a byte: so they are counted many at a time.
    let of_run = |run: &[u8]| run.iter().map(|sign| u8::from(sign | 0x20 == b'{')).sum::<u8>();
    body.as_bytes().chunks(255).map(|run| usize::from(of_run(run))).sum()
}

fn skip_text(signs: &mut std::str::Bytes<'_>) {
    while let Some(sign) = signs.next() {
        match sign {
            b'"' => return,
            b'\\' => drop(signs.next()),
            _ => {}
        }
    }
}

/// A JSON object, and nothing else, of the shape.
#[derive(serde::Serialize)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// What is told of a field that is declared to hold a text: the text, or null.
#[derive(Default, serde::Serialize)]
pub struct Told<'a>(Option<Cow<'a, str>>);

impl<'a> Told<'a> {
    /// The text as it stands there; "" if there is none.
    pub fn as_is(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// The text; None if it is absent or empty. A long or blank one is not for us.
    pub fn read(&self) -> Sure<Option<&str>> {
        short_text(self.as_is())
    }

    /// The same, to be kept.
    pub fn text(&self) -> Sure<Option<Text>> {
        Ok(self.read()?.map(Text::new))
    }

    /// The text as a word of the list, if there is a text. Any other is not for us.
    pub fn listed(&self, words: &[&'static str]) -> Sure<Option<&'static str>> {
        let Some(found) = &self.0 else { return Ok(None) };
        words.iter().find(|word| *word == found).map(|word| Some(*word)).ok_or(Plain)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Told<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNull;
        impl<'de> Visitor<'de> for TextOrNull {
            type Value = Told<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or null")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Told(None))
            }
            fn visit_borrowed_str<E>(self, found: &'de str) -> Result<Self::Value, E> {
                Ok(Told(Some(Cow::Borrowed(found))))
            }
            fn visit_str<E>(self, found: &str) -> Result<Self::Value, E> {
                Ok(Told(Some(Cow::Owned(found.to_owned()))))
            }
        }
        deserializer.deserialize_any(TextOrNull)
    }
}

/// Whether there is a text that is not empty. The text itself, which may be long, is not kept.
#[derive(Default)]
pub struct IsTold(pub bool);

impl<'de> Deserialize<'de> for IsTold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNull;
        impl Visitor<'_> for TextOrNull {
            type Value = IsTold;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or null")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(IsTold(false))
            }
            fn visit_str<E>(self, found: &str) -> Result<Self::Value, E> {
                Ok(IsTold(!found.is_empty()))
            }
        }
        deserializer.deserialize_any(TextOrNull)
    }
}

/// For fields that say one thing when they are null and another when they are absent (`msgspec.UNSET`).
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A text that need not be other than it was written: a JSON string, or null, as its canonical form has it.
///
/// Python writes a text with no escapes but these, and serde_json does.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub struct Written<'a>(#[serde(borrow)] &'a RawValue);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self.0.get();
        if written == "null" || is_canonical(written) {
            return self.0.serialize(serializer);
        }
        let told: Cow<'_, str> = serde_json::from_str(written).map_err(S::Error::custom)?;
        serializer.serialize_str(&told)
    }
}

/// Whether that is a JSON string whose escapes are those that cannot be written otherwise.
fn is_canonical(written: &str) -> bool {
    let escaped =
        |at: usize| matches!(written.as_bytes().get(at + 1), Some(b'n' | b'"' | b't' | b'r' | b'b' | b'f'));
    written.starts_with('"') && memchr::memchr_iter(b'\\', written.as_bytes()).all(escaped)
}

/// What tells an event from every other: its parts, joined as `_payload.event_id` joins them.
pub struct Identity(String);

impl Identity {
    pub fn of(provider: Word) -> Identity {
        let mut joined = String::with_capacity(320);
        joined.push_str(provider.text());
        Identity(joined)
    }

    pub fn text(mut self, part: &str) -> Self {
        self.0.push('\x1f');
        self.0.push_str(part);
        self
    }

    pub fn whole(mut self, part: Option<i64>) -> Self {
        self.0.push('\x1f');
        if let Some(part) = part {
            // Into a text one can always write.
            let _ = write!(self.0, "{part}");
        }
        self
    }

    pub fn float(self, part: Option<f64>) -> Sure<Self> {
        Ok(match part {
            None => self.text(""),
            Some(part) => self.text(&float_told(part)?),
        })
    }

    pub fn id(&self) -> Text {
        digest(self.0.as_bytes())
    }
}
