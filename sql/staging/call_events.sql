with

-- Which sealed files count. It is listed before them, so that what it names is there: DuckDB lists files in the order in
-- which a query comes upon them, in `from` before `where`.
manifest as materialized (
    select generation
    from read_parquet('call_events/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

sealed_files as materialized (
    select list(printf('%017d.parquet', generation)) as names
    from manifest
),

hot as materialized (
    select *
    from read_parquet('call_events/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify row_number() over (partition by event_id order by published_at desc) = 1
),

-- Not materialized, so that what a query asks for (one call's events) is looked for in the files themselves.
sealed as not materialized (
    select sealed_rows.* exclude (generation, filename)
    from sealed_files
    cross join read_parquet('call_events/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false, filename = true) as sealed_rows
    where list_contains(sealed_files.names, right(sealed_rows.filename, 25))
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
