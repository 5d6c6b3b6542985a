with

open_calls_with_result as (
    select
        call_key,
        state,
        outcome,
        closed_by,
    from open_calls
    where coalesce(outcome, failure_class, end_trigger, closed_by) is not null
)

select * from open_calls_with_result
