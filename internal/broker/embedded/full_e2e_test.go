//go:build e2e

package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A disk fills up under load, with records and with a file of somebody else's.
// What is refused is not in the log, what is acknowledged is, and when there is
// room again the broker goes on by itself.
func TestFullDiskRecovers(t *testing.T) {
	const keep, filler = 2 << 20, 3 << 20
	c, directory := onSmallDisk(t, keep)
	file := filepath.Join(directory, "filler")
	if err := os.WriteFile(file, make([]byte, filler), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(steady(), kgo.SeedBrokers(c.address), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.DisableIdempotentWrite(), kgo.RecordRetries(3))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	create(t, kadm.NewClient(client))
	acknowledged := make(map[int64]string)
	try := func(i int) error {
		value := fmt.Sprintf("%d %s", i, make([]byte, 100_000))
		r := kgo.Record{Topic: "orders", Value: []byte(value)}
		err := client.ProduceSync(t.Context(), &r).FirstErr()
		if err == nil {
			acknowledged[r.Offset] = value
		}
		return err
	}
	refused := 0
	for i := 0; refused < 5; i++ {
		if i > 1000 {
			t.Fatal("the disk does not fill")
		}
		if err := try(i); errors.Is(err, kerr.NotEnoughReplicas) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	before := len(acknowledged)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := try(i); err != nil {
			t.Errorf("with room again: %v", err)
		}
	}
	got := values(t, c.address, [partitions]int64{int64(len(acknowledged))})
	if len(got) != len(acknowledged) {
		t.Errorf("%d records are there and %d acknowledged", len(got), len(acknowledged))
	}
	for offset, value := range acknowledged {
		if got[spot{0, offset}] != value {
			t.Errorf("offset %d holds %.10q, acknowledged was %.10q", offset, got[spot{0, offset}], value)
		}
	}
	t.Logf("%d acknowledged until the disk was full, %d refused, %d acknowledged after", before, refused, len(acknowledged)-before)
}

// onSmallDisk starts a broker on a disk of 8 MiB, of which it keeps some free,
// and gives the directory as this process sees it. Where mounting is not
// allowed, it is the last 8 MiB of the disk of the tests' own directory.
func onSmallDisk(t *testing.T, keep int64) (*child, string) {
	t.Helper()
	directory := t.TempDir()
	mount := []string{"unshare", "-m", "sh", "-c", `mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"`, directory}
	if err := exec.Command(mount[0], append(mount[1:], "true")...).Run(); err == nil { //nolint:gosec // the test's own
		c := startChild(t, directory, time.Hour, keep, mount...)
		return c, filepath.Join("/proc", fmt.Sprint(c.command.Process.Pid), "root", directory)
	}
	free, known := freeBytes(directory)
	if !known {
		t.Fatal("the room on the disk is not known here")
	}
	t.Log("no disk of its own: mounting is not allowed here")
	return startChild(t, directory, time.Hour, free-8<<20+keep), directory
}
