package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// table prints how the number of workers follows what waits for them.
type table struct {
	client *http.Client
	url    string // where the gateway tells what it has decided
	topic  string

	most, workers int // at once, and now
}

// state is what the gateway tells of one topic.
type state struct {
	Topic    string  `json:"topic"`
	Deciding bool    `json:"deciding"` // this gateway, and no other
	Desired  int     `json:"desired"`
	Running  int     `json:"running"`
	Inflow   float64 `json:"inflow"`
	Backlog  int64   `json:"backlog"`
	Oldest   float64 `json:"oldest_seconds"`
	Reason   string  `json:"reason"`
}

// ask gets the state of the topic.
func (t *table) ask(ctx context.Context) (state, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url, http.NoBody)
	if err != nil {
		return state{}, err
	}
	response, err := t.client.Do(request)
	if err != nil {
		return state{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return state{}, fmt.Errorf("GET %s: %s", t.url, response.Status)
	}
	var all []state
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		return state{}, fmt.Errorf("GET %s: %w", t.url, err)
	}
	for _, s := range all {
		if s.Topic == t.topic {
			return s, nil
		}
	}
	return state{}, fmt.Errorf("the gateway has no workers for the topic %s", t.topic)
}

// watch prints a line every two seconds, and whenever the number of workers
// changes, until all is done and the last worker is gone; or until nothing waits
// and no worker is there for so long that what is not done is lost.
func (t *table) watch(ctx context.Context, done <-chan struct{}) {
	const line = "%6s  %6s  %7s  %6s  %6s  %7s  %s\n"
	fmt.Printf(line, "time", "in/s", "backlog", "oldest", "wanted", "running", "why")
	began := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var deadline <-chan time.Time
	busy := began
	var last state
	var printed time.Time
	for {
		s, err := t.ask(ctx)
		if err == nil {
			t.workers, t.most = max(s.Desired, s.Running), max(t.most, s.Running)
			changed := s.Desired != last.Desired || s.Running != last.Running
			if changed || time.Since(printed) >= 2*time.Second {
				_, why, _ := strings.Cut(s.Reason, ": ") // the number stands there already
				fmt.Printf(line, fmt.Sprintf("%.1fs", time.Since(began).Seconds()), fmt.Sprintf("%.0f", s.Inflow),
					fmt.Sprint(s.Backlog), fmt.Sprintf("%.1fs", s.Oldest), fmt.Sprint(s.Desired), fmt.Sprint(s.Running), cmp.Or(why, s.Reason))
				last, printed = s, time.Now()
			}
			if t.workers > 0 || s.Backlog > 0 {
				busy = time.Now()
			}
			if t.workers == 0 && (deadline != nil || time.Since(busy) > lastReply) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-done:
			done, deadline = nil, time.After(lastWorker)
		case <-deadline:
			return
		case <-ctx.Done():
			return
		}
	}
}

// String says how many workers there were.
func (t *table) String() string {
	return fmt.Sprintf("workers: %d at most, %d at the end", t.most, t.workers)
}
