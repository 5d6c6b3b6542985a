with

open_calls_with_end as (
    select
        call_key,
        state,
        ended_at,
    from open_calls
    where ended_at is not null
)

select * from open_calls_with_end
