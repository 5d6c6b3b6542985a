with

calls_impossible_time as (
    select
        call_key,
        queued_at,
        ringing_at,
        started_at,
        answered_at,
        ended_at,
        first_event_at,
        last_event_at,
    from int_latest_calls
    -- `least` and `greatest` pass over NULL. The zone is stated, so the session's plays no part.
    where
        first_event_at > last_event_at
        or least(queued_at, ringing_at, started_at, answered_at, ended_at, first_event_at)
            < timestamptz '2000-01-01 00:00:00+00'
        or greatest(queued_at, ringing_at, started_at, answered_at, ended_at, last_event_at)
            >= timestamptz '2100-01-01 00:00:00+00'
)

select * from calls_impossible_time
