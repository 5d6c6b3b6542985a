with

calls_twice as (
    select
        call_key,
        count(*) as times,
    from calls
    group by call_key
    having count(*) > 1
)

select * from calls_twice
