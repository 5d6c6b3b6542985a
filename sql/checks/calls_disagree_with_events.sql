with

-- Calls of the Aircall Bus are cut out of their agent's stream, so their events do not name them for certain.
counted as (
    select
        call_key,
        count(*) as events,
    from call_events
    where provider <> 'aircall_bus'
    group by call_key
),

folded as (
    select
        call_key,
        event_count,
    from int_latest_calls
    where provider <> 'aircall_bus'
),

calls_disagree_with_events as (
    select
        coalesce(folded.call_key, counted.call_key) as call_key,
        folded.event_count,
        counted.events,
        case
            when folded.call_key is null then 'events without a call'
            when counted.call_key is null then 'a call without events'
            else 'a call of more or fewer events'
        end as what,
    from folded
    full join counted on folded.call_key = counted.call_key
    where folded.event_count is distinct from counted.events
)

select * from calls_disagree_with_events
