with

-- Which sealed files count. It is listed before them, so that what it names is there.
manifest as materialized (
    select generation
    from read_parquet('calls/manifest/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify version = max(version) over ()
),

hot as materialized (
    select *
    from read_parquet('calls/hot/*.parquet', union_by_name = true, hive_partitioning = false)
    qualify row_number() over (partition by key_hash order by revision desc, published_at desc) = 1
),

-- Not materialized: it is read several times, each time only the columns that are wanted, and never held in memory.
sealed as not materialized (
    select sealed_files.* exclude (generation)
    from manifest
    join read_parquet('calls/sealed/**/*.parquet', union_by_name = true, hive_partitioning = false) as sealed_files
        on manifest.generation = sealed_files.generation
),

-- Only their keys: a scan of one column. Most often there are none, and then nothing below looks for them.
keys_again as materialized (
    select sealed.key_hash
    from sealed
    semi join hot on sealed.key_hash = hot.key_hash
),

hot_again as (
    select hot.*
    from hot
    semi join keys_again on hot.key_hash = keys_again.key_hash
),

-- A worker that starts from an older state publishes older revisions again: sealed wins where it is further on.
compared as materialized (
    select
        sealed.key_hash,
        (sealed.revision, sealed.published_at) > (hot_again.revision, hot_again.published_at) as is_sealed_further,
    from sealed
    join hot_again on sealed.key_hash = hot_again.key_hash
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

latest as (
    select hot.*
    from hot
    anti join hot_hidden on hot.key_hash = hot_hidden.key_hash
    union all by name
    select sealed.*
    from sealed
    anti join sealed_hidden on sealed.key_hash = sealed_hidden.key_hash
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
    where is_retracted is not true
)

select * from int_latest_calls
