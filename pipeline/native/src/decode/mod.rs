//! From the bytes of an ordinary webhook to its event: what `pipeline/providers` says, for well-formed bodies only.
//!
//! A decoder gives exactly what the provider's Python module gives, or `Plain`: then that module is asked. So what is
//! rare, odd, broken or hostile is understood in one place, and none of it here.

use std::sync::Arc;

mod aircall_bus;
mod freeclimb;
mod interactly;
mod recho;
mod repeated;
mod shape;
mod whippy;

use std::borrow::Cow;

pub use self::shape::is_too_deep;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::{Event, Text};

/// Not for us: Python's way is to be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plain;
pub type Sure<T> = Result<T, Plain>;

/// Ids, statuses and reasons are short; more than this is not one.
pub const LONGEST_TEXT: usize = 1024;
const EARLIEST_US: i64 = 946_684_800_000_000; // 2000-01-01: no provider is older
const LATEST_US: i64 = 4_102_444_800_000_000; // 2100-01-01

/// What a decoder sees of a webhook. The body is valid UTF-8.
pub struct Webhook<'a> {
    pub received_us: i64,
    pub body: &'a str,
    /// The value of a request header, by its name in lower case.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// The value of a parameter of the request's query.
    pub parameter: &'a dyn Fn(&str) -> Option<String>,
}

