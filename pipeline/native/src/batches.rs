//! Messages as ready batches of Kafka, by partition: what `BulkProducer` of `pipeline/stream/producer.py` and aiokafka's
//! `BatchBuilder` make of them one by one, byte for byte.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::messages::write_value;
use crate::model::{Record, Text};

/// Offset and length, which the length does not count.
const LOG_OVERHEAD: usize = 12;
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const HEADER_BYTES: usize = 61;
/// Room that is made for a batch at once, at most.
const MOST_ROOM: usize = 1 << 20;

/// A record under its call key, or a tombstone.
pub type Keyed = (Text, Option<Arc<Record>>);
type Message<'py> = (Bound<'py, PyString>, Option<Bound<'py, PyBytes>>);

/// Records and tombstones in their order. They become messages, or batches of them, when they are asked for.
#[pyclass(module = "pipeline.native._native", frozen)]
pub struct Messages(pub Arc<[Keyed]>);

#[pymethods]
impl Messages {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Message<'py>> {
        let (key, record) = self.0.get(index).ok_or_else(|| PyIndexError::new_err("no such message"))?;
        let mut value = Vec::new();
        let value = write_value(record.as_deref(), &mut value)?;
        Ok((PyString::new(py, key), value.map(|value| PyBytes::new(py, value))))
    }

    /// Each partition that some of them go to, and its batches.
    fn by_partition(&self, partitions: u32) -> PyResult<Vec<(u32, Batches)>> {
        let partitions = NonZeroU32::new(partitions).ok_or_else(|| PyValueError::new_err("no partition"))?;
        let mut found: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (place, (key, _)) in self.0.iter().enumerate() {
            found.entry(murmur2_partition(key.as_bytes(), partitions)).or_default().push(place);
        }
        let batches = |places| Batches { messages: self.0.clone(), places, sent: 0 };
        Ok(found.into_iter().map(|(partition, places)| (partition, batches(places))).collect())
    }
}

/// The messages of one partition, of which a batch is made when it can be sent: they take no room before.
#[pyclass(module = "pipeline.native._native")]
pub struct Batches {
    messages: Arc<[Keyed]>,
    /// Those of this partition, in their order.
    places: Vec<usize>,
    sent: usize,
}

#[pymethods]
impl Batches {
    /// The next batch, of less than so many bytes or of one message: how many records, and what is to be sent. None if
    /// there is no more.
    fn next<'py>(
        &mut self,
        py: Python<'py>,
        most_bytes: usize,
        timestamp_ms: i64,
    ) -> PyResult<Option<(i32, Bound<'py, PyBytes>)>> {
        let (mut batch, mut value) = (Batch::new(most_bytes.min(MOST_ROOM)), Vec::new());
        while let Some((key, record)) = self.places.get(self.sent).and_then(|place| self.messages.get(*place))
        {
            let value = write_value(record.as_deref(), &mut value)?;
            // As with aiokafka: a first one is taken however long it is, and Kafka may refuse the batch.
            if batch.count > 0 && batch.bytes.len() + batch.bytes_of(key, value) >= most_bytes {
                break;
            }
            batch.append(key, value);
            self.sent += 1;
        }
        if batch.count == 0 { Ok(None) } else { Ok(Some((batch.count, batch.seal(py, timestamp_ms)?))) }
    }
}

/// A batch that is being made: room for its header, and its records.
struct Batch {
    count: i32,
    bytes: Vec<u8>,
}

impl Batch {
    fn new(room: usize) -> Batch {
        let mut bytes = Vec::with_capacity(room);
        bytes.resize(HEADER_BYTES, 0);
        Batch { count: 0, bytes }
    }

    /// What the length of a record counts: attributes, time, offset, key, value and the number of headers.
    fn body_bytes(&self, key: &str, value: Option<&[u8]>) -> usize {
        let value_bytes = varint_bytes(length_of(value)) + value.map_or(0, <[u8]>::len);
        3 + varint_bytes(self.count.into()) + varint_bytes(key.len() as i64) + key.len() + value_bytes
    }

    fn bytes_of(&self, key: &str, value: Option<&[u8]>) -> usize {
        let body = self.body_bytes(key, value);
        varint_bytes(body as i64) + body
    }

    fn append(&mut self, key: &str, value: Option<&[u8]>) {
        put_varint(self.body_bytes(key, value) as i64, &mut self.bytes);
        // No attributes, and no time after that of the batch.
        self.bytes.extend_from_slice(&[0, 0]);
        put_varint(self.count.into(), &mut self.bytes);
        put_varint(key.len() as i64, &mut self.bytes);
        self.bytes.extend_from_slice(key.as_bytes());
        put_varint(length_of(value), &mut self.bytes);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.bytes.push(0);
        // More bytes than a batch can have come long before more records.
        self.count = self.count.saturating_add(1);
    }

    /// Its bytes, whole.
    fn seal(mut self, py: Python<'_>, timestamp_ms: i64) -> PyResult<Bound<'_, PyBytes>> {
        let length = i32::try_from(self.bytes.len() - LOG_OVERHEAD)
            .map_err(|_| PyOverflowError::new_err("more bytes than a batch can have"))?;
        self.put(LENGTH_AT, &length.to_be_bytes());
        // Of no known leader, and of format 2. The checksum is of what follows it.
        self.put(LENGTH_AT + 4, &(-1_i32).to_be_bytes());
        self.put(LENGTH_AT + 8, &[2]);
        let (last_delta, timestamp) = ((self.count - 1).to_be_bytes(), timestamp_ms.to_be_bytes());
        self.put(ATTRIBUTES_AT, &0_i16.to_be_bytes());
        self.put(ATTRIBUTES_AT + 2, &last_delta);
        self.put(ATTRIBUTES_AT + 6, &timestamp);
        self.put(ATTRIBUTES_AT + 14, &timestamp);
        // The producer has no number, no epoch, and counts nothing.
        self.put(ATTRIBUTES_AT + 22, &[0xff; 10]);
        self.put(ATTRIBUTES_AT + 32, &0_i32.to_be_bytes());
        self.put(ATTRIBUTES_AT + 36, &self.count.to_be_bytes());
        let checksum = crc32c::crc32c(&self.bytes[ATTRIBUTES_AT..]);
        self.put(CRC_AT, &checksum.to_be_bytes());
        Ok(PyBytes::new(py, &self.bytes))
    }

    fn put(&mut self, at: usize, field: &[u8]) {
        self.bytes[at..at + field.len()].copy_from_slice(field);
    }
}

/// What Kafka writes of no value.
fn length_of(value: Option<&[u8]>) -> i64 {
    value.map_or(-1, |value| value.len() as i64)
}

/// The sign of a number goes into its lowest bit.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn varint_bytes(number: i64) -> usize {
    let bits = 64 - zigzag(number).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

/// Seven bits a byte, the lowest first; the highest bit of a byte says that there are more.
fn put_varint(number: i64, out: &mut Vec<u8>) {
    let mut left = zigzag(number);
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// `producer.murmur2_partition`: the choice of Java's client.
fn murmur2_partition(key: &[u8], partitions: NonZeroU32) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut found = 0x9747_b28c ^ key.len() as u32;
    let (words, rest) = key.as_chunks();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        found = found.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let told = rest.iter().rev().fold(0, |told, byte| told << 8 | u32::from(*byte));
        found = (found ^ told).wrapping_mul(M);
    }
    found = (found ^ found >> 13).wrapping_mul(M);
    ((found ^ found >> 15) & 0x7fff_ffff) % partitions
}
