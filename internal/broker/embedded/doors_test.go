package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A broker stops while a client commits without a pause, and is killed while it
// does: what was acknowledged is there. kfake answers commits for a moment that
// it has not written yet.
func TestNothingIsAnsweredWhileTheBrokerStops(t *testing.T) {
	for range 20 {
		inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
			d := v.config.disk.(*crashDisk)
			v.make("orders", nil)
			c := crashClient{t.Context(), v.client}
			at := tp{"orders", 0}
			type answer struct {
				offset int64
				after  int
			}
			answers, busy := make(chan []answer), make(chan struct{})
			go func() {
				var all []answer
				for i := int64(1); ; i++ {
					if err := c.commit(at, position{offset: i}); err != nil {
						answers <- all
						return
					}
					all = append(all, answer{i, d.count()})
					if i == 50 {
						close(busy)
					}
				}
			}()
			<-busy
			begun := d.count()
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			v.client.Close()
			all := <-answers
			for moment := begun; moment <= d.count(); moment += 3 {
				want := int64(0)
				for _, a := range all {
					if a.after <= moment {
						want = a.offset
					}
				}
				if got := lastCommit(t, d.killed(moment, 0), v.config.Directory); got < want {
					t.Fatalf("killed %d changes after it began to stop: %d is committed, acknowledged was %d", moment-begun, got, want)
				}
			}
			v.config.disk = d
			v.start()
		})
	}
}

// lastCommit reads the newest commit from the files.
func lastCommit(t *testing.T, d *crashDisk, directory string) (offset int64) {
	t.Helper()
	log, err := d.ReadFile(dataDirectory(directory) + "/" + groupsLog)
	if err != nil {
		t.Fatal(err)
	}
	texts, _ := entries(log)
	for _, text := range texts {
		if _, after, ok := strings.Cut(string(text), `"o":`); ok {
			if _, err := fmt.Sscan(strings.SplitN(after, ",", 2)[0], &offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	return offset
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
