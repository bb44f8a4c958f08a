package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// The names of the record's headers are those of the gateway, so that one
// worker answers both.
const (
	correlationID  = "kafka_correlationId"
	replyTopic     = "kafka_replyTopic"
	replyPartition = "kafka_replyPartition"
	more           = "osmosis-more"
)

// replyPartitions is how many partitions of the reply topic are used.
const replyPartitions = 8

type server struct {
	producer producer
	waiting  *waiting
}

// post produces a request.
func (s *server) post(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m := message{value: body}
	if key := r.Header.Get("X-Customer"); key != "" {
		m.key = []byte(key)
	}
	if *replies != "" {
		id := rand.Text()
		s.waiting.expect(id)
		m.headers = []header{
			{correlationID, []byte(id)},
			{replyTopic, []byte(*replies)},
			{replyPartition, binary.BigEndian.AppendUint32(nil, uint32(id[0])%replyPartitions)},
		}
		w.Header().Set("Location", "/streams/"+id)
	}
	if err := s.producer.produce(r.Context(), m); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// stream writes the replies to a request as events, to the last one.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	replies, ok := s.waiting.of(id)
	if !ok {
		http.NotFound(w, r)
		return
	}
	defer s.waiting.forget(id)
	w.Header().Set("Content-Type", "text/event-stream")
	controller := http.NewResponseController(w)
	if _, err := io.WriteString(w, ": bare\n\n"); err != nil || controller.Flush() != nil {
		return
	}
	for {
		select {
		case reply := <-replies:
			// The body is one line: the benchmarks send no others.
			if _, err := fmt.Fprintf(w, "data: %s\n\n", reply.body); err != nil || controller.Flush() != nil || !reply.more {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// reply is a reply record.
type reply struct {
	id   string
	body []byte
	more bool // further ones follow
}

// backlog is how many replies to one request may wait for its client.
const backlog = 4

// waiting are the requests whose last reply has not been streamed.
type waiting struct {
	mu  sync.Mutex
	all map[string]chan reply
}

func newWaiting() *waiting { return &waiting{all: make(map[string]chan reply)} }

// expect makes room for the replies to a request, before it is produced.
func (w *waiting) expect(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[id] = make(chan reply, backlog)
}

func (w *waiting) of(id string) (chan reply, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, ok := w.all[id]
	return c, ok
}

func (w *waiting) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, id)
}

// deliver hands a reply to whoever waits for it. One that nobody reads in time
// is lost.
func (w *waiting) deliver(r reply) {
	if c, ok := w.of(r.id); ok {
		select {
		case c <- r:
		default:
		}
	}
}
