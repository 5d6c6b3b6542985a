with

calls_wrong_key as (
    select
        call_key,
        provider,
        call_id,
    from calls
    where call_key is distinct from provider || ':' || call_id
)

select * from calls_wrong_key
