with

counted as (
    select
        date,
        provider,
        direction,
        count(*) as conversations,
        count(*) filter (where is_transferred) as transferred,
        count(*) filter (where not is_transferred and outcome = 'completed') as contained,
    from int_root_calls
    where is_answered and answered_by is distinct from 'machine'
    group by date, provider, direction
),

kpi_transfer as (
    select
        date,
        provider,
        direction,
        conversations,
        transferred,
        transferred / nullif(conversations, 0) as transfer_rate,
        contained,
        contained / nullif(conversations, 0) as containment_rate,
        conversations - transferred - contained as broken_off,
    from counted
)

select * from kpi_transfer