/// The event of a webhook; none if the webhook is about no call.
pub type Decoder = fn(&Webhook<'_>) -> Sure<Option<Arc<Event>>>;

/// The decoder of a provider; not every provider need have one.
pub fn decoder(provider: &str) -> Option<Decoder> {
    match provider {
        "aircall_bus" => Some(aircall_bus::event),
        "freeclimb" => Some(freeclimb::event),
        "interactly" => Some(interactly::event),
        "recho" => Some(recho::event),
        "whippy" => Some(whippy::event),
        _ => None,
    }
}

/// The body as a shape, or `Plain` if it is anything else: no JSON, too deep, a field twice, a number too large.
pub fn shaped<'a, T: Deserialize<'a>>(body: &'a str) -> Sure<T> {
    if is_too_deep(body) {
        return Err(Plain);
    }
    serde_json::from_str(body).map_err(|_| Plain)
}

/// Any JSON value of which only scalars matter.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Loose<'a> {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// Whether there is anything in it.
    Array(bool),
    Object(bool),
}

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Loose<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Loose::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Loose::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Loose::Int(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
                i64::try_from(value).map(Loose::Int).map_err(E::custom)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                // `-0` looks the same here as `-0.0` does; in Python it is the whole number 0.
                let is_unclear = value == 0.0 && value.is_sign_negative();
                if is_unclear { Err(E::custom("-0")) } else { Ok(Loose::Float(value)) }
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Loose::Text(Cow::Owned(value.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut any = false;
                while items.next_element::<IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(Loose::Array(any))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut any = false;
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    any = true;
                }
                Ok(Loose::Object(any))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A text of a field that may hold anything (`_payload.text`), whole numbers as their digits; None if there is none.
pub fn loose_text(found: &Loose<'_>) -> Sure<Option<Text>> {
    match found {
        Loose::Text(found) => short(found),
        Loose::Int(found) => Ok(Some(smol_str::format_smolstr!("{found}"))),
        Loose::Float(_) => Err(Plain),
        _ => Ok(None),
    }
}

fn short(found: &str) -> Sure<Option<Text>> {
    Ok(short_text(found)?.map(Text::new))
}

fn short_text(found: &str) -> Sure<Option<&str>> {
    if found.is_empty() {
        return Ok(None);
    }
    // Bytes are at least as many as characters: whoever has more of them is counted in Python.
    let is_blank = found.chars().all(|sign| sign.is_whitespace() || sign.is_control());
    if found.len() > LONGEST_TEXT || is_blank { Err(Plain) } else { Ok(Some(found)) }
}

/// `_payload.instant`: microseconds since the epoch, from ISO 8601 or an epoch number; None if there is nothing.
pub fn instant(found: &Loose<'_>) -> Sure<Option<i64>> {
    match found {
        Loose::Null | Loose::Int(0) => Ok(None),
        Loose::Int(found) => Ok(whole_instant(*found)),
        Loose::Text(found) => text_instant(found),
        _ => Err(Plain),
    }
}

/// `instant` of a text.
pub fn text_instant(found: &str) -> Sure<Option<i64>> {
    if found.is_empty() {
        return Ok(None);
    }
    if found.len() == 10 && found.bytes().all(|sign| sign.is_ascii_digit()) {
        return Ok(whole_instant(found.parse().map_err(|_| Plain)?));
    }
    iso_instant(found.as_bytes()).map(Some)
}

fn whole_instant(found: i64) -> Option<i64> {
    [1_000, 1, 1_000_000]
        .into_iter()
        .filter_map(|to_us| found.checked_mul(to_us))
        .find(|us| (EARLIEST_US..LATEST_US).contains(us))
}

/// `YYYY-MM-DDTHH:MM:SS`, perhaps with three or six digits of a fraction, perhaps with a zone (none: UTC).
fn iso_instant(told: &[u8]) -> Sure<i64> {
    if told.len() < 19 || [told[4], told[7], told[13], told[16]] != *b"--::" || told[10] != b'T' {
        return Err(Plain);
    }
    let [year, month, day] = [digits(&told[0..4])?, digits(&told[5..7])?, digits(&told[8..10])?];
    let [hour, minute, second] = [digits(&told[11..13])?, digits(&told[14..16])?, digits(&told[17..19])?];
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_of(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return Err(Plain);
    }
    let rest = &told[19..];
    let (fraction_us, zone) = match rest {
        [b'.', rest @ ..] => {
            match rest.iter().position(|sign| !sign.is_ascii_digit()).unwrap_or(rest.len()) {
                3 => (digits(&rest[..3])? * 1_000, &rest[3..]),
                6 => (digits(&rest[..6])?, &rest[6..]),
                _ => return Err(Plain),
            }
        }
        _ => (0, rest),
    };
    let ahead_s = match zone {
        [] | [b'Z'] => 0,
        [sign @ (b'+' | b'-'), zone @ ..] if zone.len() == 5 && zone[2] == b':' => {
            let (hours, minutes) = (digits(&zone[..2])?, digits(&zone[3..])?);
            if hours > 23 || minutes > 59 {
                return Err(Plain);
            }
            (hours * 3_600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
        }
        _ => return Err(Plain),
    };
    let of_day_s = hour * 3_600 + minute * 60 + second - ahead_s;
    let us = (days_from_civil(year, month, day) * 86_400 + of_day_s) * 1_000_000 + fraction_us;
    if (EARLIEST_US..LATEST_US).contains(&us) { Ok(us) } else { Err(Plain) }
}

fn digits(told: &[u8]) -> Sure<i64> {
    told.iter().try_fold(0, |number, sign| {
        if sign.is_ascii_digit() { Ok(number * 10 + i64::from(sign - b'0')) } else { Err(Plain) }
    })
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, "chrono-compatible date algorithms").
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `_payload.number`: a finite number, also one written as a text.
pub fn number(found: &Loose<'_>) -> Sure<Option<f64>> {
    let number = match found {
        Loose::Int(found) => *found as f64,
        Loose::Float(found) => *found,
        Loose::Text(found) => {
            let is_simple = (1..=15).contains(&found.len())
                && found.starts_with(|sign: char| sign.is_ascii_digit())
                && found.ends_with(|sign: char| sign.is_ascii_digit())
                && found.bytes().all(|sign| sign.is_ascii_digit() || sign == b'.');
            if !is_simple {
                return Err(Plain);
            }
            found.parse().map_err(|_| Plain)?
        }
        _ => return Ok(None),
    };
    Ok((-1e18 < number && number < 1e18).then_some(number))
}

/// `_payload.seconds`: a length of time in seconds; a negative one is not one.
pub fn seconds(found: &Loose<'_>, per_second: f64) -> Sure<Option<f64>> {
    Ok(number(found)?.filter(|found| *found >= 0.0).map(|found| found / per_second))
}

/// What Python's `str` makes of a float, of those that it writes without an exponent.
pub fn float_told(found: f64) -> Sure<String> {
    let size = found.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) { Ok(format!("{found:?}")) } else { Err(Plain) }
}

/// The identity of an event: a 128-bit BLAKE2b of what tells it from every other, hexadecimal.
pub fn digest(told: &[u8]) -> Text {
    Text::new(blake2b_simd::Params::new().hash_length(16).hash(told).to_hex())
}
