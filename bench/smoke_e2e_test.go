//go:build e2e

package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchmarksOnRealKafka runs every benchmark with tiny figures, so that
// they go on working. What they measure is not looked at.
func TestBenchmarksOnRealKafka(t *testing.T) {
	programs := t.TempDir()
	for _, b := range []struct {
		name    string
		flags   []string
		profile string // the flag that asks for one
		tables  int
		rows    []string
	}{
		{
			name: "ingress", flags: []string{"-rounds", "1", "-duration", "50ms", "-connections", "4", "-keys", "10"}, profile: "-profile", tables: 2,
			rows: []string{"Caddy `respond 202`", "**Osmosis**", "naive Caddy handler", "kafka-go group commit", "net/http, franz-go", "kafka-go Writer"},
		},
		{
			name: "latency", flags: []string{"-rounds", "1", "-duration", "50ms"}, tables: 1,
			rows: []string{"Caddy `respond 202`", "**Osmosis**", "naive Caddy handler", "kafka-go group commit", "net/http, franz-go", "kafka-go Writer"},
		},
		{
			name: "roundtrip", flags: []string{"-rounds", "1", "-duration", "50ms", "-inflight", "1,4"}, tables: 2,
			rows: []string{"franz-go clients, no HTTP", "**Osmosis**", "net/http, franz-go", "kafka-go Writer"},
		},
		{
			name: "streams", flags: []string{"-rounds", "1", "-streams", "50", "-few", "5", "-replies", "100", "-settle", "200ms"}, profile: "-heap", tables: 2,
			rows: []string{"**Osmosis**", "net/http, franz-go", "Caddy, a stream on which nothing comes"},
		},
		{
			name: "deliver", flags: []string{"-rounds", "1", "-duration", "50ms", "-inflight", "1,4", "-connections", "4", "-keys", "10", "-concurrency", "10", "-backlog", "100"}, tables: 4,
			rows: []string{"Kafka alone", "Caddy `reverse_proxy`", "**Osmosis** `deliver`, clients wait", "every key is answered", "**one key is poisoned**", "as many clients", "**Osmosis** `deliver`, `reverse_proxy`", "**Osmosis** `deliver`, the work inside the gateway"},
		},
		{
			name: "handover", flags: []string{"-partitions", "4", "-members", "2", "-jobs", "4", "-long", "4s", "-rate", "50", "-history", "50", "-calm", "500ms", "-after", "1s", "-kill=false"}, tables: 1,
			rows: []string{"a member joins", "a member leaves"},
		},
		{
			name: "survey", flags: []string{"-duration", "5s", "-topics", "3", "-partitions", "2", "-groups", "2"}, profile: "-profile", tables: 1,
			rows: []string{"**Survey**, records wait", "**Survey**, asleep", "one topic and group after the other", "connections alone"},
		},
	} {
		t.Run(b.name, func(t *testing.T) {
			args := append([]string{"run", "./" + b.name, "-programs", programs}, b.flags...)
			profile := filepath.Join(t.TempDir(), "profile")
			if b.profile != "" {
				args = append(args, b.profile, profile)
			}
			cmd := exec.CommandContext(t.Context(), "go", args...)
			var out, progress strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &progress
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, progress.String())
			}
			if n := strings.Count(out.String(), "\n| --"); n != b.tables {
				t.Errorf("%d tables instead of %d", n, b.tables)
			}
			for _, row := range b.rows {
				if !strings.Contains(out.String(), row) {
					t.Errorf("no row for %s", row)
				}
			}
			if info, err := os.Stat(profile); b.profile != "" && (err != nil || info.Size() == 0) {
				t.Errorf("no profile: %v", err)
			}
			t.Log(out.String())
		})
	}
}
