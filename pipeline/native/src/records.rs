//! The records of one fetch answer of Kafka, where they lie in its bytes: what aiokafka's `MemoryRecords`,
//! `DefaultRecordBatch` and `PartitionRecords._unpack_records` do together, for ordinary batches of today's format.
//!
//! Every length here is a sender's word: it is believed only as far as there are bytes.

use std::ops::Range;
use std::sync::Arc;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::decode::{Plain, Sure};

/// Base offset and length: what stands before the bytes that the length counts.
const LOG_OVERHEAD: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_DELTA_AT: usize = 23;
const FIRST_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const COUNT_AT: usize = 57;
const HEADER_BYTES: usize = 61;
const MAGIC: u8 = 2;
const LOG_APPEND_TIME: i16 = 0x08;
/// Length, attributes, time, offset, key, value, headers: each takes a byte at least.
const LEAST_RECORD_BYTES: usize = 7;

/// Records of one partition in the order of their offsets, of which nothing is copied before somebody asks.
#[pyclass(module = "pipeline.native._native", frozen)]
pub struct Records {
    fetched: Arc<Fetched>,
    range: Range<usize>,
    /// What is to be fetched after them.
    #[pyo3(get)]
    next_offset: i64,
}

/// One of them, as aiokafka's `DefaultRecord` shows it.
#[pyclass(module = "pipeline.native._native", frozen)]
pub struct KafkaRecord {
    fetched: Arc<Fetched>,
    place: usize,
}

struct Fetched {
    raw: Py<PyBytes>,
    entries: Vec<Entry>,
}

struct Entry {
    offset: i64,
    timestamp: i64,
    key: Option<Span>,
    value: Option<Span>,
    /// Where the headers begin, and how many they are.
    headers: Span,
    is_log_append_time: bool,
}

#[derive(Clone, Copy)]
struct Span {
    at: u32,
    count: u32,
}

/// What a reader sees of a record.
pub struct Slices<'a> {
    pub value: Option<&'a [u8]>,
    pub headers: HeaderSlices<'a>,
}

/// The headers of a record, one after the other. They have been read before: it ends where they do.
#[derive(Clone)]
pub struct HeaderSlices<'a> {
    cursor: Cursor<'a>,
    left: u32,
}

#[pymethods]
impl Records {
    /// The records from an offset on; None where aiokafka is to be asked: all that is compressed, of a transaction,
    /// of another format or not whole.
    #[staticmethod]
    fn of(raw: &Bound<'_, PyAny>, fetch_offset: i64) -> Option<Records> {
        let raw = raw.cast::<PyBytes>().ok()?;
        let (entries, next_offset) = entries_of(raw.as_bytes(), fetch_offset).ok()?;
        let range = 0..entries.len();
        let fetched = Arc::new(Fetched { raw: raw.clone().unbind(), entries });
        Some(Records { fetched, range, next_offset })
    }

    fn __len__(&self) -> usize {
        self.range.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<KafkaRecord> {
        let from_start = if index < 0 { index.checked_add_unsigned(self.range.len()) } else { Some(index) };
        let place = from_start.and_then(|index| self.range.clone().nth(usize::try_from(index).ok()?));
        let place = place.ok_or_else(|| PyIndexError::new_err("no such record"))?;
        Ok(KafkaRecord { fetched: self.fetched.clone(), place })
    }

    /// The first so many of them, one at least, and the rest.
    fn split(&self, count: usize) -> (Records, Records) {
        let middle = self.range.start.saturating_add(count.max(1)).min(self.range.end);
        let next_offset = match self.fetched.entries.get(middle.wrapping_sub(1)) {
            Some(last) if middle < self.range.end => last.offset.saturating_add(1),
            _ => self.next_offset,
        };
        let part = |range, next_offset| Records { fetched: self.fetched.clone(), range, next_offset };
        (part(self.range.start..middle, next_offset), part(middle..self.range.end, self.next_offset))
    }
}

impl Records {
    /// Each of them, as slices of what was fetched.
    pub fn each<'a>(&'a self, py: Python<'a>) -> impl ExactSizeIterator<Item = Slices<'a>> {
        let raw = self.fetched.raw.as_bytes(py);
        let entries = self.fetched.entries.get(self.range.clone()).unwrap_or_default();
        entries.iter().map(|entry| Slices {
            value: entry.value.map(|span| span.of(raw)),
            headers: entry.headers_of(raw),
        })
    }
}

#[pymethods]
impl KafkaRecord {
    #[getter]
    fn offset(&self) -> i64 {
        self.entry().offset
    }

