with

spans as (
    select
        provider,
        direction,
        epoch_us(started_at) as begin_us,
        epoch_us(ended_at) as end_us,
    from int_root_calls
    where ended_at > started_at
),

-- All steps of one instant count together: a call that ends as another begins never makes two.
steps as (
    select
        provider,
        direction,
        at_us,
        sum(step) as step,
    from (
        select provider, direction, begin_us as at_us, 1 as step from spans
        union all
        select provider, direction, end_us as at_us, -1 as step from spans
    ) as marks
    group by provider, direction, at_us
),

levels as (
    select
        provider,
        direction,
        at_us as from_us,
        lead(at_us) over (partition by provider, direction order by at_us) as until_us,
        cast(
            sum(step) over (partition by provider, direction order by at_us rows unbounded preceding) as bigint
        ) as level,
    from steps
),

minutes as (
    select
        provider,
        direction,
        unnest(range(from_us // 60000000, (until_us - 1) // 60000000 + 1)) as minute_number,
        from_us,
        until_us,
        level,
    from levels
    where level > 0
),

kpi_concurrency_provider as (
    select
        cast(make_timestamp(minute_number * 60000000) as date) as date,
        provider,
        direction,
        to_timestamp(minute_number * 60) as minute,
        max(level) as peak_calls,
        cast(
            sum(
                level * (
                    least(until_us, (minute_number + 1) * 60000000)
                    - greatest(from_us, minute_number * 60000000)
                )
            ) as double
        ) / 1000000 as call_seconds,
        60 as minute_seconds,
        cast(
            sum(
                level * (
                    least(until_us, (minute_number + 1) * 60000000)
                    - greatest(from_us, minute_number * 60000000)
                )
            ) as double
        ) / 60000000 as erlangs,
    from minutes
    group by provider, direction, minute_number
)

select * from kpi_concurrency_provider
