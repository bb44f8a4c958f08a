package osmosis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// controlTopic is where cancellations go, for all who deliver. It has one
// partition, so that everybody reads them in the same order.
const controlTopic = "osmosis.control"

// cancelled is the body of the answer to a DELETE that cancelled a request.
type cancelled struct {
	ID     string       `json:"id"`
	Status record.State `json:"status"`
	// Was is what the request was before: one that was queued is not delivered
	// any more, one that was being delivered may have had effects.
	Was record.State `json:"was"`
}

// serveCancel calls a request off. Those who deliver are told first, then the
// stream gets its end; whether that came before an answer is for the log to say,
// as always, and the client is told what it says.
//
// It is best effort: a worker that knows nothing of cancellations does the work
// all the same, and its answer is ignored.
func (v *visit) serveCancel(w http.ResponseWriter, r *http.Request, callOff func(context.Context, hub.Claims) error) error {
	before, err := v.glimpse(r.Context(), func(s *snapshot) bool { return s.caughtUp })
	if err != nil {
		return v.notCancelled(w, r, err)
	}
	after := before
	if before.end == nil {
		if err := callOff(r.Context(), v.claims); err != nil {
			return v.notCancelled(w, r, err)
		}
		if after, err = v.glimpse(r.Context(), func(s *snapshot) bool { return false }); err != nil {
			return v.notCancelled(w, r, err)
		}
	}
	if status := after.end.End.Status; status != record.StateCancelled {
		return writeProblem(w, r, problem{Status: http.StatusConflict, Detail: "The request cannot be cancelled any more, its stream has ended: " + string(status) + "."})
	}
	body, err := json.Marshal(cancelled{ID: v.claims.ID, Status: record.StateCancelled, Was: before.status})
	if err != nil {
		return fmt.Errorf("encode cancellation: %w", err)
	}
	writeJSON(w, r, http.StatusOK, "application/json", append(body, '\n'))
	return nil
}

// notCancelled answers where it is not known whether the request was called off.
func (v *visit) notCancelled(w http.ResponseWriter, r *http.Request, err error) error {
	v.logger.Error("request not cancelled", zap.String("stream", v.claims.ID), zap.Error(err))
	return writeProblem(w, r, unavailable("The broker did not answer in time, so the request may have been cancelled or not; try again."))
}

// glimpse reads the stream up to its end, or until there is enough of it.
func (v *visit) glimpse(ctx context.Context, enough func(*snapshot) bool) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sub := v.hub.Follow(streamOf(v.claims), nil)
	defer sub.Close()
	s := newSnapshot(nil)
	return s, s.read(ctx, sub, func() bool { return s.end != nil || enough(s) })
}

// callOff tells those who deliver, and ends the stream.
func (a *App) callOff(ctx context.Context, lease *lease, c hub.Claims) error {
	ctx, cancel := context.WithTimeout(ctx, a.settings.produceTimeout)
	defer cancel()
	told := deliver.Cancellation{Cancel: c.ID, Expires: c.Expires.UnixMilli()}.Record()
	err := a.put(ctx, lease, controlTopic, told)
	if errors.Is(err, ingress.ErrTopicMissing) {
		if err = a.ensure(ctx, lease.client, a.controlSpec()); err == nil {
			err = a.put(ctx, lease, controlTopic, told)
		} else if a.settings.create.Off {
			a.logger.Warn("nobody who delivers learns of cancellations: the control topic is missing; create it with one partition", zap.String("topic", controlTopic), zap.Error(err))
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("tell those who deliver: %w", err)
	}
	end := record.Request{StreamID: c.ID}.Report(record.Status{Status: record.StateCancelled, Reason: "called off by its client"})
	if err := a.put(ctx, lease, c.ReplyTopic, end.Record()); err != nil {
		return fmt.Errorf("end the stream: %w", err)
	}
	return nil
}

func (a *App) put(ctx context.Context, lease *lease, topic string, r record.Record) error {
	deadline, _ := ctx.Deadline()
	_, err := lease.producer.Produce(ctx, ingress.Request{Topic: topic, Record: r, Timeout: time.Until(deadline)})
	return err
}
