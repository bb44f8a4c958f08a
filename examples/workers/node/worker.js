// Answers orders with KafkaJS. Reads an order, answers it twice, first that it is
// in the making, then with the result, and commits when Kafka has both. A worker
// that dies in between does the order again.

import kafkajs from "kafkajs";

const brokers = (process.env.OSMOSIS_KAFKA ?? "localhost:9092").split(",");
const topic = process.env.OSMOSIS_TOPIC ?? "orders";
const groupId = process.env.OSMOSIS_GROUP ?? topic;

const kafka = new kafkajs.Kafka({ clientId: "orders-worker", brokers, logLevel: kafkajs.logLevel.WARN });
const consumer = kafka.consumer({
  groupId,
  sessionTimeout: 10_000, // how long the partitions of a killed worker wait
});
const producer = kafka.producer({
  createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  allowAutoTopicCreation: false,
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    await consumer.disconnect(); // finishes the order in hand and leaves the group, so that others take over at once
    await producer.disconnect();
  });
}

consumer.on(consumer.events.CRASH, ({ payload }) => {
  if (!payload.restart) process.exit(1); // whoever started the worker starts it again
});

await producer.connect();
await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true }); // what came before the first worker is work too
await consumer.run({
  // Commits each order when it is answered. (By consumer.commitOffsets, KafkaJS
  // would leave out the order in hand when the worker is told to end.)
  autoCommitThreshold: 1,
  eachMessage: ({ message }) => answer(message),
});

// answer does the work of one order.
async function answer({ headers, value, offset }) {
  if (!headers.kafka_replyTopic) {
    console.error(`passing over offset ${offset}: it does not say where to answer`);
    return;
  }
  const item = itemOf(value);
  if (!item) {
    const problem = { status: 400, detail: "an order is JSON and names an item" };
    await send(headers, 400, "application/problem+json", problem);
    return;
  }
  await send(headers, 200, "application/json", { message: `One ${item}, in the making` }, { "osmosis-more": "true" });
  await send(headers, 201, "application/json", { order: item, message: `One ${item}, coming up` });
}

// itemOf reads an order; what cannot be read has no item.
function itemOf(value) {
  try {
    return JSON.parse(value.toString()).item;
  } catch {
    return undefined;
  }
}

// send produces a reply where the request wants it, and returns when Kafka has it.
// Status, headers and body are those of the HTTP response that the client gets;
// without the header osmosis-more it is the last one.
async function send(request, status, contentType, body, more = {}) {
  await producer.send({
    topic: request.kafka_replyTopic.toString(),
    acks: -1,
    messages: [
      {
        partition: request.kafka_replyPartition.readInt32BE(),
        headers: {
          kafka_correlationId: request.kafka_correlationId,
          ":status": String(status),
          "content-type": contentType,
          ...more,
        },
        value: JSON.stringify(body),
      },
    ],
  });
}
