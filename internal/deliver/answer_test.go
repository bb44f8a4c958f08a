package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// What is flushed is told at once, in order, and the last part ends the stream.
func TestAnswerInParts(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		next := make(chan struct{})
		r.deliver(options(func(w http.ResponseWriter, _ *http.Request) error {
			flush := http.NewResponseController(w).Flush
			for _, word := range []string{"one", "two", "three"} {
				_, _ = io.WriteString(w, word)
				if err := flush(); err != nil {
					return err
				}
				<-next
			}
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "part 200 one")
		next <- struct{}{}
		r.want("s0", "part 200 one", "part 200 two")
		next <- struct{}{}
		r.want("s0", "part 200 one", "part 200 two", "part 200 three")
		next <- struct{}{}
		r.want("s0", "part 200 one", "part 200 two", "part 200 three", "200 ")
		r.done(1)
		var numbers []string
		for _, rec := range r.read(testReplies) {
			reply, _ := record.ParseReply(rec.Record)
			numbers = append(numbers, fmt.Sprintf("%d.%d", reply.Attempt, reply.Part))
		}
		if got := strings.Join(numbers, " "); got != "1.1 1.2 1.3 1.4" {
			t.Error(got)
		}
	})
}

// What is flushed and followed by the end at once is one reply, and so is what
// is written in pieces.
func TestAnswerInOnePiece(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "one ")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "two")
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "200 one two")
	})
}

// A part of a text is a text, wherever it was cut.
func TestPartsOfText(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, _ *http.Request) error {
			for _, piece := range []string{"a\xe2\x82", "\xac b\xff", "c"} { // a euro sign, and a byte that is no text
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
				pass(2 * flushGrace)
			}
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "part 200 a", "part 200 € b\xff", "part 200 c", "200 ")
	})
}

// The events of an upstream arrive one by one, whatever pieces they come in.
func TestAnswerOfEvents(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			for _, piece := range []string{
				"\xef\xbb\xbfdata: to", "ken 1\n", "\n: comment\r\n\r\nevent: stop\rdata: a\r", "\ndata:b\nid: 7\nretry: 9\n\n", "event: empty\n\ndata: cut off\n",
			} {
				if _, err := io.WriteString(w, piece); err != nil {
					return err
				}
			}
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "part 200 token 1", "part 200 stop: a\nb", "200 ")
	})
}

// A large answer is split, and one that is larger than allowed is refused: told
// of beforehand or not.
func TestLargeAnswers(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		large := bytes.Repeat([]byte("0123456789abcdef"), 2*maxPart/16)
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			switch req.Header.Get(HeaderStreamID) {
			case "s1":
				w.Header().Set("Content-Length", "9000000")
			case "s2":
				for {
					if _, err := w.Write(large); err != nil {
						return err
					}
				}
			}
			_, err := w.Write(append(large, "end"...))
			return err
		}))
		r.send(3, keyless)
		r.done(3)
		var whole []byte
		parts := 0
		for _, rec := range r.read(testReplies) {
			if reply, _ := record.ParseReply(rec.Record); reply.StreamID == "s0" {
				whole = append(whole, reply.Body...)
				parts++
			}
		}
		if parts != 3 || !bytes.Equal(whole, append(large, "end"...)) {
			t.Errorf("%d bytes in %d parts", len(whole), parts)
		}
		refused := "failed after 1: 200 " + errTooLong.Error()
		if got := r.replies()["s1"]; len(got) != 1 || got[0] != refused {
			t.Errorf("%q", got)
		}
		if got := r.replies()["s2"]; got[len(got)-1] != refused {
			t.Errorf("%.200q", got[len(got)-1])
		}
	})
}

// An event is one record, so it may not be larger than that; whether it comes at
// once or bit by bit.
func TestLargeEvents(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			large := []byte("data: " + strings.Repeat("x", maxPart+1) + "\n\n")
			size := len(large)
			if req.Header.Get(HeaderStreamID) == "s1" {
				size /= 10
			}
			for chunk := range slices.Chunk(large, size) {
				if _, err := w.Write(chunk); err != nil {
					return err
				}
			}
			return nil
		}))
		r.send(2, keyless)
		refused := "failed after 1: 200 " + errLongEvent.Error()
		r.want("s0", refused)
		r.want("s1", refused)
	})
}

