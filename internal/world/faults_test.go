package world

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
)

// maxGateways bounds those that run at once.
const maxGateways = 5

// befall does to the world what the plan says, and returns when all of it is over.
func (w *world) befall() {
	var lasting sync.WaitGroup
	for _, f := range w.plan.faults {
		if !w.sleep(f.after) {
			break
		}
		lasting.Go(func() { w.fault(f) })
	}
	lasting.Wait()
	w.history.note("no more faults")
}

// countFaults counts those that came.
func (w *world) countFaults() (n [kinds]int) {
	for _, h := range w.history.harms {
		n[h.kind]++
	}
	return n
}

// harm does something to a gateway until it is over.
func (w *world) harm(k kind, g *gateway, lasts time.Duration, begin func() (over func())) {
	mended := w.history.hurt(k, g)
	whom := "all"
	if g != nil {
		whom = g.name
	}
	w.history.note("%s: %s for %v", whom, k, lasts)
	over := begin()
	w.sleep(lasts)
	over()
	mended()
	w.history.note("%s: %s is over", whom, k)
}

// fault carries out one.
func (w *world) fault(f fault) {
	random := rand.New(rand.NewPCG(w.plan.seed, uint64(f.also)<<32+uint64(f.pick)))
	node := int(f.pick) % w.plan.brokers
	switch f.kind {
	case kills, stops:
		g := w.take(f.pick, 0)
		if g == nil {
			return
		}
		over := w.history.hurt(f.kind, g)
		w.history.note("%s: %s", g.name, f.kind)
		if f.kind == kills {
			g.kill()
		} else {
			g.stop()
			w.history.note("%s: has stopped", g.name)
		}
		over()
		if f.also%4 > 0 { // mostly another takes its place
			w.sleep(f.lasts)
			w.start()
		}
		return
	case joins:
		w.mu.Lock()
		full := len(w.gateways) >= maxGateways
		w.mu.Unlock()
		if !full {
			over := w.history.hurt(joins, w.start())
			over()
		}
		return
	case leaderMoves, coordinatorMoves, lateProduces, produceErrors, commitErrors, heartbeatErrors, fetchErrors:
		w.brokerFault(random, f)
		return
	case brokerResets, brokerDowns, brokerStalls:
		w.harm(f.kind, nil, f.lasts, func() func() {
			if f.kind == brokerStalls {
				return w.wires.stalled[node].close()
			}
			if f.kind == brokerDowns {
				w.wires.setDown(node, 1)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, g := range w.gateways {
				g.net.reset(node)
			}
			return func() {
				if f.kind == brokerDowns {
					w.wires.setDown(node, -1)
				}
			}
		})
		return
	}
	g := w.anyGateway(random)
	if g == nil {
		return
	}
	switch f.kind {
	case freezes:
		w.harm(f.kind, g, f.lasts, g.net.frozen.close)
	case cutOffs:
		w.harm(f.kind, g, f.lasts, g.net.cutOff)
	case stalls:
		w.harm(f.kind, g, f.lasts, g.net.stall.close)
	case resets:
		w.harm(f.kind, g, 0, func() func() { g.net.reset(-1); return func() {} })
	case loses:
		w.harm(f.kind, g, f.lasts, func() func() { g.net.lose(f.n); return func() {} })
	case delays:
		slow := time.Duration(f.also%200) * time.Millisecond
		w.harm(f.kind, g, f.lasts, func() func() { g.net.delay(slow); return func() { g.net.delay(-slow) } })
	case reloads:
		w.harm(f.kind, g, 0, func() func() {
			o := w.plan.options
			o.Attempts, o.Concurrency = 2+random.IntN(4), 1+random.IntN(16)
			o.BackoffMin = time.Duration(100+random.IntN(1000)) * time.Millisecond
			g.reload(o, random.IntN(3)*4)
			return func() {}
		})
	case unroutes:
		// As another fault may end the process meanwhile, the harm is noted first.
		w.harm(f.kind, g, f.lasts, func() func() {
			g.unroute()
			return func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, here := range w.gateways {
					if here == g {
						g.route()
					}
				}
			}
		})
	}
}

// brokerFault does something to the brokers.
func (w *world) brokerFault(random *rand.Rand, f fault) {
	over := w.history.hurt(f.kind, nil)
	w.history.note("all: %s ×%d for %v", f.kind, f.n, f.lasts)
	topics := []string{orders, replyTopic, claims.Topic, controlTopic, orders + ".dlq"}
	switch f.kind {
	case leaderMoves:
		for range f.n {
			topic := topics[random.IntN(len(topics))]
			_ = w.cluster.MoveTopicPartition(topic, random.Int32N(w.topics()[topic]), random.Int32N(int32(w.plan.brokers))) // both are there
		}
	case coordinatorMoves:
		w.cluster.RehashCoordinators()
	case lateProduces:
		if f.also%2 == 0 {
			w.lateProduces(f.n, w.plan.produceTimeout/2+f.lasts)
		} else {
			w.holdProduces(f.lasts)
		}
	case produceErrors:
		w.refuse(random, kmsg.Produce, f, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut,
			kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.KafkaStorageError)
	case commitErrors:
		w.refuse(random, kmsg.OffsetCommit, f, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.RequestTimedOut, kerr.NotCoordinator)
	case heartbeatErrors:
		w.refuse(random, kmsg.Heartbeat, f, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator)
	case fetchErrors:
		w.refuse(random, kmsg.Fetch, f, kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.KafkaStorageError, kerr.UnknownServerError)
	}
	w.sleep(f.lasts)
	over()
}

// refuse has a broker answer some requests with one of the errors.
func (w *world) refuse(random *rand.Rand, key kmsg.Key, f fault, errs ...*kerr.Error) {
	err := errs[random.IntN(len(errs))]
	w.history.note("the next %d of %s get %s", f.n, key.Name(), err.Message)
	h := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: err, Count: f.n})
	w.background.Go(func() {
		w.sleep(f.lasts)
		h.Remove()
	})
}

// holding says which produce requests the broker holds: it does the next n of them
// late, and none before a time.
type holding struct {
	mu    sync.Mutex
	n     int
	late  time.Duration
	until time.Time
}

// next gives how long the broker holds the request that comes now.
func (h *holding) next() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := time.Until(h.until)
	if h.n > 0 {
		h.n--
		d = max(d, h.late)
	}
	return d
}

// lateProduces has the broker hold the next produce requests, and do them later.
func (w *world) lateProduces(n int, late time.Duration) {
	w.holding.mu.Lock()
	defer w.holding.mu.Unlock()
	w.holding.n, w.holding.late = w.holding.n+n, late
}

// holdProduces has the broker hold all produce requests for a while, and do all of them then.
func (w *world) holdProduces(d time.Duration) {
	w.holding.mu.Lock()
	defer w.holding.mu.Unlock()
	w.holding.until = time.Now().Add(d)
}

// hold has the broker hold requests as w.holding says. It is one control for all
// faults, since kfake has a data race where two of them hold the same request.
func (w *world) hold() {
	w.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		if d := w.holding.next(); d > 0 {
			w.cluster.SleepControl(func() { w.sleep(d) })
		}
		return nil, nil, false
	})
}
