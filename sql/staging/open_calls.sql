with

open_calls as (
    select *
    from int_latest_calls
    where state <> 'ended'
)

select * from open_calls
