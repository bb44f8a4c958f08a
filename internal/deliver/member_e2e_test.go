//go:build e2e

package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// memberOrder is the environment variable with the order of a process that
// delivers. Such a process is this test binary once more.
const memberOrder = "OSMOSIS_TEST_MEMBER"

// headerMember tells the upstream which process a try is of.
const headerMember = "Test-Member"

// order is what a process delivers, and how.
type order struct {
	Name        string
	Brokers     []string
	Topic       string
	Replies     string
	Dead        string
	Control     string
	Upstream    string // URL
	Attempts    int
	Concurrency int
	Least, Most time.Duration // of the pauses
	Timeout     time.Duration
	Drain       time.Duration
}

// deliverAsMember delivers until its standard input ends, which it also does
// when the test dies.
func deliverAsMember(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	log := zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.Lock(os.Stderr), zapcore.InfoLevel))
	client := broker.New(broker.Config{Addresses: o.Brokers})
	defer client.Close()
	producer := ingress.New(ingress.Config{Broker: client, Logger: log})
	defer producer.Close()
	d := New(Config{Broker: client, Producer: idempotent{producer}, Topic: o.Topic, Group: o.Topic, Control: o.Control, Logger: log}, Options{
		Handler: newForward(o), Attempts: o.Attempts, BackoffMin: o.Least, BackoffMax: o.Most, Timeout: o.Timeout,
		Concurrency: o.Concurrency, DeadLetter: o.Dead, MaxResponse: DefaultMaxResponse, Drain: o.Drain,
	})
	defer d.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// idempotent has an ingress producer put replies and dead letters on their
// topics, as in a gateway.
type idempotent struct{ *ingress.Producer }

func (p idempotent) Produce(ctx context.Context, topic string, _ int32, r record.Record) error {
	request := ingress.Request{Topic: topic, Record: r}
	if deadline, ok := ctx.Deadline(); ok {
		request.Timeout = time.Until(deadline)
	}
	_, err := p.Producer.Produce(ctx, request)
	if errors.Is(err, ingress.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return err
}

// forward has an upstream answer, as a reverse proxy does.
type forward struct {
	order  order
	client *http.Client
}

func newForward(o order) forward {
	return forward{o, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.Concurrency}}}
}

// ServeHTTP implements Handler.
func (f forward) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, f.order.Upstream+r.RequestURI, r.Body)
	if err != nil {
		return err
	}
	request.Header, request.ContentLength = r.Header.Clone(), r.ContentLength
	request.Header.Set(headerMember, f.order.Name)
	response, err := f.client.Do(request)
	if err != nil {
		return &Failure{Code: http.StatusBadGateway, Err: err}
	}
	defer response.Body.Close()
	if after := response.Header.Get("Retry-After"); after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(response.StatusCode)
	if response.ContentLength >= 0 {
		_, err = io.Copy(w, response.Body)
		return err
	}
	flushed := http.NewResponseController(w)
	for b := make([]byte, 1<<10); ; { // a part as it comes
		n, err := response.Body.Read(b)
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
			_ = flushed.Flush()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// member is a process that delivers.
type member struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	input  io.Closer
	output logged
	exited chan struct{}
}

// logged is what a process has written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count tells how often a text is in it.
func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(text))
}

// last gives its end.
func (l *logged) last(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.text.Bytes()
	return string(b[max(0, len(b)-n):])
}

// startMember runs a process that carries out an order until the test's end.
func startMember(t *testing.T, o order) *member {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, name: o.Name, cmd: exec.Command(os.Args[0]), exited: make(chan struct{})}
	m.cmd.Env = append(os.Environ(), memberOrder+"="+string(text))
	m.cmd.Stdout, m.cmd.Stderr = &m.output, &m.output
	input, err := m.cmd.StdinPipe()
	if err == nil {
		m.input = input
		err = m.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(m.exited)
		_ = m.cmd.Wait() // its error is in ProcessState, and expected from a kill
	}()
	t.Cleanup(func() {
		m.kill()
		if m.output.count("DATA RACE") > 0 {
			t.Errorf("data race in %s", m.name)
		}
		if t.Failed() {
			t.Logf("%s wrote, at last:\n%s", m.name, m.output.last(8<<10))
		}
	})
	return m
}

// kill ends the process as a crash does.
func (m *member) kill() {
	_ = m.cmd.Process.Kill() // its one error says that it has ended already
	<-m.exited
	_ = m.input.Close()
}

// end tells the process to end, and waits until it has.
func (m *member) end() {
	m.t.Helper()
	_ = m.input.Close()
	select {
	case <-m.exited:
	case <-time.After(patience):
		m.t.Fatalf("%s does not end", m.name)
	}
	if !m.cmd.ProcessState.Success() {
		m.t.Errorf("%s: %s", m.name, m.cmd.ProcessState)
	}
}

// evictions counts how often the group has taken partitions from the process
// before it had committed all.
func (m *member) evictions() int {
	return m.output.count("partitions lost") + m.output.count("last commit of partitions refused")
}

// numberOf gives the number of a request by its path.
func numberOf(path string) (int, error) {
	_, digits, ok := strings.Cut(path, "?n=")
	if !ok {
		return 0, fmt.Errorf("%q is none of this test's paths", path)
	}
	return strconv.Atoi(digits)
}
