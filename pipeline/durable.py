"""What a fold gave goes into the lake: in columns where the compiled part folded it, row by row where Python did."""

from collections.abc import Callable

from pipeline import native
from pipeline.assemble.assembler import Assembler, Changes, History
from pipeline.lake import LakeHistory, LakeSink
from pipeline.providers import providers
from pipeline.settings import Settings

AnyAssembler = Assembler | native.Assembler
AnyChanges = Changes | native.Changes


def assembler_of(settings: Settings, history: History) -> AnyAssembler:
    """An assembler with the timers of the settings, the compiled one where there is one."""
    kind = native.Assembler if native.IS_COMPILED else Assembler
    return kind(
        idle_us=round(settings.idle_seconds * 1_000_000),
        grace_us=round(settings.grace_seconds * 1_000_000),
        agent_providers=[name for name, p in providers().items() if p.keyed_by == "agent"],
        history=history,
    )


def write_changes(
    sink: LakeSink,
    history: LakeHistory,
    changes: AnyChanges,
    published_us: int,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Makes changes durable, and lets the history know of them. `check` as in `LakeSink.write_calls`."""
    if isinstance(changes, native.Changes):
        files = sink.write_changes(changes, published_us, check)
        known, *of_rows = changes.stream_hashes()
        history.note_hashes(known)
        # Files that were written by rows, as something was forgotten, are not among these: they are looked into.
        for dataset, hashes in zip(("call_events", "calls"), of_rows, strict=True):
            if dataset in files:
                history.note_file(dataset, files[dataset], hashes)
        return
    sink.write_calls(changes.events, changes.records, changes.retracted, published_us, check)
    history.note(key for key, _ in changes.records)
    history.note(placed.event.stream_key for placed in changes.events if placed.call_key is None)
