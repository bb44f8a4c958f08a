package embedded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// used is a directory that a broker was used on.
func used(t *testing.T) (directory string) {
	t.Helper()
	directory = t.TempDir()
	b := open(t, Config{Directory: directory})
	client, admin := connect(t, b)
	create(t, admin)
	produce(t, client, &kgo.Record{Topic: "orders", Value: []byte("first")})
	client.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return directory
}

// Without meta.json, kfake takes the directory for a new one and writes an empty
// list over the topics.
func TestTopicsOutliveALostMeta(t *testing.T) {
	directory := used(t)
	for _, name := range []string{"data/meta.json", markerName} {
		if err := os.Remove(filepath.Join(directory, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, Config{Directory: directory})
	defer b.Close()
	if got := readAll(t, b, "orders"); got[0] != "first" {
		t.Errorf("the topic holds %v", got)
	}
}

// Nothing is removed or overwritten where it is not known whose records these are.
func TestRecordsWithoutAListOfTopicsAreLeftAlone(t *testing.T) {
	for change, want := range map[string]string{"": "topics.json", `{"version":2,"topics":[]}`: "version 2", "{": "read topics.json"} {
		directory := used(t)
		if err := os.Remove(filepath.Join(directory, markerName)); err != nil {
			t.Fatal(err)
		}
		list := filepath.Join(directory, "data", "topics.json")
		if err := os.Remove(list); err != nil {
			t.Fatal(err)
		}
		if change != "" {
			if err := os.WriteFile(list, []byte(change), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Open(Config{Directory: directory, Listen: "127.0.0.1:0"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), directory) {
			t.Errorf("with %q in topics.json: %v", change, err)
		}
		if records, err := os.Stat(filepath.Join(directory, "data", "partitions", "orders-0", "0.dat")); err != nil || records.Size() == 0 {
			t.Errorf("the records are gone: %v", err)
		}
	}
}

// After a clean stop nothing is read again, and the marker is there once only.
func TestACleanStopIsNotRepaired(t *testing.T) {
	directory := used(t)
	marker := filepath.Join(directory, markerName)
	r := recovery{disk: osDisk{}, directory: dataDirectory(directory)}
	if needed, err := r.needed(marker); needed || err != nil {
		t.Error("after a clean stop:", needed, err)
	}
	b := open(t, Config{Directory: directory})
	if needed, err := r.needed(marker); !needed || err != nil {
		t.Error("while the broker runs, and so after a crash:", needed, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if needed, err := r.needed(marker); needed || err != nil {
		t.Error("after the next clean stop:", needed, err)
	}
}
