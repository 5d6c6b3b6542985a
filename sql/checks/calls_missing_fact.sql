with

calls_missing_fact as (
    select
        call_key,
        provider,
        call_id,
        is_root,
        direction,
        channel,
        state,
        time_source,
        first_event_at,
        last_event_at,
        date,
    from int_latest_calls
    where
        provider is null
        or call_id is null
        or is_root is null
        or direction is null
        or channel is null
        or state is null
        or time_source is null
        or first_event_at is null
        or last_event_at is null
        or date is null
)

select * from calls_missing_fact
