//! The closed lists of words (`pipeline/model/vocabulary.py`), and the names of providers, as small numbers.
//!
//! A word that is on no list (from a file that a newer Callfold wrote) gets a number of its own when it is first met.

use std::num::NonZeroU16;
use std::sync::{LazyLock, RwLock};

use ahash::AHashMap;

/// A word of a closed list. Two are the same if and only if their texts are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word(NonZeroU16);

struct Table {
    texts: Vec<&'static str>,
    numbers: AHashMap<&'static str, Word>,
}

macro_rules! words {
    ($($name:ident = $text:literal,)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { $($name,)* }
        const KNOWN: &[&str] = &[$($text,)*];
        $(pub const $name: Word = Word::numbered(Number::$name as u16);)*
    };
}

words! {
    // State
    QUEUED = "queued",
    RINGING = "ringing",
    IN_PROGRESS = "in_progress",
    WRAP_UP = "wrap_up",
    ENDED = "ended",
    // Direction and channel
    INBOUND = "inbound",
    OUTBOUND = "outbound",
    INTERNAL = "internal",
    PHONE = "phone",
    WEB = "web",
    // EndTrigger and AnsweredBy
    AGENT = "agent",
    CUSTOMER = "customer",
    SYSTEM = "system",
    MACHINE = "machine",
    // ClosedBy and TimeSource
    TERMINAL = "terminal",
    TIMEOUT = "timeout",
    PROVIDER = "provider",
    RECEIVED = "received",
    // Outcome
    COMPLETED = "completed",
    FORWARDED = "forwarded",
    NO_ANSWER = "no_answer",
    BUSY = "busy",
    REJECTED = "rejected",
    UNREACHABLE = "unreachable",
    VOICEMAIL = "voicemail",
    MAX_ATTEMPTS = "max_attempts",
    CANCELED = "canceled",
    EXPIRED = "expired",
    ABANDONED = "abandoned",
    LIMIT_REACHED = "limit_reached",
    FAILED = "failed",
    UNKNOWN = "unknown",
    // Failure class
    RECIPIENT = "recipient",
    CALLER = "caller",
    CAPACITY = "capacity",
    TECHNICAL = "technical",
    // Cut
    BEGIN = "begin",
    END = "end",
    CONNECTED = "connected",
    MERGING = "merging",
    SYNC = "sync",
    // Providers
    AIRCALL_BUS = "aircall_bus",
    FREECLIMB = "freeclimb",
    INTERACTLY = "interactly",
    RECHO = "recho",
    WHIPPY = "whippy",
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(|| {
    let texts = KNOWN.to_vec();
    let numbers =
        texts.iter().enumerate().map(|(number, text)| (*text, Word::numbered(number as u16))).collect();
    RwLock::new(Table { texts, numbers })
});

/// Words beyond those of the lists; as many as these come from no Callfold.
const MOST_WORDS: usize = 10_000;

impl Word {
    const fn numbered(number: u16) -> Word {
        match NonZeroU16::new(number + 1) {
            Some(number) => Word(number),
            None => unreachable!(),
        }
    }

    /// The word of a text; none if there are far too many of them.
    pub fn of(text: &str) -> Option<Word> {
        if let Some(word) = TABLE.read().unwrap().numbers.get(text) {
            return Some(*word);
        }
        let mut table = TABLE.write().unwrap();
        if let Some(word) = table.numbers.get(text) {
            return Some(*word);
        }
        if table.texts.len() >= MOST_WORDS {
            return None;
        }
        let word = Word::numbered(table.texts.len() as u16);
        let kept: &'static str = Box::leak(text.into());
        table.texts.push(kept);
        table.numbers.insert(kept, word);
        Some(word)
    }

    /// Its text.
    pub fn text(self) -> &'static str {
        let number = usize::from(self.0.get() - 1);
        if number < KNOWN.len() { KNOWN[number] } else { TABLE.read().unwrap().texts[number] }
    }

    /// How far a call has come: of two events at the same instant the one further on is the later one.
    pub fn state_rank(self) -> u8 {
        match self {
            QUEUED => 1,
            RINGING => 2,
            IN_PROGRESS => 3,
            WRAP_UP => 4,
            ENDED => 5,
            _ => 0,
        }
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}
