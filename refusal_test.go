package osmosis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// onProduce has f answer requests to produce in the broker's place, unless it
// says false, until stop is called.
func (s *gateway) onProduce(f func(*kmsg.ProduceRequest) (kmsg.Response, bool)) (stop func()) {
	var stopped atomic.Bool
	s.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.cluster.KeepControl()
		if stopped.Load() {
			return nil, nil, false
		}
		answer, handled := f(r.(*kmsg.ProduceRequest))
		return answer, nil, handled
	})
	return func() { stopped.Store(true) }
}

// refusing makes a broker that answers every request to produce with a code.
func refusing(code kafka.Error) func(*kmsg.ProduceRequest) (kmsg.Response, bool) {
	return func(r *kmsg.ProduceRequest) (kmsg.Response, bool) {
		a := r.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range r.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic, topic.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode, partition.BaseOffset = p.Partition, int16(code), -1
				topic.Partitions = append(topic.Partitions, partition)
			}
			a.Topics = append(a.Topics, topic)
		}
		return a, true
	}
}

// admin gives a client that makes and deletes topics as an operator would.
func (s *gateway) admin(options ...kgo.Opt) (*kgo.Client, *kadm.Client) {
	s.t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(s.cluster.ListenAddrs()...), kgo.Dialer(s.network.DialContext))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client, kadm.NewClient(client)
}

// refused checks a problem that says when to try again.
func (a answer) refused(t *testing.T, status int, detail string) {
	t.Helper()
	a.want(t, status, fmt.Sprintf(`"status":%d`, status), detail)
	if a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Cache-Control") != "no-store" ||
		a.Header.Get("Location") != "" || (status >= 500 || status == 429) != (a.Header.Get("Retry-After") != "") {
		t.Errorf("%v", a.Header)
	}
}

// Each error of what lies beneath has its status, says whether the request may
// be queued, and reaches the log where the operator can do something.
func TestRefusals(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		err    error
		status int
		detail string
		logged bool
	}{
		"event":       {fmt.Errorf("%w: no id", record.ErrEvent), 415, "no id", false},
		"long host":   {hub.ErrClaimsTooLong, 400, "Nothing was queued", false},
		"too large":   {ingress.ErrTooLarge, 413, "message.max.bytes", false},
		"full":        {ingress.ErrFull, 429, "Nothing was queued", true},
		"no topic":    {ingress.ErrTopicMissing, 503, "does not exist. Nothing was queued", true},
		"refused":     {ingress.ErrRefused, 503, "Nothing was queued", true},
		"unclear":     {ingress.ErrUnclear, 503, "may have been queued", true},
		"key reused":  {claims.ErrReused, 422, "Nothing was queued", false},
		"key pending": {claims.ErrPending, 503, "still being queued", false},
		"not read":    {claims.ErrNotRead, 503, "Nothing was queued", false},
		"keys full":   {claims.ErrFull, 503, "Nothing was queued", true},
		"not claimed": {fmt.Errorf("%w: %s", claims.ErrUnwritten, ingress.ErrUnclear.Error()), 503, "Nothing was queued", true},
		"no floor":    {fmt.Errorf("%w: %w", hub.ErrNoFloor, context.DeadlineExceeded), 503, "Nothing was queued", true},
		"unavailable": {ingress.ErrUnavailable, 503, "Nothing was queued", true},
		"closed":      {ingress.ErrClosed, 503, "Nothing was queued", true},
		"canceled":    {context.Canceled, 503, "Nothing was queued", true},
		"unforeseen":  {broken, 503, "Nothing was queued", true},
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			h := &Handler{Topic: testTopic, app: &App{logger: zap.New(core)}}
			err := fmt.Errorf("topic orders: %w", test.err)
			for _, here := range []bool{true, false} {
				ctx, leave := context.WithCancel(t.Context())
				if !here {
					leave()
				}
				w := httptest.NewRecorder()
				if err := h.refuse(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/orders", nil), err); err != nil {
					t.Fatal(err)
				}
				leave()
				response := w.Result()
				body, _ := io.ReadAll(response.Body)
				// Written also when the client seems to have gone: should it be
				// there after all, an empty 200 would be a lie.
				answer{response, string(body)}.refused(t, test.status, test.detail)
				if got := len(logs.TakeAll()) > 0; got != (test.logged && here) {
					t.Errorf("logged: %t, client there: %t", got, here)
				}
			}
		})
	}
}

func TestBrokerRefuses(t *testing.T) {
	for code, want := range map[kafka.Error]struct {
		status int
		detail string
	}{
		kafka.MessageSizeTooLarge:      {413, "larger than the broker takes"},
		kafka.TopicAuthorizationFailed: {503, "refused"},
		kafka.PolicyViolation:          {503, "refused"},
		kafka.InvalidRecord:            {503, "refused"},
		kafka.RequestTimedOut:          {503, "may have been queued"},
		kafka.NotEnoughReplicas:        {503, "Nothing was queued"},
	} {
		t.Run(code.Title(), func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				stop := s.onProduce(refusing(code))
				began := time.Now()
				s.send(s.post("x")).refused(t, want.status, want.detail)
				if took := time.Since(began); took > defaultProduceTimeout+time.Second {
					t.Errorf("took %s", took)
				}
				stop()
				s.send(s.post("x")).want(t, 202)
			})
		})
	}
}

