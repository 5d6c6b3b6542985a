with

calls_answered_and_missed as (
    select
        call_key,
        outcome,
        is_answered,
        answered_at,
        raw_status,
    from calls
    where
        is_answered
        and outcome in (
            'no_answer', 'busy', 'rejected', 'unreachable', 'max_attempts', 'canceled', 'expired', 'abandoned'
        )
)

select * from calls_answered_and_missed
