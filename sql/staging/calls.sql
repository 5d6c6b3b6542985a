with

calls as (
    select *
    from int_latest_calls
    where state = 'ended'
)

select * from calls
