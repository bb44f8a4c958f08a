package osmosis

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/embedded"
	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// startClaims has a gateway read the claims, and waits until it has.
func (s *gateway) startClaims() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.app.startClaims(ctx, s.app.inside)
	s.t.Cleanup(func() { cancel(); s.app.working.Wait() })
	<-time.After(5 * time.Second)
	synctest.Wait()
}

// keyed is queueing with claims read.
func keyed(t *testing.T, route *Handler, test func(t *testing.T, s *storefront), configure ...func(*App)) {
	t.Helper()
	queueing(t, route, func(t *testing.T, s *storefront) {
		s.startClaims()
		test(t, s)
	}, configure...)
}

// sibling is a second gateway on the same cluster, at an address of its own,
// with the same token secrets unless others are given.
func (s *storefront) sibling(address string, secrets ...string) *storefront {
	s.t.Helper()
	app := &App{logger: s.app.logger, started: make(chan struct{}), failed: make(chan struct{}), ProduceTimeout: s.app.ProduceTimeout}
	app.settings, app.plan = app.effective(), s.app.plan
	key := s.t.Name() + address
	app.plan.brokerKey, app.plan.insideKey = key, key
	var err error
	if app.inside, err = app.plan.acquire(); err != nil {
		s.t.Fatal(err)
	}
	app.keys, app.shared = s.app.keys, newShare(app.inside, key)
	if len(secrets) > 0 {
		if app.keys, err = hub.NewKeyring(secrets...); err != nil {
			s.t.Fatal(err)
		}
	}
	close(app.started)
	g := &gateway{t: s.t, cluster: s.cluster, app: app, streams: &StreamsHandler{app: app}, caddy: s.caddy, client: s.client}
	route := &Handler{Topic: s.route.Topic, Key: s.route.Key, Bind: s.route.Bind, Idempotency: s.route.Idempotency}
	other := &storefront{gateway: g, route: route}
	route.settle(app)
	app.addRoute(route)
	listener, err := s.network.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	g.server = &http.Server{Handler: http.HandlerFunc(other.serve)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = g.server.Serve(listener)
	}()
	s.t.Cleanup(func() {
		s.client.CloseIdleConnections()
		g.server.Close()
		<-served
		app.shared.leave()
	})
	other.startClaims()
	return other
}

// at sends a request to the gateway at an address, as a load balancer would.
func at(address string, r *http.Request) *http.Request {
	r.URL.Host = address
	return r
}

// want202 gives what a 202 says, and fails unless it is told as a repeat or not.
func (a answer) want202(t *testing.T, replayed bool) accepted {
	t.Helper()
	q := a.queued(t)
	if got := a.Header.Get("Idempotent-Replayed") == "true"; got != replayed {
		t.Fatalf("replayed %t, want %t: %s", got, replayed, a.body)
	}
	return q
}

const sideDoor = "localhost:8081"

// TestIdempotencyKey: the same request gets the same stream, another gets 422.
func TestIdempotencyKey(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		first := s.send(s.post("tea", "Idempotency-Key", `"k-1"`)).want202(t, false)
		partition, offset := s.placeholder("http.osmosis.partition"), s.placeholder("http.osmosis.offset")
		for _, spelling := range []string{`"k-1"`, "k-1", ` "k-1" `} {
			a := s.send(s.post("tea", "Idempotency-Key", spelling))
			if again := a.want202(t, true); again.ID != first.ID {
				t.Errorf("%s: stream %s, want %s", spelling, again.ID, first.ID)
			}
			if p, o := s.placeholder("http.osmosis.partition"), s.placeholder("http.osmosis.offset"); p != partition || o != offset {
				t.Errorf("%s: told to be at %s/%s, and is at %s/%s", spelling, p, o, partition, offset)
			}
			if d := s.get(a.Header.Get("Location")).document(t); d.ID != first.ID {
				t.Errorf("%s: the stream URL leads to %+v", spelling, d)
			}
		}
		s.send(s.post("coffee", "Idempotency-Key", "k-1")).want(t, 422, "Give each request its own key")
		put := s.post("tea", "Idempotency-Key", "k-1")
		put.Method = http.MethodPut
		s.send(put).want(t, 422)
		elsewhere := s.post("tea", "Idempotency-Key", "k-1")
		elsewhere.URL.RawQuery = "rush=2"
		s.send(elsewhere).want(t, 422)
		if other := s.send(s.post("tea", "Idempotency-Key", "k-2")).want202(t, false); other.ID == first.ID {
			t.Error("another key has the same stream")
		}
		s.send(s.post("tea")).want202(t, false)
		if all := s.stored(testTopic); len(all) != 3 {
			t.Errorf("%d records, want 3", len(all))
		}
	})
}

