//! Streams that have just left memory, and may come back as they were.
//!
//! A late event mostly comes soon after its call was let go of. In a backlog, where hours pass in seconds, each flush
//! has some; to read five calls back from the lake's files takes a tenth of a second, and here it takes nothing. What is
//! not here is read from the lake, so nothing hangs on how much is kept.

use std::collections::VecDeque;

use ahash::AHashMap;

use crate::model::Text;
use crate::stream::Stream;

/// Looks at the assembler for which a stream is kept: what others write of it in the lake meanwhile (a rebuild) is not
/// seen here, as it is not in a call that is still in memory.
const LOOKS: u64 = 4;
/// More than leave at one flush of a backlog.
pub const MOST_DEPARTED: usize = 12_288;

pub struct Departed {
    most: usize,
    streams: AHashMap<Text, (u64, Box<Stream>)>,
    /// In the order in which they left; one that came back and left again stands here twice.
    left: VecDeque<(u64, Text)>,
    looks: u64,
}

impl Departed {
    /// Keeps so many streams at most, of some KB each.
    pub fn new(most: usize) -> Departed {
        Departed { most, streams: AHashMap::new(), left: VecDeque::new(), looks: 0 }
    }

    /// Takes a stream of which all is published.
    pub fn put(&mut self, stream: Box<Stream>) {
        self.left.push_back((self.looks, stream.key.clone()));
        self.streams.insert(stream.key.clone(), (self.looks, stream));
        if self.left.len() > self.most {
            self.let_go_of_the_first();
        }
    }

    /// Whether it has a stream of a partition. Of another one it is another worker's too, or was: what that has written
    /// is in the lake.
    pub fn holds(&self, key: &str, partition: usize) -> bool {
        self.streams.get(key).is_some_and(|(_, stream)| stream.partition == partition)
    }

    /// Gives a stream of a partition back.
    pub fn take(&mut self, key: &str, partition: usize) -> Option<Box<Stream>> {
        if !self.holds(key, partition) {
            return None;
        }
        self.streams.remove(key).map(|(_, stream)| stream)
    }

    /// All streams are looked at once more: lets go of those that left too many looks ago.
    pub fn look(&mut self) {
        self.looks += 1;
        while self.left.front().is_some_and(|(look, _)| look + LOOKS <= self.looks) {
            self.let_go_of_the_first();
        }
    }

    /// Forgets the streams for which this holds.
    pub fn forget(&mut self, is_gone: impl Fn(&Stream) -> bool) {
        self.streams.retain(|_, (_, stream)| !is_gone(stream));
    }

    fn let_go_of_the_first(&mut self) {
        if let Some((look, key)) = self.left.pop_front()
            && self.streams.get(&key).is_some_and(|(left, _)| *left == look)
        {
            self.streams.remove(&key);
        }
    }
}
