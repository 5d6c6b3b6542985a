//! The events of a call that was cut from a stream, as the fold may take them: `cut._told`.

use std::ops::Deref;
use std::sync::Arc;

use crate::model::Event;
use crate::word;

/// An event as it is, or with some of its fields replaced.
pub enum Told<'a> {
    AsIs(&'a Event),
    Instead(Box<Event>),
}

impl Deref for Told<'_> {
    type Target = Event;

    fn deref(&self) -> &Event {
        match self {
            Told::AsIs(event) => event,
            Told::Instead(event) => event,
        }
    }
}

/// The call's events as the fold may take them: a second party's details left out, a merge told by its end.
pub fn told(events: &[Arc<Event>]) -> Vec<Told<'_>> {
    let resumed = resumed(events);
    let is_outbound = events.first().is_some_and(|first| first.direction == Some(word::OUTBOUND));
    let (mut is_connected, mut is_merging) = (false, false);
    let mut told = Vec::with_capacity(events.len());
    for (index, (event, is_resumed)) in events.iter().zip(resumed).enumerate() {
        if index == 0 {
            told.push(Told::AsIs(event));
            continue;
        }
        match event.cut {
            // Connected again: the merge did not come about.
            Some(word::CONNECTED) => (is_connected, is_merging) = (true, false),
            Some(word::MERGING) => is_merging = true,
            _ => {}
        }
        told.push(if is_resumed {
            Told::Instead(Box::new(Event { state: None, hangup_us: None, ..Event::clone(event) }))
        } else if event.cut == Some(word::BEGIN) && is_connected {
            as_second_party(event)
        } else if event.cut == Some(word::END) && is_merging {
            let outcome = Some(word::FORWARDED);
            Told::Instead(Box::new(Event { outcome, transferred: true, ..Event::clone(event) }))
        } else {
            as_of(event, is_outbound)
        });
    }
    told
}

/// Which are hang-ups after which the call was connected again: those of a transfer's second leg, not of the call.
fn resumed(events: &[Arc<Event>]) -> Vec<bool> {
    let mut found = vec![false; events.len()];
    let mut goes_on = false;
    for (event, is_resumed) in events.iter().zip(&mut found).rev() {
        match event.cut {
            Some(word::CONNECTED) => goes_on = true,
            Some(word::BEGIN) => goes_on = false,
            _ => *is_resumed = goes_on && event.state == Some(word::WRAP_UP),
        }
    }
    found
}

/// Which way the call goes is told by its first event; an outbound call rings there, an inbound one here.
fn as_of(event: &Event, is_outbound: bool) -> Told<'_> {
    let rings_here = event.cut == Some(word::BEGIN);
    let ringing_us = event.ringing_us.filter(|_| rings_here != is_outbound);
    if event.direction.is_none() && event.ringing_us == ringing_us {
        return Told::AsIs(event);
    }
    Told::Instead(Box::new(Event { direction: None, ringing_us, ..event.clone() }))
}

fn as_second_party(event: &Event) -> Told<'_> {
    Told::Instead(Box::new(Event {
        state: None,
        direction: None,
        from_number: None,
        to_number: None,
        provider_call_id: None,
        ringing_us: None,
        ..event.clone()
    }))
}
