package embedded

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// virtual is a broker in virtual time, on a disk in memory.
type virtual struct {
	t       *testing.T
	config  Config
	network *kfake.VirtualNetwork
	*Broker
	client *kgo.Client
	admin  *kadm.Client
}

const segmentBytes = 10_000

// inVirtualTime runs a test with a broker that keeps records for a day.
func inVirtualTime(t *testing.T, maxBytes int64, test func(t *testing.T, v *virtual)) {
	TestKfakesDiskIsThisOne(t)
	directory := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newCrashDisk()
		v := &virtual{t: t, config: Config{
			Directory: directory, Listen: "localhost:9092", Retention: 24 * time.Hour, MaxBytes: maxBytes, disk: d,
			kfake: []kfake.Opt{onDisk(d), kfake.BrokerConfigs(map[string]string{"log.segment.bytes": strconv.Itoa(segmentBytes)})},
		}}
		v.start()
		defer v.stop()
		test(t, v)
	})
}

func (v *virtual) start() {
	v.t.Helper()
	v.network = &kfake.VirtualNetwork{}
	v.config.listen, v.config.dial = v.network.Listen, v.network.DialContext
	var err error
	if v.Broker, err = Open(v.config); err != nil {
		v.t.Fatal(err)
	}
	v.client, v.admin = connect(v.t, v.Broker, kgo.Dialer(v.network.DialContext))
	synctest.Wait() // for the janitor, who begins at once
}

func (v *virtual) stop() {
	v.t.Helper()
	v.client.Close()
	if err := v.Close(); err != nil {
		v.t.Error(err)
	}
}

// pass lets time pass while the broker is down, and the janitor come once.
func (v *virtual) pass(d time.Duration) {
	v.t.Helper()
	v.stop()
	<-time.After(d)
	v.start()
}

func (v *virtual) make(topic string, settings map[string]string) {
	v.t.Helper()
	configs := make(map[string]*string)
	for name, value := range settings {
		configs[name] = &value
	}
	if made, err := v.admin.CreateTopic(v.t.Context(), 1, 1, configs, topic); err != nil || made.Err != nil {
		v.t.Fatal(err, made.Err)
	}
}

// fill produces records of 1,000 bytes, a second apart.
func (v *virtual) fill(topic string, records int) {
	v.t.Helper()
	for range records {
		produce(v.t, v.client, &kgo.Record{Topic: topic, Value: make([]byte, 1000)})
		<-time.After(time.Second)
	}
}

func (v *virtual) tidy() {
	v.t.Helper()
	if err := v.janitor.tidy(v.t.Context()); err != nil {
		v.t.Fatal(err)
	}
}

func (v *virtual) count(topic string) int {
	v.t.Helper()
	start, end := bounds(v.t, v.admin, topic)
	return int(end - start)
}

func days(n int) string {
	return strconv.FormatInt((time.Duration(n) * 24 * time.Hour).Milliseconds(), 10)
}

// A topic's own retention.ms is kept, longer or shorter than the broker's, also
// after a restart and when it is changed. The newest record stays in any case.
func TestATopicKeepsItsOwnRetention(t *testing.T) {
	inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
		v.make("orders", nil)
		v.make("orders.dlq", map[string]string{"retention.ms": days(30)})
		v.make("control", map[string]string{"retention.ms": "3600000"})
		v.make("forever", map[string]string{"retention.ms": "-1"})
		v.make("endless", map[string]string{"retention.ms": strconv.FormatInt(1<<62, 10)})
		v.make("nothing", map[string]string{"retention.ms": "0"})
		topics := []string{"orders", "orders.dlq", "control", "forever", "endless", "nothing"}
		for _, topic := range topics {
			v.fill(topic, 3)
		}
		want := func(when string, counts ...int) {
			t.Helper()
			for i, topic := range topics {
				if n := v.count(topic); n != counts[i] {
					t.Errorf("%s, %s holds %d records, want %d", when, topic, n, counts[i])
				}
			}
		}
		<-time.After(2 * time.Minute)
		want("at once", 3, 3, 3, 3, 3, 1)
		v.pass(2 * time.Hour)
		want("after two hours", 3, 3, 1, 3, 3, 1)
		v.pass(23 * time.Hour)
		want("after a day", 1, 3, 1, 3, 3, 1)
		v.pass(28 * 24 * time.Hour)
		want("after four weeks", 1, 3, 1, 3, 3, 1)
		v.pass(24 * time.Hour)
		want("after a month", 1, 1, 1, 3, 3, 1)

		change := []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "retention.ms"}}
		if altered, err := v.admin.AlterTopicConfigs(t.Context(), change, "forever"); err != nil || altered[0].Err != nil {
			t.Fatal(err, altered)
		}
		v.tidy()
		want("when one is taken back", 1, 1, 1, 1, 3, 1)
	})
}

