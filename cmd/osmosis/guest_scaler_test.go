package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/twmb/franz-go/pkg/kgo"

	osmosis "github.com/osmosis-gateway/caddy-osmosis"
	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

func init() {
	caddy.RegisterModule(new(staff))
}

// staff is a scaler as somebody else would write one: its workers are consumers
// within this process, each a member of the group.
type staff struct {
	// Work is how long they take for a record.
	Work caddy.Duration `json:"work,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*staff) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "osmosis.scalers.staff", New: func() caddy.Module { return new(staff) }}
}

// UnmarshalCaddyfile reads the scaler. Syntax:
//
//	staff <work>
func (s *staff) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.NextArg() {
		return d.ArgErr()
	}
	work, err := caddy.ParseDuration(d.Val())
	s.Work = caddy.Duration(work)
	return err
}

// Crew implements osmosis.Scaler.
func (s *staff) Crew(job autoscale.Job) (string, func() autoscale.Crew) {
	return fmt.Sprintf("staff %q %q %q %s", job.Kafka, job.Topic, job.Group, time.Duration(s.Work)), func() autoscale.Crew {
		c := &consumers{job: job, work: time.Duration(s.Work), done: make(map[string]int)}
		hired.add(c)
		return c
	}
}

// hired are the crews that there were, in order.
var hired crews

type crews struct {
	mu  sync.Mutex
	all []*consumers
}

func (c *crews) add(one *consumers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, one)
}

func (c *crews) list() []*consumers {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*consumers(nil), c.all...)
}

// consumers are a Crew of staff.
type consumers struct {
	job  autoscale.Job
	work time.Duration

	mu      sync.Mutex
	stops   []context.CancelFunc
	orders  []autoscale.Order // without repetitions
	done    map[string]int    // values of records, and how often they were worked on
	closed  bool
	working sync.WaitGroup
}

func (c *consumers) Scale(o autoscale.Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if n := len(c.orders); n == 0 || c.orders[n-1] != o {
		c.orders = append(c.orders, o)
	}
	c.resize(o.Workers)
}

func (c *consumers) resize(n int) {
	for len(c.stops) > n {
		c.stops[len(c.stops)-1]()
		c.stops = c.stops[:len(c.stops)-1]
	}
	for len(c.stops) < n {
		ctx, stop := context.WithCancel(context.Background())
		c.stops = append(c.stops, stop)
		c.working.Go(func() { c.consume(ctx) })
	}
}

func (c *consumers) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.stops)
}

func (c *consumers) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resize(0)
}

func (c *consumers) Close() {
	c.mu.Lock()
	c.closed = true
	c.resize(0)
	c.mu.Unlock()
	c.working.Wait()
}

// finished counts the records that were worked on.
func (c *consumers) finished() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.done)
}

// told gives the orders.
func (c *consumers) told() []autoscale.Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.orders)
}

// left tells whether it was closed, and nobody works any more.
func (c *consumers) left() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed && len(c.stops) == 0
}

// consume works on one record after the other, and commits each.
func (c *consumers) consume(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(c.job.Kafka, ",")...), kgo.ConsumerGroup(c.job.Group), kgo.ConsumeTopics(c.job.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll())
	if err != nil {
		panic(err) // the options above are wrong
	}
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		for _, r := range client.PollRecords(ctx, 1).Records() {
			tick := time.NewTimer(c.work)
			<-tick.C
			c.mu.Lock()
			c.done[string(r.Value)]++
			c.mu.Unlock()
			if err := client.CommitRecords(context.Background(), r); err != nil {
				c.job.Logger.Warn("not committed")
			}
		}
		client.AllowRebalance()
	}
}

// site is Caddy in this process, with a scaled route and its admin endpoint.
type site struct {
	t    *testing.T
	home string
	port string
	http *http.Client
}

func newSite(t *testing.T) *site {
	t.Helper()
	// The embedded broker's port is free now, and nobody else looks for one here.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, home: t.TempDir(), port: listener.Addr().String()}
	listener.Close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.home, host))
	}}
	s.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run has Caddy run a configuration with this inside of scale.
func (s *site) run(scale string) {
	s.t.Helper()
	text := fmt.Sprintf(`{
	admin unix/%[1]s/admin
	persist_config off
	storage file_system %[1]s/storage
	log {
		output discard
	}
	osmosis {
		embedded %[1]s/kafka {
			listen %[2]s
		}
		create {
			partitions 4
		}
		replies {
			partitions 2
		}
	}
}
http://site {
	bind unix/%[1]s/site
	osmosis /jobs jobs {
		scale {
			%[3]s
		}
	}
}
`, s.home, s.port, strings.ReplaceAll(scale, "; ", "\n"))
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) do(method, url, body string) (status int, answer string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.HasPrefix(url, "http://admin") {
		request.Host = "localhost"
	}
	response, err := s.http.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// scale is what the admin endpoint tells, as far as the test reads it.
type scale struct {
	Topic, Group     string
	Deciding         bool
	DryRun           bool `json:"dry_run"`
	Min, Max         int
	Desired, Running *int
	Members          *int
	Inflow, Outflow  *float64
	Backlog          *int64
	OldestSeconds    *float64 `json:"oldest_seconds"`
	Reason           string
	Generation       int32
	Decisions        []struct {
		At            time.Time
		From, Workers int
		Reason        string
	}
}

// told asks the admin endpoint.
func (s *site) told() scale {
	s.t.Helper()
	status, text := s.do(http.MethodGet, "http://admin/osmosis/scale", "")
	var list []scale
	if err := json.Unmarshal([]byte(text), &list); status != http.StatusOK || err != nil || len(list) != 1 {
		s.t.Fatalf("%d %s: %v", status, text, err)
	}
	return list[0]
}

// eventually waits for what has to come true.
func (s *site) eventually(what string, ok func(scale) bool) {
	s.t.Helper()
	const bound = time.Minute
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(bound); ; <-tick.C {
		told := s.told()
		if ok(told) {
			return
		}
		if time.Now().After(deadline) {
			text, _ := json.MarshalIndent(told, "", "\t")
			s.t.Fatalf("not within %s: %s\n%s", bound, what, text)
		}
	}
}

func is(n *int, value int) bool { return n != nil && *n == value }

// A scaler of somebody else is driven from nothing to many and back: woken by the
// first request, over a reload with other limits, and down to none when idle.
func TestGuestScaler(t *testing.T) {
	s := newSite(t)
	before := len(hired.list())
	s.run("max 4; drain 1s; idle 2s; staff 50ms")
	s.eventually("it decides that there is nothing to do", func(told scale) bool { return told.Deciding && is(told.Desired, 0) && is(told.Running, 0) })
	crew := hired.list()[before]

	queue := func(n int) {
		t.Helper()
		for i := range n {
			if status, text := s.do(http.MethodPost, "http://site/jobs", fmt.Sprintf("%d of %d", i, n)); status != http.StatusAccepted {
				t.Fatalf("%d %s", status, text)
			}
		}
	}
	queue(1)
	s.eventually("the first request is done", func(scale) bool { return crew.finished() == 1 })
	s.eventually("nobody works when it is idle", func(told scale) bool { return is(told.Running, 0) && is(told.Desired, 0) })

	queue(60) // three seconds of work
	s.eventually("somebody works", func(told scale) bool { return told.Running != nil && *told.Running > 0 })
	s.run("min 2; max 3; drain 2s; idle 2s; staff 50ms")
	s.eventually("another limit brings another worker", func(told scale) bool {
		return told.Running != nil && *told.Running > 1 && told.Min == 2 && told.Max == 3
	})
	s.eventually("all is done", func(scale) bool { return crew.finished() == 61 })
	s.run("max 4; drain 1s; idle 2s; staff 50ms")
	s.eventually("nobody works when it is idle again", func(told scale) bool { return is(told.Running, 0) && is(told.Members, 0) && *told.Backlog == 0 })
	told := s.told()
	if told.Topic != "jobs" || told.Group != "jobs" || told.Min != 0 || told.DryRun || *told.OldestSeconds != 0 || !strings.HasPrefix(told.Reason, "0: nothing to do") {
		t.Errorf("%+v", told)
	}
	var way []int
	for _, d := range told.Decisions {
		if d.Workers != d.From {
			way = append(way, d.Workers)
		}
		if d.At.IsZero() || !strings.HasPrefix(d.Reason, fmt.Sprintf("%d: ", d.Workers)) {
			t.Errorf("%+v", d)
		}
	}
	if n := len(way); n < 5 || !slices.Equal(way[:3], []int{1, 0, 1}) || slices.Max(way) < 2 || slices.Max(way) > 4 || way[n-1] != 0 {
		t.Errorf("the number went %v: %+v", way, told.Decisions)
	}
	if n := len(hired.list()) - before; n != 1 {
		t.Errorf("%d crews, want one for all these configurations", n)
	}
	orders := crew.told()
	if !slices.IsSortedFunc(orders, func(a, b autoscale.Order) int { return cmp.Compare(a.Generation, b.Generation) }) || orders[len(orders)-1].Generation != told.Generation {
		t.Errorf("orders %+v, of the generation %d at last", orders, told.Generation)
	}

	s.run("dry_run; max 4; drain 1s; idle 2s; staff 50ms")
	queue(1)
	s.eventually("a worker is wanted", func(told scale) bool {
		return told.DryRun && is(told.Desired, 1) && told.Backlog != nil && *told.Backlog == 1
	})
	if crew.Running() != 0 || crew.finished() != 61 {
		t.Error("a dry run has something done")
	}

	// Another scaler for the same is another crew, and the old one is let go.
	s.run("min 1; max 1; staff 51ms")
	s.eventually("the new crew works", func(told scale) bool { return is(told.Running, 1) && told.Max == 1 })
	if !crew.left() {
		t.Error("the old crew is still there")
	}
	if status, text := s.do(http.MethodPost, "http://admin/osmosis/scale", ""); status != http.StatusMethodNotAllowed || !strings.Contains(text, "only be read") {
		t.Errorf("%d %s", status, text)
	}
}

// What a guest module has to be.
var (
	_ osmosis.Scaler        = (*staff)(nil)
	_ caddyfile.Unmarshaler = (*staff)(nil)
	_ autoscale.Counter     = (*consumers)(nil)
)
