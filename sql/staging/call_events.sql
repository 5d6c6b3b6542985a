with

hot as (
    select *
    from read_parquet('call_events/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify row_number() over (partition by event_id order by published_at desc) = 1
),

sealed as (
    select *
    from read_parquet('call_events/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false)
),

newest as (
    select * from hot
    union all by name
    select sealed.*
    from sealed
    anti join hot on sealed.event_id = hot.event_id
),

call_events as (
    select * exclude (key_hash, published_at)
    from newest
)

select * from call_events