// A request with a key that comes before the gateway has read the claims waits for
// that, and no other request does.
func TestIdempotencyKeyBeforeClaimsAreRead(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		began := time.Now()
		a := s.send(s.post("tea", "Idempotency-Key", "k")).want(t, 503, "Nothing was queued")
		if took := time.Since(began); took != s.app.settings.produceTimeout || a.Header.Get("Retry-After") != "1" {
			t.Errorf("after %s: %v", took, a.Header)
		}
		s.nothing()
		began = time.Now()
		var waiting sync.WaitGroup
		defer waiting.Wait()
		waiting.Go(func() {
			s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
			if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
				t.Errorf("queued after %s", took)
			}
		})
		s.send(s.post("coffee")).want202(t, false)
		if took := time.Since(began); took > time.Second {
			t.Errorf("a request without a key took %s", took)
		}
		<-time.After(3*time.Second - time.Since(began))
		s.startClaims()
	})
}

// A repeat with `Prefer: wait` gets the worker's answer, though it came before.
func TestIdempotencyKeyAfterTheAnswer(t *testing.T) {
	keyed(t, &Handler{Key: "{http.request.header.Customer}"}, func(t *testing.T, s *storefront) {
		s.work(func(r record.Request) []record.Reply {
			return []record.Reply{r.Reply(201, nil, []byte("done: "+string(r.Body)))}
		})
		for range 2 {
			s.send(s.post("tea", "Idempotency-Key", "k", "Prefer", "wait=10", "Customer", "ada")).want(t, 201, "done: tea")
			<-time.After(time.Minute)
		}
		s.only()
		// So it does at a gateway that has seen nothing of it.
		s.sibling(sideDoor)
		a := s.send(at(sideDoor, s.post("tea", "Idempotency-Key", "k", "Prefer", "wait=10", "Customer", "ada"))).want(t, 201, "done: tea")
		if a.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%v", a.Header)
		}
		s.only()
	})
}

// TestIdempotencyKeyRace: many at once, at two gateways, are one.
func TestIdempotencyKeyRace(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.sibling(sideDoor)
		const clients = 20
		answers := make([]answer, clients)
		var racing sync.WaitGroup
		for i := range clients {
			r := s.post("tea", "Idempotency-Key", "race")
			if i%2 == 1 {
				r = at(sideDoor, r)
			}
			racing.Go(func() { answers[i] = s.send(r) })
		}
		racing.Wait()
		winners, streams := 0, make(map[string]bool)
		for _, a := range answers {
			streams[a.queued(t).ID] = true
			if a.Header.Get("Idempotent-Replayed") == "" {
				winners++
			}
		}
		if winners != 1 || len(streams) != 1 {
			t.Errorf("%d were queued, and there are %d streams", winners, len(streams))
		}
		s.only()
		s.send(at(sideDoor, s.post("milk", "Idempotency-Key", "race"))).want(t, 422)
	})
}

