with

roots as (
    select
        *,
        ringing_at is null and answered_at is null as is_before_ringing,
        case direction when 'inbound' then from_number when 'outbound' then to_number end as customer,
        -- From the first that was seen of the call to its answer or, unanswered, to its end. `least` passes over NULL.
        epoch_us(case when is_answered then answered_at else ended_at end)
            - epoch_us(least(queued_at, started_at, ringing_at)) as waited_us,
    from calls
    where is_root
),

int_root_calls as (
    select
        date,
        provider,
        direction,
        call_key,
        agent_id,
        -- What the privacy setting masks is many people's number.
        case when not contains(customer, '*') then customer end as customer_number,
        outcome,
        failure_class,
        failure_reason,
        end_trigger,
        coalesce(is_transferred, false) as is_transferred,
        greatest(coalesce(attempts, 1), 1) as attempts,
        coalesce(is_answered, false) as is_answered,
        answered_by,
        -- What was answered has reached the network, whatever became of it.
        coalesce(is_answered, false) or not (
            outcome in ('expired', 'limit_reached')
            or (outcome in ('canceled', 'failed') and is_before_ringing)
        ) as is_seizure,
        queued_at,
        ringing_at,
        answered_at,
        started_at,
        ended_at,
        coalesce(started_at, first_event_at) as dated_at,
        ring_seconds,
        case when waited_us >= 0 then waited_us end as wait_us,
        talk_seconds,
        -- Whole numbers add up to the same sum in any order; DuckDB's threads add in a different one each time.
        try_cast(round(talk_seconds * 1000000) as bigint) as talk_us,
        try_cast(round(cost_total * 1000000000) as bigint) as cost_nanos,
        time_source,
        closed_by,
        last_event_at,
    from roots
)

select * from int_root_calls
