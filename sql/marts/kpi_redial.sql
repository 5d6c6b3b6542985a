with

dialled as (
    select
        date,
        provider,
        direction,
        count(*) as calls,
        cast(sum(attempts) as bigint) as bids,
        count(*) filter (where attempts > 1) as redialled_calls,
        count(*) filter (where attempts > 1 and is_answered) as redialled_answered,
        0 as retries,
        0 as retries_answered,
    from int_root_calls
    where direction = 'outbound'
    group by date, provider, direction
),

called_again as (
    select
        date,
        provider,
        direction,
        0 as calls,
        0 as bids,
        0 as redialled_calls,
        0 as redialled_answered,
        count(*) as retries,
        count(*) filter (where is_answered) as retries_answered,
    from int_customer_calls
    where direction = 'outbound' and is_repeat and not was_answered
    group by date, provider, direction
),

joined as (
    select * from dialled
    union all by name
    select * from called_again
),

counted as (
    select
        date,
        provider,
        direction,
        cast(sum(calls) as bigint) as calls,
        cast(sum(bids) as bigint) as bids,
        cast(sum(redialled_calls) as bigint) as redialled_calls,
        cast(sum(redialled_answered) as bigint) as redialled_answered,
        cast(sum(retries) as bigint) as retries,
        cast(sum(retries_answered) as bigint) as retries_answered,
    from joined
    group by date, provider, direction
),

kpi_redial as (
    select
        date,
        provider,
        direction,
        calls,
        bids,
        redialled_calls,
        redialled_answered,
        redialled_answered / nullif(redialled_calls, 0) as redial_success_rate,
        retries,
        retries_answered,
        retries_answered / nullif(retries, 0) as retry_success_rate,
    from counted
)

select * from kpi_redial
