with

counted as (
    select
        date,
        provider,
        direction,
        count(*) as calls,
        count(*) filter (
            where ringing_at is not null or is_answered or outcome in ('no_answer', 'rejected')
        ) as rang,
        count(*) filter (where is_answered) as answered,
        count(*) filter (where is_answered and outcome in ('completed', 'forwarded')) as completed,
        count(queued_at) as queued_timed,
        count(ringing_at) as ringing_timed,
        count(answered_at) filter (where is_answered) as answered_timed,
        count(ended_at) filter (where is_answered and outcome in ('completed', 'forwarded')) as completed_timed,
    from int_root_calls
    group by date, provider, direction
),

stages as (
    select
        date,
        provider,
        direction,
        calls as all_calls,
        unnest([
            {'step': 1, 'stage': 'queued', 'calls': calls, 'before': calls, 'timed': queued_timed},
            {'step': 2, 'stage': 'ringing', 'calls': rang, 'before': calls, 'timed': ringing_timed},
            {'step': 3, 'stage': 'in_progress', 'calls': answered, 'before': rang, 'timed': answered_timed},
            {'step': 4, 'stage': 'completed', 'calls': completed, 'before': answered, 'timed': completed_timed}
        ]) as reached,
    from counted
),

kpi_funnel as (
    select
        date,
        provider,
        direction,
        reached.step as step,
        reached.stage as stage,
        reached.calls as calls,
        reached.timed as calls_timed,
        all_calls,
        reached.calls / nullif(all_calls, 0) as share,
        reached.before as calls_before,
        reached.calls / nullif(reached.before, 0) as step_rate,
    from stages
)

select * from kpi_funnel
