package hub

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

func topicOf(id byte, partitions int) broker.Topic {
	return broker.Topic{Name: gatewayTopic, ID: broker.TopicID{0: id}, Leaders: make([]int32, partitions)}
}

func TestObserve(t *testing.T) {
	const mine, other = 1 << 24, 2 << 24 // incarnations of topicOf(1, …) and topicOf(2, …)
	for name, c := range map[string]struct {
		incarnation uint32
		partition   int32
		at          int64
		want        []int64
		look        bool
	}{
		"first of a partition":         {mine, 0, 5, []int64{5, 10, unknownFloor}, false},
		"higher":                       {mine, 1, 11, []int64{unknownFloor, 11, unknownFloor}, false},
		"lower, after a truncation":    {mine, 1, 9, []int64{unknownFloor, 9, unknownFloor}, false},
		"empty partition":              {mine, 0, 0, []int64{0, 10, unknownFloor}, false},
		"answer was an error":          {mine, 1, -1, []int64{unknownFloor, 10, unknownFloor}, false},
		"no such partition":            {mine, -1, 7, []int64{unknownFloor, 10, unknownFloor}, false},
		"another incarnation":          {other, 1, 11, []int64{unknownFloor, 10, unknownFloor}, true},
		"of a partition not known yet": {mine, 3, 11, []int64{unknownFloor, 10, unknownFloor}, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gateway{floors: newFloors(floorsConfig{})}
			g.floors.adopt(topicOf(1, 3))
			g.floors.observe(mine, 1, 10)
			g.floors.observe(c.incarnation, c.partition, c.at)
			wantKnown(t, g, c.want...)
			if look := len(g.floors.look) > 0; look != c.look {
				t.Fatalf("asked for a look: %v, want %v", look, c.look)
			}
		})
	}
	t.Run("before the topic was found", func(t *testing.T) {
		f := newFloors(floorsConfig{})
		f.observe(mine, 0, 5)
		if f.current() != nil {
			t.Fatal("a floor without a topic")
		}
	})
}

func TestAdopt(t *testing.T) {
	noID := broker.Topic{Name: gatewayTopic, Leaders: make([]int32, 3)}
	for name, c := range map[string]struct {
		before, after broker.Topic
		recreated     bool
		want          []int64
	}{
		"the same":                {topicOf(1, 3), topicOf(1, 3), false, []int64{10, 11, 12}},
		"grown":                   {topicOf(1, 3), topicOf(1, 5), false, []int64{10, 11, 12, unknownFloor, unknownFloor}},
		"recreated":               {topicOf(1, 3), topicOf(2, 3), true, []int64{unknownFloor, unknownFloor, unknownFloor}},
		"recreated and larger":    {topicOf(1, 3), topicOf(2, 4), true, []int64{unknownFloor, unknownFloor, unknownFloor, unknownFloor}},
		"smaller, no id to tell":  {noID, broker.Topic{Name: gatewayTopic, Leaders: make([]int32, 2)}, true, []int64{unknownFloor, unknownFloor}},
		"the same, no id to tell": {noID, noID, false, []int64{10, 11, 12}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gateway{floors: newFloors(floorsConfig{})}
			s, recreated := g.floors.adopt(c.before)
			if recreated {
				t.Fatal("the first topic was taken for a recreated one")
			}
			for p := range int32(3) {
				g.floors.observe(s.incarnation, p, int64(10+p))
			}
			if _, recreated := g.floors.adopt(c.after); recreated != c.recreated {
				t.Fatalf("recreated %v, want %v", recreated, c.recreated)
			}
			wantKnown(t, g, c.want...)
		})
	}
}

// A topic that was gone has no floors, whether it comes back as another one or,
// a broker having been mistaken, as the one that it was.
func TestAdoptWhatWasGone(t *testing.T) {
	noID := broker.Topic{Name: gatewayTopic, Leaders: make([]int32, 2)}
	for name, c := range map[string]struct {
		before, after broker.Topic
		recreated     bool
	}{
		"recreated":              {topicOf(1, 2), topicOf(2, 2), true},
		"the same":               {topicOf(1, 2), topicOf(1, 2), false},
		"recreated, no id tells": {noID, noID, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gateway{floors: newFloors(floorsConfig{})}
			s, _ := g.floors.adopt(c.before)
			g.floors.observe(s.incarnation, 0, 10)
			g.floors.drop()
			wantKnown(t, g)
			g.floors.observe(s.incarnation, 0, 11) // a late answer
			wantKnown(t, g)
			if _, recreated := g.floors.adopt(c.after); recreated != c.recreated {
				t.Fatalf("recreated %v, want %v", recreated, c.recreated)
			}
			wantKnown(t, g, unknownFloor, unknownFloor)
		})
	}
}

