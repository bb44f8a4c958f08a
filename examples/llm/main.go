// Command llm stands for a language model: it answers a question with a text,
// word by word, as a stream of server-sent events that takes half a minute. It
// knows nothing of queues and nothing of Osmosis.
//
// It listens on LLM_ADDRESS (localhost:8081) and thinks LLM_PAUSE (250ms) about
// each word.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends; answers that are not complete break off.
func run(ctx context.Context) error {
	pause, err := time.ParseDuration(cmp.Or(os.Getenv("LLM_PAUSE"), "250ms"))
	if err != nil {
		return fmt.Errorf("read LLM_PAUSE: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /answers", model{pause})
	server := &http.Server{Addr: cmp.Or(os.Getenv("LLM_ADDRESS"), "localhost:8081"), Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	log.Printf("the model listens at http://%s/answers", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// model answers questions.
type model struct{ pause time.Duration }

// question is what it is asked.
type question struct {
	Prompt string `json:"prompt"`
}

// word is one event of an answer. N counts them from 0: what comes with 0 begins
// the answer, also one that is given again.
type word struct {
	N    int    `json:"n"`
	Text string `json:"text"`
}

// ServeHTTP sends a word as soon as it has thought of it.
func (m model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q question
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Prompt == "" {
		http.Error(w, `Ask something, as {"prompt":"…"}.`, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	for n, text := range answer(q.Prompt) {
		select {
		case <-time.After(m.pause):
		case <-r.Context().Done():
			log.Printf("nobody wants to know any more, after %d words", n)
			return
		}
		event, err := json.Marshal(word{n, text})
		if err == nil {
			_, err = fmt.Fprintf(w, "data: %s\n\n", event)
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return // nobody listens any more
		}
	}
}

// wisdom is all that the model has learnt.
const wisdom = `That is a good question, and it deserves a long answer. A model takes its time, and time is when things go wrong: a train
goes into a tunnel, a laptop is closed, a proxy loses patience, a new version is rolled out.

An answer that lives in one connection is lost with it, and the model does all of its work again. An answer that lives in a log
stays. Each word is a record there, and has a number; whoever comes back says which one was the last, and goes on with the next.
No word is missing, none is there twice, and it does not matter which server is asked.

So close this page now, if you like, and open it again. You will find the whole answer here, as if you had never been away.`

// spaced is a word with the space before it.
var spaced = regexp.MustCompile(`\s*\S+`)

// answer gives the words of an answer.
func answer(prompt string) []string {
	lines := strings.NewReplacer("\n\n", "\n\n", "\n", " ")
	return spaced.FindAllString(fmt.Sprintf("“%s” ", prompt)+lines.Replace(wisdom), -1)
}
