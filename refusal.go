package osmosis

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// retryAfter is how long a client should wait when the broker is away: about
// as long as a leader move or a restart takes.
const retryAfter = 5 * time.Second

// unavailable is a refusal for which the client can do nothing but try again.
func unavailable(detail string) problem {
	return problem{Status: http.StatusServiceUnavailable, Detail: detail, RetryAfter: retryAfter}
}

// refuse answers a request that was not queued, or may not have been. The
// client is told what to do; the operator finds the cause in the log.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) error {
	var p problem
	logged := true
	switch {
	case errors.Is(err, record.ErrEvent):
		p, logged = problem{Status: http.StatusUnsupportedMediaType, Detail: "The request says that it is a CloudEvent and cannot be read as one: " + err.Error() + "."}, false
	case errors.Is(err, hub.ErrClaimsTooLong):
		p, logged = problem{Status: http.StatusBadRequest, Detail: "The request's Host is too long. Nothing was queued."}, false
	case errors.Is(err, claims.ErrReused):
		p, logged = problem{Status: http.StatusUnprocessableEntity, Detail: "This Idempotency-Key was used with another request: its method, path or body was not the same. Nothing was queued. Give each request its own key."}, false
	case errors.Is(err, claims.ErrPending):
		p, logged = unavailable("The request with this Idempotency-Key is still being queued. Repeat it with the same key to get its stream."), false
	case errors.Is(err, claims.ErrNotRead):
		p, logged = unavailable("The gateway does not know yet which Idempotency-Keys were used. Nothing was queued; try again with the same key."), false
		p.RetryAfter = time.Second
	case errors.Is(err, claims.ErrFull):
		p = unavailable("More Idempotency-Keys are in use than the gateway keeps. Nothing was queued; try again later.")
	case errors.Is(err, claims.ErrUnwritten):
		p = unavailable("The Idempotency-Key could not be claimed, since the broker did not answer. Nothing was queued; try again with the same key.")
	case errors.Is(err, ingress.ErrUnclear) && r.Header[headerIdempotencyKey] != nil:
		p = unavailable("The broker did not answer in time. The request may have been queued all the same: repeat it with the same Idempotency-Key, and it gets the same stream.")
	case errors.Is(err, ingress.ErrTooLarge):
		p, logged = problem{Status: http.StatusRequestEntityTooLarge, Detail: "The request is larger than the broker takes. Send a smaller body, or raise message.max.bytes of the broker and max.message.bytes of the topic."}, false
	case errors.Is(err, ingress.ErrFull):
		p = problem{Status: http.StatusTooManyRequests, Detail: "More requests are waiting for the broker than the gateway holds. Nothing was queued; try again.", RetryAfter: time.Second}
	case errors.Is(err, ingress.ErrTopicMissing):
		p = unavailable("The topic of this route does not exist. Nothing was queued. Create the topic, or let the gateway create it.")
	case errors.Is(err, ingress.ErrRefused):
		p = unavailable("The broker refused the request; the gateway's log says why. Nothing was queued.")
	case errors.Is(err, ingress.ErrUnclear):
		p = unavailable("The broker did not answer in time. The request may have been queued all the same: repeat it only if doing it twice does no harm.")
	case errors.Is(err, hub.ErrNoFloor), errors.Is(err, ingress.ErrUnavailable):
		p = unavailable(unreached(err) + " Nothing was queued; try again.")
	default:
		p = unavailable("The gateway could not queue the request; its log says why. Nothing was queued.")
	}
	if logged {
		level := zap.ErrorLevel
		if r.Context().Err() != nil {
			level = zap.DebugLevel // the client went away, which is nobody's fault
		}
		if c := h.app.logger.Check(level, "request not queued"); c != nil {
			c.Write(zap.String("topic", h.Topic), zap.Int("status", p.Status), zap.Error(err))
		}
	}
	return writeProblem(w, r, p)
}
