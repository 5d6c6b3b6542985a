with

quarantine_internal_errors as (
    select
        webhook_id,
        provider,
        received_at,
        message,
    from quarantine
    where code = 'internal_error'
)

select * from quarantine_internal_errors
