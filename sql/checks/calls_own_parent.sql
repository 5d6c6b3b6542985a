with

calls_own_parent as (
    select
        call_key,
        parent_call_id,
    from int_latest_calls
    where parent_call_id = call_id
)

select * from calls_own_parent
