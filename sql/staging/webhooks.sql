with

-- Which sealed files count. It is listed before them, so that what it names is there.
manifest as (
    select generation
    from read_parquet('webhooks/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

hot as (
    select *
    from read_parquet('webhooks/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify row_number() over (partition by webhook_id order by published_at desc, received_at) = 1
),

sealed as (
    select sealed_files.* exclude (generation)
    from manifest
    join read_parquet('webhooks/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed_files
        on manifest.generation = sealed_files.generation
),

newest as (
    select * from hot
    union all by name
    select sealed.*
    from sealed
    anti join hot on sealed.webhook_id = hot.webhook_id
),

webhooks as (
    select * exclude (published_at)
    from newest
)

select * from webhooks