// Two different requests that race with one key: one of them is refused.
func TestIdempotencyKeyRaceOfTwoRequests(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.sibling(sideDoor)
		var answers [2]answer
		var racing sync.WaitGroup
		racing.Go(func() { answers[0] = s.send(s.post("tea", "Idempotency-Key", "race")) })
		racing.Go(func() { answers[1] = s.send(at(sideDoor, s.post("milk", "Idempotency-Key", "race"))) })
		racing.Wait()
		if sum := answers[0].StatusCode + answers[1].StatusCode; sum != 202+422 {
			t.Errorf("%s and %s", answers[0].Status, answers[1].Status)
		}
		s.only()
	})
}

// A key is its owner's, where the route says who that is.
func TestIdempotencyKeyOfAnother(t *testing.T) {
	keyed(t, &Handler{Bind: "{test.user}"}, func(t *testing.T, s *storefront) {
		ada := s.send(s.post("tea", "Idempotency-Key", "k", "User", "ada"))
		eve := s.send(s.post("tea", "Idempotency-Key", "k", "User", "eve"))
		if ada.want202(t, false).ID == eve.want202(t, false).ID {
			t.Error("two users have one stream")
		}
		s.send(s.post("coffee", "Idempotency-Key", "k", "User", "eve")).want(t, 422)
		again := s.send(s.post("tea", "Idempotency-Key", "k", "User", "ada"))
		again.want202(t, true)
		s.get(again.Header.Get("Location"), "User", "ada").want(t, 200)
		s.get(again.Header.Get("Location"), "User", "eve").want(t, 403)
	})
}

func TestIdempotencyKeyBadInput(t *testing.T) {
	for value, want := range map[string]string{
		"abc": "abc", `"abc"`: "abc", `"a b"`: "a b", `"a\"b\\c"`: `a"b\c`, "8e03978e-40d5-43dd-bc93-6894a57f9324": "8e03978e-40d5-43dd-bc93-6894a57f9324",
		`"` + strings.Repeat("k", 255) + `"`: strings.Repeat("k", 255), "a=b:c/d+e": "a=b:c/d+e",
	} {
		if got, err := idempotencyKey(http.Header{"Idempotency-Key": {value}}); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", value, got, err, want)
		}
	}
	if key, err := idempotencyKey(http.Header{}); key != "" || err != nil {
		t.Errorf("%q %v", key, err)
	}
	bad := []string{
		"", " ", `""`, `"`, `"a`, `"a" ` + `b`, `"a"b`, `"a\b"`, `"a\`, "\"a\tb\"", `"ä"`, "ä", "a b", "a,b", `"a", "b"`, `a"b`, "a;b", `"a";p=1`, "\x00",
		strings.Repeat("k", 256), `"` + strings.Repeat("k", 256) + `"`,
	}
	for _, value := range bad {
		if got, err := idempotencyKey(http.Header{"Idempotency-Key": {value}}); err == nil {
			t.Errorf("%q: %q", value, got)
		}
	}
	if _, err := idempotencyKey(http.Header{"Idempotency-Key": {"a", "a"}}); err == nil {
		t.Error("two keys")
	}
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x", "Idempotency-Key", "a b")).want(t, 400, "needs quotes")
		if a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v", a.Header)
		}
		s.send(s.post("x", "Idempotency-Key", "a", "Idempotency-Key", "b")).want(t, 400)
		s.nothing()
	})
}

// What is refused leaves its key free, for another request too.
func TestIdempotencyKeyOfARefusedRequest(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		event := s.post("{", "Idempotency-Key", "k", "Content-Type", "application/cloudevents+json")
		s.send(event).want(t, 415)
		stop := s.onRequests(refusing(kafka.MessageSizeTooLarge))
		s.send(s.post("large", "Idempotency-Key", "k")).want(t, 413)
		stop()
		s.nothing()
		s.sibling(sideDoor)
		s.send(at(sideDoor, s.post("small", "Idempotency-Key", "k"))).want202(t, false)
		s.send(s.post("small", "Idempotency-Key", "k")).want202(t, true)
		s.only()
	})
}

