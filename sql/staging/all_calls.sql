with

all_calls as (
    select *
    from int_latest_calls
)

select * from all_calls
