with

calls_answered_before_ringing as (
    select
        call_key,
        ringing_at,
        answered_at,
    from calls
    where answered_at < ringing_at
)

select * from calls_answered_before_ringing
