package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A broker stops while clients commit without a pause, and is killed while it
// does: what was acknowledged is there. kfake answers commits for a moment that
// it has not written yet.
func TestNothingIsAnsweredWhileTheBrokerStops(t *testing.T) {
	const clients = 16
	type answer struct{ offset, after int64 }
	for range 3 {
		inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
			d := v.config.disk.(*crashDisk)
			if made, err := v.admin.CreateTopic(t.Context(), clients, 1, nil, "orders"); err != nil || made.Err != nil {
				t.Fatal(err, made.Err)
			}
			var answers [clients][]answer
			var working sync.WaitGroup
			busy := make(chan struct{}, clients)
			for p := range answers {
				client, _ := connect(t, v.Broker, kgo.Dialer(v.network.DialContext), kgo.RequestRetries(0))
				c := crashClient{t.Context(), client}
				working.Go(func() {
					defer client.Close()
					for i := int64(1); c.commit(tp{"orders", int32(p)}, position{offset: i}) == nil; i++ {
						answers[p] = append(answers[p], answer{i, int64(d.count())})
						if i == 10 {
							busy <- struct{}{}
						}
					}
				})
			}
			for range clients {
				<-busy
			}
			begun := d.count()
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			working.Wait()
			v.client.Close()
			for moment := begun; moment <= d.count(); moment += 1 + (moment-begun)/4 {
				got := lastCommits(t, d.killed(moment, 0), v.config.Directory)
				for p, all := range answers {
					for _, a := range all {
						if a.after <= int64(moment) && got[int32(p)] < a.offset {
							t.Fatalf("killed %d changes after it began to stop: %d is committed, acknowledged was %d", moment-begun, got[int32(p)], a.offset)
						}
					}
				}
			}
			v.start()
		})
	}
}

// lastCommits reads the newest commit of each partition from the files.
func lastCommits(t *testing.T, d *crashDisk, directory string) map[int32]int64 {
	t.Helper()
	log, err := d.ReadFile(filepath.Join(dataDirectory(directory), groupsLog))
	if err != nil {
		t.Fatal(err)
	}
	last := make(map[int32]int64)
	texts, _ := entries(log)
	for _, text := range texts {
		var c struct {
			Partition int32 `json:"p"`
			Offset    int64 `json:"o"`
		}
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		last[c.Partition] = max(last[c.Partition], c.Offset)
	}
	return last
}

// unsyncable is a disk whose directories cannot be synced.
type unsyncable struct {
	osDisk
	broken *bool
}

var errUnsyncable = errors.New("no sync today")

func (u unsyncable) SyncDirectory(name string) error {
	if *u.broken {
		return errUnsyncable
	}
	return u.osDisk.SyncDirectory(name)
}

// A topic that a loss of power could undo is not said to be made.
func TestATopicIsSyncedBeforeItIsAnswered(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	broken := false
	b := open(t, Config{Directory: t.TempDir(), Logger: zap.New(core), disk: unsyncable{broken: &broken}})
	defer b.Close()
	client, admin := connect(t, b, kgo.RequestRetries(0))
	defer client.Close()
	broken = true
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if made, err := admin.CreateTopic(ctx, 1, 1, nil, "orders"); err == nil && made.Err == nil {
		t.Error("a topic that is not synced was acknowledged")
	}
	if logs.FilterMessage("embedded broker's topics not synced").Len() == 0 {
		t.Error("nobody was told")
	}
	broken = false
	topics, err := admin.ListTopics(ctx, "orders")
	if err != nil || topics["orders"].Err != nil {
		t.Error("when it can be synced again:", err, topics["orders"].Err)
	}
}