// onRequests is onProduce for what goes to the topic of requests.
func (s *gateway) onRequests(f func(*kmsg.ProduceRequest) (kmsg.Response, bool)) (stop func()) {
	id := s.cluster.TopicInfo(testTopic).TopicID
	return s.onProduce(func(r *kmsg.ProduceRequest) (kmsg.Response, bool) {
		if t := r.Topics[0]; t.Topic != testTopic && t.TopicID != id {
			return nil, false
		}
		return f(r)
	})
}

// deadClaim makes a claim as a gateway would that dies before it queues the
// request, or before it says so.
func (s *storefront) deadClaim(body, key string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), s.app.settings.produceTimeout)
	defer cancel()
	lease, err := s.app.lease(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer lease.release()
	in := incoming{Request: s.post(body), workspace: &workspace{body: []byte(body)}}
	var c hub.Claims
	if err := s.route.newStream(ctx, lease, in, &c); err != nil {
		s.t.Fatal(err)
	}
	v, err := lease.claims.Claim(ctx, s.route.claim(in, "", key, &c))
	if err != nil || v.Turn == nil || v.Stream.ID != c.ID {
		s.t.Fatal(v, err)
	}
	return c.ID
}

// A claim whose gateway has died is taken up with its own stream, and not
// before it has had its time.
func TestIdempotencyKeyOfADeadGateway(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.sibling(sideDoor)
		id := s.deadClaim("tea", "k")
		s.send(s.post("coffee", "Idempotency-Key", "k")).want(t, 422)
		began := time.Now()
		a := s.send(at(sideDoor, s.post("tea", "Idempotency-Key", "k"))).want(t, 503, "still being queued")
		if a.Header.Get("Retry-After") == "" || time.Since(began) > s.app.settings.produceTimeout+time.Second {
			t.Errorf("after %s: %v", time.Since(began), a.Header)
		}
		s.nothing()
		if got := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false); got.ID != id {
			t.Errorf("stream %s, want the dead one's, %s", got.ID, id)
		}
		if got := s.send(at(sideDoor, s.post("tea", "Idempotency-Key", "k"))).want202(t, true); got.ID != id {
			t.Errorf("stream %s, want the dead one's, %s", got.ID, id)
		}
		_, request := s.only()
		if request.StreamID != id {
			t.Errorf("queued under %s, want %s", request.StreamID, id)
		}
	})
}

// A request that may be queued is queued again by the next repeat, which is
// what its client is told to do.
func TestIdempotencyKeyOfAnUnclearRequest(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		stop := s.onRequests(refusing(kafka.RequestTimedOut))
		s.send(s.post("tea", "Idempotency-Key", "k")).refused(t, 503, "repeat it with the same Idempotency-Key")
		stop()
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true)
		s.only()
	})
}

// One that has taken another's claim up and is refused leaves it to the next:
// it cannot know whether that one's request was queued.
func TestIdempotencyKeyTakenUpAndRefused(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		id := s.deadClaim("tea", "k")
		<-time.After(s.app.settings.produceTimeout)
		stop := s.onRequests(refusing(kafka.PolicyViolation))
		s.send(s.post("tea", "Idempotency-Key", "k")).refused(t, 503, "refused the request")
		stop()
		if got := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false); got.ID != id {
			t.Errorf("stream %s, want the dead one's, %s", got.ID, id)
		}
	})
}

// When the claim itself cannot be written, nothing is queued.
func TestIdempotencyKeyThatCannotBeClaimed(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		for _, code := range []kafka.Error{kafka.TopicAuthorizationFailed, kafka.RequestTimedOut} {
			stop := s.onProduce(refusing(code))
			s.send(s.post("tea", "Idempotency-Key", "k")).refused(t, 503, "could not be claimed")
			stop()
		}
		s.nothing()
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
	})
}

