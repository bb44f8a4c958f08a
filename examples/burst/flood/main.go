// Command flood posts jobs to the burst example in one wave, waits for all the
// replies, and prints meanwhile what comes in, what waits, and how many workers
// there are for it. It ends when the last worker is gone.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"
)

// lastWorker is how long the last worker may stay once all is done, and lastReply
// how long a reply may take once the last worker is gone.
const (
	lastWorker = 3 * time.Minute
	lastReply  = 30 * time.Second
)

func main() {
	log.SetFlags(0)
	site := flag.String("site", "http://localhost:8080", "the gateway's `URL`")
	requests := flag.Int("requests", 1000, "how many jobs to post")
	seconds := flag.Float64("seconds", 20, "how long the wave takes, in `seconds`")
	milliseconds := flag.Float64("ms", 100, "how long a job takes, in `milliseconds`")
	flag.Parse()
	f := &flood{client: newClient(), url: *site + "/jobs", times: wave(*requests, *seconds), milliseconds: *milliseconds}
	t := &table{client: &http.Client{Timeout: 5 * time.Second}, url: *site + "/scale", topic: "jobs"}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, f, t); err != nil {
		log.Fatal(err)
	}
}

// run posts and watches, and says how it went.
func run(ctx context.Context, f *flood, t *table) error {
	if _, err := t.ask(ctx); err != nil {
		return fmt.Errorf("is the gateway there? %w", err)
	}
	flooding, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.run(flooding)
	}()
	t.watch(ctx, done)
	stop()
	<-done
	fmt.Printf("%s\n%s\n", f, t)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f.lost() > 0:
		return fmt.Errorf("%d jobs were accepted and not done", f.lost())
	case t.workers > 0:
		return fmt.Errorf("%d workers are still there", t.workers)
	}
	return nil
}
