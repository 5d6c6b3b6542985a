with

-- Which sealed files count. It is listed before them, so that what it names is there.
manifest as materialized (
    select generation
    from read_parquet('call_revisions/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

-- A revision written again (after a restart, by a replay) says the same: the newest writing stands for it.
hot as materialized (
    select *
    from read_parquet('calls/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify row_number() over (partition by key_hash, revision order by published_at desc) = 1
),

-- Not materialized: it is read several times, each time only the columns that are wanted, and never held in memory.
sealed as not materialized (
    select sealed_files.* exclude (generation)
    from manifest
    join read_parquet('call_revisions/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed_files
        on manifest.generation = sealed_files.generation
),

revisions_again as materialized (
    select
        sealed.key_hash,
        sealed.revision,
    from sealed
    semi join hot on sealed.key_hash = hot.key_hash and sealed.revision = hot.revision
),

hot_again as (
    select hot.*
    from hot
    semi join revisions_again
        on hot.key_hash = revisions_again.key_hash
        and hot.revision = revisions_again.revision
),

sealed_newer as materialized (
    select sealed.*
    from sealed
    join hot_again on sealed.key_hash = hot_again.key_hash and sealed.revision = hot_again.revision
    where sealed.published_at > hot_again.published_at
),

newest as (
    select hot.*
    from hot
    anti join sealed_newer on hot.key_hash = sealed_newer.key_hash and hot.revision = sealed_newer.revision
    union all by name
    select * from sealed_newer
    union all by name
    select sealed.*
    from sealed
    anti join revisions_again
        on sealed.key_hash = revisions_again.key_hash
        and sealed.revision = revisions_again.revision
),

call_revisions as (
    select * exclude (key_hash, published_at, is_retracted, stream_key, unsealed_in)
    from newest
    where is_retracted is not true
)

select * from call_revisions
