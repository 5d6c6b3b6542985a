with

calls_orphan_leg as (
    select
        legs.call_key,
        legs.parent_call_id,
    from calls as legs
    anti join int_latest_calls as parents
        on legs.provider = parents.provider
        and legs.parent_call_id = parents.call_id
    where not legs.is_root
)

select * from calls_orphan_leg
