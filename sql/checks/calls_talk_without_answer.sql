with

calls_talk_without_answer as (
    select
        call_key,
        is_answered,
        answered_by,
        talk_seconds,
    from calls
    where is_answered is not true and (talk_seconds is not null or answered_by is not null)
)

select * from calls_talk_without_answer
