with

calls_ended_without_end as (
    select
        call_key,
        outcome,
        closed_by,
        last_event_at,
    from calls
    where closed_by = 'terminal' and ended_at is null
)

select * from calls_ended_without_end
