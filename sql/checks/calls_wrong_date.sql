with

calls_wrong_date as (
    select
        call_key,
        date,
        started_at,
        first_event_at,
    from calls
    -- Reckoned from the epoch, so that the session's time zone plays no part.
    where
        date is distinct from
            cast(make_timestamp(epoch_us(coalesce(started_at, first_event_at))) as date)
)

select * from calls_wrong_date
