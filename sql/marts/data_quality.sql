with

ended_revisions as (
    select
        call_key,
        count(*) as revisions,
    from call_revisions
    where state = 'ended' and is_root
    group by call_key
),

counted as (
    select
        int_root_calls.date,
        int_root_calls.provider,
        int_root_calls.direction,
        count(*) as calls,
        count(*) filter (where closed_by = 'timeout') as closed_by_timeout,
        cast(coalesce(sum(ended_revisions.revisions - 1), 0) as bigint) as late_revisions,
        count(*) filter (where time_source = 'received') as received_times,
        count(*) filter (where outcome = 'unknown') as unknown_outcome,
        0 as quarantined,
        max(last_event_at) as newest_event_at,
    from int_root_calls
    left join ended_revisions on int_root_calls.call_key = ended_revisions.call_key
    group by int_root_calls.date, int_root_calls.provider, int_root_calls.direction
),

-- What could not be processed has no direction that anyone knows.
set_aside as (
    select
        date,
        provider,
        'unknown' as direction,
        0 as calls,
        0 as closed_by_timeout,
        0 as late_revisions,
        0 as received_times,
        0 as unknown_outcome,
        count(*) as quarantined,
        cast(null as timestamptz) as newest_event_at,
    from quarantine
    group by date, provider
),

joined as (
    select * from counted
    union all by name
    select * from set_aside
),

data_quality as (
    select
        date,
        provider,
        direction,
        cast(sum(calls) as bigint) as calls,
        cast(sum(closed_by_timeout) as bigint) as closed_by_timeout,
        cast(sum(late_revisions) as bigint) as late_revisions,
        cast(sum(received_times) as bigint) as received_times,
        cast(sum(unknown_outcome) as bigint) as unknown_outcome,
        cast(sum(quarantined) as bigint) as quarantined,
        max(newest_event_at) as newest_event_at,
    from joined
    group by date, provider, direction
)

select * from data_quality
