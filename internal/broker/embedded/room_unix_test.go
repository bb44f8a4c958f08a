//go:build linux || darwin

package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// limitFiles has writes beyond a size fail in this process, as a full disk does
// in the middle of a file, until the function it gives is called.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	lift = func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(lift)
	return lift
}

// A write fails in the middle. The batch sent again is not taken for one that is
// in the log, by this process or the next.
func TestFailedWriteIsNeverAcknowledged(t *testing.T) {
	directory := t.TempDir()
	core, logs := observer.New(zap.InfoLevel)
	b := open(t, Config{Directory: directory, Logger: zap.New(core)})
	client, admin := connect(t, b)
	create(t, admin)
	id := newProducer(t, client)
	if answer, err := raw(t, client, identified(id, 0, 0, "first")); err != nil || answer.BaseOffset != 0 {
		t.Fatal(answer, err)
	}
	other := newProducer(t, client)
	lift := limitFiles(t, 1000)
	lost := identified(id, 0, 1, string(make([]byte, 2000)))
	if answer, err := raw(t, client, lost); err == nil {
		t.Fatal("a write that failed was acknowledged", answer)
	}
	lift()
	for range 2 {
		if answer, err := raw(t, client, lost); !errors.Is(err, kerr.UnknownProducerID) {
			t.Fatalf("sent again: offset %d, %v", answer.BaseOffset, err)
		}
	}
	if logs.FilterMessage("embedded broker takes no records").Len() != 1 {
		t.Error("the failure was not logged")
	}
	// Others wait a moment; a new epoch or id is a new beginning.
	if _, err := raw(t, client, identified(other, 0, 0, "soon")); !errors.Is(err, kerr.NotEnoughReplicas) {
		t.Errorf("right after the failure: %v", err)
	}
	b.room.mu.Lock()
	b.room.failed = b.room.failed.Add(-restAfterFailure)
	b.room.mu.Unlock()
	if answer, err := raw(t, client, identified(id, 1, 0, "second")); err != nil || answer.BaseOffset != 1 {
		t.Errorf("offset %d, %v", answer.BaseOffset, err)
	}
	client.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(directory, markerName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the next start takes the sequences that the cluster has saved: %v", err)
	}
	b = open(t, Config{Directory: directory})
	defer b.Close()
	client, _ = connect(t, b)
	defer client.Close()
	if answer, err := raw(t, client, lost); err == nil {
		t.Error("after a restart, a write that failed was acknowledged", answer)
	}
	if got := readAll(t, b, "orders"); len(got) != 2 || got[0] != "first" || got[1] != "second" {
		t.Errorf("the topic holds %v", got)
	}
}

// Writes fail again and again under several idempotent producers, which repeat
// what they have no answer for. Each acknowledged record is at its offset, also
// after a restart.
func TestFailingDiskUnderLoad(t *testing.T) {
	directory := t.TempDir()
	b := open(t, Config{Directory: directory})
	setup, admin := connect(t, b)
	create(t, admin)
	setup.Close()
	type ack struct {
		offset int64
		value  string
	}
	const producers, each, size = 4, 60, 3000
	acks := make(chan ack, producers*each)
	failed := make(chan error, producers*each)
	ctx := within(t, 60*time.Second)
	finished := make(chan struct{}, producers)
	for p := range producers {
		client, _ := connect(t, b, steady()...)
		t.Cleanup(client.Close)
		go func() {
			defer func() { finished <- struct{}{} }()
			for i := range each {
				value := fmt.Sprintf("%d-%d-%s", p, i, make([]byte, size))
				r := kgo.Record{Topic: "orders", Value: []byte(value)}
				if err := client.ProduceSync(ctx, &r).FirstErr(); err != nil {
					failed <- err
					continue
				}
				acks <- ack{r.Offset, value}
			}
		}()
	}
	// The log grows into one limit after the other.
	for limit := uint64(100_000); limit <= 500_000; limit += 200_000 {
		lift := limitFiles(t, limit)
		await(t, func() bool {
			b.room.mu.Lock()
			defer b.room.mu.Unlock()
			return b.room.failure != nil
		})
		lift()
		b.room.mu.Lock()
		b.room.failed = time.Time{} // not to wait for it
		b.room.mu.Unlock()
		await(t, func() bool {
			b.room.mu.Lock()
			defer b.room.mu.Unlock()
			return b.room.failure == nil
		})
	}
	for range producers {
		<-finished
	}
	close(acks)
	t.Logf("%d acknowledged, %d not", len(acks), len(failed))
	check := func(got map[int64]string) {
		t.Helper()
		for a := range acks {
			if got[a.offset] != a.value {
				t.Errorf("offset %d holds %.20q and was acknowledged for %.20q", a.offset, got[a.offset], a.value)
			}
		}
	}
	before := readAll(t, b, "orders")
	check(before)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, Config{Directory: directory})
	defer b.Close()
	if after := readAll(t, b, "orders"); len(after) != len(before) {
		t.Errorf("%d records before the restart and %d after it", len(before), len(after))
	}
}

// await asks until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	ctx := within(t, 20*time.Second)
	for !so() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("waited in vain")
		}
	}
}
