//! Columns while they are being filled, in Arrow's layouts: a bit per value that says whether there is one, and the
//! values, little endian; of texts the bytes, and the places where they end.

use crate::model::Text;
use crate::word::Word;

/// What a column cannot hold.
pub struct TooLarge(pub &'static str);

/// A column as Arrow has it: the bits of what is there (none: all is), then what its type has.
pub struct Buffers {
    pub nulls: usize,
    pub parts: Vec<Option<Vec<u8>>>,
}

/// Rows that are turned into columns at a time: a bit of a word each. So few stay in the processor's cache while
/// column after column takes its own of them.
pub const ROWS_TURNED: usize = 64;

/// Takes its own of one row after the other; of as many at a time as are turned, but for the last.
pub trait Column<R> {
    /// Room for so many rows, which are all that come.
    fn reserve(&mut self, rows: usize);
    fn take(&mut self, rows: &[R]) -> Result<(), TooLarge>;
    fn buffers(self: Box<Self>) -> Buffers;
}

/// A bit a row.
#[derive(Default)]
struct Bits {
    words: Vec<[u8; ROWS_TURNED / 8]>,
    rows: usize,
    ones: usize,
}

impl Bits {
    fn take(&mut self, word: u64, rows: usize) {
        self.words.push(word.to_le_bytes());
        self.rows += rows;
        self.ones += word.count_ones() as usize;
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.words.into_flattened();
        bytes.truncate(self.rows.div_ceil(8));
        bytes
    }
}

/// Buffers of a column of which these values are there.
fn with_nulls(present: Bits, parts: impl IntoIterator<Item = Vec<u8>>) -> Buffers {
    let nulls = present.rows - present.ones;
    let bits = (nulls > 0).then(|| present.bytes());
    Buffers { nulls, parts: [bits].into_iter().chain(parts.into_iter().map(Some)).collect() }
}

/// Values of N bytes.
struct Fixed<F, const N: usize> {
    of: F,
    present: Bits,
    data: Vec<[u8; N]>,
}

impl<R, F, const N: usize> Column<R> for Fixed<F, N>
where
    F: FnMut(&R) -> Result<Option<[u8; N]>, TooLarge>,
{
    fn reserve(&mut self, rows: usize) {
        self.data.reserve_exact(rows);
    }

    fn take(&mut self, rows: &[R]) -> Result<(), TooLarge> {
        let mut there = 0;
        for (place, row) in rows.iter().enumerate() {
            let value = (self.of)(row)?;
            there |= u64::from(value.is_some()) << place;
            self.data.push(value.unwrap_or([0; N]));
        }
        self.present.take(there, rows.len());
        Ok(())
    }

    fn buffers(self: Box<Self>) -> Buffers {
        with_nulls(self.present, [self.data.into_flattened()])
    }
}

fn fixed<R, const N: usize>(of: impl FnMut(&R) -> Result<Option<[u8; N]>, TooLarge>) -> impl Column<R> {
    Fixed { of, present: Bits::default(), data: Vec::new() }
}

/// Microseconds since the epoch.
pub fn instant<R>(of: impl Fn(&R) -> Option<i64>) -> impl Column<R> {
    long(of)
}

/// Whole numbers of 64 bits.
pub fn long<R>(of: impl Fn(&R) -> Option<i64>) -> impl Column<R> {
    fixed(move |row| Ok(of(row).map(i64::to_le_bytes)))
}

/// Whole numbers of 32 bits.
pub fn int<R>(of: impl Fn(&R) -> i64) -> impl Column<R> {
    fixed(move |row| match i32::try_from(of(row)) {
        Ok(number) => Ok(Some(number.to_le_bytes())),
        Err(_) => Err(TooLarge("a number that no column holds")),
    })
}

/// Days since the epoch.
pub fn day<R>(of: impl Fn(&R) -> i64) -> impl Column<R> {
    int(of)
}

pub fn real<R>(of: impl Fn(&R) -> Option<f64>) -> impl Column<R> {
    fixed(move |row| Ok(of(row).map(f64::to_le_bytes)))
}

/// The hashes of keys. The rows of a call mostly stand together, and have one key.
pub fn hash<R>(of: impl Fn(&R) -> &str) -> impl Column<R> {
    let mut last = (String::new(), super::key_hash("").to_le_bytes());
    fixed(move |row| {
        let key = of(row);
        if key != last.0 {
            last.0.clear();
            last.0.push_str(key);
            last.1 = super::key_hash(key).to_le_bytes();
        }
        Ok(Some(last.1))
    })
}

struct Flags<F> {
    of: F,
    present: Bits,
    set: Bits,
}

impl<R, F: Fn(&R) -> Option<bool>> Column<R> for Flags<F> {
    /// Bits need little.
    fn reserve(&mut self, _: usize) {}

    fn take(&mut self, rows: &[R]) -> Result<(), TooLarge> {
        let (mut there, mut set) = (0, 0);
        for (place, row) in rows.iter().enumerate() {
            let flag = (self.of)(row);
            there |= u64::from(flag.is_some()) << place;
            set |= u64::from(flag == Some(true)) << place;
        }
        self.present.take(there, rows.len());
        self.set.take(set, rows.len());
        Ok(())
    }

    fn buffers(self: Box<Self>) -> Buffers {
        with_nulls(self.present, [self.set.bytes()])
    }
}

/// A bit each.
pub fn flag<R>(of: impl Fn(&R) -> Option<bool>) -> impl Column<R> {
    Flags { of, present: Bits::default(), set: Bits::default() }
}

/// Texts one after the other, and where each of them ends.
struct Texts {
    ends: Vec<[u8; 4]>,
    data: Vec<u8>,
}

impl Texts {
    fn new() -> Texts {
        Texts { ends: vec![[0; 4]], data: Vec::new() }
    }

    fn push(&mut self, text: &str) -> Result<(), TooLarge> {
        self.data.extend_from_slice(text.as_bytes());
        self.ends.push(end_of(self.data.len())?);
        Ok(())
    }
}

fn end_of(size: usize) -> Result<[u8; 4], TooLarge> {
    i32::try_from(size).map(i32::to_le_bytes).map_err(|_| TooLarge("more text than one column holds"))
}

struct TextColumn<F> {
    of: F,
    present: Bits,
    texts: Texts,
}

impl<R, F: Fn(&R) -> Option<&str>> Column<R> for TextColumn<F> {
    fn reserve(&mut self, rows: usize) {
        self.texts.ends.reserve_exact(rows);
    }

    fn take(&mut self, rows: &[R]) -> Result<(), TooLarge> {
        let mut there = 0;
        for (place, row) in rows.iter().enumerate() {
            let text = (self.of)(row);
            there |= u64::from(text.is_some()) << place;
            self.texts.push(text.unwrap_or_default())?;
        }
        self.present.take(there, rows.len());
        Ok(())
    }

    fn buffers(self: Box<Self>) -> Buffers {
        with_nulls(self.present, [self.texts.ends.into_flattened(), self.texts.data])
    }
}

pub fn text<R>(of: impl Fn(&R) -> Option<&str>) -> impl Column<R> {
    TextColumn { of, present: Bits::default(), texts: Texts::new() }
}

/// Words of closed lists are stored as texts.
pub fn word<R>(of: impl Fn(&R) -> Option<Word>) -> impl Column<R> {
    text(move |row| of(row).map(Word::text))
}

/// Lists of texts: where each list ends, then the buffers of the texts, of which none is missing.
struct Lists<F> {
    of: F,
    ends: Vec<[u8; 4]>,
    texts: Texts,
}

impl<R, F: Fn(&R) -> &[Text]> Column<R> for Lists<F> {
    fn reserve(&mut self, rows: usize) {
        self.ends.reserve_exact(rows);
    }

    fn take(&mut self, rows: &[R]) -> Result<(), TooLarge> {
        for row in rows {
            for text in (self.of)(row) {
                self.texts.push(text)?;
            }
            self.ends.push(end_of(self.texts.ends.len() - 1)?);
        }
        Ok(())
    }

    fn buffers(self: Box<Self>) -> Buffers {
        let Texts { ends, data } = self.texts;
        with_nulls(Bits::default(), [self.ends.into_flattened(), ends.into_flattened(), data])
    }
}

pub fn texts<R>(of: impl Fn(&R) -> &[Text]) -> impl Column<R> {
    Lists { of, ends: vec![[0; 4]], texts: Texts::new() }
}
