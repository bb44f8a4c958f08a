// Command bare is the gateway without the gateway: net/http's own server around
// one of Go's Kafka clients. POST /orders produces the body and answers 202.
// With -replies, 202 has a Location, whose GET is an event stream with the
// reply; that half follows the reply topic with the same client.
//
// It is the least that can be done, not an example: it keeps its streams in
// memory, so that a reconnect, a second server or a restart loses them.
//
//	bare -listen 127.0.0.1:8080 -admin 127.0.0.1:8081 -kafka 127.0.0.1:9092 -topic orders -client franz-go
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // on the admin address alone
	"os"
	"time"
)

// Flags.
var (
	listen  = flag.String("listen", "127.0.0.1:8080", "serve requests on this `address`")
	admin   = flag.String("admin", "127.0.0.1:8081", "serve profiles on this `address`")
	broker  = flag.String("kafka", "127.0.0.1:9092", "Kafka's `address`")
	topic   = flag.String("topic", "orders", "the `topic` that requests go to; it exists")
	replies = flag.String("replies", "", "the `topic` on which replies are awaited; it exists. Empty: no streams")
	client  = flag.String("client", "franz-go", "`what` produces and consumes: franz-go, kafka-go (produce calls with a group commit; a Reader) or writer (kafka-go's Writer and Reader)")
)

// producer gets a record to Kafka and returns when all replicas have it.
type producer interface {
	produce(ctx context.Context, m message) error
}

// message is a record, whatever the client.
type message struct {
	key, value []byte
	headers    []header
}

type header struct {
	name  string
	value []byte
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	p, err := newProducer(*client)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	s := &server{producer: p, waiting: newWaiting()}
	mux.HandleFunc("POST /orders", s.post)
	if *replies != "" {
		mux.HandleFunc("GET /streams/{id}", s.stream)
		if err := follow(*client, s.waiting); err != nil {
			return err
		}
	}
	failed := make(chan error, 2)
	go func() { failed <- serve(*admin, http.DefaultServeMux) }()
	go func() { failed <- serve(*listen, mux) }()
	return <-failed
}

func serve(address string, h http.Handler) error {
	s := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	return s.ListenAndServe()
}

// newProducer makes what -client names.
func newProducer(name string) (producer, error) {
	switch name {
	case "franz-go":
		return newFranz()
	case "kafka-go":
		return newGroupCommit()
	case "writer":
		return newWriter(), nil
	}
	return nil, errors.New("-client is one of franz-go, kafka-go and writer")
}
