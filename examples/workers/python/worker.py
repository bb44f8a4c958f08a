"""Answers orders with confluent-kafka.

Reads an order, answers it twice, first that it is in the making, then with the
result, and commits when Kafka has both. A worker that dies in between does the
order again.
"""

import json
import os
import signal

from confluent_kafka import Consumer, KafkaException, Producer

KAFKA = os.environ.get("OSMOSIS_KAFKA", "localhost:9092")
TOPIC = os.environ.get("OSMOSIS_TOPIC", "orders")
GROUP = os.environ.get("OSMOSIS_GROUP", TOPIC)


def main():
    consumer = Consumer({
        "bootstrap.servers": KAFKA,
        "group.id": GROUP,
        "auto.offset.reset": "earliest",  # what came before the first worker is work too
        "enable.auto.commit": False,
        "session.timeout.ms": 10000,  # how long the partitions of a killed worker wait
    })
    producer = Producer({
        "bootstrap.servers": KAFKA,
        "enable.idempotence": True,  # acks=all, and no reply twice by a retry
        "linger.ms": 0,
    })

    running = True

    def stop(signum, frame):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    consumer.subscribe([TOPIC])
    try:
        while running:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error():
                print(message.error(), flush=True)  # Kafka is away: poll goes on trying
                continue
            answer(producer, message)
            consumer.commit(message, asynchronous=False)
    finally:
        consumer.close()  # leaves the group, so that others take over at once


def answer(producer, message):
    """Does the work of one order."""
    request = dict(message.headers() or [])
    if "kafka_replyTopic" not in request:
        print(f"passing over offset {message.offset()}: it does not say where to answer", flush=True)
        return
    try:
        item = json.loads(message.value())["item"]
    except (ValueError, KeyError, TypeError):
        problem = {"status": 400, "detail": "an order is JSON and names an item"}
        send(producer, request, 400, "application/problem+json", problem)
        return
    send(producer, request, 200, "application/json", {"message": f"One {item}, in the making"}, more=True)
    send(producer, request, 201, "application/json", {"order": item, "message": f"One {item}, coming up"})


def send(producer, request, status, content_type, body, more=False):
    """Produces a reply where the request wants it, and returns when Kafka has it.

    Status, headers and body are those of the HTTP response that the client gets.
    """
    headers = [
        ("kafka_correlationId", request["kafka_correlationId"]),
        (":status", str(status)),
        ("content-type", content_type),
    ]
    if more:
        headers.append(("osmosis-more", "true"))  # absent, this is the last reply

    failures = []

    def delivered(error, _):
        if error:
            failures.append(error)

    producer.produce(
        request["kafka_replyTopic"].decode(),
        json.dumps(body).encode(),
        partition=int.from_bytes(request["kafka_replyPartition"], "big"),
        headers=headers,
        on_delivery=delivered,
    )
    producer.flush()
    if failures:
        raise KafkaException(failures[0])  # whoever started the worker starts it again


if __name__ == "__main__":
    main()
