//! When streams want to be looked at next: `pipeline/assemble/timetable.py`, over the numbers of streams.

use std::collections::BTreeMap;

use ahash::AHashSet;

/// The second or so (2**20 us) that an instant is in.
pub fn bucket_of(us: i64) -> i64 {
    us >> 20
}

/// The streams of one partition by bucket. A stream stands in one bucket at most.
#[derive(Default)]
pub struct Timetable {
    buckets: BTreeMap<i64, AHashSet<u32>>,
}

impl Timetable {
    pub fn put(&mut self, stream: u32, bucket: i64) {
        self.buckets.entry(bucket).or_default().insert(stream);
    }

    pub fn discard(&mut self, stream: u32, bucket: i64) {
        if let Some(streams) = self.buckets.get_mut(&bucket) {
            streams.remove(&stream);
            if streams.is_empty() {
                self.buckets.remove(&bucket);
            } else if streams.capacity() > 64 && streams.len() * 4 < streams.capacity() {
                // Most calls end, and leave, long before the timeout that they were noted under.
                let left = streams.len();
                streams.shrink_to(left * 2);
            }
        }
    }

    /// Takes out the streams of all buckets that have begun by now: earlier buckets first, and the same order in
    /// each run.
    pub fn take_due(&mut self, now_us: i64) -> Vec<u32> {
        let later = self.buckets.split_off(&(bucket_of(now_us) + 1));
        let due = std::mem::replace(&mut self.buckets, later);
        let mut found = Vec::new();
        for streams in due.into_values() {
            let start = found.len();
            found.extend(streams);
            found[start..].sort_unstable();
        }
        found
    }
}
