with

calls_forwarded_untransferred as (
    select
        call_key,
        outcome,
        is_transferred,
    from calls
    where is_transferred is null or (outcome = 'forwarded' and not is_transferred)
)

select * from calls_forwarded_untransferred
