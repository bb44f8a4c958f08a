package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go/sasl"
)

// dialer opens connections to brokers, through TLS where it is configured, and
// says what to do where that does not work.
type dialer struct {
	open  func(ctx context.Context, network, address string) (net.Conn, error)
	tls   *tls.Config
	login int // requests that it takes
	reach *reach
}

func newDialer(c Config, r *reach) dialer {
	open := c.Dial
	if open == nil {
		open = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	return dialer{open, c.TLS, loginRequests(c.SASL), r}
}

// dial opens a connection whose first answer is looked at. TLS is done here and
// not by kafka-go, so that the look is at what the other side says within it.
func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.open(ctx, network, address)
	if err != nil {
		if !over(ctx) {
			d.reach.set(err)
		}
		return nil, err
	}
	if d.tls != nil {
		d.reach.set(fmt.Errorf("%s: TLS handshake: %s", address, tlsAdvice(context.DeadlineExceeded))) // until it goes on
		if conn, err = d.secure(ctx, conn, address); err != nil {
			d.reach.set(err)
			return nil, err
		}
	}
	d.reach.set(fmt.Errorf("%s: %w", address, ErrNoHandshake)) // until it does
	return &guard{Conn: conn, address: address, reach: d.reach, login: d.login}, nil
}

// over tells whether the caller's time is. A dial that was given that time fails
// a moment before the context says so, and tells nothing about the other side.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// dialWatched is dial for connections that rest between requests.
func (d dialer) dialWatched(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &idler{Conn: conn}, nil
}

// secure makes a TLS connection of one, or closes it.
func (d dialer) secure(ctx context.Context, plain net.Conn, address string) (net.Conn, error) {
	config := d.tls
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		config = config.Clone()
		config.ServerName = host
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, fmt.Errorf("%s: TLS handshake: %s: %w", address, tlsAdvice(err), err)
	}
	return conn, nil
}

// tlsAdvice says what to do about a handshake that failed.
func tlsAdvice(err error) string {
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var remote *net.OpError
	switch {
	case errors.As(err, &record):
		return "it does not speak TLS; leave tls out, or use the port of the TLS listener"
	case errors.As(err, &authority):
		return "its certificate is by an authority that is not trusted here; name the file of that authority (`tls { ca <file> }`)"
	case errors.As(err, &host):
		return "its certificate is for another name; dial it by a name in the certificate, or write that name as server_name"
	case errors.As(err, &remote) && remote.Op == "remote error":
		return "it refused this side; if it wants a client certificate, name one that it trusts (`tls { cert <file> <key> }`)"
	case errors.Is(err, context.DeadlineExceeded):
		return "it does not answer; check that it speaks TLS, and the listener's port"
	}
	return "it broke off; check that the port is the one of the TLS listener, and the certificates"
}

// loginRequests is how many requests a connection takes until its user is let
// in: the versions, the choice of the mechanism, and what that sends.
func loginRequests(m sasl.Mechanism) int {
	switch {
	case m == nil:
		return 0
	case m.Name() == "PLAIN":
		return 3
	}
	return 4 // SCRAM sends two
}