// An answer that breaks off after a part of it was sent ends its stream, unless
// it may be tried again. One that breaks off before is tried again.
func TestBrokenAnswers(t *testing.T) {
	breaks := map[string]func(w http.ResponseWriter) error{
		"aborted": func(http.ResponseWriter) error { panic(http.ErrAbortHandler) },
		"error":   func(http.ResponseWriter) error { return errors.New("upstream gone") },
		"short":   func(http.ResponseWriter) error { return nil },
	}
	reasons := map[string]string{"aborted": errAborted.Error(), "error": "upstream gone", "short": errShort.Error()}
	for name, end := range breaks {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s again %t", name, again), func(t *testing.T) {
				virtually(t, func(t *testing.T, r *rig) {
					r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
						w.Header().Set("Content-Length", "6")
						_, _ = io.WriteString(w, "half")
						if req.Header.Get(HeaderStreamID) == "s0" {
							_ = http.NewResponseController(w).Flush()
							pass(2 * flushGrace)
						}
						if req.Header.Get(HeaderAttempt) == "2" {
							_, _ = io.WriteString(w, "!!")
							return nil
						}
						return end(w)
					}, func(o *Options) { o.RetryStarted = again }))
					r.send(2, keyless)
					r.want("s1", "retrying 1: 200 "+reasons[name], "200 half!!")
					if again {
						r.want("s0", "part 200 half", "retrying 1: 200 "+reasons[name], "delivering 2: 0 ", "part 200 half", "200 !!")
					} else {
						r.want("s0", "part 200 half", "failed after 1: 200 "+reasons[name])
					}
					r.done(2)
				})
			})
		}
	}
}

// Half an answer whose process has died is not tried again, though nobody has
// counted that try.
func TestProcessDiesInTheMiddleOfAnAnswer(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		h := func(w http.ResponseWriter, req *http.Request) error {
			tries.Add(1)
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done()
			return req.Context().Err()
		}
		client, kill := r.cuttable()
		r.deliver(options(h, func(o *Options) { o.Timeout = time.Hour }), func(c *Config) { c.Broker = client })
		r.send(1, keyless)
		r.want("s0", "part 200 half")
		kill()
		r.deliver(options(h))
		r.want("s0", "part 200 half", "failed after 1: 0 "+cutReason)
		r.done(1)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries", n)
		}
	})
}

func TestTimeout(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(_ http.ResponseWriter, req *http.Request) error {
			<-req.Context().Done()
			return req.Context().Err()
		}, func(o *Options) { o.Timeout, o.Attempts, o.DeadLetter = 3*time.Second, 1, "" }))
		r.send(1, keyless)
		r.want("s0", "delivering 1: 0 ", "failed after 1: 0 "+errTimeout.Error())
		if dead := r.read(testDead); len(dead) > 0 {
			t.Errorf("%+v", dead)
		}
	})
}

// What an upstream asks for is waited for.
func TestRetryAfter(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var first, second time.Time
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderAttempt) == "2" {
				second = time.Now()
				return echo(w, req)
			}
			first = time.Now()
			w.Header().Set("Retry-After", "40")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = io.WriteString(w, "this is not sent to the client")
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "retrying 1: 429 Too Many Requests", "200 0")
		if waited := second.Sub(first); waited < 40*time.Second || waited > 41*time.Second {
			t.Errorf("waited %s", waited)
		}
		for text, want := range map[string]time.Duration{
			"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0,
			first.Add(time.Minute).UTC().Format(http.TimeFormat): time.Minute, first.Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
		} {
			if got := retryAfter(http.Header{"Retry-After": {text}}, first.Truncate(time.Second)); got != want {
				t.Errorf("Retry-After: %s: %s, want %s", text, got, want)
			}
		}
	})
}

// Half an answer whose process has died begins again under another number, where
// it may, and that is announced: so its parts are told from those of the first.
func TestAnswerBeginsAgainAfterADeath(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var dead atomic.Bool
		h := func(w http.ResponseWriter, req *http.Request) error {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			if !dead.Load() {
				<-req.Context().Done()
				return req.Context().Err()
			}
			pass(2 * flushGrace)
			_, _ = io.WriteString(w, "!!")
			return nil
		}
		again := func(o *Options) { o.RetryStarted, o.Timeout = true, time.Hour }
		client, kill := r.cuttable()
		r.deliver(options(h, again), func(c *Config) { c.Broker = client })
		r.send(1, keyless)
		r.want("s0", "part 200 half")
		kill()
		dead.Store(true)
		r.deliver(options(h, again))
		r.want("s0", "part 200 half", "delivering 2: 0 ", "part 200 half", "200 !!")
		var numbers []string
		for _, rec := range r.read(testReplies) {
			if reply, _ := record.ParseReply(rec.Record); reply.State == "" {
				numbers = append(numbers, fmt.Sprintf("%d.%d", reply.Attempt, reply.Part))
			}
		}
		if got := strings.Join(numbers, " "); got != "1.1 2.1 2.2" {
			t.Error(got)
		}
		r.done(1)
	})
}
