package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxResponse bounds what is read for one response, since its length comes
// from the other side. Fetches ask for far less.
const maxResponse = 256 << 20

// anyBroker routes a request to whichever broker the Transport has at hand.
const anyBroker int32 = -1

// exchange is one request and its answer, encoded by kmsg and sent over a
// connection of kafka-go's Transport. The Transport hands the connection over
// because exchange is a protocol.RawExchanger, and picks the broker by what
// Broker says because it is a protocol.BrokerMessage.
type exchange struct {
	request kmsg.Request // with its version set
	broker  int32
	answer  kmsg.Response
	// until, when not nil, ends the exchange and its connection with it. The
	// Transport does not: it waits for the deadline, also for an answer that
	// nobody wants any more.
	until context.Context
	sending
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))

// buffers holds the encoded requests, which a produce call makes as large as its batches.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps one huge request from staying in memory for good.
const maxPooled = 4 << 20

func (e *exchange) ApiKey() protocol.ApiKey {
	return protocol.ApiKey(e.request.Key())
}

func (e *exchange) Required(map[protocol.ApiKey]int16) bool { return true }

func (e *exchange) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if e.broker == anyBroker {
		return protocol.Broker{ID: anyBroker}, nil
	}
	b, ok := cluster.Brokers[e.broker]
	if !ok {
		return protocol.Broker{}, fmt.Errorf("route request to broker %d: %w", e.broker, kafka.BrokerNotAvailable)
	}
	return b, nil
}

// RawExchange writes the request and reads the answer. The Transport has set
// the connection's deadline, and closes the connection when this fails.
func (e *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	conn, ok := rw.(io.Closer)
	if !ok || e.until == nil {
		return e.exchange(rw)
	}
	stop := context.AfterFunc(e.until, func() { _ = conn.Close() })
	m, err := e.exchange(rw)
	if !stop() && err == nil { // or the Transport would keep a connection that is being closed
		return nil, fmt.Errorf("read response: %w", e.until.Err())
	}
	return m, err
}

func (e *exchange) exchange(rw io.ReadWriter) (protocol.Message, error) {
	if !e.begin() {
		return nil, ErrNotSent // and the caller has left
	}
	const correlation = 1 // a connection carries one request at a time
	buffer := buffers.Get().(*[]byte)
	*buffer = formatter.AppendRequest((*buffer)[:0], e.request, correlation)
	n, err := rw.Write(*buffer)
	if cap(*buffer) <= maxPooled {
		buffers.Put(buffer)
	}
	switch {
	case err != nil && n == 0: // nor is a part of it on its way: neither TCP nor TLS has taken a byte
		return nil, fmt.Errorf("write request: %w: %w", ErrNotSent, err)
	case err != nil:
		return nil, fmt.Errorf("write request: %w", err)
	}

	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	length := binary.BigEndian.Uint32(size[:])
	if length < 4 || length > maxResponse {
		return nil, fmt.Errorf("read response: a length of %d bytes", length)
	}
	body, err := readBody(rw, int(length))
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	if got := binary.BigEndian.Uint32(body); got != correlation {
		return nil, fmt.Errorf("read response: correlation id %d instead of %d", got, correlation)
	}
	body = body[4:]
	answer := e.request.ResponseKind()
	// ApiVersions keeps the first response header for ever, so that a client
	// can read the answer before it knows what the broker speaks.
	if answer.IsFlexible() && answer.Key() != int16(protocol.ApiVersions) {
		if body, err = skipTags(body); err != nil {
			return nil, err
		}
	}
	if err := answer.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode response: %w", err)
	}
	e.answer = answer
	return e, nil
}

// readBody reads length bytes. It takes memory as they come and not for what
// was announced, since the other side may be no broker at all.
func readBody(r io.Reader, length int) ([]byte, error) {
	const first = 1 << 20
	body := make([]byte, 0, min(length, first))
	for len(body) < length {
		if len(body) == cap(body) {
			body = slices.Grow(body, min(len(body), length-len(body)))
		}
		n, err := io.ReadFull(r, body[len(body):min(cap(body), length)])
		body = body[:len(body)+n]
		if err != nil {
			return nil, err
		}
	}
	return body, nil
}

