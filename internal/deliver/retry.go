package deliver

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter bounds how long an upstream may ask a request to wait.
const maxRetryAfter = time.Hour

// retryable tells whether a status says that the same request may do better
// later. All other answers are replies.
func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= http.StatusInternalServerError
}

// pauseAfter gives the pause after so many failed tries: exponential, and up to
// half of it cut off at random, so that what failed together does not come back
// together.
func pauseAfter(tries int, o Options) time.Duration {
	d := o.BackoffMin
	for range tries - 1 {
		if d *= 2; d >= o.BackoffMax {
			break
		}
	}
	d = max(min(d, o.BackoffMax), 0)
	return d/2 + rand.N(d/2+1)
}

// retryAfter reads Retry-After (RFC 9110, section 10.2.3), 0 where there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