    #[getter]
    fn timestamp(&self) -> i64 {
        self.entry().timestamp
    }

    #[getter]
    fn timestamp_type(&self) -> u8 {
        self.entry().is_log_append_time.into()
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.entry().key.map(|span| PyBytes::new(py, span.of(self.fetched.raw.as_bytes(py))))
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.entry().value.map(|span| PyBytes::new(py, span.of(self.fetched.raw.as_bytes(py))))
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let headers = self.entry().headers_of(self.fetched.raw.as_bytes(py));
        let pairs = headers.map(|(name, value)| (name, value.map(|value| PyBytes::new(py, value))));
        PyList::new(py, pairs.collect::<Vec<_>>())
    }
}

impl KafkaRecord {
    fn entry(&self) -> &Entry {
        // A place is given out by `__getitem__` alone.
        &self.fetched.entries[self.place]
    }
}

impl Entry {
    fn headers_of<'a>(&self, raw: &'a [u8]) -> HeaderSlices<'a> {
        HeaderSlices { cursor: Cursor { bytes: raw, at: self.headers.at as usize }, left: self.headers.count }
    }
}

impl Span {
    fn of(self, raw: &[u8]) -> &[u8] {
        let at = self.at as usize;
        raw.get(at..at + self.count as usize).unwrap_or_default()
    }
}

impl<'a> Iterator for HeaderSlices<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.cursor.header().ok()
    }
}

/// What stands in whole batches behind one another, and the offset after them. A last one that is cut off was fetched
/// in vain, and is fetched again.
fn entries_of(raw: &[u8], fetch_offset: i64) -> Sure<(Vec<Entry>, i64)> {
    if u32::try_from(raw.len()).is_err() {
        return Err(Plain);
    }
    let (mut entries, mut next_offset, mut at) = (Vec::new(), fetch_offset, 0);
    while raw.len() - at >= LOG_OVERHEAD {
        let told = i32::from_be_bytes(fixed(raw, at + 8)?);
        let length = usize::try_from(told).map_err(|_| Plain)?;
        let end = (at + LOG_OVERHEAD).checked_add(length).ok_or(Plain)?;
        if end > raw.len() {
            break;
        }
        if length < HEADER_BYTES - LOG_OVERHEAD {
            return Err(Plain);
        }
        next_offset = Batch { raw: &raw[..end], at }.read(next_offset, &mut entries)?;
        at = end;
    }
    if at == 0 { Err(Plain) } else { Ok((entries, next_offset)) }
}

/// A batch: the end of some bytes, from a place on at which there is a whole header.
struct Batch<'a> {
    raw: &'a [u8],
    at: usize,
}

