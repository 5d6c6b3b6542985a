with

-- Which sealed files count. DuckDB lists files in the order in which a query comes upon them, in `from` before `where`.
-- Every `from` below comes upon the manifest before the sealed files, so that what it names is there.
manifest as materialized (
    select
        version,
        generation,
    from read_parquet('calls/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

hot as materialized (
    select *
    from read_parquet('calls/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify row_number() over (partition by key_hash order by revision desc, published_at desc) = 1
),

-- What a compaction has carried over need not be looked for in the sealed files of that compaction.
hot_unchecked as (
    select key_hash
    from hot
    where unsealed_in is distinct from (select format('{}-{}', max(version), max(generation)) from manifest)
),

-- The one look at every sealed key: a scan of one column, left out where nothing is unchecked. Only `sealed_files` asks
-- for it, after the manifest.
keys_again as materialized (
    select
        sealed.generation,
        sealed.key_hash,
    from read_parquet('calls/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed
    semi join hot_unchecked on sealed.key_hash = hot_unchecked.key_hash
    where sealed.generation is not null
),

-- The files that count, in two heaps: those without a hot key, by their names, and the few that have one.
sealed_files as materialized (
    select
        list(printf('%017d.parquet', generation)) filter (not is_again) as names,
        coalesce(list(generation) filter (is_again), []) as generations_again,
    from (
        select
            generation,
            generation in (select generation from keys_again) as is_again,
        from manifest
    )
),

sealed_again as materialized (
    select sealed.*
    from (select unnest(generations_again) as generation from sealed_files) as again
    join read_parquet('calls/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed
        on again.generation = sealed.generation
),

-- A worker that starts from an older state publishes older revisions again: sealed wins where it is further on.
compared as materialized (
    select
        hot.key_hash,
        (sealed_again.revision, sealed_again.published_at) > (hot.revision, hot.published_at) as is_sealed_further,
    from hot
    join sealed_again on hot.key_hash = sealed_again.key_hash
),

hot_hidden as (
    select key_hash
    from compared
    where is_sealed_further
),

-- Where nothing can be compared (a NULL), hot wins, as it does when both say the same.
sealed_hidden as (
    select key_hash
    from compared
    where is_sealed_further is not true
),

-- No retracted call is ever sealed. A file's name is the same for all its rows: asked for that, and not joined by their
-- generation, most sealed rows come as fast as from one file. `random()` is never asked for a number: but as it might be,
-- DuckDB filters after the cross join and makes no join of the condition, which costs a KPI up to a tenth more.
latest as (
    select hot.*
    from hot
    anti join hot_hidden on hot.key_hash = hot_hidden.key_hash
    where hot.is_retracted is not true
    union all by name
    select sealed_again.* exclude (generation)
    from sealed_again
    anti join sealed_hidden on sealed_again.key_hash = sealed_hidden.key_hash
    union all by name
    select * exclude (generation, filename, left_out)
    from (
        select
            sealed.*,
            case when not coalesce(list_contains(sealed_files.names, right(sealed.filename, 25)), false) then random() end as left_out,
        from sealed_files
        cross join read_parquet('calls/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false, filename = true) as sealed
    )
    where left_out is null
),

int_latest_calls as (
    select
        ---------- ids
        call_key,
        provider,
        call_id,
        provider_call_id,
        parent_call_id,
        is_root,
        account_id,
        agent_id,

        ---------- who and how
        direction,
        channel,
        from_number,
        to_number,

        ---------- result
        state,
        outcome,
        failure_class,
        failure_reason,
        raw_status,
        end_trigger,
        is_answered,
        answered_by,
        is_transferred,
        attempts,
        error_count,

        ---------- timestamps
        queued_at,
        ringing_at,
        started_at,
        answered_at,
        ended_at,

        ---------- durations
        ring_seconds,
        talk_seconds,
        wrap_up_seconds,
        total_seconds,
        reported_seconds,
        time_source,

        ---------- extras
        recording_url,
        has_analysis,
        success_evaluation,
        cost_total,

        ---------- bookkeeping
        first_event_at,
        last_event_at,
        event_count,
        revision,
        closed_by,
        date,
    from latest
)

select * from int_latest_calls
