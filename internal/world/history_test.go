package world

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// history is what has happened.
type history struct {
	began time.Time

	mu    sync.Mutex
	lines []line
	harms []*harm
	tries []*try
	sent  []*sent
	reads []*reading
	// commits are what deliveries said was done.
	commits []commit
}

// line is one thing, in words.
type line struct {
	at   time.Duration
	text string
}

// note writes a line.
func (h *history) note(format string, args ...any) {
	l := line{time.Since(h.began), fmt.Sprintf(format, args...)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, l)
}

func (h *history) now() time.Duration { return time.Since(h.began) }

// String gives all lines.
func (h *history) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, l := range h.lines {
		fmt.Fprintf(&b, "%10.4f %s\n", l.at.Seconds(), l.text)
	}
	return b.String()
}

// harm is a fault that may excuse something, to one gateway or, without one, to all.
type harm struct {
	kind     kind
	gateway  *gateway
	from, to time.Duration
}

// hurt notes a harm that lasts until the function is called.
func (h *history) hurt(k kind, g *gateway) (over func()) {
	is := &harm{kind: k, gateway: g, from: h.now(), to: 1 << 62}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.harms = append(h.harms, is)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		is.to = h.now()
	}
}

// end is how a try ended.
type end string

const (
	answered  end = "answered"
	failed    end = "failed"
	brokeOff  end = "broke off"
	timedOut  end = "timed out"
	cut       end = "cut"
	calledOff end = "called off"
	killed    end = "killed"
)

// try is a call to the site, as the site sees it.
type try struct {
	gateway  *gateway
	work     int
	stream   string
	attempt  int
	began    time.Duration
	ended    time.Duration // -1 while it runs
	how      end
	begun    bool // a part of the answer was written
	wrote    bool // something was written; of the call alone
	deafened bool // it did not mind that it was to end
	sure     bool // the options under which it ran retry answers that have begun
	attempts int  // those that these options allow
}

// sent is a request and its outcome.
type sent struct {
	send
	gateway string
	at      time.Duration
	// claims are those that the gateway made, also when the client never learnt them.
	claims   hub.Claims
	accepted bool
	replayed bool
	noted    bool // on the claims topic
	answered time.Duration
	err      error // why it was not accepted
	unclear  bool  // it may be queued all the same
}

// seen is a reply as a reader got it.
type seen struct {
	cursor hub.Cursor
	body   string
}

// reading is what a reader of a stream has got.
type reading struct {
	of      *sent
	name    string
	replies []seen
	ends    []ending
	gaps    []string
	open    bool   // it had no end when the world ended
	wrong   string // what else was wrong
}

// ending is a stream's end as a reader got it.
type ending struct {
	at     time.Duration
	cursor hub.Cursor
	status string
	code   int
	reason string
}

// commit is an offset that was committed, or was tried to be.
type commit struct {
	at        time.Duration
	partition int32
	offset    int64
	metadata  string
}

// recorder is a zapcore.Core that writes into the history.
type recorder struct {
	zapcore.LevelEnabler
	h    *history
	name string
	with []zapcore.Field
}

// With, Check, Write and Sync implement zapcore.Core.
func (r *recorder) With(fields []zapcore.Field) zapcore.Core {
	return &recorder{r.LevelEnabler, r.h, r.name, slices.Concat(r.with, fields)}
}

func (r *recorder) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if r.Enabled(e.Level) {
		return c.AddCore(e, r)
	}
	return c
}

func (r *recorder) Write(e zapcore.Entry, fields []zapcore.Field) error {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range append(r.with[:len(r.with):len(r.with)], fields...) {
		f.AddTo(m)
	}
	delete(m.Fields, "stack")
	r.h.note("%s %s: %s %v", r.name, e.Level, e.Message, m.Fields)
	return nil
}

func (r *recorder) Sync() error { return nil }
