with

calls_without_closing as (
    select
        call_key,
        outcome,
        end_trigger,
        closed_by,
    from calls
    where closed_by is null or outcome is null or end_trigger is null
)

select * from calls_without_closing
