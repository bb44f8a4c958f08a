package embedded

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const crashRetention = 30 * time.Minute

// crashWorld is a broker that lives and crashes, again and again.
type crashWorld struct {
	t         *testing.T
	rng       *rand.Rand
	directory string // of the lock; all else is on the disk in memory

	network *kfake.VirtualNetwork
	disk    *crashDisk
	broker  *Broker
	client  *kgo.Client

	base    *expected // at the beginning of this life
	unclear any       // what was not answered before it
	now     *expected
	steps   []step
	values  int

	starts, points, lives int
}

// start starts a broker on a disk.
func (w *crashWorld) start(d *crashDisk) (*Broker, *kgo.Client, error) {
	w.starts++
	w.network = &kfake.VirtualNetwork{}
	b, err := Open(Config{
		Directory: w.directory, Listen: "localhost:9092", Retention: crashRetention,
		disk: d, listen: w.network.Listen, dial: w.network.DialContext,
		kfake: []kfake.Opt{onDisk(d), kfake.BrokerConfigs(map[string]string{"log.segment.bytes": "6000", "state.log.compact.bytes": "3000"})},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("the broker does not start: %w", err)
	}
	synctest.Wait() // for the janitor, who begins at once
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Address()), kgo.Dialer(w.network.DialContext), kgo.RequestRetries(0))
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	return b, client, nil
}

func (w *crashWorld) with(client *kgo.Client) crashClient {
	return crashClient{w.t.Context(), client}
}

// do does a step of this life.
func (w *crashWorld) do(what func(c crashClient) (any, error)) {
	w.t.Helper()
	s := step{first: w.disk.count()}
	var err error
	if s.what, err = what(w.with(w.client)); err != nil {
		w.t.Fatal(err)
	}
	s.last = w.disk.count()
	w.steps = append(w.steps, s)
	w.now.add(s.what)
}

