package deliver

import (
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// diverge has the broker say once that its log is not the reader's: of the epoch
// that was read last it ends earlier, or there is none of it.
func (r *rig) diverge(less int32, end int64) {
	said := false
	r.cluster.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		asked := q.(*kmsg.FetchRequest).Topics[0]
		if said || asked.Partitions[0].LastFetchedEpoch < 0 {
			return nil, nil, false
		}
		said = true
		answer := q.ResponseKind().(*kmsg.FetchResponse)
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition = asked.Partitions[0].Partition
		p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = asked.Partitions[0].LastFetchedEpoch-less, end
		topic := kmsg.NewFetchResponseTopic()
		topic.TopicID, topic.Partitions = asked.TopicID, []kmsg.FetchResponseTopicPartition{p}
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
}

// A log that was cut off and has grown again is as long as what was done of it, so
// only its epochs tell. What is there now is delivered, and what was done is not
// done again.
func TestLogIsCutOffAndGrows(t *testing.T) {
	for name, c := range map[string]struct {
		less int32
		end  int64
		from int64
	}{
		"the broker has less of that leader's":    {0, 2, 2},
		"the broker has nothing of that leader's": {1, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, r *rig) {
				core, logs := observer.New(zap.ErrorLevel)
				var tries tally
				r.deliver(options(tries.counted), func(c *Config) { c.Logger = zap.New(core) })
				r.send(2, keyless)
				r.done(2)
				// Without an id nobody knows it again: it stands for what is there now.
				other := r.request("other", "", "x")
				for i, h := range other.Headers {
					if h.Key == record.HeaderCorrelationID {
						other.Headers = append(other.Headers[:i], other.Headers[i+1:]...)
						break
					}
				}
				if _, err := r.put(t.Context(), testTopic, 0, other); err != nil {
					t.Fatal(err)
				}
				r.done(3)
				r.diverge(c.less, c.end)
				pass(time.Minute)
				r.done(3)
				if a, b, c := tries.of("s0"), tries.of("s1"), tries.of(""); a != 1 || b != 1 || c != 2 {
					t.Errorf("%d %d %d tries, want 1 1 2", a, b, c)
				}
				told := logs.FilterMessageSnippet("lost the end of the log").All()
				if len(told) != 1 || told[0].ContextMap()["cut_at"] != c.from {
					t.Errorf("%+v, want a cut at %d", told, c.from)
				}
			})
		})
	}
}

// A partition that stands still because nobody can read its progress makes no
// haste for the others.
func TestUnreadableProgressCostsNothing(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		if err := r.cluster.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		if err := r.cluster.CreateTopic(testTopic, 2, nil); err != nil {
			t.Fatal(err)
		}
		r.commit(0, "osmosis9:from the future")
		r.deliver(options(echo), func(c *Config) { c.Control, c.Logger = "", nil })
		pass(10 * time.Second)
		fetches := 0
		r.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			r.cluster.KeepControl()
			fetches++
			return nil, nil, false
		})
		pass(30 * time.Second)
		if most := int(30*time.Second/fetchWait) + 1; fetches == 0 || fetches > most {
			t.Errorf("%d fetches, want %d at most", fetches, most)
		}
	})
}

// A try whose record is gone from the log is nobody's once its partition has gone
// too: it ends when there is something to reply.
func TestTryOfALogThatWasCutOffIsNotHandedOver(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		begun, release := make(chan struct{}, 2), make(chan struct{})
		d := r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			begun <- struct{}{}
			<-release
			return echo(w, req)
		}))
		r.send(1, keyless)
		<-begun
		r.diverge(0, 0)
		r.send(1, keyless) // of the same stream, so it waits
		pass(5 * time.Second)
		d.revoke(t.Context(), []int32{0})
		close(release)
		pass(5 * time.Second)
		d.queue.mu.Lock()
		defer d.queue.mu.Unlock()
		if n := len(d.queue.leaving); n != 0 || d.queue.ending != 0 {
			t.Errorf("%d partitions have tries, %d wait to reply", n, d.queue.ending)
		}
	})
}
