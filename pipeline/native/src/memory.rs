//! The streams that an assembler has in memory, by key and by number.

use ahash::AHashMap;

use crate::model::Text;
use crate::stream::Stream;

/// Streams by number: what points at one from elsewhere takes four bytes, and no look at its key.
#[derive(Default)]
pub struct Streams {
    /// By number; those of streams that are gone are used again.
    streams: Vec<Option<Box<Stream>>>,
    free: Vec<u32>,
    numbers: AHashMap<Text, u32>,
}

impl Streams {
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn number_of(&self, key: &str) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    /// The stream of a number, if there is one.
    pub fn find(&self, number: u32) -> Option<&Stream> {
        self.streams.get(number as usize)?.as_deref()
    }

    /// The stream of a number that is in use.
    pub fn get(&mut self, number: u32) -> &mut Stream {
        self.streams[number as usize].as_mut().expect("a number is in use as long as anything names it")
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Stream)> {
        let numbered = self.streams.iter().enumerate();
        numbered.filter_map(|(number, stream)| Some((number as u32, stream.as_deref()?)))
    }

    /// Takes a stream whose key is not there yet, and gives its number.
    pub fn put(&mut self, stream: Box<Stream>) -> u32 {
        let key = stream.key.clone();
        let number = match self.free.pop() {
            Some(number) => {
                self.streams[number as usize] = Some(stream);
                number
            }
            None => {
                self.streams.push(Some(stream));
                self.streams.len() as u32 - 1
            }
        };
        self.numbers.insert(key, number);
        number
    }

    /// Takes a stream out; its number is free from now on.
    pub fn remove(&mut self, number: u32) -> Option<Box<Stream>> {
        let stream = self.streams[number as usize].take()?;
        self.numbers.remove(&stream.key);
        self.free.push(number);
        Some(stream)
    }
}