// anywhere is any partition that there is.
func (w *crashWorld) anywhere() tp {
	var all []tp
	for name, t := range w.now.topics {
		for p := range t.partitions {
			all = append(all, tp{name, p})
		}
	}
	slices.SortFunc(all, func(a, b tp) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return all[w.rng.IntN(len(all))]
}

// batch is one to three new records.
func (w *crashWorld) batch(p producer) batchSent {
	b := batchSent{sent: sent{tp: w.anywhere(), producer: p}, at: time.Now()}
	b.sequence = w.now.sequences[ofProducer{p.id, b.tp}]
	for range 1 + w.rng.IntN(3) {
		w.values++
		b.values = append(b.values, fmt.Sprint(w.values, " ", strings.Repeat("x", w.rng.IntN(4)*w.rng.IntN(400))))
	}
	return b
}

// anything does any step.
func (w *crashWorld) anything() {
	switch n := w.rng.IntN(100); {
	case len(w.now.topics) < 2 || n < 3 && len(w.now.topics) < 5:
		t := topicMade{name: fmt.Sprint("topic-", w.rng.IntN(6)), partitions: 1 + int32(w.rng.IntN(2))}
		if _, there := w.now.topics[t.name]; !there {
			w.do(func(c crashClient) (any, error) { return t, t.make(c) })
		}
	case n < 5:
		at := w.anywhere()
		g := topicGrown{at.topic, w.now.topics[at.topic].partitions + 1}
		if g.partitions <= 4 {
			w.do(func(c crashClient) (any, error) { return g, c.growTopic(g.name, g.partitions) })
		}
	case n < 7 && w.now.open == nil:
		d := topicDeleted{w.anywhere().topic}
		w.do(func(c crashClient) (any, error) { return d, c.deleteTopic(d.name) })
	case n < 12 || len(w.now.producers) == 0:
		w.do(func(c crashClient) (any, error) {
			p, err := c.initProducer("")
			return producerMade{p, false}, err
		})
	case n < 15:
		w.do(func(crashClient) (any, error) { return restarted{}, w.restart() })
	case n < 18:
		w.do(func(crashClient) (any, error) {
			<-time.After(time.Duration(1+w.rng.IntN(20)) * time.Minute)
			synctest.Wait()
			return timePassed{}, nil
		})
	case n < 40:
		at := w.anywhere()
		p := positionTaken{at, position{w.rng.Int64N(1000), fmt.Sprint(w.rng.Uint64(), strings.Repeat("m", w.rng.IntN(300)))}}
		w.do(func(c crashClient) (any, error) { return p, c.commit(p.tp, p.position) })
	case n < 58:
		w.transaction()
	default:
		b := w.batch(w.now.producers[w.rng.IntN(len(w.now.producers))])
		w.do(func(c crashClient) (any, error) { return b.send(c) })
	}
}

// transaction takes the one transactional producer a step further.
func (w *crashWorld) transaction() {
	switch {
	case w.now.transactional == nil:
		w.do(func(c crashClient) (any, error) {
			p, err := c.initProducer(transactionalID)
			return producerMade{p, true}, err
		})
	case w.now.open != nil && w.rng.IntN(2) == 0:
		end := transactionEnded{commit: w.rng.IntN(3) > 0}
		w.do(func(c crashClient) (_ any, err error) {
			end.producer, err = c.endTransaction(*w.now.transactional, end.commit)
			return end, err
		})
	default:
		b := w.batch(*w.now.transactional)
		b.transactional = true
		if w.now.open != nil {
			b.tp = w.now.open[0].tp // an end is written to one partition after the other
			b.sequence = w.now.sequences[ofProducer{b.id, b.tp}]
		}
		w.do(func(c crashClient) (any, error) { return b.send(c) })
	}
}

// send sends a batch and returns it with its offset.
func (b batchSent) send(c crashClient) (batchSent, error) {
	var err error
	if b.offset, err = c.produce(b.sent); err != nil {
		return b, fmt.Errorf("send to %v: %w", b.tp, err)
	}
	return b, nil
}

// make makes a topic and notes its id.
func (t *topicMade) make(c crashClient) error {
	if err := c.createTopic(t.name, t.partitions); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	topics, err := c.topics()
	t.id = topics[t.name].TopicID
	return err
}

// restart stops the broker in good order and starts it again.
func (w *crashWorld) restart() (err error) {
	w.client.Close()
	if err := w.broker.Close(); err != nil {
		return err
	}
	w.broker, w.client, err = w.start(w.disk)
	return err
}

// at gives what the broker has to hold after a crash at a moment of this life,
// and what was not answered then.
func (w *crashWorld) at(moment int, torn bool) (*expected, any) {
	e, unclear := w.base.clone(), w.unclear
	for _, s := range w.steps {
		if s.last <= moment {
			e.add(s.what)
			if _, ok := s.what.(recovered); ok {
				unclear = nil
			}
			continue
		}
		switch s.what.(type) {
		case restarted, timePassed, recovered:
		default:
			if s.first < moment || torn {
				unclear = s.what
			}
		}
		break
	}
	return e, unclear
}

// settle makes clear what was not answered, as clients do: they send it again,
// or look. And what they have an answer for but did not read is sent again.
func (e *expected) settle(c crashClient, unclear any) error {
	opened := e.open
	e.transactional = nil
	switch s := unclear.(type) {
	case topicMade:
		if err := s.make(c); err != nil {
			return err
		}
		e.add(s)
	case topicGrown:
		if err := c.growTopic(s.name, s.partitions); err != nil && !errors.Is(err, kerr.InvalidPartitions) {
			return err
		}
		e.add(s)
	case topicDeleted:
		if err := c.deleteTopic(s.name); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		e.add(s)
		again := topicMade{name: s.name, partitions: 2}
		if err := again.make(c); err != nil {
			return err
		}
		e.add(again)
		if err := e.check(c, nil); err != nil { // it has nothing of the one before
			return fmt.Errorf("made again: %w", err)
		}
	case positionTaken:
		if err := c.commit(s.tp, s.position); err != nil {
			return err
		}
		e.add(s)
	case batchSent:
		if s.transactional { // aborted, like what was sent before it
			all, err := c.read(s.tp, e.topics[s.topic].id)
			if err != nil {
				return err
			}
			for offset, value := range all.records {
				if value == s.values[0] {
					s.offset = offset
					e.add(s)
				}
			}
			break
		}
		sent, err := s.send(c)
		if err != nil {
			return fmt.Errorf("again: %w", err)
		}
		e.add(sent)
	case transactionEnded:
		if s.commit && len(opened) > 0 {
			all, err := c.read(opened[0].tp, e.topics[opened[0].topic].id)
			if err != nil {
				return err
			}
			_, seen := all.visible[opened[0].offset]
			e.end(seen)
		}
	}
	if _, ending := unclear.(transactionEnded); len(opened) > 0 && !ending {
		b := opened[0]
		b.sequence = e.sequences[ofProducer{b.id, b.tp}]
		if _, err := c.produce(b.sent); err == nil {
			return fmt.Errorf("half of a transaction goes on after the crash, in %v", b.tp)
		}
	}
	e.end(false)
	for at, b := range e.last {
		if time.Since(b.at) >= crashRetention {
			continue // nobody can know it if its records are deleted
		}
		again, err := b.send(c)
		if err != nil || again.offset != b.offset {
			return fmt.Errorf("a batch sent again to %v got offset %d, and first %d: %w", at, again.offset, b.offset, err)
		}
	}
	return nil
}

// crash looks at what a crash leaves, and whether the broker goes on from there
// and survives another crash.
func (w *crashWorld) crash(left *crashDisk, want *expected, unclear any) error {
	b, client, err := w.start(left)
	if err != nil {
		return err
	}
	c := w.with(client)
	err = want.check(c, unclear)
	if err == nil {
		err = want.settle(c, unclear)
	}
	for _, name := range slices.Sorted(maps.Keys(want.topics)) {
		for p := range want.topics[name].partitions {
			w.values++
			s := batchSent{sent: sent{tp: tp{name, p}, producer: producer{-1, -1}, sequence: -1, values: []string{fmt.Sprint(w.values)}}, at: time.Now()}
			taken := positionTaken{s.tp, position{w.rng.Int64N(1000), "after"}}
			if err == nil {
				s, err = s.send(c)
				want.add(s)
			}
			if err == nil {
				err = c.commit(taken.tp, taken.position)
				want.add(taken)
			}
		}
	}
	client.Close()
	again := left.killed(left.count(), 0)
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	if b, client, err = w.start(again); err != nil {
		return fmt.Errorf("after the second crash: %w", err)
	}
	if err = want.check(w.with(client), nil); err != nil {
		err = fmt.Errorf("after the second crash: %w", err)
	}
	client.Close()
	return errors.Join(err, b.Close())
}

// leave gives what a crash at a moment of this life leaves.
func (w *crashWorld) leave(moment int, way string) (*crashDisk, bool) {
	switch way {
	case "killed in the middle of a write":
		torn := 1 + w.rng.IntN(64)
		if w.rng.IntN(2) == 0 {
			torn = 1 + w.rng.IntN(2000)
		}
		d := w.disk.killed(moment, torn)
		return d, d.count() > moment
	case "without power":
		return w.disk.powerless(moment, false, w.rng), false
	case "without power, names in any order":
		return w.disk.powerless(moment, true, w.rng), false
	}
	return w.disk.killed(moment, 0), false
}

var ways = []string{"killed", "killed in the middle of a write", "without power", "without power, names in any order"}

// live works for a while, looks at crashes at some moments of it, and then has
// one of them be the truth.
func (w *crashWorld) live(steps, points int) error {
	w.lives++
	from := w.disk.before
	if len(w.steps) > 0 {
		from = w.steps[0].first
	}
	for range steps {
		w.anything()
	}
	w.client.Close()
	until := w.disk.count()
	last := w.disk
	w.disk = last.killed(until, 0) // what is done from here on is not remembered
	if err := w.broker.Close(); err != nil {
		return err
	}
	for range points {
		w.points++
		moment, way := from+w.rng.IntN(until-from+1), ways[w.rng.IntN(len(ways))]
		left, torn := w.leave(moment, way)
		want, unclear := w.at(moment, torn)
		if err := w.crash(left, want, unclear); err != nil {
			return fmt.Errorf("life %d, %s after %s, with %.200s not answered: %w", w.lives, way, w.disk.tell(moment), fmt.Sprintf("%T%+v", unclear, unclear), err)
		}
	}
	moment, way := from+w.rng.IntN(until-from+1), ways[w.rng.IntN(len(ways))]
	left, torn := w.leave(moment, way)
	w.base, w.unclear = w.at(moment, torn)
	return w.begin(left, fmt.Sprintf("life %d, %s after %s, with %.200s not answered", w.lives, way, w.disk.tell(moment), fmt.Sprintf("%T%+v", w.unclear, w.unclear)))
}

// begin begins a life on what was left.
func (w *crashWorld) begin(d *crashDisk, after string) (err error) {
	w.disk, w.now = d, w.base.clone()
	s := step{first: d.count()}
	if w.broker, w.client, err = w.start(d); err == nil {
		err = w.now.check(w.with(w.client), w.unclear)
	}
	if err == nil {
		err = w.now.settle(w.with(w.client), w.unclear)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", after, err)
	}
	s.last, s.what = d.count(), recovered{w.now.clone()}
	w.steps = []step{s}
	return nil
}

// tell describes a moment.
func (d *crashDisk) tell(moment int) string {
	n := moment - d.before
	if n == 0 {
		return "nothing"
	}
	c := d.done[n-1]
	return fmt.Sprintf("change %d (%s %s %s)", moment, c.what, c.name, c.to)
}

// run is a whole run of a seed.
func crashRun(t *testing.T, seed uint64, lives, steps, points int) (w *crashWorld) {
	w = &crashWorld{t: t, rng: rand.New(rand.NewPCG(seed, 0)), directory: t.TempDir(), base: nothing()}
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		defer func() {
			if w.broker != nil {
				w.client.Close()
				if err := w.broker.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
		err := w.begin(newCrashDisk(), "the first start")
		for range lives {
			if err == nil {
				err = w.live(steps, points)
			}
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	})
	return w
}

// The broker crashes, at any write, and again while it recovers. Whatever was
// acknowledged is there after it. OSMOSIS_CRASH_SEEDS says how many runs to do,
// or, as from-to, which.
func TestCrashAtAnyWrite(t *testing.T) {
	TestKfakesDiskIsThisOne(t)
	from, to := uint64(1), uint64(4)
	if text := os.Getenv("OSMOSIS_CRASH_SEEDS"); text != "" {
		first, last, ranged := strings.Cut(text, "-")
		if !ranged {
			first, last = "1", text
		}
		var err1, err2 error
		from, err1 = strconv.ParseUint(first, 10, 64)
		to, err2 = strconv.ParseUint(last, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("OSMOSIS_CRASH_SEEDS=%q: write a number or from-to: %v", text, err)
		}
	}
	var starts, points, lives int
	for seed := from; seed <= to; seed++ {
		w := crashRun(t, seed, 6, 40, 12)
		starts, points, lives = starts+w.starts, points+w.points, lives+w.lives
	}
	t.Logf("%d seeds: %d lives, %d crashes looked at, %d starts", to-from+1, lives, points, starts)
}
