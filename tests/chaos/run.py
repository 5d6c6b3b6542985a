"""Rounds of chaos by hand: real processes, a real Kafka, faults, and an independent oracle afterwards.

    .venv/bin/python tests/chaos/run.py --rounds 200 --seed 1
    .venv/bin/python tests/chaos/run.py --rounds 1 --seed 17 --faults kill_worker,pause_broker --all --keep /tmp/it

Exit code 1 at a failed round; its folder is kept (logs, lake, `problems.txt`) and the command that repeats it shown.
"""

import argparse
import faulthandler
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from faults import FAULTS
from real_kafka import KafkaCluster, why_unavailable
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rounds import Result, run_round


def main() -> int:
    # DuckDB and librdkafka are native code, here as in the workers.
    faulthandler.enable()
    options = _options()
    console = Console()
    if reason := why_unavailable():
        console.print(reason)
        return 2
    base = options.keep or Path(tempfile.mkdtemp(prefix="callfold-chaos-"))
    results: list[Result] = []
    with _progress(console, options.rounds) as bar:
        task = bar.add_task("rounds", total=options.rounds)
        for result in _results(options, base):
            results.append(result)
            bar.advance(task)
            console.print(_line(result), highlight=False)
            if result.problems:
                _explain(console, result, base)
                if not options.go_on:
                    break
    console.print(_summary(results))
    is_good = not any(result.problems for result in results)
    if is_good and options.keep is None:
        shutil.rmtree(base)
    return 0 if is_good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the next has the next one")
    parser.add_argument("--faults", type=_kinds, default=tuple(FAULTS), help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--all", action="store_true", help="every round has all of --faults, not one or two")
    parser.add_argument("--keep", type=Path, help="where the folders of failed rounds go")
    parser.add_argument("--jobs", type=int, default=1, help="rounds at a time, each with a Kafka of its own")
    parser.add_argument("--go-on", action="store_true", help="do not stop at a failed round")
    return parser.parse_args()


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(unknown)}")
    return kinds


def _chosen(seed: int, options: argparse.Namespace) -> tuple[str, ...]:
    """The faults of a round; the same for the same seed and list."""
    kinds = options.faults
    if options.all:
        return tuple(kinds)
    dice = random.Random(f"kinds-{seed}")
    return tuple(dice.sample(kinds, min(len(kinds), dice.randint(1, 2))))


def _results(options: argparse.Namespace, base: Path) -> Iterator[Result]:
    """The results as they come."""
    clusters: SimpleQueue[KafkaCluster] = SimpleQueue()

    def one(seed: int) -> Result:
        kafka = clusters.get()
        try:
            return run_round(seed, _chosen(seed, options), kafka, base / f"round-{seed}")
        finally:
            clusters.put(kafka)

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="callfold-kafka-"))
        for number in range(options.jobs):
            clusters.put(stack.enter_context(KafkaCluster(Path(folder) / str(number))))
        pool = stack.enter_context(ThreadPoolExecutor(options.jobs))
        waiting = [pool.submit(one, options.seed + number) for number in range(options.rounds)]
        try:
            yield from map(Future.result, waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _progress(console: Console, rounds: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal or rounds < 2)


def _line(result: Result) -> str:
    verdict = "[bold red]wrong[/]" if result.problems else "[green]right[/]"
    happened = ", ".join(result.faults) + (f" ({', '.join(result.fired)})" if result.fired else "")
    again = f", {len(result.restarts)} gave up" if result.restarts else ""
    return (
        f"{result.seed:>5}  {happened}  {result.webhooks} webhooks, {result.calls} calls, "
        f"{result.queries} queries, {result.seconds:.0f} s{again}  {verdict}"
    )


def _explain(console: Console, result: Result, base: Path) -> None:
    for problem in result.problems:
        console.print(f"       {problem}", style="red", markup=False, highlight=False)
    kinds = ",".join(result.faults)
    again = f"tests/chaos/run.py --rounds 1 --seed {result.seed} --faults {kinds} --all"
    console.print(f"       kept in {base / f'round-{result.seed}'}; again with: {again}", markup=False)


def _summary(results: list[Result]) -> Table:
    rounds = Counter(kind for result in results for kind in result.faults)
    wrong = Counter(kind for result in results if result.problems for kind in result.faults)
    table = Table("fault", "rounds", "wrong", title=f"{len(results)} rounds")
    for kind, count in sorted(rounds.items()):
        table.add_row(kind, str(count), str(wrong[kind]))
    return table


if __name__ == "__main__":
    sys.exit(main())
