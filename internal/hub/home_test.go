package hub

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// joined is long enough for a join, and for a rebalance that waits for the next
// heartbeat of every member.
const joined = heartbeat + rebalanceTimeout

func TestHome(t *testing.T) {
	bubble(t, "is everything for a gateway alone", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(4, gatewayTopic))
		g := c.start(false)
		pass(joined)
		wantOwned(t, g, 0, 1, 2, 3)
		if g.home.config.group != "osmosis.gateways."+gatewayTopic {
			t.Fatalf("group %q does not name the reply topic", g.home.config.group)
		}
		pass(10 * time.Minute)
		if n := g.generations(); n != 1 {
			t.Fatalf("%d generations in ten quiet minutes", n)
		}
	})

	bubble(t, "is shared by two, and whole again when one leaves", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(4, gatewayTopic))
		one := c.start(false)
		pass(joined)
		two := c.start(false)
		pass(joined)
		both := slices.Concat(one.home.owned(), two.home.owned())
		slices.Sort(both)
		if len(one.home.owned()) != 2 || !slices.Equal(both, []int32{0, 1, 2, 3}) {
			t.Fatalf("shared as %v and %v", one.home.owned(), two.home.owned())
		}
		two.leave()
		pass(joined)
		wantOwned(t, one, 0, 1, 2, 3)
	})

	bubble(t, "is taken over from a gateway that died", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		one := c.start(false)
		two := c.start(false)
		pass(2 * joined)
		if len(one.home.owned()) != 1 || len(two.home.owned()) != 1 {
			t.Fatalf("shared as %v and %v", one.home.owned(), two.home.owned())
		}
		c.goDown() // for both, of whom only one comes back
		two.leave()
		c.comeUp()
		pass(sessionTimeout + joined)
		wantOwned(t, one, 0, 1)
	})

	bubble(t, "is nothing for a gateway beyond the partitions", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(1, gatewayTopic))
		one := c.start(false)
		two := c.start(false)
		pass(2 * joined)
		if n := len(one.home.owned()) + len(two.home.owned()); n != 1 {
			t.Fatalf("shared as %v and %v", one.home.owned(), two.home.owned())
		}
		for _, g := range []*gateway{one, two} {
			if at, err := g.placer.place(t.Context()); err != nil || at.Partition != 0 {
				t.Fatal(at, err)
			}
		}
	})

	bubble(t, "grows with the topic, with one rebalance", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		one := c.start(false)
		pass(joined)
		two := c.start(false)
		pass(joined)
		before := one.generations()
		c.grow(one.client, 6)
		pass(commitInterval + joined)
		both := slices.Concat(one.home.owned(), two.home.owned())
		slices.Sort(both)
		if !slices.Equal(both, []int32{0, 1, 2, 3, 4, 5}) {
			t.Fatalf("shared as %v and %v", one.home.owned(), two.home.owned())
		}
		pass(time.Minute)
		if n := one.generations() - before; n != 1 {
			t.Fatalf("%d generations for one change", n)
		}
	})

	bubble(t, "outlives the topic's recreation", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		g := c.start(false)
		pass(joined)
		c.recreate(2)
		pass(floorInterval + joined)
		wantOwned(t, g, 0, 1)
		wantKnown(t, g, 0, 0)
		c.recreate(3)
		pass(floorInterval + joined)
		wantOwned(t, g, 0, 1, 2)
	})

	bubble(t, "stays while the topic is gone", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic), kfake.AllowAutoTopicCreation())
		g := c.start(false)
		pass(joined)
		if err := c.DeleteTopic(gatewayTopic); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		wantOwned(t, g, 0, 1)
		if n := g.generations(); n != 1 {
			t.Fatalf("%d generations for a topic that is gone", n)
		}
		if c.TopicInfo(gatewayTopic) != nil {
			t.Fatal("the membership made the topic, with the broker's defaults")
		}
	})

	bubble(t, "waits for the topic", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.AllowAutoTopicCreation())
		g := c.start(false)
		pass(time.Minute)
		if c.GroupInfo(g.home.config.group) != nil || c.TopicInfo(gatewayTopic) != nil {
			t.Fatal("joined without a topic")
		}
		if err := c.CreateTopic(gatewayTopic, 2, nil); err != nil {
			t.Fatal(err)
		}
		pass(joined)
		wantOwned(t, g, 0, 1)
	})

	bubble(t, "comes when the broker does, and stays when it goes", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		c.goDown()
		g := c.start(false)
		pass(time.Minute)
		wantOwned(t, g)
		c.comeUp()
		pass(joined)
		wantOwned(t, g, 0, 1)
		c.goDown()
		pass(time.Minute)
		wantOwned(t, g, 0, 1)
		if n := g.logs.FilterMessage("consumer group out of reach").FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
			t.Fatalf("an outage was logged %d times", n)
		}
		c.comeUp()
		pass(joined)
		wantOwned(t, g, 0, 1)
		if n := g.generations(); n != 2 {
			t.Fatalf("%d generations, want one before and one after", n)
		}
	})
}

func TestPositionsAreCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(3, gatewayTopic))
		g := c.start(false)
		g.commit(map[int32]int64{0: 5, 1: 0, 7: 9}) // 7: one that is followed, but home elsewhere
		pass(joined + commitInterval)
		answer, err := g.client.API().OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{
			GroupID: g.home.config.group, Topics: map[string][]int{gatewayTopic: {0, 1, 2}},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[int]int64)
		for _, p := range answer.Topics[gatewayTopic] {
			got[p.Partition] = p.CommittedOffset
		}
		if got[0] != 5 || got[1] != 0 || got[2] != -1 {
			t.Fatalf("committed %v", got)
		}
	})
}

// Gateways that cannot open each other's tokens say so, once each time.
func TestGatewaysCompareTheirKeys(t *testing.T) {
	const message = "gateways of this group have different token keys, so each answers 404 for the streams of another: give all of them the same `token { key … }`, or a storage in common"
	names := func(secrets ...string) string {
		k, err := NewKeyring(secrets...)
		if err != nil {
			t.Fatal(err)
		}
		return k.Fingerprint()
	}
	one, other := strings.Repeat("1", minSecret), strings.Repeat("2", minSecret)
	synctest.Test(t, func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(4, gatewayTopic))
		gateways := []*gateway{c.start(false), c.start(false)}
		told := func(want int) {
			t.Helper()
			pass(joined)
			for i, g := range gateways {
				if n := g.logs.FilterMessage(message).FilterLevelExact(zap.ErrorLevel).Len(); n != want {
					t.Errorf("gateway %d has told %d times, want %d", i, n, want)
				}
			}
		}
		told(0)
		gateways[0].home.setFingerprint(names(one))
		told(0) // the other has none to compare
		gateways[1].home.setFingerprint(names(one, other))
		told(0) // a key that is being replaced
		gateways[1].home.setFingerprint(names(other))
		told(1)
		three := c.start(false)
		three.home.setFingerprint(names(one))
		told(1) // which is no news
		gateways[1].home.setFingerprint(names(one))
		told(1)
		gateways[0].home.setFingerprint(names(other))
		told(2)
	})
}

func TestOpenEachOther(t *testing.T) {
	const a, b, c = "00000001", "00000002", "00000003"
	for _, of := range []struct {
		fingerprints []string
		want         bool
	}{
		{nil, true},
		{[]string{a}, true},
		{[]string{a, a + b}, true},
		{[]string{a + b, b + a}, true},
		{[]string{a + b, b + a, a + b + c}, true},
		{[]string{a, b}, false},
		{[]string{a, b + a}, false}, // which seals with what the first does not know
		{[]string{a + b, b + c, b}, false},
		{[]string{a, "x"}, false},
	} {
		if got := openEachOther(of.fingerprints); got != of.want {
			t.Errorf("%q: %v", of.fingerprints, got)
		}
	}
}

// A broker that takes requests and answers none must not hold a gateway that
// is told to stop, wherever the membership is just then.
func TestLeavingIsBounded(t *testing.T) {
	for name, key := range map[string]kmsg.Key{
		"in a join": kmsg.JoinGroup, "in a sync": kmsg.SyncGroup,
		"in a heartbeat": kmsg.Heartbeat, "in a commit": kmsg.OffsetCommit, "in the leaving": kmsg.LeaveGroup,
		"looking for the coordinator": kmsg.FindCoordinator,
	} {
		bubble(t, name, func(t *testing.T) {
			c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
			c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				return nil, nil, true
			})
			g := c.start(false)
			g.commit(map[int32]int64{0: 1})
			pass(heartbeat + commitInterval)
			begun := time.Now()
			g.leave()
			if took := time.Since(begun); took > leaveTimeout+time.Second {
				t.Fatalf("left after %v", took)
			}
		})
	}
}
