with

calls_leg_without_parent as (
    select
        call_key,
        parent_call_id,
        is_root,
    from calls
    where is_root is distinct from (parent_call_id is null)
)

select * from calls_leg_without_parent
