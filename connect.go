package osmosis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// expand replaces the global placeholders of a configuration value, such as
// {env.KAFKA_PASSWORD} and {file./run/secrets/kafka}. What expands to nothing
// is an error, since an empty secret is a mistake. The last line break of a
// file is not part of a secret.
func expand(what, value string) (string, error) {
	expanded, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if expanded = strings.TrimRight(expanded, "\r\n"); expanded == "" {
		return "", fmt.Errorf("%s: %q is empty; write the value, or a placeholder such as {env.NAME} that has one", what, value)
	}
	return expanded, nil
}

// brokerConfig turns what the user wrote into what the client needs, and gives
// a fingerprint of it that covers what files and placeholders hold, so that a
// reload takes up a renewed certificate or password. It reads files and dials nothing.
func (a *App) brokerConfig() (c broker.Config, identity string, err error) {
	for _, address := range a.Kafka {
		expanded, err := expand("kafka address", address)
		if err != nil {
			return c, "", err
		}
		host, port, err := net.SplitHostPort(expanded)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil || host == "" {
			return c, "", fmt.Errorf("kafka address %q: write it as host:port, such as kafka.internal:9092, and several with blanks between them", expanded)
		}
		c.Addresses = append(c.Addresses, expanded)
	}
	if len(a.Kafka) == 0 {
		if a.TLS != nil || a.SASL != nil {
			return c, "", fmt.Errorf("tls and sasl are for a Kafka cluster: name it with `kafka <address…>`; the embedded broker has neither")
		}
		return c, "", nil
	}
	parts := []any{c.Addresses}
	if a.TLS != nil {
		var files [][]byte
		if c.TLS, files, err = a.TLS.config(); err != nil {
			return c, "", err
		}
		parts = append(parts, a.TLS, files)
	}
	if a.SASL != nil {
		var credentials []string
		if c.SASL, credentials, err = a.SASL.mechanism(); err != nil {
			return c, "", err
		}
		parts = append(parts, credentials)
	}
	return c, fingerprint(parts...), nil
}

// config reads the certificates, and gives what was in the files too.
func (t *BrokerTLS) config() (c *tls.Config, files [][]byte, err error) {
	c = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("read kafka tls ca: %w", err)
		}
		files = append(files, pem)
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("read kafka tls ca: no certificate in PEM form in %q", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, nil, fmt.Errorf("kafka tls: a client certificate takes both files: `cert <file> <key>`")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, nil, fmt.Errorf("read kafka tls client certificate: %w", err)
		}
		files = append(files, pair.Certificate...)
		c.Certificates = []tls.Certificate{pair}
	}
	return c, files, nil
}

// mechanism expands the credentials, and gives them with the mechanism's name.
func (s *SASL) mechanism() (m sasl.Mechanism, credentials []string, err error) {
	user, err := expand("kafka sasl user", s.User)
	if err != nil {
		return nil, nil, err
	}
	password, err := expand("kafka sasl password", s.Password)
	if err != nil {
		return nil, nil, err
	}
	switch s.Mechanism {
	case "plain":
		m = plain.Mechanism{Username: user, Password: password}
	case "scram-sha-256":
		m, err = scram.Mechanism(scram.SHA256, user, password)
	case "scram-sha-512":
		m, err = scram.Mechanism(scram.SHA512, user, password)
	default:
		return nil, nil, fmt.Errorf("kafka sasl mechanism %q: write plain, scram-sha-256 or scram-sha-512", s.Mechanism)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("kafka sasl %s: %w", s.Mechanism, err)
	}
	return m, []string{s.Mechanism, user, password}, nil
}

// unreached says in a sentence for clients why nothing could be queued, as far
// as that is no secret; addresses and causes are in the log.
func unreached(err error) string {
	switch {
	case errors.Is(err, broker.ErrNotKafka):
		return "What answers at the broker's address does not speak Kafka's protocol."
	case errors.Is(err, broker.ErrNoHandshake):
		return "What listens at the broker's address does not answer Kafka's handshake."
	case errors.Is(err, kafka.SASLAuthenticationFailed), errors.Is(err, kafka.UnsupportedSASLMechanism), errors.Is(err, kafka.IllegalSASLState):
		return "The broker does not let the gateway in."
	case errors.Is(err, kafka.NotEnoughReplicas): // so does the embedded broker when its disk is full
		return "The broker takes no records at the moment; the gateway's log says why."
	case errors.Is(err, kafka.InvalidReplicationFactor):
		return "The topic of this route cannot be made, since too few brokers are up for its copies."
	}
	return "The broker cannot be reached."
}
