// Command member is the inside of a gateway that delivers one topic to a site,
// and does nothing else: internal/deliver with a broker client of its own. POST
// /leave has it leave the group as a gateway does that is stopped; it ends when
// its tries have ended.
//
//	member -listen 127.0.0.1:8000 -kafka 127.0.0.1:9092 -topic orders -control control -site http://127.0.0.1:8001
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Flags.
var (
	listen      = flag.String("listen", "127.0.0.1:0", "serve at this `address`")
	_           = flag.String("admin", "", "ignored")
	kafka       = flag.String("kafka", "127.0.0.1:9092", "the broker's `address`")
	topic       = flag.String("topic", "orders", "the topic to deliver, and the name of the group")
	control     = flag.String("control", "control", "the control `topic`")
	site        = flag.String("site", "", "the site's `URL`")
	concurrency = flag.Int("concurrency", 200, "how many tries run at once")
	drain       = flag.Duration("drain", time.Minute, "how long tries may go on after the group was left")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(os.Stderr), zapcore.DebugLevel))
	client := broker.New(broker.Config{Addresses: []string{*kafka}})
	defer client.Close()
	producer := ingress.New(ingress.Config{Broker: client, Logger: log})
	defer producer.Close()
	delivery := deliver.New(deliver.Config{
		Broker: client, Producer: replies{producer}, Topic: *topic, Group: *topic, Control: *control, Logger: log,
	}, deliver.Options{
		Handler:  forward{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *concurrency}}},
		Attempts: deliver.DefaultAttempts, BackoffMin: deliver.DefaultBackoffLeast, BackoffMax: deliver.DefaultBackoffMost,
		Timeout: deliver.DefaultTimeout, Concurrency: *concurrency, MaxResponse: deliver.DefaultMaxResponse, Drain: *drain,
	})
	left := make(chan struct{})
	var leave sync.Once
	mux := http.NewServeMux()
	mux.HandleFunc("POST /leave", func(http.ResponseWriter, *http.Request) { leave.Do(func() { close(left) }) })
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-left:
	}
	delivery.Close()
	return nil
}

// replies has an ingress producer put records on topics, as in a gateway.
type replies struct{ *ingress.Producer }

// Produce implements deliver.Producer.
func (p replies) Produce(ctx context.Context, topic string, partition int32, r record.Record) error {
	request := ingress.Request{Topic: topic, Record: r}
	if partition >= 0 {
		request.Partition = &partition
	}
	if deadline, ok := ctx.Deadline(); ok {
		request.Timeout = time.Until(deadline)
	}
	_, err := p.Producer.Produce(ctx, request)
	return err
}

// forward has the site answer, as a reverse proxy does.
type forward struct{ client *http.Client }

// ServeHTTP implements deliver.Handler.
func (f forward) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, *site+r.RequestURI, r.Body)
	if err != nil {
		return err
	}
	request.ContentLength = r.ContentLength
	request.Header.Set("Bench-Member", *listen)
	response, err := f.client.Do(request)
	if err != nil {
		return &deliver.Failure{Code: http.StatusBadGateway, Err: err}
	}
	defer response.Body.Close()
	w.WriteHeader(response.StatusCode)
	if response.ContentLength >= 0 {
		_, err = io.Copy(w, response.Body)
		return err
	}
	const most = 1 << 10 // bytes of a part
	for part := make([]byte, most); ; {
		n, err := response.Body.Read(part)
		if n > 0 {
			if _, err := w.Write(part[:n]); err != nil {
				return err
			}
			_ = http.NewResponseController(w).Flush()
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			panic(http.ErrAbortHandler)
		}
	}
}
