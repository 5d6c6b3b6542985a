with

weeks as (
    select
        date - cast(isodow(date) - 1 as integer) as week,
        provider,
        direction,
        count(*) as days,
        cast(sum(calls) as bigint) as calls,
        cast(sum(answered) as bigint) as answered,
    from kpi_daily
    group by 1, provider, direction
),

-- The row before is the week before only if seven days lie between them: a week without calls has no row.
pairs as (
    select
        *,
        coalesce(lag(week) over earlier = week - 7, false) as has_before,
        lag(days) over earlier as last_days,
        lag(calls) over earlier as last_calls,
        lag(answered) over earlier as last_answered,
    from weeks
    window earlier as (partition by provider, direction order by week)
),

rates as (
    select
        *,
        case when has_before then last_days else 0 end as days_before,
        case when has_before then last_calls else 0 end as calls_before,
        case when has_before then last_answered else 0 end as answered_before,
        calls + case when has_before then last_calls else 0 end as calls_both,
        answered / calls as answer_rate,
        case when has_before then last_answered / last_calls end as answer_rate_before,
        -- The 97.5 % point of the normal distribution, squared, as in Wilson (1927).
        1.959963984540054 ** 2 as z2,
    from pairs
),

-- Wilson's interval of each week's answer rate, and of this week's share of the calls of both.
intervals as (
    select
        *,
        (answer_rate + z2 / (2 * calls)) / (1 + z2 / calls) as centre,
        sqrt(z2 * (answer_rate * (1 - answer_rate) / calls + z2 / (4 * calls ** 2))) / (1 + z2 / calls) as margin,
        (answer_rate_before + z2 / (2 * calls_before)) / (1 + z2 / calls_before) as centre_before,
        sqrt(
            z2 * (answer_rate_before * (1 - answer_rate_before) / calls_before + z2 / (4 * calls_before ** 2))
        ) / (1 + z2 / calls_before) as margin_before,
        (calls / calls_both + z2 / (2 * calls_both)) / (1 + z2 / calls_both) as centre_both,
        sqrt(z2 * (calls / calls_both * (calls_before / calls_both) / calls_both + z2 / (4 * calls_both ** 2)))
            / (1 + z2 / calls_both) as margin_both,
    from rates
),

bounds as (
    select
        *,
        centre - margin as low,
        centre + margin as high,
        centre_before - margin_before as low_before,
        centre_before + margin_before as high_before,
        centre_both - margin_both as low_both,
        centre_both + margin_both as high_both,
    from intervals
),

kpi_week_over_week as (
    select
        week,
        provider,
        direction,
        days,
        calls,
        answered,
        answer_rate,
        days_before,
        calls_before,
        answered_before,
        answer_rate_before,
        answer_rate - answer_rate_before as answer_rate_change,
        answer_rate - answer_rate_before - sqrt((answer_rate - low) ** 2 + (high_before - answer_rate_before) ** 2)
            as answer_rate_change_low,
        answer_rate - answer_rate_before + sqrt((high - answer_rate) ** 2 + (answer_rate_before - low_before) ** 2)
            as answer_rate_change_high,
        calls / nullif(calls_before, 0) as calls_ratio,
        case when calls_before > 0 then low_both / (1 - low_both) end as calls_ratio_low,
        case when calls_before > 0 then high_both / (1 - high_both) end as calls_ratio_high,
    from bounds
)

select * from kpi_week_over_week
