package world

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

// plan is all that a seed decides. Nothing of it changes while it is carried out.
type plan struct {
	seed uint64

	brokers, gateways int
	// partitions are those of the topics of requests, replies those of the reply topic.
	partitions, replies int32
	produceTimeout      time.Duration
	options             deliver.Options // of deliveries, without the handler
	worker              worker          // who answers jobs

	works   []work
	senders [][]send // what each of them sends, one after the other
	faults  []fault
}

// work is something that a client wants done. Its number is the body of the
// requests for it.
type work struct {
	n      int
	topic  string
	key    string // of the record; "" for none
	once   string // the Idempotency-Key; "" for none
	ttl    time.Duration
	script script
}

// send is a request for a work.
type send struct {
	work  int
	pause time.Duration // before it
	// leaves is when the client hangs up, if it has no answer by then; 0 for never.
	leaves time.Duration
	// cancels is how long after its acceptance the client calls it off; 0 for never.
	cancels time.Duration
	readers int
}

// way is how a site answers.
type way int

const (
	quick    way = iota // a whole answer at once
	parts               // an answer in parts
	failing             // some tries fail with a status that says to try again
	broken              // some tries panic
	aborted             // the answer breaks off after some parts
	refusing            // 404, which is an answer
	hanging             // some tries do not end before they are told to
	deaf                // the first try does not end when it is told to, but later
	ways
)

// script is how the site treats a work.
type script struct {
	way  way
	work time.Duration // before the answer, and before each part after the first
	// parts is how many an answer has.
	parts int
	// fails is how many tries fail before one does not.
	fails int
	// code is what they fail with, after the seconds that Retry-After says, 0 for none.
	code, retryAfter int
}

// inParts reports whether an answer goes out in parts.
func (s script) inParts() bool { return s.way == parts || s.way == aborted }

func (s script) String() string {
	names := [ways]string{"quick", "parts", "failing", "broken", "aborted", "refusing", "hanging", "deaf"}
	return fmt.Sprintf("%s(%v ×%d, fails %d with %d after %ds)", names[s.way], s.work, s.parts, s.fails, s.code, s.retryAfter)
}

const never = 1 << 30

// kind is a kind of fault.
type kind int

const (
	kills kind = iota
	freezes
	stops
	joins
	reloads
	unroutes
	resets
	cutOffs
	stalls
	delays
	loses
	brokerResets
	brokerDowns
	brokerStalls
	leaderMoves
	coordinatorMoves
	lateProduces
	produceErrors
	commitErrors
	heartbeatErrors
	fetchErrors
	kinds
)

var kindNames = [kinds]string{
	"kill", "freeze", "stop", "join", "reload", "unroute", "reset", "cut off", "stall", "delay", "lose answers",
	"broker reset", "broker down", "broker stall", "move leader", "move coordinators", "late produce",
	"produce error", "commit error", "heartbeat error", "fetch error",
}

func (k kind) String() string { return kindNames[k] }

// fault is one that is done to the world.
type fault struct {
	after time.Duration // after the one before
	kind  kind
	pick  uint32 // which of the gateways that there are, or which broker
	also  uint32 // which other thing, by kind
	lasts time.Duration
	n     int
}

func (f fault) String() string {
	return fmt.Sprintf("%s pick=%d also=%d for %v ×%d", f.kind, f.pick, f.also, f.lasts, f.n)
}

// dice draws what a plan is made of.
type dice struct{ *rand.Rand }

func (d dice) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.Int64N(int64(most-least)+1))
}

func (d dice) in(n int) bool { return d.IntN(n) == 0 }

// weighted gives an index with the chance that its weight has.
func (d dice) weighted(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	at := d.IntN(sum)
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	panic("no weights")
}

const (
	orders  = "orders" // answered by deliver
	jobs    = "jobs"   // answered by workers
	longTTL = time.Hour
)

// newPlan makes the plan of a seed.
func newPlan(seed uint64) plan {
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	p := plan{
		seed: seed, brokers: 1 + d.IntN(3), gateways: 1 + d.weighted(1, 4, 3),
		partitions: 1 + d.Int32N(4), replies: 1 + d.Int32N(4),
		produceTimeout: []time.Duration{3 * time.Second, 10 * time.Second}[d.IntN(2)],
		options: deliver.Options{
			Attempts: 2 + d.IntN(4), BackoffMin: d.between(200*time.Millisecond, 2*time.Second), BackoffMax: 8 * time.Second,
			Timeout: d.between(8*time.Second, 20*time.Second), Concurrency: []int{2, 8, 32}[d.IntN(3)],
			DeadLetter: orders + ".dlq", MaxResponse: 1 << 20, Drain: drain, RetryStarted: d.in(4),
		},
	}
	long := d.in(5)
	if long {
		p.options.Timeout = 5 * time.Minute
	}
	span := d.between(8*time.Second, 30*time.Second) // in which requests come
	p.addKeyed(d, long, span)
	p.addKeyless(d, long, span)
	p.addOnce(d, span)
	p.addFaults(d, long, span)
	p.addJobs(d)
	return p
}

