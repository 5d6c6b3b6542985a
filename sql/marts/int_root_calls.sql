with

roots as (
    select
        *,
        ringing_at is null and answered_at is null as is_before_ringing,
    from calls
    where is_root
),

int_root_calls as (
    select
        date,
        provider,
        direction,
        call_key,
        outcome,
        failure_class,
        failure_reason,
        end_trigger,
        coalesce(is_answered, false) as is_answered,
        answered_by,
        -- What was answered has reached the network, whatever became of it.
        coalesce(is_answered, false) or not (
            outcome in ('expired', 'limit_reached')
            or (outcome in ('canceled', 'failed') and is_before_ringing)
        ) as is_seizure,
        started_at,
        ended_at,
        coalesce(started_at, first_event_at) as dated_at,
        ring_seconds,
        talk_seconds,
        -- Whole numbers add up to the same sum in any order; DuckDB's threads add in a different one each time.
        try_cast(round(talk_seconds * 1000000) as bigint) as talk_us,
        time_source,
        closed_by,
        last_event_at,
    from roots
)

select * from int_root_calls
