//! Letting go of an agent's older calls: `pipeline/assemble/memory.py: Stream.trim`.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use crate::cut::{Cut, cut, in_stream_order};
use crate::model::{Event, Text, call_key};
use crate::stream::{Folded, Placed, Slot, Stream};

/// Calls of an agent that stay in memory after their end: later details may still belong to them.
const KEPT_CALLS: usize = 2;
/// Borders between calls at which letting go is tried: at the newest ones details may still cross them.
const BORDERS_TRIED: usize = 3;

impl Stream {
    /// Lets go of an agent's older calls, if nothing was received of them after `silent_since_us`.
    ///
    /// What is kept must be cut into the same calls without what came before it. What the stream was just folded to,
    /// if it was, shows sooner that there is nothing to let go of.
    pub fn trim(&mut self, silent_since_us: i64, folded: Option<&[Folded]>) {
        self.is_trimmed = true;
        if self.published.len() <= KEPT_CALLS {
            return;
        }
        let is_silent =
            |events: &[Arc<Event>]| events.iter().all(|event| event.received_us <= silent_since_us);
        if let Some((_, events)) = folded.and_then(<[Folded]>::first)
            && !is_silent(events)
        {
            return;
        }
        let ordered = in_stream_order(self.slots.iter().map(|slot| &slot.event));
        let calls = cut(&ordered, self.idle_us);
        let mut over = 0;
        while over + KEPT_CALLS < calls.len() && is_silent(&calls[over].events) {
            over += 1;
        }
        for border in (over.saturating_sub(BORDERS_TRIED) + 1..=over).rev() {
            if self.stands_alone(&ordered, &calls, border) {
                self.let_go_before(&ordered, &calls, border);
                return;
            }
        }
    }

    fn stands_alone(&self, ordered: &[Arc<Event>], calls: &[Cut], border: usize) -> bool {
        let (before, kept) = ordered.split_at(calls[border].start);
        if before.iter().map(|event| event.at_us).max() > kept.iter().map(|event| event.at_us).min() {
            // A clock was set back there: the order hangs on what would be let go of.
            return false;
        }
        let again = cut(kept, self.idle_us);
        let calls = &calls[border..];
        again.len() == calls.len()
            && again.iter().zip(calls).all(|(one, other)| {
                one.call_id == other.call_id
                    && one.events.len() == other.events.len()
                    && one.events.iter().zip(&other.events).all(|(one, other)| Arc::ptr_eq(one, other))
            })
    }

    fn let_go_before(&mut self, ordered: &[Arc<Event>], calls: &[Cut], border: usize) {
        let (before, kept) = ordered.split_at(calls[border].start);
        for event in before {
            if let (Some(session), Some(seq)) = (&event.session_id, event.seq) {
                let newest = self.let_go.entry(session.clone()).or_insert(-1);
                *newest = seq.max(*newest);
            }
        }
        let mut ids = calls[border - 1].events.iter().filter_map(|event| event.provider_call_id.as_ref());
        self.uuid_before = ids.find(|id| !id.is_empty()).cloned();
        self.kept_from = kept.first().cloned();
        self.keep(kept);
        // It would hold the others until the agent's next event, which may never come.
        let kept_ids: AHashSet<&str> = kept.iter().map(|event| event.event_id.as_str()).collect();
        self.settled.retain(|_, known| kept_ids.contains(known.events[0].event_id.as_str()));
        let provider = kept[0].provider;
        let keys: AHashSet<Text> =
            calls[border..].iter().map(|call| call_key(provider, &call.call_id)).collect();
        self.published.retain(|record| keys.contains(&record.call_key));
    }

    fn keep(&mut self, kept: &[Arc<Event>]) {
        let slots = std::mem::take(&mut self.slots);
        let mut before: AHashMap<*const Event, Slot> =
            slots.into_iter().map(|slot| (Arc::as_ptr(&slot.event), slot)).collect();
        self.index = AHashMap::new();
        for event in kept {
            if let Some(mut slot) = before.remove(&Arc::as_ptr(event)) {
                if slot.placed == Placed::Never {
                    slot.placed = Placed::In(None);
                }
                self.push(slot);
            }
        }
    }
}