func TestFloors(t *testing.T) {
	bubble(t, "stand before anything was produced, and follow", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(3, gatewayTopic))
		g := c.start(false)
		pass(time.Second)
		wantKnown(t, g, 0, 0, 0)
		c.produce(g.client, 1, 7)
		pass(floorInterval)
		wantKnown(t, g, 0, 7, 0)
	})

	bubble(t, "are of the new life after the topic was recreated", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		g := c.start(false)
		c.produce(g.client, 0, 7)
		pass(floorInterval + time.Second)
		wantKnown(t, g, 7, 0)
		before := g.floors.current().incarnation

		c.recreate(3)
		g.floors.lookNow()
		pass(floorSettle / 2)
		wantKnown(t, g, unknownFloor, unknownFloor, unknownFloor)
		if g.floors.current().incarnation == before {
			t.Fatal("the incarnation is still the old one")
		}
		pass(floorSettle)
		wantKnown(t, g, 0, 0, 0)
	})

	bubble(t, "of new partitions join the old ones", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		g := c.start(false)
		c.produce(g.client, 0, 7)
		pass(floorInterval + time.Second)
		c.grow(g.client, 4)
		pass(2 * time.Second) // the producer has to hear of it too
		c.produce(g.client, 3, 2)
		pass(floorInterval + time.Second)
		wantKnown(t, g, 7, 0, 0, 2)
	})

	bubble(t, "stay through an outage and move on after it", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		g := c.start(false)
		c.produce(g.client, 0, 7)
		pass(floorInterval + time.Second)
		c.goDown()
		pass(time.Minute)
		wantKnown(t, g, 7, 0)
		if g.floors.err() == nil {
			t.Fatal("no error after a minute without a broker")
		}
		c.comeUp()
		pass(2*backoff.Most + floorInterval)
		if err := g.floors.err(); err != nil {
			t.Fatal(err)
		}
		c.produce(g.client, 0, 1)
		pass(floorInterval + time.Second)
		wantKnown(t, g, 8, 0)
		for _, message := range []string{"reply topic out of reach", "reply topic within reach again"} {
			n := g.logs.Filter(func(e observer.LoggedEntry) bool { return e.Message == message && e.Level > zap.DebugLevel }).Len()
			if n != 1 {
				t.Fatalf("%q was logged %d times for one outage", message, n)
			}
		}
	})

	bubble(t, "come when the broker does", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(1, gatewayTopic))
		c.goDown()
		g := c.start(false)
		pass(time.Minute)
		wantKnown(t, g)
		c.comeUp()
		pass(2 * backoff.Most)
		wantKnown(t, g, 0)
	})

	bubble(t, "make the topic where they may", func(t *testing.T) {
		c := newGatewayCluster(t)
		g := c.start(true)
		pass(time.Second)
		wantKnown(t, g, 0, 0, 0, 0)
		if err := c.DeleteTopic(gatewayTopic); err != nil {
			t.Fatal(err)
		}
		pass(floorInterval + 2*floorSettle)
		wantKnown(t, g, 0, 0, 0, 0)
	})

	bubble(t, "wait for the topic where they may not make it", func(t *testing.T) {
		c := newGatewayCluster(t)
		g := c.start(false)
		pass(time.Minute)
		wantKnown(t, g)
		if err := g.floors.err(); err == nil || !strings.Contains(err.Error(), "create it") {
			t.Fatalf("error %v does not say what to do", err)
		}
		if c.TopicInfo(gatewayTopic) != nil {
			t.Fatal("the topic was made all the same")
		}
		if err := c.CreateTopic(gatewayTopic, 2, nil); err != nil {
			t.Fatal(err)
		}
		pass(2 * backoff.Most)
		wantKnown(t, g, 0, 0)
	})

	bubble(t, "go with the topic and come back with the next", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		g := c.start(false)
		c.produce(g.client, 0, 7)
		pass(floorInterval + time.Second)
		wantKnown(t, g, 7, 0)
		before := g.floors.current().incarnation
		if err := c.DeleteTopic(gatewayTopic); err != nil {
			t.Fatal(err)
		}
		pass(floorInterval)
		wantKnown(t, g)
		if now := g.floors.current().incarnation; now != before {
			t.Fatalf("incarnation %x is forgotten for %x", before, now)
		}
		pass(time.Minute)
		if err := c.CreateTopic(gatewayTopic, 3, nil); err != nil {
			t.Fatal(err)
		}
		for waited := time.Duration(0); len(g.known()) == 0 && waited < 2*backoff.Most; waited += floorSettle / 4 {
			pass(floorSettle / 4)
		}
		wantKnown(t, g, unknownFloor, unknownFloor, unknownFloor) // another topic, which was noticed
		pass(floorSettle)
		wantKnown(t, g, 0, 0, 0)
	})

	bubble(t, "of one partition fail alone", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(3, gatewayTopic))
		fault := c.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.ListOffsets}, Partitions: []int32{1}, Err: kerr.NotLeaderForPartition, Count: -1,
		})
		g := c.start(false)
		pass(time.Second)
		wantKnown(t, g, 0, unknownFloor, 0)
		fault.Remove()
		pass(2 * backoff.Most)
		wantKnown(t, g, 0, 0, 0)
	})
}

// A tail that knows more than the floors asks for a look with every answer it
// gets. That must not become a question to the brokers for each of them.
func TestFloorsAskInPeace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(1, gatewayTopic))
		asked := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Count: -1, Observe: true})
		g := c.start(false)
		pass(time.Second)
		before := asked.Hits()
		for range 1000 {
			g.floors.lookNow()
			pass(time.Millisecond)
		}
		if n := asked.Hits() - before; n < 1 || n > 12 {
			t.Fatalf("%d rounds in a second", n)
		}
	})
}

func TestFloorsWakeThoseWhoWait(t *testing.T) {
	f := newFloors(floorsConfig{})
	s, _ := f.adopt(topicOf(1, 2))
	news := f.next()
	f.observe(s.incarnation, 0, 5)
	select {
	case <-news:
	default:
		t.Fatal("a first floor woke nobody")
	}
	news = f.next()
	f.observe(s.incarnation, 0, 6)
	select {
	case <-news:
		t.Fatal("every answer wakes those who wait")
	default:
	}
	if got := []int64{s.offsets[0].Load(), s.offsets[1].Load()}; !slices.Equal(got, []int64{6, unknownFloor}) {
		t.Fatal(got)
	}
}
