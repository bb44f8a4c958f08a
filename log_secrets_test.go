package osmosis

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

// journal is the module's log as an operator has it.
type journal struct {
	mu sync.Mutex
	bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.Buffer.Write(b)
}

// has fails unless all of these were logged.
func (j *journal) has(t *testing.T, messages ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range messages {
		if !strings.Contains(j.String(), `"msg":"`+m) {
			t.Errorf("%q was not logged: the test does not see what it is about", m)
		}
	}
}

// What clients send, what they are answered and the tokens of their streams.
const (
	secretBody   = "the-body-of-the-request"
	secretReply  = "the-body-of-the-answer"
	secretCookie = "session=the-cookie"
	secretKey    = "the-idempotency-key"
	secretUser   = "the-user"
	secretQuery  = "the-query"
)

// Whatever becomes of a request, the log at INFO and above has none of it.
func TestLogHoldsNoSecrets(t *testing.T) {
	log := new(journal)
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(log), zap.InfoLevel))
	var tokens []string
	route := &Handler{Bind: "{test.user}", Headers: []string{"Cookie", "Do"}, MaxBody: 10_000, Deliver: &Deliver{}}
	keyed(t, route, func(t *testing.T, s *storefront) {
		post := func(do string, headers ...string) *http.Request {
			r := s.post(secretBody, append([]string{"Do", do, "Cookie", secretCookie, "User", secretUser}, headers...)...)
			r.URL.RawQuery = secretQuery
			return r
		}
		queue := func(do string, headers ...string) (location string) {
			t.Helper()
			location = s.send(post(do, headers...)).want(t, http.StatusAccepted).Header.Get("Location")
			tokens = append(tokens, path.Base(location))
			return location
		}
		read := func(location string, headers ...string) answer {
			return s.get(location, append([]string{"Cookie", secretCookie}, headers...)...)
		}
		d := deliver.New(deliver.Config{
			Broker: s.app.inside.client, Producer: s.app.repliesTo(s.app.inside), Topic: testTopic, Group: testTopic,
			Control: controlTopic, Logger: logger.Named("deliver"),
		}, deliver.Options{
			Handler: does{}, Attempts: 2, BackoffMin: time.Second, BackoffMax: time.Second, Timeout: 20 * time.Second, Concurrency: 2,
			DeadLetter: testTopic + ".dlq", MaxResponse: 1000,
		})
		defer d.Close()

		// Answered, and read in every form, by the one who asked and by others.
		location := queue("answer", "Idempotency-Key", secretKey)
		queue("answer", "Idempotency-Key", secretKey)
		pass(time.Second)
		for _, accept := range []string{"application/json", "text/event-stream", "text/html", "image/png"} {
			read(location, "Accept", accept, "User", secretUser)
			read(location, "Accept", accept, "User", "eve")
		}
		read(location+"/result", "User", secretUser).want(t, http.StatusOK, secretReply)
		read(location+"x", "User", secretUser).want(t, http.StatusNotFound)
		socket := s.socket(location, "User", secretUser, "Last-Event-ID", "nonsense")
		for err := error(nil); err == nil; {
			_, _, err = socket.Read(t.Context())
		}

		// Refused by the route.
		s.send(s.post(secretBody+"2", "Idempotency-Key", secretKey, "User", secretUser)).want(t, http.StatusUnprocessableEntity)
		s.send(s.post(secretBody, "Idempotency-Key", secretKey+" ", "Idempotency-Key", secretKey, "User", secretUser)).want(t, http.StatusBadRequest)
		s.send(s.post(secretBody, "Content-Type", "application/cloudevents+json", "User", secretUser)).want(t, http.StatusUnsupportedMediaType)
		s.send(s.post(strings.Repeat(secretBody, 1000), "User", secretUser)).want(t, http.StatusRequestEntityTooLarge)
		s.send(s.post(secretBody)).want(t, http.StatusUnauthorized)

		// Refused by the broker, with a key and without, and the claim as well.
		for _, code := range []kafka.Error{kafka.MessageSizeTooLarge, kafka.TopicAuthorizationFailed, kafka.PolicyViolation, kafka.InvalidRecord, kafka.RequestTimedOut} {
			for i, on := range []func(func(*kmsg.ProduceRequest) (kmsg.Response, bool)) func(){s.onRequests, s.onProduce} {
				stop := on(refusing(code))
				s.send(post("answer"))
				s.send(post("answer", "Idempotency-Key", secretKey+code.Title()+string(rune('a'+i))))
				stop()
			}
		}
		produced := 0
		stop := s.onProduce(func(r *kmsg.ProduceRequest) (kmsg.Response, bool) {
			if produced++; produced < 3 { // the claim and the request, but not the note
				return nil, false
			}
			return refusing(kafka.TopicAuthorizationFailed)(r)
		})
		s.send(post("answer", "Idempotency-Key", secretKey+"-not-noted"))
		stop()
		log.has(t, "request not queued", "claim on idempotency key not settled")

		// Given up, in every way; its dead letter refused first.
		for _, do := range []string{"fail", "break", "panic", "much", "wait"} {
			queue(do)
		}
		pass(2 * time.Minute)
		log.has(t, "request given up", "handler panicked")
		queue("fail")
		stop = s.onProduce(refusing(kafka.TopicAuthorizationFailed))
		stopped := time.AfterFunc(time.Minute, stop)
		defer stopped.Stop()
		s.send(post("answer"))
		pass(2 * time.Minute)
		produced = 0
		stop = s.onProduce(func(r *kmsg.ProduceRequest) (kmsg.Response, bool) {
			if produced++; produced < 2 { // the request, but not its answer
				return nil, false
			}
			return refusing(kafka.RequestTimedOut)(r)
		})
		queue("answer")
		pass(time.Minute)
		stop()
		log.has(t, "dead letter not produced")

		// Cancelled while it waits and while it is tried, and in vain.
		for range 3 {
			location := queue("wait")
			pass(time.Second)
			s.do(http.MethodDelete, location, "User", secretUser)
		}

		// Expired before it is tried, or while it is.
		for range 20 { // more than are tried at once, those included that lose their place to others
			queue("wait")
		}
		pass(s.app.settings.ttl + 30*time.Second)
		log.has(t, "request expired before it was tried")
		read(s.app.settings.streams+"/"+tokens[len(tokens)-1], "Accept", "application/json", "User", secretUser).want(t, http.StatusOK, "expired")

		// The broker goes.
		location = queue("wait")
		s.cut()
		s.send(post("answer"))
		s.send(post("answer", "Idempotency-Key", secretKey))
		s.send(post("answer", "Idempotency-Key", "another-"+secretKey))
		s.do(http.MethodDelete, location, "User", secretUser)
		pass(time.Minute)
		log.has(t, "request not cancelled")
		s.mend()
		pass(time.Minute)
	}, func(a *App) {
		a.logger = logger
		a.Token = &Token{TTL: caddyDuration(time.Minute)}
	})

	logged := log.String()
	secrets := append([]string{secretBody, secretReply, secretCookie, "the-cookie", secretKey, secretUser, secretQuery}, tokens...)
	for _, secret := range secrets {
		for _, spelling := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret))} {
			if i := strings.Index(logged, spelling); i >= 0 {
				line := logged[strings.LastIndex(logged[:i], "\n")+1:]
				line, _, _ = strings.Cut(line, "\n")
				t.Errorf("%q is in the log: %s", secret, line)
			}
		}
	}
	if len(tokens) < 10 || len(logged) < 1000 {
		t.Errorf("%d tokens, %d bytes of log", len(tokens), len(logged))
	}
}

// does answers as the request's header Do says.
type does struct{}

func (does) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	reply := secretReply + string(body)
	switch r.Header.Get("Do") {
	case "fail":
		w.WriteHeader(http.StatusBadGateway)
	case "break":
		_, _ = io.WriteString(w, reply)
		_ = http.NewResponseController(w).Flush()
		return &deliver.Failure{Code: http.StatusBadGateway, Err: io.ErrUnexpectedEOF}
	case "panic":
		panic("of the app")
	case "much":
		reply = strings.Repeat(reply, 100)
	case "wait":
		<-r.Context().Done()
	}
	_, err = io.WriteString(w, reply)
	return err
}