// skipTags passes over the tagged fields of a response header.
func skipTags(b []byte) ([]byte, error) {
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	errTags := errors.New("decode response: broken header tags")
	count, ok := next()
	if !ok {
		return nil, errTags
	}
	for range count {
		if _, ok := next(); !ok {
			return nil, errTags
		}
		size, ok := next()
		if !ok || size > uint64(len(b)) {
			return nil, errTags
		}
		b = b[size:]
	}
	return b, nil
}

// maxDead bounds how many dead connections a request may find in a row. After
// a broker's restart all that were idle are.
const maxDead = 64

// ask sends one request and gives the answer, or an error, which is ErrNotSent
// when the broker cannot have got anything of it. A context without a deadline
// gets one: the Transport watches nothing else while it reads.
func (c *Client) ask(ctx context.Context, broker int32, r kmsg.Request) (kmsg.Response, error) {
	return c.askRouted(ctx, broker, r, func(e *exchange) protocol.Message { return e })
}

// askRouted does so with a message that says otherwise where it goes.
func (c *Client) askRouted(ctx context.Context, broker int32, r kmsg.Request, route func(*exchange) protocol.Message) (kmsg.Response, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	var m protocol.Message
	var err error
	for range maxDead {
		e := &exchange{request: r, broker: broker}
		m, err = c.transport.RoundTrip(ctx, c.api.Addr, route(e))
		if err != nil && e.abandon() {
			err = fmt.Errorf("%w: %w", ErrNotSent, c.reach.explain(err))
		}
		if !errors.Is(err, errIdleDead) {
			break // and otherwise the next connection, or a new one
		}
	}
	if err != nil {
		if !errors.Is(err, context.Canceled) { // which says nothing of the broker
			c.forget(broker)
		}
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(r.Key()), err)
	}
	return m.(*exchange).answer, nil
}

// span is the versions of an API that one side can speak.
type span struct{ least, most int16 }

// ErrVersion says that a broker is too old, or too new, for this client. The
// oldest it can do with is Kafka 0.11, where record batches and transactions began.
var ErrVersion = errors.New("no version in common")

// version picks the version of an API to speak with a broker: the newest that
// both sides know. It asks a broker once what it takes.
func (c *Client) version(ctx context.Context, broker int32, key int16, ours span) (int16, error) {
	c.mu.Lock()
	known, ok := c.versions[broker]
	c.mu.Unlock()
	if !ok {
		answer, err := c.ask(ctx, broker, kmsg.NewPtrApiVersionsRequest())
		if err != nil {
			return 0, err
		}
		spoken := answer.(*kmsg.ApiVersionsResponse)
		if err := failure(spoken.ErrorCode); err != nil {
			return 0, fmt.Errorf("ask for API versions: %w", err)
		}
		known = make(map[int16]span)
		for _, k := range spoken.ApiKeys {
			known[k.ApiKey] = span{k.MinVersion, k.MaxVersion}
		}
		c.mu.Lock()
		c.versions[broker] = known
		c.mu.Unlock()
	}
	theirs, ok := known[key]
	if !ok {
		return 0, fmt.Errorf("%s: %w: the broker does not offer it", kmsg.NameForKey(key), ErrVersion)
	}
	version := min(ours.most, theirs.most)
	if version < max(ours.least, theirs.least) {
		return 0, fmt.Errorf("%s: %w: %d to %d here, %d to %d at the broker",
			kmsg.NameForKey(key), ErrVersion, ours.least, ours.most, theirs.least, theirs.most)
	}
	return version, nil
}

// forget drops what a broker said of its versions: one that failed may come
// back as another release.
func (c *Client) forget(broker int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.versions, func(id int32, _ map[int16]span) bool { return id == broker || id == anyBroker })
}

// failure turns an error code of Kafka's into an error; 0 is none.
func failure(code int16) error {
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}

// millis gives a duration as Kafka's requests carry it.
func millis(d time.Duration) int32 {
	return int32(min(d.Milliseconds(), 1<<31-1))
}