// addKeyed adds clients that send one after the other with one key.
func (p *plan) addKeyed(d dice, long bool, span time.Duration) {
	for k := range 1 + d.IntN(5) {
		n := 1 + d.IntN(8)
		var all []send
		for range n {
			w := p.work(d, long)
			w.key = "k" + strconv.Itoa(k)
			all = append(all, p.send(d, w, d.between(0, 2*span/time.Duration(n))))
		}
		p.senders = append(p.senders, all)
	}
}

// addKeyless adds clients that send one request each.
func (p *plan) addKeyless(d dice, long bool, span time.Duration) {
	for range 5 + d.IntN(20) {
		p.senders = append(p.senders, []send{p.send(d, p.work(d, long), d.between(0, span))})
	}
}

// addJobs gives some of the works to a worker.
func (p *plan) addJobs(d dice) {
	p.worker = worker(d.weighted(2, 1, 1))
	if p.worker == nobody {
		return
	}
	for i := range p.works {
		if w := &p.works[i]; w.once == "" && w.key == "" && w.script.way == quick {
			w.topic = jobs
		}
	}
}

// addOnce adds clients that send the same request several times, some of them
// with another body.
func (p *plan) addOnce(d dice, span time.Duration) {
	for k := range d.IntN(6) {
		bodies := 1 + d.weighted(3, 1)
		works := make([]work, bodies)
		for i := range works {
			works[i] = p.work(d, false)
			works[i].once, works[i].topic, works[i].ttl = "once"+strconv.Itoa(k), orders, longTTL
			p.works[works[i].n] = works[i]
		}
		begin := d.between(0, span)
		for i := range 2 + d.IntN(3) {
			w := works[0]
			if i > 0 {
				w = works[d.IntN(bodies)]
			}
			near := d.between(0, []time.Duration{10 * time.Millisecond, time.Second, 15 * time.Second}[d.IntN(3)])
			s := p.send(d, w, begin+near)
			s.cancels = 0
			again := []send{s}
			for range d.IntN(3) { // the client repeats what it has had no good answer to, or all the same
				s.pause = d.between(0, 3*time.Second)
				again = append(again, s)
			}
			p.senders = append(p.senders, again)
		}
	}
}

// work draws a work.
func (p *plan) work(d dice, long bool) work {
	w := work{n: len(p.works), topic: orders, ttl: longTTL}
	if d.in(15) {
		w.ttl = d.between(2*time.Second, 20*time.Second)
	}
	s := &w.script
	s.way = way(d.weighted(8, 5, 4, 1, 1, 1, 1, 1))
	s.work = d.between(0, 50*time.Millisecond)
	if d.in(3) {
		s.work = d.between(time.Second, 6*time.Second)
	}
	s.parts = 1
	switch s.way {
	case parts, aborted:
		s.parts = 2 + d.IntN(6)
		s.work /= 2
	case failing:
		s.fails = 1 + d.IntN(2)
		if d.in(5) {
			s.fails = never
		}
		s.code = []int{500, 502, 503, 429, 409}[d.IntN(5)]
		if d.in(3) {
			s.retryAfter = 1 + d.IntN(10)
		}
	case broken, hanging:
		s.fails = 1
		if long { // it would hang for as long as all the rest takes
			s.way = broken
		}
	case deaf:
		s.fails, s.work = 1, d.between(5*time.Second, 40*time.Second)
	}
	if long && d.in(3) && s.way <= parts {
		s.work = time.Minute
		if s.way == parts {
			s.parts = 12
			s.work = 5 * time.Second
		}
	}
	p.works = append(p.works, w)
	return w
}

func (p *plan) send(d dice, w work, pause time.Duration) send {
	p.works[w.n] = w
	s := send{work: w.n, pause: pause, readers: 1 + d.weighted(3, 1)}
	if d.in(12) {
		s.leaves = d.between(0, 300*time.Millisecond)
	}
	if d.in(12) {
		s.cancels = d.between(time.Millisecond, 4*time.Second)
	}
	return s
}

// addFaults draws what happens to the world.
func (p *plan) addFaults(d dice, long bool, span time.Duration) {
	n := d.IntN(12)
	if long {
		span += time.Minute
	}
	weights := [kinds]int{
		kills: 6, freezes: 4, stops: 4, joins: 4, reloads: 2, unroutes: 1, resets: 4, cutOffs: 3, stalls: 3, delays: 2, loses: 4,
		brokerResets: 2, brokerDowns: 3, brokerStalls: 2, leaderMoves: 4, coordinatorMoves: 3, lateProduces: 3,
		produceErrors: 3, commitErrors: 2, heartbeatErrors: 2, fetchErrors: 2,
	}
	if d.in(8) {
		n = 0 // a day on which nothing happens
	}
	// Some days have one kind of trouble only, and more of it.
	if d.in(4) {
		only := kind(d.weighted(weights[:]...))
		also := kind(d.weighted(weights[:]...))
		weights = [kinds]int{}
		weights[only], weights[also] = 1, 1
	}
	for range n {
		f := fault{
			after: d.between(0, 2*span/time.Duration(n)), kind: kind(d.weighted(weights[:]...)), pick: d.Uint32(), also: d.Uint32(),
			lasts: d.between(100*time.Millisecond, 5*time.Second), n: 1 + d.IntN(4),
		}
		if d.in(3) {
			f.lasts = d.between(5*time.Second, 25*time.Second)
		}
		p.faults = append(p.faults, f)
	}
}
