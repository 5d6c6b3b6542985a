"""A plain loop: confluent-kafka hands out batches, a dict holds the calls, pyarrow writes them, then offsets go."""

from confluent_kafka import Consumer, KafkaError, KafkaException
from plain import CallFiles, Job, State, apply
from webhooks import event_of


def commit(consumer: Consumer) -> None:
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as problem:
        nothing_came = KafkaError._NO_OFFSET  # noqa: SLF001  so it is documented
        if problem.args[0].code() != nothing_came:
            raise


def main() -> None:
    job = Job()
    consumer = Consumer({
        "bootstrap.servers": job.servers,
        "group.id": job.group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe(job.topics, on_assign=lambda *_: job.begins())
    files, states, seen = CallFiles(job.out), {}, 0
    while seen < job.count:
        for message in consumer.consume(1000, 0.1):
            if message.error() is not None:
                raise SystemExit(str(message.error()))
            seen += 1
            provider = message.topic().rpartition(".")[2]
            event = event_of(provider, message.value(), message.headers())
            if event is not None:
                state: State = states.setdefault((provider, event.stream), {})
                files.add(apply(state, event))
        if seen and (files.is_due() or seen == job.count):
            files.flush()
            commit(consumer)
    job.ends()
    consumer.close()


if __name__ == "__main__":
    main()