// retention.bytes bounds each partition by whole segments, and not below it.
func TestATopicKeepsItsOwnSize(t *testing.T) {
	inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
		v.make("orders", map[string]string{"retention.bytes": strconv.Itoa(3 * segmentBytes)})
		v.make("others", nil)
		v.fill("orders", 100)
		v.fill("others", 100)
		v.tidy()
		if n := v.count("others"); n != 100 {
			t.Errorf("a topic without a bound holds %d records of 100", n)
		}
		if n := v.count("orders"); n < 28 || n > 45 { // 1,075 bytes each
			t.Errorf("%d records are left, want between 3 and 4 segments of 10", n)
		}
	})
}

// When the data is over its bound, a topic that keeps its records for long, as
// dead letters are, gives up what it has over a quarter of it, but not that
// quarter, though its records are the oldest.
func TestDeadLettersAndRequestsShareTheRoom(t *testing.T) {
	const room = 400_000
	inVirtualTime(t, room, func(t *testing.T, v *virtual) {
		v.make("orders", nil)
		v.make("orders.dlq", map[string]string{"retention.ms": days(30)})
		size := func(topic string) int { return v.count(topic) * 1075 }
		v.fill("orders.dlq", 200)
		v.fill("orders", 150)
		v.tidy()
		if n := v.count("orders.dlq"); n != 200 {
			t.Errorf("with room, %d of 200 dead letters are left", n)
		}

		v.fill("orders", 100)
		v.tidy()
		if n := v.count("orders"); n != 250 {
			t.Errorf("%d of 250 requests are left, while dead letters have more than their share", n)
		}
		if n := size("orders.dlq"); n < room/longShare || n > 140_000 {
			t.Errorf("dead letters have %d bytes, want what the requests leave", n)
		}

		v.fill("orders", 300)
		v.tidy()
		if n := size("orders.dlq"); n < room/longShare-3*segmentBytes || n > room/longShare {
			t.Errorf("dead letters have %d bytes, want about a quarter of %d", n, room)
		}
		if n := size("orders"); n < room*3/4-3*segmentBytes {
			t.Errorf("requests have %d bytes, want about three quarters of %d", n, room)
		}

		// A flood of dead letters takes no room from requests.
		before := v.count("orders")
		v.fill("orders.dlq", 300)
		v.tidy()
		if n := v.count("orders"); n != before {
			t.Errorf("dead letters have pushed out %d of %d requests", before-n, before)
		}
	})
}

// Where only long-lived topics have anything to give, they do.
func TestTheBoundHoldsForLongLivedTopics(t *testing.T) {
	inVirtualTime(t, 200_000, func(t *testing.T, v *virtual) {
		v.make("orders.dlq", map[string]string{"retention.ms": days(30)})
		for p := range 4 {
			v.make("orders-"+strconv.Itoa(p), nil)
			v.fill("orders-"+strconv.Itoa(p), 40)
		}
		v.fill("orders.dlq", 40)
		for p := range 4 { // their newest segments alone are near the bound
			big := &kgo.Record{Topic: "orders-" + strconv.Itoa(p), Value: make([]byte, 48_000)}
			produce(t, v.client, big, big)
		}
		v.tidy()
		if n := v.count("orders.dlq"); n > 10 {
			t.Errorf("%d dead letters are left, and the data is over its bound", n)
		}
	})
}

func TestRetentionThatIsNoNumberIsRefused(t *testing.T) {
	inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
		v.make("orders", nil)
		for _, value := range []string{"30d", "-2", ""} {
			for _, name := range []string{"retention.ms", "retention.bytes"} {
				made, err := v.admin.CreateTopics(t.Context(), 1, 1, map[string]*string{name: &value}, "state")
				if err != nil {
					t.Fatal(err)
				}
				if got := made["state"]; got.Err != kerr.PolicyViolation || !strings.Contains(got.ErrMessage, name+"="+value+": write a whole number") { //nolint:errorlint // as it is answered
					t.Errorf("%s=%q: %v, %q", name, value, got.Err, got.ErrMessage)
				}
				change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}
				if altered, err := v.admin.AlterTopicConfigs(t.Context(), change, "orders"); err != nil || altered[0].Err == nil {
					t.Errorf("%s=%q was taken: %v, %v", name, value, altered, err)
				}
			}
		}
	})
}
