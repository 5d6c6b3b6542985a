//! What the events of a call state, gathered in passes over them: `pipeline/assemble/facts.py`.

use ahash::AHashSet;

use crate::model::{Event, Text};
use crate::word::{self, Word};

/// A fact that is stated more than once, believed from the event of the highest `fact_rank`.
#[derive(Clone, Copy)]
struct Fact<'a, T> {
    told: Option<&'a T>,
    rank: i64,
}

impl<T> Default for Fact<'_, T> {
    fn default() -> Self {
        // What a rank below zero states is believed by accident: of rank -1, and where the newest is believed.
        Fact { told: None, rank: -1 }
    }
}

impl<'a, T> Fact<'a, T> {
    /// Takes what the next event says, if it says it: of several of one rank the oldest is believed.
    fn oldest(&mut self, told: &'a Option<T>, rank: i64) {
        if told.is_some() && rank > self.rank {
            (self.told, self.rank) = (told.as_ref(), rank);
        }
    }

    /// The same; of several of one rank the newest is believed.
    fn newest(&mut self, told: &'a Option<T>, rank: i64) {
        if told.is_some() && rank >= self.rank {
            (self.told, self.rank) = (told.as_ref(), rank);
        }
    }
}

/// `facts.Believed`: the facts of the events of the highest rank.
pub struct Believed<'a> {
    pub provider_call_id: Option<&'a Text>,
    pub parent_call_id: Option<&'a Text>,
    pub account_id: Option<&'a Text>,
    pub agent_id: Option<&'a Text>,
    pub direction: Option<Word>,
    pub channel: Option<Word>,
    pub from_number: Option<&'a Text>,
    pub to_number: Option<&'a Text>,
    pub reported_seconds: Option<f64>,
    pub started_us: Option<i64>,
    pub recording_url: Option<&'a Text>,
    pub success_evaluation: Option<&'a Text>,
    pub cost_total: Option<f64>,
}

macro_rules! gathered {
    ($ordered:ident, oldest: $($old:ident)*, newest: $($new:ident)*) => {
        $(let mut $old = Fact::default();)*
        $(let mut $new = Fact::default();)*
        for event in $ordered {
            $($old.oldest(&event.$old, event.fact_rank);)*
            $($new.newest(&event.$new, event.fact_rank);)*
        }
    };
}

impl<'a> Believed<'a> {
    /// Names and numbers: of several the oldest, because later events of a transfer tell of other parties.
    /// Everything else: the newest.
    pub fn of(ordered: &[&'a Event]) -> Believed<'a> {
        gathered!(ordered,
            oldest: provider_call_id parent_call_id account_id agent_id direction channel from_number to_number,
            newest: reported_seconds started_us recording_url success_evaluation cost_total
        );
        Believed {
            provider_call_id: provider_call_id.told,
            parent_call_id: parent_call_id.told,
            account_id: account_id.told,
            agent_id: agent_id.told,
            direction: direction.told.copied(),
            channel: channel.told.copied(),
            from_number: from_number.told,
            to_number: to_number.told,
            reported_seconds: reported_seconds.told.copied(),
            started_us: started_us.told.copied(),
            recording_url: recording_url.told,
            success_evaluation: success_evaluation.told,
            cost_total: cost_total.told.copied(),
        }
    }
}

/// How many different texts there are. Mostly there is one or none, which takes no table.
#[derive(Default)]
struct Distinct<'a> {
    first: Option<&'a str>,
    others: Option<AHashSet<&'a str>>,
}

impl<'a> Distinct<'a> {
    fn add(&mut self, text: &'a str) {
        if *self.first.get_or_insert(text) != text {
            self.others.get_or_insert_default().insert(text);
        }
    }

