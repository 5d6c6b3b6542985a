with

-- Which sealed files count. It is listed before them, so that what it names is there.
manifest as (
    select generation
    from read_parquet('quarantine/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

written as (
    select *
    from read_parquet('quarantine/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    union all by name
    select sealed_files.* exclude (generation)
    from manifest
    join read_parquet('quarantine/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed_files
        on manifest.generation = sealed_files.generation
),

newest as (
    select
        *,
        bool_or(is_resolved) over (partition by webhook_id) as is_withdrawn,
    from written
    qualify row_number() over (partition by webhook_id order by published_at desc, received_at) = 1
),

quarantine as (
    select * exclude (published_at, is_resolved, is_withdrawn)
    from newest
    where is_withdrawn is not true
)

select * from quarantine
