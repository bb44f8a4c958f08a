package osmosis

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// eventType is the CloudEvents type of a request that is not an event itself.
const eventType = "osmosis.request"

// incoming is a request that is about to be queued, and what was read of it.
type incoming struct {
	*http.Request
	*workspace
	repl *caddy.Replacer
}

// queue makes the record and has the broker take it. The claims it fills in hold
// all that a gateway needs to serve the stream.
func (h *Handler) queue(ctx context.Context, lease *lease, in incoming, c *hub.Claims) error {
	// The stream comes first: its floor has to be older than the record.
	if err := h.newStream(ctx, lease, in, c); err != nil {
		return err
	}
	rec, err := h.record(in, c)
	if err != nil {
		return err
	}
	return h.produce(ctx, lease, ingress.Request{Topic: h.Topic, Record: rec}, c)
}

// newStream makes a stream for a request that has no place on the topic yet.
func (h *Handler) newStream(ctx context.Context, lease *lease, in incoming, c *hub.Claims) error {
	place, err := lease.hub.Place(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	scheme, host := originOf(in.Request)
	*c = hub.Claims{
		ID: record.NewID(place.Partition, place.Partitions), Scheme: scheme, Host: host,
		Topic: h.Topic, Group: h.Group,
		ReplyTopic: place.Topic, ReplyPartition: place.Partition, ReplyPartitions: place.Partitions,
		Floor: place.Floor, ReplyIncarnation: place.Incarnation,
		Issued: now, Expires: now.Add(h.app.settings.ttl),
	}
	return c.Check() // a Host that fits no token: refused before it is queued
}

// record makes the record of a request for a stream. It is good until the next
// one is made in the request's workspace.
func (h *Handler) record(in incoming, c *hub.Claims) (record.Record, error) {
	rec, err := in.scratch.FromHTTP(in.Request, in.body, record.Meta{
		StreamID: c.ID, Source: c.Scheme + "://" + c.Host, Type: eventType, Time: c.Issued,
		Scheme: c.Scheme, ClientIP: clientIP(in.Request),
		ReplyTopic: c.ReplyTopic, ReplyPartition: c.ReplyPartition, Expires: c.Expires, Names: h.Headers,
	})
	if err != nil {
		return rec, err
	}
	if key := h.key(in); key != "" {
		in.key = append(in.key[:0], key...)
		rec.Key = in.key
	}
	return rec, nil
}

// bodyPlaceholder is how the placeholders begin that stand for a request's body.
const bodyPlaceholder = "{http.request.body"

// key gives the record's key. Caddy would read the body for a placeholder that
// stands for it, which has been read by now.
func (h *Handler) key(in incoming) string {
	if h.keyOf != "" {
		if values := in.Header[h.keyOf]; len(values) == 1 { // the rest is Caddy's
			return values[0]
		}
	}
	if h.keyIs != "" {
		value, _ := in.repl.GetString(h.keyIs)
		return value
	}
	if strings.Contains(h.Key, bodyPlaceholder) {
		const plain, encoded = "http.request.body", "http.request.body_base64"
		in.repl.Set(plain, string(in.body))
		in.repl.Set(encoded, base64.StdEncoding.EncodeToString(in.body))
		defer in.repl.Delete(plain)
		defer in.repl.Delete(encoded)
	}
	return in.repl.ReplaceAll(h.Key, "")
}

// onlyPlaceholder gives the name of the placeholder that a text is, or nothing
// where there is more to it. Such a text needs no parsing for every request.
func onlyPlaceholder(text string) string {
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' || strings.HasPrefix(text, bodyPlaceholder) {
		return ""
	}
	name := text[1 : len(text)-1]
	if strings.ContainsAny(name, `{}\\`) {
		return ""
	}
	return name
}

// produce has the broker take the record, and notes in the claims where it
// lies. A topic that is missing is made where that is allowed.
func (h *Handler) produce(ctx context.Context, lease *lease, request ingress.Request, c *hub.Claims) error {
	ack, err := produceWithin(ctx, lease.producer, request)
	if errors.Is(err, ingress.ErrTopicMissing) {
		if cause := h.app.ensure(ctx, lease.client, h.app.requestSpec(h.Topic)); cause != nil {
			return fmt.Errorf("%w: %w", err, cause)
		}
		ack, err = produceWithin(ctx, lease.producer, request)
	}
	if err != nil {
		return err
	}
	c.Partition, c.Offset, c.Incarnation = ack.Partition, ack.Offset, ack.Incarnation
	return nil
}

// produceWithin produces within the context's deadline. Nothing is sent after
// it: this process may have been frozen, and another gateway have acted on that.
func produceWithin(ctx context.Context, p *ingress.Producer, request ingress.Request) (ingress.Ack, error) {
	deadline, _ := ctx.Deadline()
	if request.Timeout = time.Until(deadline); request.Timeout <= 0 {
		return ingress.Ack{}, fmt.Errorf("%w: its time had passed before it was sent", ingress.ErrUnavailable)
	}
	// The producer keeps to the timeout by itself. Of the context it needs to hear
	// that the client has left, for which no timer is made.
	if b, ok := ctx.(*bounded); ok {
		ctx = b.Context
	}
	return p.Produce(ctx, request)
}
