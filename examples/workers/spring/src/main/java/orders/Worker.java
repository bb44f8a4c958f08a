package orders;

import java.util.Map;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.messaging.handler.annotation.SendTo;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.json.JsonMapper;

/**
 * Answers orders. The order's record says where its answer goes, and Spring sends what a {@code @SendTo} listener
 * returns there, so there is no code about replies.
 */
@SpringBootApplication
public class Worker {
    private final JsonMapper json;

    Worker(JsonMapper json) {
        this.json = json;
    }

    public static void main(String[] arguments) {
        SpringApplication.run(Worker.class, arguments);
    }

    @KafkaListener(topics = "${orders.topic}")
    @SendTo
    String answer(String order) {
        String item;
        try {
            item = json.readTree(order).path("item").asString();
        } catch (JacksonException e) {
            item = "";
        }
        if (item.isEmpty()) {
            return json.writeValueAsString(Map.of("error", "an order is JSON and names an item"));
        }
        return json.writeValueAsString(Map.of("order", item, "message", "One " + item + ", coming up"));
    }
}
