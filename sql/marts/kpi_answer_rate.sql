with

counted as (
    select
        date,
        provider,
        direction,
        count(*) as calls,
        count(*) filter (where is_seizure) as seizures,
        count(*) filter (where is_answered) as answered,
        count(*) filter (where is_answered and answered_by = 'human') as answered_human,
        count(*) filter (where is_answered and answered_by = 'machine') as answered_machine,
        count(*) filter (
            where is_answered or outcome in ('busy', 'no_answer', 'rejected')
        ) as network_effective,
        cast(sum(attempts) as bigint) as bids,
    from int_root_calls
    group by date, provider, direction
),

rates as (
    select
        *,
        answered / nullif(calls, 0) as answer_rate,
        answered / nullif(seizures, 0) as asr,
        network_effective / nullif(seizures, 0) as ner,
        -- The 97.5 % point of the normal distribution, squared, as in Wilson (1927).
        1.959963984540054 ** 2 as z2,
    from counted
),

-- Wilson's interval is a centre and a margin, both shrunk towards one half by the smallness of the sample.
intervals as (
    select
        *,
        (answer_rate + z2 / (2 * calls)) / (1 + z2 / calls) as answer_rate_centre,
        sqrt(z2 * (answer_rate * (1 - answer_rate) / calls + z2 / (4 * calls ** 2))) / (1 + z2 / calls)
            as answer_rate_margin,
        (asr + z2 / (2 * seizures)) / (1 + z2 / seizures) as asr_centre,
        sqrt(z2 * (asr * (1 - asr) / seizures + z2 / (4 * seizures ** 2))) / (1 + z2 / seizures) as asr_margin,
        (ner + z2 / (2 * seizures)) / (1 + z2 / seizures) as ner_centre,
        sqrt(z2 * (ner * (1 - ner) / seizures + z2 / (4 * seizures ** 2))) / (1 + z2 / seizures) as ner_margin,
    from rates
),

kpi_answer_rate as (
    select
        date,
        provider,
        direction,
        calls,
        seizures,
        answered,
        answered_human,
        answered_machine,
        network_effective,
        answer_rate,
        greatest(0, answer_rate_centre - answer_rate_margin) as answer_rate_low,
        least(1, answer_rate_centre + answer_rate_margin) as answer_rate_high,
        asr,
        -- `greatest` and `least` pass over NULL: without a seizure there are no bounds either.
        case when seizures > 0 then greatest(0, asr_centre - asr_margin) end as asr_low,
        case when seizures > 0 then least(1, asr_centre + asr_margin) end as asr_high,
        ner,
        case when seizures > 0 then greatest(0, ner_centre - ner_margin) end as ner_low,
        case when seizures > 0 then least(1, ner_centre + ner_margin) end as ner_high,
        bids,
        answered / nullif(bids, 0) as abr,
    from intervals
)

select * from kpi_answer_rate
