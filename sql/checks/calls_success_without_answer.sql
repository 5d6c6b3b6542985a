with

calls_success_without_answer as (
    select
        call_key,
        outcome,
        is_answered,
    from calls
    where outcome in ('completed', 'forwarded', 'voicemail') and is_answered is not true
)

select * from calls_success_without_answer
