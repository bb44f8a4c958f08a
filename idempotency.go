package osmosis

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	// headerIdempotencyKey is draft-ietf-httpapi-idempotency-key-header's.
	headerIdempotencyKey = "Idempotency-Key"
	// headerReplayed tells a client that its request was not queued again. The
	// name is what clients know from other APIs.
	headerReplayed = "Idempotent-Replayed"

	// maxIdempotencyKey bounds a key, in bytes.
	maxIdempotencyKey = 255

	// defaultIdempotency is the default of Handler.Idempotency, where streams live
	// as long.
	defaultIdempotency = 24 * time.Hour

	// claimPartitions is how many partitions the claims topic is made with. A
	// key's claims lie in one of them, so that they are not to be added to later.
	claimPartitions = 8
)

// idempotencyKey gives the request's key, "" where it has none. A key is a
// string of RFC 9651, in quotes, as the draft has it, or the same without
// quotes, as other APIs take it; both spellings are one key.
func idempotencyKey(header http.Header) (string, *problem) {
	lines := header[headerIdempotencyKey]
	if len(lines) == 0 {
		return "", nil
	}
	bad := func(detail string) (string, *problem) {
		return "", &problem{Status: http.StatusBadRequest, Detail: detail + ` Write one such as "8e03978e-40d5-43dd-bc93-6894a57f9324".`}
	}
	if len(lines) > 1 {
		return bad("The request has more than one Idempotency-Key.")
	}
	key := strings.Trim(lines[0], " \t")
	if strings.HasPrefix(key, `"`) {
		unquoted, ok := unquoteKey(key)
		if !ok {
			return bad("The Idempotency-Key is no string in quotes.")
		}
		key = unquoted
	} else if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`",;\`, r) }) {
		return bad("The Idempotency-Key needs quotes for what it holds.")
	}
	if key == "" || len(key) > maxIdempotencyKey {
		return bad(fmt.Sprintf("The Idempotency-Key has %d characters; it may have 1 to %d.", len(key), maxIdempotencyKey))
	}
	return key, nil
}

// unquoteKey reads a string in quotes, in which a backslash stands before
// quotes and backslashes.
func unquoteKey(s string) (string, bool) {
	key := make([]byte, 0, len(s))
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			return string(key), i == len(s)-1
		case c == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", false
			}
			c = s[i]
		case c < ' ' || c > '~':
			return "", false
		}
		key = append(key, c)
	}
	return "", false
}

// queueOnce queues the request unless one with the same idempotency key was
// before it. Then it gives that one's stream, and replayed is true.
func (h *Handler) queueOnce(ctx context.Context, lease *lease, in incoming, c *hub.Claims, owner, key string) (replayed bool, err error) {
	if err := h.newStream(ctx, lease, in, c); err != nil {
		return false, err
	}
	rec, err := h.record(in, c) // one that cannot be queued claims nothing
	if err != nil {
		return false, err
	}
	verdict, err := lease.claims.Claim(ctx, h.claim(in, owner, key, c))
	if err != nil {
		return false, err
	}
	turn := verdict.Turn
	takenUp := verdict.Stream.ID != c.ID
	if takenUp {
		s := verdict.Stream
		c.ID, c.ReplyTopic, c.ReplyPartition, c.ReplyPartitions = s.ID, s.Topic, s.Partition, s.Partitions
		c.Floor, c.ReplyIncarnation, c.Issued, c.Expires = s.Floor, s.Incarnation, s.Issued, s.Expires
	}
	if turn == nil {
		at := verdict.Request
		c.Partition, c.Offset, c.Incarnation = at.Partition, at.Offset, at.Incarnation
		return true, nil
	}
	if takenUp {
		rec, err = h.record(in, c)
	}
	if err == nil {
		// Without a key too the place is settled, so that a request that is queued
		// a second time comes to the same worker, which knows its stream id.
		request := ingress.Request{Topic: h.Topic, Record: rec}
		if rec.Key == nil {
			request.PlaceBy = []byte(c.ID)
		}
		err = h.produce(ctx, lease, request, c)
	}
	h.endTurn(ctx, turn, c, err)
	return false, err
}

// endTurn tells the other gateways what became of a request. One that may be
// queued is left open: the next repeat queues it again, with its stream id.
func (h *Handler) endTurn(ctx context.Context, turn *claims.Turn, c *hub.Claims, outcome error) {
	var err error
	switch {
	case outcome == nil:
		err = turn.Note(ctx, claims.Position{Partition: c.Partition, Offset: c.Offset, Incarnation: c.Incarnation})
	case !errors.Is(outcome, ingress.ErrUnclear):
		err = turn.Revoke(ctx)
	}
	if err != nil {
		h.app.logger.Warn("claim on idempotency key not settled", zap.String("topic", h.Topic), zap.String("stream", c.ID), zap.Error(err))
	}
}

// unlessQueued returns the refusal of a request that the route does not take now,
// and nil if it is the repeat of one that is queued or may be: that one's stream
// is there, and nothing is added to what waits.
func (h *Handler) unlessQueued(r *http.Request, owner, key string, refusal *problem) *problem {
	ctx, cancel := context.WithTimeout(r.Context(), h.app.settings.produceTimeout)
	defer cancel()
	who := h.claimant(owner, key)
	marks := make([]claims.Mark, 0, claims.MaxMarks)
	for _, hash := range h.claimKeys(who) {
		marks = append(marks, claims.Mark{Key: hash})
	}
	lease, err := h.app.lease(ctx)
	if err == nil {
		defer lease.release()
		var queued bool
		if queued, err = lease.claims.Known(ctx, marks, who[:]); err == nil && !queued {
			return refusal
		}
	}
	if err != nil {
		p := unavailable("The gateway could not learn whether this Idempotency-Key was used. Nothing was queued; try again with the same key.")
		return &p
	}
	return nil
}

// claimant is who asks, and the key that they gave.
func (h *Handler) claimant(owner, key string) [sha256.Size]byte {
	bound := "anyone"
	if h.Bind != "" {
		bound = "bound"
	}
	return digest(h.Topic, bound, owner, key)
}

// claimKeys returns what stands for a claimant under each of the token secrets.
func (h *Handler) claimKeys(who [sha256.Size]byte) [][16]byte {
	keys := h.app.keys.ClaimHashes("who", string(who[:]))
	return keys[:min(len(keys), claims.MaxMarks)]
}

// claim makes the claim of a request on its key.
func (h *Handler) claim(in incoming, owner, key string, c *hub.Claims) claims.Claim {
	who := h.claimant(owner, key)
	what := digest(in.Method, in.URL.RequestURI(), string(in.body))
	keys := h.claimKeys(who)
	bodies := h.app.keys.ClaimHashes("what", string(what[:]))
	marks := make([]claims.Mark, len(keys))
	for i := range marks {
		marks[i] = claims.Mark{Key: keys[i], Body: bodies[i]}
	}
	return claims.Claim{
		Marks: marks, Place: who[:],
		Stream: claims.Stream{
			ID: c.ID, Topic: c.ReplyTopic, Partition: c.ReplyPartition, Partitions: c.ReplyPartitions,
			Floor: c.Floor, Incarnation: c.ReplyIncarnation, Issued: c.Issued, Expires: c.Expires,
		},
		Until: c.Issued.Add(time.Duration(h.Idempotency)),
	}
}

// digest hashes texts, each behind its length so that no two lists run together.
func digest(texts ...string) [sha256.Size]byte {
	hash := sha256.New()
	var n [8]byte
	for _, text := range texts {
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		hash.Write(n[:])
		hash.Write([]byte(text))
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// streamLife is how long a stream's URL answers: ttl until it expires, and as long
// again for those who come back to it.
func (a *App) streamLife() time.Duration { return 2 * a.settings.ttl }

// validWindow refuses a window in which claims would be deleted, or in which a
// repeat would get the URL of a stream that is gone.
func (h *Handler) validWindow() error {
	window := time.Duration(h.Idempotency)
	if window < 0 {
		return fmt.Errorf("osmosis %s: idempotency is %s; it has to be longer than 0", h.Topic, window)
	}
	if life := h.app.streamLife(); window > life {
		return fmt.Errorf("osmosis %s: idempotency is %s; it may be up to two token ttl, %s, since the stream that a repeat gets is gone after them: shorten the window, or raise `token { ttl … }`", h.Topic, window, life)
	}
	if e := h.app.plan.embedded; e != nil && window > e.Retention {
		return fmt.Errorf("osmosis %s: idempotency is %s, and the embedded broker keeps records for %s: shorten the window, or raise `embedded { retention … }`", h.Topic, window, e.Retention)
	}
	return nil
}

// produceClaims gives the way of a book of claims to its topic. The producer's
// errors end here: what became of a claim is not what became of the request,
// of which nothing is queued yet.
func produceClaims(p *ingress.Producer) func(context.Context, []byte, record.Record) (claims.Position, error) {
	return func(ctx context.Context, placeBy []byte, rec record.Record) (claims.Position, error) {
		ack, err := produceWithin(ctx, p, ingress.Request{Topic: claims.Topic, Record: rec, PlaceBy: placeBy})
		if err != nil {
			return claims.Position{}, errors.New(err.Error())
		}
		return claims.Position{Partition: ack.Partition, Offset: ack.Offset, Incarnation: ack.Incarnation}, nil
	}
}

// claimsSpec describes the claims topic for when it has to be made. Claims are
// kept for the longest window and as long again as a stream may live.
func (a *App) claimsSpec() broker.TopicSpec {
	spec := broker.TopicSpec{
		Name: claims.Topic, Partitions: claimPartitions, Replication: a.settings.create.Replication,
		Config: map[string]string{timestampType: logAppendTime},
	}
	// The retention of the embedded broker is its janitor's: see package embedded.
	if a.plan.embedded == nil {
		spec.Config["cleanup.policy"] = "delete"
		spec.Config["retention.ms"] = broker.Millis(a.longestWindow() + a.settings.ttl)
	}
	return spec
}

// startClaims begins to read claims, if there are routes that make some. A
// topic that is there already may forget them too soon, which only its owner can mend.
func (a *App) startClaims(ctx context.Context, i *inside) {
	window := a.longestWindow()
	if window == 0 {
		return
	}
	i.claims.Start(a.claimsSpec(), !a.settings.create.Off)
	if a.plan.embedded != nil {
		return
	}
	a.working.Go(func() {
		a.checkRetention(ctx, i.client, claims.Topic, window,
			"claims on idempotency keys are deleted before the window ends: raise retention.ms of their topic, or shorten `idempotency`")
	})
}
