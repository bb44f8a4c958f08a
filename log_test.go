package osmosis

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// Logger and fields stay, and where a line goes is decided when it is written: by the
// newest configuration, by the one before where that has failed, and at the end by Caddy's own log.
func TestNewestLog(t *testing.T) {
	l := newLogging()
	before := logs
	logs = l
	defer func() { logs = before }()
	logger := newestLog().Named("hub").With(zap.Int("partition", 7))
	logger.Error("nobody's configuration") // goes to Caddy's log, and fails nowhere
	first, second := new(App), new(App)
	firstCore, firstLogs := observer.New(zap.WarnLevel)
	secondCore, secondLogs := observer.New(zap.DebugLevel)
	l.use(first, firstCore)
	logger.Info("below its level")
	logger.Warn("one", zap.String("topic", "orders"))
	l.use(second, secondCore)
	logger.Debug("two")
	l.leave(second) // its start has failed
	logger.Error("three")
	l.use(second, secondCore)
	l.leave(first)
	logger.Info("four")
	if err := logger.Core().Write(zapcore.Entry{Message: "five"}, nil); err != nil {
		t.Error(err)
	}
	l.leave(second)
	logger.Error("nobody's again")
	messages := func(all []observer.LoggedEntry) (list []string) {
		for _, e := range all {
			list = append(list, e.Message)
			if e.ContextMap()["partition"] != int64(7) || e.LoggerName != "osmosis.hub" && e.Message != "five" {
				t.Errorf("%+v", e)
			}
		}
		return list
	}
	if got := messages(firstLogs.All()); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("in the first log: %q", got)
	}
	if got := messages(secondLogs.All()); !slices.Equal(got, []string{"two", "four", "five"}) {
		t.Errorf("in the second log: %q", got)
	}
}

// What is shared by two configurations logs where the second says, from the reload
// on, and the output of the first is left alone.
func TestReloadWithAnotherLog(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	load := func(name string) (path string) {
		t.Helper()
		path = filepath.Join(h.home, name)
		writer, err := json.Marshal(map[string]any{"output": "file", "filename": path, "roll": false})
		if err != nil {
			t.Fatal(err)
		}
		d := answering(t, map[string]any{"handler": "static_response", "status_code": 500})
		d.Attempts = 1
		config := h.config(&App{Kafka: cluster.ListenAddrs(), ProduceTimeout: caddyDuration(time.Second)}, &Handler{Topic: testTopic, Deliver: d})
		config = bytes.Replace(config, []byte(`"writer":{"output":"discard"}`), append([]byte(`"writer":`), writer...), 1)
		if err := caddy.Load(config, true); err != nil {
			t.Fatal(err)
		}
		h.client.CloseIdleConnections()
		return path
	}
	// lines counts what our own loggers have written, by logger.
	lines := func(path string) map[string]int {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		counts := make(map[string]int)
		for line := range strings.Lines(string(text)) {
			var entry struct{ Logger string }
			if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Logger, "osmosis") {
				counts[entry.Logger]++
			}
		}
		return counts
	}
	old := load("old.log")
	h.do("POST", "/orders").want(t, 202)
	h.eventually("deliver gives the request up", func() bool { return lines(old)["osmosis.deliver"] > 0 })
	shared := only[*inside](t, insides)
	fresh := load("new.log")
	if only[*inside](t, insides) != shared {
		t.Fatal("the reload made a new hub")
	}
	before := lines(old)
	h.do("POST", "/orders").want(t, 202)
	h.eventually("deliver gives the request up, in the new log", func() bool { return lines(fresh)["osmosis.deliver"] > 0 })
	cluster.Close()
	h.eventually("hub and claims say in the new log that the broker is gone", func() bool {
		return lines(fresh)["osmosis.hub"] > 0 && lines(fresh)["osmosis"] > 0
	})
	h.do("POST", "/orders").want(t, 503)
	h.stop()
	if logs.now.Load() != nil {
		t.Error("the log of a configuration is kept that has ended")
	}
	if after := lines(old); !maps.Equal(before, after) {
		t.Errorf("in the old log were %v after the reload, and are %v", before, after)
	}
}