// A client that leaves while its request is being queued finds it queued.
func TestIdempotencyKeyOfAClientThatLeft(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		busy := refusing(kafka.RequestTimedOut)
		until := time.Now().Add(3 * time.Second)
		stop := s.onRequests(func(r *kmsg.ProduceRequest) (kmsg.Response, bool) {
			if time.Now().After(until) {
				return nil, false
			}
			return busy(r)
		})
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.client.Do(s.post("tea", "Idempotency-Key", "k").WithContext(ctx)); err == nil {
			t.Fatal("the client did not leave")
		}
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true)
		s.only()
	})
}

// A window that has passed leaves the key free.
func TestIdempotencyWindow(t *testing.T) {
	const window = time.Hour
	keyed(t, &Handler{Idempotency: 3600e9}, func(t *testing.T, s *storefront) {
		first := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		<-time.After(window - 10*time.Second)
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true)
		<-time.After(20 * time.Second)
		if again := s.send(s.post("coffee", "Idempotency-Key", "k")).want202(t, false); again.ID == first.ID {
			t.Error("the same stream after the window")
		}
		<-time.After(window + 5*time.Minute)
		if live := s.app.inside.claims.Live(); live != 0 {
			t.Errorf("%d claims are kept after their window", live)
		}
	})
}

// While a secret is replaced, step by step, gateways hold different ones, and
// find each other's claims all the same.
func TestIdempotencyKeyWhileSecretsChange(t *testing.T) {
	const before, after = "a secret of the tests", "the secret that follows"
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		ports := []string{siteHost, "localhost:8081", "localhost:8082", "localhost:8083"}
		for i, secrets := range [][]string{{before, after}, {after, before}, {after}} {
			s.sibling(ports[i+1], secrets...)
			for round := range 5 {
				key := fmt.Sprintf("step-%d-%d", i, round)
				var answers [2]answer
				var racing sync.WaitGroup
				racing.Go(func() { answers[0] = s.send(at(ports[i], s.post("tea", "Idempotency-Key", key))) })
				racing.Go(func() { answers[1] = s.send(at(ports[i+1], s.post("tea", "Idempotency-Key", key))) })
				racing.Wait()
				if a, b := answers[0].queued(t).ID, answers[1].queued(t).ID; a != b {
					t.Errorf("%s: %s and %s", key, a, b)
				}
			}
		}
		// Where the old one is gone, what was claimed under both is known.
		s.send(at(ports[3], s.post("tea", "Idempotency-Key", "step-1-0"))).want202(t, true)
		if all := s.stored(testTopic); len(all) != 15 {
			t.Errorf("%d records, want 15", len(all))
		}
	})
}

// What the topic tells its readers is neither keys nor bodies nor owners.
func TestClaimsAreHashed(t *testing.T) {
	keyed(t, &Handler{Bind: "{test.user}"}, func(t *testing.T, s *storefront) {
		s.send(s.post("a body", "Idempotency-Key", "a key", "User", "ada lovelace")).want(t, 400)
		s.send(s.post("a body", "Idempotency-Key", `"a key"`, "User", "ada lovelace")).want202(t, false)
		all := s.stored(claims.Topic)
		if len(all) != 2 {
			t.Fatalf("%d records, want a claim and a note", len(all))
		}
		for _, r := range all {
			raw, _ := json.Marshal([]string{string(r.Key), string(r.Value)})
			for _, secret := range []string{"a body", "a key", "ada"} {
				if strings.Contains(string(raw), secret) {
					t.Errorf("%q is on the topic", secret)
				}
			}
		}
	})
}

// A claims topic that is deleted and made again is read anew.
func TestIdempotencyAfterTheTopicIsRecreated(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		if err := s.cluster.DeleteTopic(claims.Topic); err != nil {
			t.Fatal(err)
		}
		<-time.After(20 * time.Second)
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true)
	})
}

