package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Headers that tell an upstream which request it sees, and how often.
const (
	HeaderStreamID = "Osmosis-Stream-Id"
	HeaderAttempt  = "Osmosis-Attempt"
)

// replay makes the HTTP request that a record was: the same method, path, host,
// headers and body, from the same client, over TLS if that was so.
func replay(ctx context.Context, r record.Request, attempt int) (*http.Request, error) {
	target, err := url.ParseRequestURI(r.Path)
	if err != nil {
		return nil, fmt.Errorf("replay request: %w", err)
	}
	request := (&http.Request{
		Method: r.Method, URL: target, RequestURI: r.Path, Host: r.Authority,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.Header.Clone(), Body: io.NopCloser(bytes.NewReader(r.Body)), ContentLength: int64(len(r.Body)),
	}).WithContext(ctx)
	if request.Header == nil {
		request.Header = make(http.Header)
	}
	if len(r.Body) == 0 {
		request.Body = http.NoBody
	}
	// What the answer is encoded with is the upstream's affair and ours: it goes
	// to many kinds of clients, not to the one that has asked.
	request.Header.Del("Accept-Encoding")
	if r.StreamID != "" {
		request.Header.Set(HeaderStreamID, r.StreamID)
	}
	request.Header.Set(HeaderAttempt, strconv.Itoa(attempt))
	// Nobody listens at the port; something has to be there for net.SplitHostPort.
	request.RemoteAddr = net.JoinHostPort(r.Forwarded.For, "0")
	if net.ParseIP(r.Forwarded.For) == nil {
		request.RemoteAddr = net.JoinHostPort(net.IPv4zero.String(), "0")
	}
	if r.Scheme == "https" {
		request.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: hostname(r.Authority)}
	}
	return request, nil
}

func hostname(authority string) string {
	if host, _, err := net.SplitHostPort(authority); err == nil {
		return host
	}
	return authority
}
