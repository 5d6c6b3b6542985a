with

numbered as (
    select
        date,
        provider,
        direction,
        call_key,
        customer_number,
        is_answered,
        epoch_us(dated_at) as at_us,
    from int_root_calls
    where customer_number is not null
),

int_customer_calls as (
    select
        date,
        provider,
        direction,
        call_key,
        customer_number,
        is_answered,
        -- At most 24 hours; of calls of one instant the later key comes after the earlier.
        coalesce(at_us - lag(at_us) over earlier <= 86400000000, false) as is_repeat,
        lag(is_answered) over earlier as was_answered,
    from numbered
    window earlier as (partition by provider, direction, customer_number order by at_us, call_key)
)

select * from int_customer_calls
