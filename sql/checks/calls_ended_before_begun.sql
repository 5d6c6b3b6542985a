with

calls_ended_before_begun as (
    select
        call_key,
        started_at,
        ringing_at,
        answered_at,
        ended_at,
    from calls
    where ended_at < greatest(started_at, ringing_at, answered_at)
)

select * from calls_ended_before_begun
