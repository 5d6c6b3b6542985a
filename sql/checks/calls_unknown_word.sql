with

calls_unknown_word as (
    select
        call_key,
        state,
        outcome,
        direction,
        channel,
        end_trigger,
        answered_by,
        time_source,
        closed_by,
    from int_latest_calls
    where
        state not in ('queued', 'ringing', 'in_progress', 'wrap_up', 'ended')
        or outcome not in (
            'completed', 'forwarded', 'no_answer', 'busy', 'rejected', 'unreachable', 'voicemail',
            'max_attempts', 'canceled', 'expired', 'abandoned', 'limit_reached', 'failed', 'unknown'
        )
        or direction not in ('inbound', 'outbound', 'internal', 'unknown')
        or channel not in ('phone', 'web', 'unknown')
        or end_trigger not in ('agent', 'customer', 'system', 'unknown')
        or answered_by not in ('human', 'machine', 'unknown')
        or time_source not in ('provider', 'received')
        or closed_by not in ('terminal', 'timeout')
)

select * from calls_unknown_word