// With the broker away, a request that is known to be queued still gets its
// stream, and another is told that nothing happened.
func TestIdempotencyWithoutBroker(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		first := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		s.cut()
		if again := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true); again.ID != first.ID {
			t.Errorf("%+v", again)
		}
		s.send(s.post("tea", "Idempotency-Key", "other")).want(t, 503, "Nothing was queued")
	})
}

func TestIdempotencyWindowFitsTheEmbeddedBroker(t *testing.T) {
	h := &Handler{Topic: testTopic, Idempotency: caddy.Duration(25 * time.Hour)}
	app := &App{Token: &Token{TTL: caddy.Duration(24 * time.Hour)}}
	app.settings = app.effective()
	h.settle(app)
	if err := h.Validate(); err != nil {
		t.Errorf("on Kafka: %v", err)
	}
	app.plan.embedded = &embedded.Config{Retention: 24 * time.Hour}
	if err := h.Validate(); err == nil || !strings.Contains(err.Error(), "raise `embedded { retention") {
		t.Errorf("on the embedded broker: %v", err)
	}
	h.Idempotency = caddy.Duration(24 * time.Hour)
	if err := h.Validate(); err != nil {
		t.Error(err)
	}
	h.Idempotency = -1
	if err := h.Validate(); err == nil {
		t.Error("a window below 0")
	}
}

// A window is no longer than the streams live that repeats get.
func TestIdempotencyWindowFitsTheStreams(t *testing.T) {
	for _, test := range []struct{ ttl, window, want time.Duration }{ // want 0: refused
		{0, 0, 24 * time.Hour}, {12 * time.Hour, 0, 24 * time.Hour}, {20 * time.Hour, 0, 24 * time.Hour}, {time.Hour, 0, 2 * time.Hour},
		{time.Hour, time.Minute, time.Minute}, {time.Hour, 2 * time.Hour, 2 * time.Hour}, {time.Hour, 2*time.Hour + 1, 0},
		{20 * time.Hour, 40 * time.Hour, 40 * time.Hour}, {0, 25 * time.Hour, 0},
	} {
		app := &App{Token: &Token{TTL: caddy.Duration(test.ttl)}}
		app.settings = app.effective()
		h := &Handler{Topic: testTopic, Idempotency: caddy.Duration(test.window)}
		h.settle(app)
		err := h.Validate()
		if test.want == 0 {
			if err == nil || !strings.Contains(err.Error(), "idempotency is "+test.window.String()+"; it may be up to two token ttl, "+app.streamLife().String()) {
				t.Errorf("%+v: %v", test, err)
			}
		} else if err != nil || time.Duration(h.Idempotency) != test.want {
			t.Errorf("%+v: %s, %v", test, time.Duration(h.Idempotency), err)
		}
	}
}

func TestClaimsTopic(t *testing.T) {
	app := new(App)
	app.settings = app.effective()
	for _, window := range []time.Duration{time.Hour, 48 * time.Hour, 24 * time.Hour} {
		h := &Handler{Topic: testTopic, Idempotency: caddy.Duration(window)}
		h.settle(app)
		app.addRoute(h)
	}
	spec := app.claimsSpec()
	if spec.Name != "osmosis.idempotency" || spec.Config["retention.ms"] != "216000000" || spec.Config["cleanup.policy"] != "delete" || spec.Config["message.timestamp.type"] != "LogAppendTime" {
		t.Errorf("%+v", spec)
	}
}

// A configuration that allows topics to be made makes that of the claims, though
// the one before did not.
func TestClaimsTopicIsMadeAfterAReload(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.startClaims()
		s.send(s.post("tea", "Idempotency-Key", "k")).want(t, 503, "Nothing was queued")
		s.app.settings.create.Off = false
		s.startClaims()
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
	}, func(a *App) { a.Create = &Create{Off: true} })
}
