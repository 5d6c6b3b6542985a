with

calls_negative_duration as (
    select
        call_key,
        ring_seconds,
        talk_seconds,
        wrap_up_seconds,
        total_seconds,
        reported_seconds,
    from calls
    -- DuckDB sorts NaN above every number: the greatest of the five finds it.
    where
        least(ring_seconds, talk_seconds, wrap_up_seconds, total_seconds, reported_seconds) < 0
        or isnan(greatest(ring_seconds, talk_seconds, wrap_up_seconds, total_seconds, reported_seconds))
)

select * from calls_negative_duration
