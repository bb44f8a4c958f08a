package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Cancellation is the value of a record on the control topic: a client has
// called its request off. All who deliver read that topic.
type Cancellation struct {
	// Cancel is the stream id.
	Cancel string `json:"cancel"`
	// Expires is when the request would have expired, and the cancellation can
	// be forgotten, in milliseconds since 1970.
	Expires int64 `json:"expires"`
}

// Record makes the record of a cancellation.
func (c Cancellation) Record() record.Record {
	value, err := json.Marshal(c)
	if err != nil {
		panic(err) // a text and a number
	}
	return record.Record{Key: []byte(c.Cancel), Value: value}
}

const (
	// maxCancellations bounds those that are remembered. Whoever cancels more
	// within the time that requests live finds the last of them delivered.
	maxCancellations = 100_000
	// maxIDLength is more than any stream id has.
	maxIDLength = 256
	// controlWait is how long the first try waits for the control topic to be
	// read. Cancelling is best effort, and a topic that cannot be read must not
	// hold up those that can.
	controlWait = 5 * time.Second
)

// control is what is known of the control topic.
type control struct {
	// read is closed when it was read up to its end, or is not there.
	read     chan struct{}
	readOnce sync.Once

	mu sync.Mutex
	// cancelled are the requests that are called off, with when to forget them.
	cancelled map[string]time.Time
	// running are the tries to call off when that comes.
	running map[string]*func()
}

func newControl() *control {
	return &control{read: make(chan struct{}), cancelled: make(map[string]time.Time), running: make(map[string]*func())}
}

// has tells whether a request was called off.
func (c *control) has(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.cancelled[id]
	return ok
}

// underWay has a try called off when its request is, until the function that it
// gives is called.
func (c *control) underWay(id string, callOff func()) (ended func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.cancelled[id]; ok {
		callOff()
	}
	own := &callOff
	c.running[id] = own
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[id] == own { // a handler that does not end may end after its successor has begun
			delete(c.running, id)
		}
	}
}

// take takes a record of the control topic. What cannot be read was written by
// a stranger, or by a newer version about something else.
//
// It gives the request that is called off, "" for none.
func (c *control) take(value []byte, now time.Time) string {
	var said Cancellation
	if json.Unmarshal(value, &said) != nil || said.Cancel == "" || len(said.Cancel) > maxIDLength {
		return ""
	}
	expires := time.UnixMilli(said.Expires)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !expires.After(now) {
		return ""
	}
	if len(c.cancelled) >= maxCancellations {
		for id, at := range c.cancelled {
			if !at.After(now) {
				delete(c.cancelled, id)
			}
		}
		if len(c.cancelled) >= maxCancellations {
			return ""
		}
	}
	c.cancelled[said.Cancel] = expires
	if callOff, ok := c.running[said.Cancel]; ok {
		(*callOff)()
	}
	return said.Cancel
}

// await waits until the control topic has been read, but not for long.
func (c *control) await(ctx context.Context) {
	timer := time.NewTimer(controlWait)
	defer timer.Stop()
	select {
	case <-c.read:
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (c *control) ready() { c.readOnce.Do(func() { close(c.read) }) }

// follow reads the control topic from its start, for as long as there is
// something to deliver. It has one partition; if somebody gave it more, they are
// not read.
func (d *Delivery) follow(ctx context.Context) {
	var (
		pause backoff.Backoff
		life  broker.TopicID
		next  int64
	)
	for ctx.Err() == nil {
		topic, err := d.config.Broker.Topic(ctx, d.config.Control)
		if err == nil && topic.Leaders[0] < 0 {
			err = kafka.LeaderNotAvailable
		}
		if err == nil {
			if topic.ID != life {
				life, next = topic.ID, 0
			}
			next, err = d.followFrom(ctx, topic, next, &pause)
		}
		if errors.Is(err, kafka.UnknownTopicOrPartition) {
			d.control.ready() // nobody has ever cancelled anything
		}
		if ctx.Err() == nil && pause.Failures() == 1 {
			d.log.Debug("control topic not read", zap.String("topic", d.config.Control), zap.Error(err))
		}
		pause.Sleep(ctx)
	}
}

// followFrom reads from one leader until that fails, and gives where to go on.
func (d *Delivery) followFrom(ctx context.Context, topic broker.Topic, next int64, pause *backoff.Backoff) (int64, error) {
	for {
		got, err := d.config.Broker.Fetch(ctx, broker.FetchRequest{
			Leader: topic.Leaders[0], MaxWait: fetchWait, MaxBytes: fetchBytes,
			From: []broker.FetchFrom{{Topic: topic.Name, ID: topic.ID, Offset: next}},
		})
		if err != nil {
			return next, err
		}
		if len(got) == 0 {
			return next, errors.New("no answer for the partition")
		}
		f := got[0]
		switch {
		case errors.Is(f.Err, kafka.OffsetOutOfRange):
			first, _, err := d.bounds(ctx, topic, 0)
			if err != nil {
				return next, err
			}
			return first, f.Err // what was there is past
		case f.Err != nil && !errors.Is(f.Err, broker.ErrBatchTooLarge):
			return next, f.Err
		}
		pause.Reset()
		for _, r := range f.Records {
			if id := d.control.take(r.Value, time.Now()); id != "" {
				d.unpark(id)
			}
		}
		if next = f.Next; next >= f.Stable {
			d.control.ready()
		}
	}
}

func (d *Delivery) unpark(id string) {
	d.mu.Lock()
	g := d.generation
	d.mu.Unlock()
	if g != nil {
		g.queue.unpark(id)
	}
}
