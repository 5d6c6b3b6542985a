with

calls_talk_longer_than_call as (
    select
        call_key,
        talk_seconds,
        total_seconds,
        reported_seconds,
    from calls
    -- What a provider reports is rounded, and measured elsewhere than the times are.
    where talk_seconds > total_seconds + 2
)

select * from calls_talk_longer_than_call
