package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// followers bounds how many streams are followed at once.
const followers = 64

// flood is a number of jobs, and what became of them.
type flood struct {
	client       *http.Client
	url          string
	times        []time.Duration // when each is posted, in order
	milliseconds float64         // how long each takes

	mu       sync.Mutex
	accepted int
	refused  int
	refusal  error           // why the last one was refused
	waits    []time.Duration // how long each job that was done had waited for its worker
}

// newClient makes a client that has as many connections as it takes to follow and
// to post.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxConnsPerHost: 2 * followers, MaxIdleConnsPerHost: 2 * followers}}
}

// wave gives the times of jobs that rise and ebb as half a sine does.
func wave(jobs int, seconds float64) []time.Duration {
	times := make([]time.Duration, jobs)
	for n := range times {
		share := math.Acos(1-2*float64(n)/float64(jobs)) / math.Pi
		times[n] = time.Duration(share * seconds * float64(time.Second))
	}
	return times
}

// run posts all jobs and returns when all that were accepted are done.
func (f *flood) run(ctx context.Context) {
	streams := make(chan string, len(f.times))
	var following sync.WaitGroup
	for range followers {
		following.Go(func() {
			for stream := range streams {
				f.follow(ctx, stream)
			}
		})
	}
	began := time.Now()
	var posting sync.WaitGroup
	for n, at := range f.times {
		select {
		case <-time.After(time.Until(began.Add(at))):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		posting.Go(func() {
			stream, err := f.post(ctx, n)
			f.mu.Lock()
			defer f.mu.Unlock()
			if err != nil {
				f.refused++
				f.refusal = err
				return
			}
			f.accepted++
			streams <- stream
		})
	}
	posting.Wait()
	close(streams)
	following.Wait()
}

// post has one job queued and gives the URL of its stream.
func (f *flood) post(ctx context.Context, n int) (string, error) {
	body := fmt.Sprintf(`{"n":%d,"ms":%g}`, n, f.milliseconds)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := f.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusAccepted {
		return "", fmt.Errorf("%s: %s", response.Status, text)
	}
	var accepted struct {
		Stream string `json:"stream"`
	}
	err = json.Unmarshal(text, &accepted)
	return accepted.Stream, err
}

// follow asks for the result of a job until it is there, whatever comes between.
func (f *flood) follow(ctx context.Context, stream string) {
	for ctx.Err() == nil {
		status, waited, err := f.result(ctx, stream)
		switch {
		case err == nil && status == http.StatusAccepted: // not done yet
		case err == nil && status == http.StatusOK:
			f.mu.Lock()
			f.waits = append(f.waits, waited)
			f.mu.Unlock()
			return
		case err == nil && status < http.StatusInternalServerError:
			log.Printf("a job ended with status %d", status)
			return
		default: // the gateway or its broker is away, and comes back
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}

// result waits a while for the result of a job, and gives the status of the
// answer, and for how long the job waited for its worker.
func (f *flood) result(ctx context.Context, stream string) (int, time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, stream+"/result", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	request.Header.Set("Prefer", "wait=20")
	response, err := f.client.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	var job struct {
		Waited int64 `json:"waited_ms"`
	}
	if err := json.NewDecoder(response.Body).Decode(&job); err != nil {
		return 0, 0, err
	}
	return response.StatusCode, time.Duration(job.Waited) * time.Millisecond, nil
}

// lost is how many jobs were accepted and never done.
func (f *flood) lost() int { return f.accepted - len(f.waits) }

// String says what became of the jobs, once all have ended.
func (f *flood) String() string {
	waited := func(share float64) time.Duration {
		if len(f.waits) == 0 {
			return 0
		}
		return f.waits[int(share*float64(len(f.waits)-1))].Round(100 * time.Millisecond)
	}
	slices.Sort(f.waits)
	text := fmt.Sprintf("jobs: %d accepted, %d refused, %d replied, %d lost; they waited %s for a worker (median; 99 of 100: %s)",
		f.accepted, f.refused, len(f.waits), f.lost(), waited(0.5), waited(0.99))
	if f.refused > 0 {
		text += fmt.Sprintf("; the last was refused with %v", f.refusal)
	}
	return text
}