// A broker that takes the record and never says so: nobody waits longer than
// produce_timeout, and the answer does not deny what may be.
func TestBrokerDoesNotAnswer(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.send(s.post("before")).want(t, 202)
		stalled := make(chan struct{})
		stop := s.onProduce(func(*kmsg.ProduceRequest) (kmsg.Response, bool) {
			s.cluster.SleepControl(func() { <-stalled })
			return nil, false
		})
		began := time.Now()
		s.send(s.post("x")).refused(t, 503, "may have been queued")
		if took := time.Since(began); took < 3*time.Second || took > 3*time.Second+200*time.Millisecond {
			t.Errorf("took %s", took)
		}
		close(stalled)
		stop()
		s.send(s.post("after")).want(t, 202)
	}, func(a *App) { a.ProduceTimeout = caddyDuration(3 * time.Second) })
}

// The server's read_timeout and write_timeout are for requests that are
// answered at once, and end none whose record is on its way.
func TestServerDeadlines(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.onProduce(refusing(kafka.RequestTimedOut))
		began := time.Now()
		s.send(s.post("x")).refused(t, 503, "may have been queued")
		if took := time.Since(began); took < 2*time.Minute {
			t.Errorf("took %s", took)
		}
	}, func(a *App) { a.ProduceTimeout = caddyDuration(2 * time.Minute) })
}

func TestBrokerGoesAndComes(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.send(s.post("x")).want(t, 202)
		s.cut()
		began := time.Now()
		s.send(s.post("x")).refused(t, 503, "")
		if took := time.Since(began); took > defaultProduceTimeout+time.Second {
			t.Errorf("took %s", took)
		}
		s.do("GET", "/").want(t, notOurs) // the rest of the site is up
		s.mend()
		s.send(s.post("x")).want(t, 202)
		if got := len(s.stored(testTopic)); got < 2 {
			t.Errorf("%d records", got)
		}
	})
}

// mend gives the broker back.
func (s *gateway) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = false
}

func TestMissingTopic(t *testing.T) {
	route := func() *Handler { return &Handler{Topic: "new"} }
	queueing(t, route(), func(t *testing.T, s *storefront) {
		s.send(s.post("x")).want(t, 202)
		if topic, err := s.app.inside.client.Topic(t.Context(), "new"); err != nil || topic.Partitions() != defaultPartitions {
			t.Errorf("%v %v", topic, err)
		}
	})
	queueing(t, route(), func(t *testing.T, s *storefront) {
		s.send(s.post("x")).refused(t, 503, "does not exist")
		_, admin := s.admin()
		if _, err := admin.CreateTopic(t.Context(), 3, 1, nil, "new"); err != nil {
			t.Fatal(err)
		}
		s.send(s.post("x")).want(t, 202)
	}, func(a *App) { a.Create = &Create{Off: true} })
}

// A topic that is deleted and made again is another one; the route goes on.
func TestTopicIsMadeAgain(t *testing.T) {
	for name, off := range map[string]bool{"by the operator": true, "by the gateway": false} {
		t.Run(name, func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				s.send(s.post("x")).want(t, 202)
				_, admin := s.admin()
				if _, err := admin.DeleteTopic(t.Context(), testTopic); err != nil {
					t.Fatal(err)
				}
				if off {
					s.send(s.post("x")).refused(t, 503, "does not exist")
					if _, err := admin.CreateTopic(t.Context(), 2, 1, nil, testTopic); err != nil {
						t.Fatal(err)
					}
				}
				s.send(s.post("y")).want(t, 202)
				if rec, _ := s.only(); string(rec.Value) != "y" {
					t.Errorf("%q", rec.Value)
				}
			}, func(a *App) { a.Create = &Create{Off: off} })
		})
	}
}

// While the reply topic is gone there is no place for an answer, and no request
// is queued. One that comes before the topic does is queued when it has come.
func TestMissingReplyTopic(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.send(s.post("before")).want(t, 202)
		_, admin := s.admin()
		if _, err := admin.DeleteTopic(t.Context(), defaultReplies); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		began := time.Now()
		s.send(s.post("refused")).refused(t, 503, "Nothing was queued")
		if took := time.Since(began); took > defaultProduceTimeout+time.Second {
			t.Errorf("took %s", took)
		}
		made := time.AfterFunc(defaultProduceTimeout/2, func() {
			if _, err := admin.CreateTopic(t.Context(), 4, 1, nil, defaultReplies); err != nil {
				t.Error(err)
			}
		})
		defer made.Stop()
		location := s.send(s.post("after")).want(t, 202).Header.Get("Location")
		claims, err := s.app.keys.Open(strings.TrimPrefix(location, defaultStreams+"/"))
		if err != nil || claims.ReplyPartitions != 4 {
			t.Errorf("%+v %v", claims, err)
		}
		var queued []string
		for _, r := range s.stored(testTopic) {
			queued = append(queued, string(r.Value))
		}
		if got := strings.Join(queued, " "); got != "before after" {
			t.Errorf("queued: %s", got)
		}
	})
}

// A client that goes away while its record is in flight neither loses it nor
// holds up the others.
func TestClientLeavesInFlight(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.onProduce(func(*kmsg.ProduceRequest) (kmsg.Response, bool) {
			s.cluster.SleepControl(func() { <-time.After(2 * time.Second) })
			return nil, false
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if response, err := s.client.Do(s.post("left").WithContext(ctx)); err == nil {
			response.Body.Close()
			t.Fatal(response.Status)
		}
		s.send(s.post("stayed")).want(t, 202)
		var values []string
		for _, r := range s.stored(testTopic) {
			values = append(values, string(r.Value))
		}
		if got := strings.Join(values, " "); got != "left stayed" {
			t.Errorf("%s", got)
		}
	})
}