    fn count(&self) -> i64 {
        i64::from(self.first.is_some()) + self.others.as_ref().map_or(0, |others| others.len() as i64)
    }
}

/// `facts.Counted`: what any of the events may say, and what is counted over all of them.
#[derive(Default)]
pub struct Counted {
    pub transferred: bool,
    pub has_analysis: bool,
    pub talk_is_reported: bool,
    pub starts_with_first: bool,
    /// Whether the time of any event is only that of its receipt.
    pub is_from_receipt: bool,
    pub attempts: i64,
    pub errors: i64,
    pub queued_us: Option<i64>,
}

impl Counted {
    pub fn of(ordered: &[&Event]) -> Counted {
        let mut counted = Counted::default();
        let (mut attempts, mut errors) = (Distinct::default(), Distinct::default());
        for event in ordered {
            counted.transferred |= event.transferred;
            counted.has_analysis |= event.has_analysis;
            counted.talk_is_reported |= event.talk_is_reported;
            counted.starts_with_first |= event.start_is_first_event;
            counted.is_from_receipt |= event.at_source == word::RECEIVED;
            event.attempt_id.iter().for_each(|attempt| attempts.add(attempt));
            event.errors.iter().for_each(|error| errors.add(error));
            counted.queued_us = earliest(counted.queued_us, event.queued_us);
        }
        (counted.attempts, counted.errors) = (attempts.count(), errors.count());
        counted
    }
}

/// `facts.Times`: the call's instants, each from the events that may tell it, and the lengths between them.
pub struct Times {
    is_answered: Option<bool>,
    ring_from: Option<i64>,
    wrap_up_us: Option<i64>,
    pub ringing_us: Option<i64>,
    pub answered_us: Option<i64>,
    pub hangup_us: Option<i64>,
    pub ended_us: Option<i64>,
}

impl Times {
    /// `is_over`: the ended events of `attempt` ended it. They tell nothing while the call is going on.
    pub fn of(ordered: &[&Event], attempt: &[&Event], is_over: bool, is_answered: Option<bool>) -> Times {
        let (mut answered_us, mut wrap_up_us) = (None, None);
        let (mut at_end, mut ended) = (Fact::default(), Fact::default());
        for event in attempt {
            answered_us = earliest(answered_us, event.answered_us);
            if event.state == Some(word::WRAP_UP) {
                wrap_up_us = earliest(wrap_up_us, event.hangup_us);
            }
            if is_over && event.state == Some(word::ENDED) {
                at_end.newest(&event.hangup_us, event.fact_rank);
                ended.newest(&event.ended_us, event.fact_rank);
            }
        }
        let answered_us = answered_us.filter(|_| is_answered == Some(true));
        let ended_us = ended.told.copied();
        let mut hangup_us = wrap_up_us.or(at_end.told.copied());
        if let (Some(hung_up), Some(ended)) = (hangup_us, ended_us)
            && hung_up > ended
        {
            // A hang-up told of after the end came late: when it was is not known.
            (hangup_us, wrap_up_us) = (None, None);
        }
        let until_us = if is_answered == Some(true) { answered_us } else { ended_us };
        let (ringing_us, ring_from) = rings(ordered, until_us);
        Times { is_answered, ring_from, wrap_up_us, ringing_us, answered_us, hangup_us, ended_us }
    }

    /// How long it rang, the last time: until the answer, or until the end of an unanswered call.
    pub fn ring_seconds(&self, is_over: bool) -> Option<f64> {
        match self.is_answered? {
            true => between(self.ring_from, self.answered_us),
            false if is_over => between(self.ring_from, self.ended_us),
            false => None,
        }
    }

    /// From the hang-up to the end, where the provider tells the two apart.
    pub fn wrap_up_seconds(&self) -> Option<f64> {
        between(self.wrap_up_us, self.ended_us)
    }
}

/// The first ring, and the last one up to an instant.
fn rings(ordered: &[&Event], until_us: Option<i64>) -> (Option<i64>, Option<i64>) {
    let (mut first_us, mut last_us) = (None, None);
    for event in ordered {
        first_us = earliest(first_us, event.ringing_us);
        if event.ringing_us <= until_us {
            // None is less than any instant.
            last_us = last_us.max(event.ringing_us);
        }
    }
    (first_us, last_us)
}

fn earliest(known_us: Option<i64>, told_us: Option<i64>) -> Option<i64> {
    match (known_us, told_us) {
        (Some(known), Some(told)) => Some(known.min(told)),
        _ => known_us.or(told_us),
    }
}

/// Seconds from one instant to a later one; None if either is unknown or they contradict each other.
pub fn between(from_us: Option<i64>, to_us: Option<i64>) -> Option<f64> {
    let (from_us, to_us) = (from_us?, to_us?);
    (from_us <= to_us).then(|| seconds(to_us.abs_diff(from_us)))
}

/// Python's `us / 1_000_000`, which is rounded once, however many they are.
fn seconds(us: u64) -> f64 {
    if us <= 1 << 53 {
        return us as f64 / 1e6;
    }
    // More digits than a float has; the last one tells whether any follow.
    let scaled = u128::from(us) << 40;
    let digits = (scaled / 1_000_000) | u128::from(!scaled.is_multiple_of(1_000_000));
    digits as f64 / (1_u64 << 40) as f64
}

/// Whether so long has passed from one instant to another. The difference of two may be more than fits.
pub fn is_apart(from_us: i64, to_us: i64, least_us: i64) -> bool {
    i128::from(to_us) - i128::from(from_us) >= i128::from(least_us)
}
