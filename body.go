package osmosis

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// readBody reads the request's body up to the limit. What is too long is
// refused from its Content-Length, where there is one, before any of it is read.
//
// It reads into the buffer where the body fits.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request, buffer []byte) ([]byte, *problem) {
	if r.ContentLength > h.MaxBody {
		return nil, tooLarge(h.MaxBody)
	}
	var body []byte
	var err error
	if r.ContentLength > 0 { // no more than that is read
		body, err = readExactly(r.Body, int(r.ContentLength), buffer)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, h.MaxBody))
	}
	if err == nil {
		return body, nil
	}
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge(limit.Limit)
	}
	return nil, &problem{Status: http.StatusBadRequest, Detail: "The request's body ended before it was complete."}
}

// readExactly reads so many bytes. Memory is taken as they come in, though the
// client has said how many there will be: one that says much and sends nothing is
// to cost nothing.
func readExactly(r io.Reader, n int, buffer []byte) ([]byte, error) {
	body := buffer[:0]
	for have := 0; have < n; have = len(body) {
		next := min(n, max(2*have, maxPooledBody))
		body = slices.Grow(body, next-have)[:next]
		if read, err := io.ReadFull(r, body[have:]); err != nil {
			return body[:have+read], err
		}
	}
	return body, nil
}

// refuseUnread answers a request whose body was not read, or not to its end. A
// client that waits for leave to send it (Expect: 100-continue) gets the answer
// at once (RFC 9110, section 10.1.1): unless the connection is to be closed,
// net/http would read the body first.
func refuseUnread(w http.ResponseWriter, r *http.Request, p problem) error {
	if r.ProtoMajor == 1 && hasToken(r.Header, "Expect", "100-continue") {
		w.Header().Set("Connection", "close")
	}
	return writeProblem(w, r, p)
}

// workspace is memory for what is made of a request on its way to the topic. A
// producer copies what it sends, so that it is free when the request is queued.
type workspace struct {
	body    []byte
	key     []byte
	scratch record.Scratch
}

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

// maxPooledBody keeps a few huge bodies from staying in memory for good. It is
// also what a body gets before any of it has come.
const maxPooledBody = 64 << 10

func (s *workspace) giveBack() {
	if cap(s.body) <= maxPooledBody {
		workspaces.Put(s)
	}
}

// tooLarge says how long a body may be.
func tooLarge(most int64) *problem {
	return &problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("This route takes bodies of up to %d bytes.", most)}
}

// clientIP gives the client's address as Caddy determined it (trusted_proxies).
func clientIP(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && ip != "" {
		return ip
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
