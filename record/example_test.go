package record_test

import (
	"fmt"
	"net/http"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A worker reads a request from its topic, whatever Kafka client it uses, and
// produces the reply to the topic and partition that the request names.
func ExampleParseRequest() {
	fetched := record.Record{
		Value: []byte(`{"item":"tea"}`),
		Headers: []record.Header{
			{Key: ":method", Value: []byte("POST")},
			{Key: ":path", Value: []byte("/orders")},
			{Key: "content-type", Value: []byte("application/json")},
			{Key: "kafka_replyTopic", Value: []byte("osmosis.replies")},
			{Key: "kafka_replyPartition", Value: []byte{0, 0, 0, 3}},
			{Key: "kafka_correlationId", Value: []byte("3qkZ")},
		},
	}
	req, err := record.ParseRequest(fetched)
	if err != nil {
		fmt.Println(err)
		return
	}
	reply := req.Reply(http.StatusCreated, http.Header{"Location": {"/orders/17"}}, []byte("ordered")).Record()

	fmt.Printf("to %s, partition %d:\n", req.ReplyTopic, req.ReplyPartition)
	for _, h := range reply.Headers {
		fmt.Printf("%s: %s\n", h.Key, h.Value)
	}
	fmt.Printf("%s\n", reply.Value)
	// Output:
	// to osmosis.replies, partition 3:
	// kafka_correlationId: 3qkZ
	// :status: 201
	// location: /orders/17
	// ordered
}
