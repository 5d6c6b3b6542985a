with

calls_impossible_count as (
    select
        call_key,
        attempts,
        error_count,
        event_count,
        revision,
    from int_latest_calls
    where
        coalesce(attempts, 0) < 1
        or coalesce(error_count, -1) < 0
        or coalesce(event_count, 0) < 1
        or coalesce(revision, 0) < 1
)

select * from calls_impossible_count