impl Batch<'_> {
    fn field<const N: usize>(&self, place: usize) -> Sure<[u8; N]> {
        fixed(self.raw, self.at + place)
    }

    /// Adds its records from an offset on, and gives the offset after it.
    fn read(&self, from_offset: i64, entries: &mut Vec<Entry>) -> Sure<i64> {
        let attributes = i16::from_be_bytes(self.field(ATTRIBUTES_AT)?);
        let is_ordinary = self.field(MAGIC_AT)? == [MAGIC] && attributes & !LOG_APPEND_TIME == 0;
        let crc = u32::from_be_bytes(self.field(CRC_AT)?);
        if !is_ordinary || crc32c::crc32c(&self.raw[self.at + ATTRIBUTES_AT..]) != crc {
            return Err(Plain);
        }
        let base_offset = i64::from_be_bytes(self.field(0)?);
        let last_delta = i64::from(i32::from_be_bytes(self.field(LAST_DELTA_AT)?));
        let count = usize::try_from(i32::from_be_bytes(self.field(COUNT_AT)?)).map_err(|_| Plain)?;
        let next_offset =
            base_offset.checked_add(last_delta).and_then(|last| last.checked_add(1)).ok_or(Plain)?;
        if base_offset < 0 || last_delta < 0 || next_offset < from_offset {
            return Err(Plain);
        }
        let mut cursor = Cursor { bytes: self.raw, at: self.at + HEADER_BYTES };
        entries.reserve(count.min(cursor.left() / LEAST_RECORD_BYTES));
        let mut before = -1;
        for _ in 0..count {
            let (delta, entry) = self.record(base_offset, attributes, &mut cursor)?;
            if delta <= before || delta > last_delta {
                return Err(Plain);
            }
            before = delta;
            if entry.offset >= from_offset {
                entries.push(entry);
            }
        }
        if cursor.left() == 0 { Ok(next_offset) } else { Err(Plain) }
    }

    /// The next record, and its offset in the batch.
    fn record(&self, base_offset: i64, attributes: i16, cursor: &mut Cursor<'_>) -> Sure<(i64, Entry)> {
        let length = usize::try_from(cursor.varint()?).map_err(|_| Plain)?;
        let end = cursor.at.checked_add(length).ok_or(Plain)?;
        if cursor.byte()? != 0 {
            return Err(Plain);
        }
        let (time_delta, delta) = (cursor.varint()?, cursor.varint()?);
        let is_log_append_time = attributes & LOG_APPEND_TIME != 0;
        let timestamp = if is_log_append_time {
            i64::from_be_bytes(self.field(MAX_TIMESTAMP_AT)?)
        } else {
            let first = i64::from_be_bytes(self.field(FIRST_TIMESTAMP_AT)?);
            first.checked_add(time_delta).ok_or(Plain)?
        };
        let (key, value) = (cursor.span()?, cursor.span()?);
        let count = u32::try_from(cursor.varint()?).map_err(|_| Plain)?;
        let headers = Span { at: cursor.at as u32, count };
        for _ in 0..count {
            cursor.header()?;
        }
        if cursor.at != end {
            return Err(Plain);
        }
        let offset = base_offset.checked_add(delta).ok_or(Plain)?;
        Ok((delta, Entry { offset, timestamp, key, value, headers, is_log_append_time }))
    }
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Sure<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Plain)
}

/// Reads on, and never behind the end.
#[derive(Clone)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn byte(&mut self) -> Sure<u8> {
        let byte = *self.bytes.get(self.at).ok_or(Plain)?;
        self.at += 1;
        Ok(byte)
    }

    /// A number in as many bytes as it needs, its sign in the lowest bit.
    fn varint(&mut self) -> Sure<i64> {
        let mut raw = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        Err(Plain)
    }

    /// Bytes behind their length; none if that is -1.
    fn span(&mut self) -> Sure<Option<Span>> {
        let length = self.varint()?;
        if length == -1 {
            return Ok(None);
        }
        let count = usize::try_from(length).map_err(|_| Plain)?;
        if count > self.left() {
            return Err(Plain);
        }
        let span = Span { at: self.at as u32, count: count as u32 };
        self.at += count;
        Ok(Some(span))
    }

    fn header(&mut self) -> Sure<(&'a str, Option<&'a [u8]>)> {
        let name = self.span()?.ok_or(Plain)?.of(self.bytes);
        let name = std::str::from_utf8(name).map_err(|_| Plain)?;
        Ok((name, self.span()?.map(|value| value.of(self.bytes))))
    }
}
