package orders;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Answers orders exactly once: the replies to some orders and the commit of these orders are one transaction. A worker
 * that dies in the middle of one, or has to give it up, leaves replies on the log that no client sees, and the orders
 * are done again.
 */
public final class Worker {
    private static final String KAFKA = setting("OSMOSIS_KAFKA", "localhost:9092");
    private static final String TOPIC = setting("OSMOSIS_TOPIC", "orders");
    private static final String GROUP = setting("OSMOSIS_GROUP", TOPIC);

    /** Every so many transactions something goes wrong, for you to see that no client notices. 0: nothing does. */
    private static final int ACCIDENT_EVERY = Integer.parseInt(setting("ACCIDENT_EVERY", "0"));

    private final KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(Map.of(
        "bootstrap.servers", KAFKA,
        "group.id", GROUP,
        "auto.offset.reset", "earliest", // what came before the first worker is work too
        "enable.auto.commit", false, // the producer commits
        "session.timeout.ms", 10_000, // how long the partitions of a killed worker wait
        "max.poll.records", 10), // orders in one transaction, at most
        new ByteArrayDeserializer(), new ByteArrayDeserializer());

    // Every worker has an id of its own, and keeps it over restarts: one that comes back ends the transaction that it
    // left open. Nobody can read past an open transaction, so it may not stay open for long either.
    private final KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(Map.of(
        "bootstrap.servers", KAFKA,
        "transactional.id", GROUP + "-" + setting("OSMOSIS_WORKER", "0"),
        "transaction.timeout.ms", 10_000),
        new ByteArraySerializer(), new ByteArraySerializer());

    private final ObjectMapper json = new ObjectMapper();
    private int transactions;

    public static void main(String[] arguments) {
        Worker worker = new Worker();
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            worker.consumer.wakeup();
            try {
                main.join(); // the transaction in hand is finished
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        worker.work();
    }

    /** Answers orders until the process is told to end. */
    private void work() {
        try (producer; consumer) { // leaves the group, so that others take over at once
            producer.initTransactions();
            consumer.subscribe(List.of(TOPIC));
            while (true) {
                ConsumerRecords<byte[], byte[]> orders = consumer.poll(Duration.ofSeconds(1));
                if (!orders.isEmpty()) {
                    answerAll(orders);
                }
            }
        } catch (WakeupException e) {
            // The process has been told to end.
        }
    }

    /** Answers some orders in one transaction. */
    private void answerAll(ConsumerRecords<byte[], byte[]> orders) {
        producer.beginTransaction();
        try {
            for (ConsumerRecord<byte[], byte[]> order : orders) {
                answer(order);
            }
            accident();
            producer.sendOffsetsToTransaction(orders.nextOffsets(), consumer.groupMetadata());
            producer.commitTransaction();
        } catch (Accident e) {
            producer.abortTransaction();
            rewind(orders);
        }
        // Any other exception ends the worker; whoever started it starts it again.
    }

    /** Lets the next poll give the same orders again. */
    private void rewind(ConsumerRecords<byte[], byte[]> orders) {
        for (TopicPartition partition : orders.partitions()) {
            consumer.seek(partition, orders.records(partition).get(0).offset());
        }
    }

    /** Does the work of one order. Clients see replies when the transaction is committed, so progress has no place here. */
    private void answer(ConsumerRecord<byte[], byte[]> order) {
        if (order.headers().lastHeader("kafka_replyTopic") == null) {
            System.err.printf("passing over offset %d: it does not say where to answer%n", order.offset());
            return;
        }
        String item = item(order.value());
        if (item.isEmpty()) {
            send(order.headers(), 400, "application/problem+json",
                Map.of("status", 400, "detail", "an order is JSON and names an item"));
            return;
        }
        send(order.headers(), 201, "application/json", Map.of("order", item, "message", "One " + item + ", coming up"));
    }

    /** Reads an order; what cannot be read has no item. */
    private String item(byte[] order) {
        try {
            return json.readTree(order).path("item").asText();
        } catch (IOException e) {
            return "";
        }
    }

    /**
     * Produces a reply where the request wants it. Status, headers and body are those of the HTTP response that the
     * client gets. Whether Kafka has it is known when the transaction is committed.
     */
    private void send(Headers request, int status, String contentType, Map<String, ?> body) {
        String topic = new String(request.lastHeader("kafka_replyTopic").value(), UTF_8);
        int partition = ByteBuffer.wrap(request.lastHeader("kafka_replyPartition").value()).getInt();
        ProducerRecord<byte[], byte[]> reply;
        try {
            reply = new ProducerRecord<>(topic, partition, null, json.writeValueAsBytes(body));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e); // maps of strings and numbers can be written
        }
        reply.headers()
            .add(request.lastHeader("kafka_correlationId"))
            .add(":status", String.valueOf(status).getBytes(UTF_8))
            .add("content-type", contentType.getBytes(UTF_8));
        producer.send(reply);
    }

    /** What may go wrong between the first reply and the commit, here when all replies are on the log already. */
    private void accident() throws Accident {
        transactions++;
        if (ACCIDENT_EVERY > 0 && transactions % ACCIDENT_EVERY == 0) {
            producer.flush();
            throw new Accident();
        }
    }

    private static final class Accident extends Exception {
    }

    private static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
