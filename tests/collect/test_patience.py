"""Timeouts that share one timer."""

import asyncio

import pytest

from pipeline.collect.patience import Patience


def test_what_takes_too_long_is_ended_and_what_does_not_is_left_alone() -> None:
    async def run() -> None:
        patience = Patience(0.3)

        async def take(seconds: float) -> str:
            try:
                with patience.wait():
                    await asyncio.sleep(seconds)
            except TimeoutError:
                return "too long"
            return "done"

        assert await asyncio.gather(take(0), take(60), take(0.01), take(60)) == [
            "done",
            "too long",
            "done",
            "too long",
        ]
        # A task that was ended so is not cancelled for good, and later waits are looked after again.
        assert await take(60) == "too long"
        assert patience._waits == type(patience._waits)()
        assert patience._looking is None

    asyncio.run(run())


def test_a_cancellation_from_elsewhere_and_an_error_go_through() -> None:
    async def run() -> None:
        patience = Patience(60)

        async def fail() -> None:
            with patience.wait():
                raise ValueError("of its own")

        async def sleep() -> None:
            with patience.wait():
                await asyncio.sleep(60)

        with pytest.raises(ValueError, match="of its own"):
            await fail()
        task = asyncio.create_task(sleep())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_both_at_once_is_a_cancellation() -> None:
    async def run() -> None:
        patience = Patience(0.2)

        async def sleep() -> None:
            with patience.wait() as wait:
                await asyncio.sleep(0)
                wait.end()
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # this is a task
                await asyncio.sleep(60)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(sleep())

    asyncio.run(run())
