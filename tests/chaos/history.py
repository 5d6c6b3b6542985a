"""What was right at each moment of a round, for the calls that are cut out of an agent's stream.

A late event may move the border between two calls, so that one that was published never was, until another late
event brings it back. Whether that happened is asked of the same oracle, with the agent's webhooks up to each
moment, in the order in which they came in.
"""

from collections import defaultdict
from functools import cached_property
from typing import Any

import msgspec
from topic_log import TopicLog

from pipeline.providers import providers
from pipeline.simulate import truth

BUS = "aircall_bus"

Archive = dict[str, dict[str, Any]]
"""The stored webhooks that are no garbage, by the names of their attempts, as the oracle takes them."""


class History:
    """The truth of every moment, worked out for the agents that are asked about."""

    def __init__(self, archive: Archive, log: TopicLog, idle_seconds: float) -> None:
        self._archive = archive
        self._log = log
        self._idle_seconds = idle_seconds
        self._moments: dict[str, list[set[str]]] = {}

    @cached_property
    def _by_agent(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self._log.in_order(self._log.webhooks_topic(BUS)):
            webhook = self._archive.get(entry.told)
            if webhook is not None:
                body = msgspec.json.encode(webhook["body"])
                found[providers()[BUS].stream_key(body, webhook["query"]) or ""].append(webhook)
        return found

    def _of(self, agent: str) -> list[set[str]]:
        """The keys of the agent's calls after each of its webhooks."""
        if agent not in self._moments:
            received = self._by_agent[agent]
            self._moments[agent] = [
                {record["call_key"] for record in truth(received[:count], self._idle_seconds)}
                for count in range(1, len(received) + 1)
            ]
        return self._moments[agent]

    def was_gone(self, call_key: str) -> bool:
        """Whether it was right at some moment that a call that had been there was not there any more."""
        if not call_key.startswith(f"{BUS}:"):
            return False
        for agent in self._by_agent:
            is_there = [call_key in moment for moment in self._of(agent)]
            if any(is_there) and False in is_there[is_there.index(True) :]:
                return True
        return False
