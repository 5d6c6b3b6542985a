with

calls_failure_class_wrong as (
    select
        call_key,
        outcome,
        failure_class,
    from calls
    where
        failure_class is distinct from case
            when outcome in ('completed', 'forwarded') then null
            when outcome in (
                'no_answer', 'busy', 'rejected', 'unreachable', 'voicemail', 'max_attempts'
            ) then 'recipient'
            when outcome in ('canceled', 'expired', 'abandoned') then 'caller'
            when outcome = 'limit_reached' then 'capacity'
            when outcome = 'failed' then 'technical'
            else 'unknown'
        end
)

select * from calls_failure_class_wrong
