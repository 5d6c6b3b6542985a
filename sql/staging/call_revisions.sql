with

-- Which sealed files count. It is listed before them, so that what it names is there.
manifest as (
    select generation
    from read_parquet('call_revisions/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

published as (
    select *
    from read_parquet('calls/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    union all by name
    select sealed_files.* exclude (generation)
    from manifest
    join read_parquet('call_revisions/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed_files
        on manifest.generation = sealed_files.generation
),

-- A revision written again (after a restart, by a replay) says the same: the newest writing stands for it.
newest as (
    select *
    from published
    qualify row_number() over (partition by key_hash, revision order by published_at desc) = 1
),

call_revisions as (
    select * exclude (key_hash, published_at, is_retracted, stream_key)
    from newest
    where is_retracted is not true
)

select * from call_revisions
