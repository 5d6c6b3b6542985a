with

calls_open_and_ended as (
    select
        open_calls.call_key,
        open_calls.revision as open_revision,
        calls.revision as ended_revision,
    from open_calls
    join calls on open_calls.call_key = calls.call_key
)

select * from calls_open_and_ended
