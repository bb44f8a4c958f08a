package embedded

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// watchedDisk says when a file is opened.
type watchedDisk struct {
	*crashDisk
	opened func(name string)
}

func (w watchedDisk) OpenFile(name string, flag int, perm os.FileMode) (file, error) {
	w.opened(name)
	return w.crashDisk.OpenFile(name, flag, perm)
}

// When the broker stops, its clients are gone before kfake begins to save. It
// acknowledges commits from there on that it has not written: killed before it
// was through, it had lost the last ones of 16 clients in one of some ten stops.
func TestNothingIsAnsweredWhileTheBrokerStops(t *testing.T) {
	inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
		v.make("orders", nil)
		v.stop()
		saving := false
		v.config.kfake = append(v.config.kfake, onDisk(watchedDisk{v.config.disk.(*crashDisk), func(name string) {
			if filepath.Base(name) != "meta.json.tmp" {
				return
			}
			saving = true
			v.listener.mu.Lock()
			defer v.listener.mu.Unlock()
			if !v.listener.closed {
				t.Error("clients are still there")
			}
		}}))
		v.start()
		conn, err := v.network.DialContext(t.Context(), "tcp", v.Address())
		if err != nil {
			t.Fatal(err)
		}
		v.stop()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || !saving {
			t.Errorf("a client's connection: %v; something was saved: %t", err, saving)
		}
		v.start()
	})
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
