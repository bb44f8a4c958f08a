package embedded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// What is acknowledged has been synced, or it would not survive a loss of
// power. kfake has one switch for all its files, and says of the log of the
// groups when it could not be synced: null takes every byte and knows no fsync.
func TestWritesAreSynced(t *testing.T) {
	directory := t.TempDir()
	core, logs := observer.New(zapcore.DebugLevel)
	b := open(t, Config{Directory: directory, Logger: zap.New(core)})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	groups := filepath.Join(dataDirectory(directory), "groups.log")
	if err := os.Remove(groups); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.Symlink(os.DevNull, groups); err != nil {
		t.Fatal(err)
	}
	var offsets kadm.Offsets
	offsets.AddOffset("orders", 0, 0, -1)
	_, _ = admin.CommitOffsets(t.Context(), "workers", offsets) // whether it is told does not matter here
	for _, line := range logs.All() {
		if message, ok := line.ContextMap()["message"].(string); ok && strings.Contains(message, "group entry") && strings.Contains(message, "sync") {
			return
		}
	}
	t.Error("nothing was synced")
}
