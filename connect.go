package osmosis

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
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
	return strings.TrimRight(expanded, "\r\n"), nil
}

// brokerConfig turns what the user wrote into what the client needs. It reads
// files and dials nothing.
func (a *App) brokerConfig() (broker.Config, error) {
	c := broker.Config{}
	for _, address := range a.Kafka {
		expanded, err := expand("kafka address", address)
		if err != nil {
			return c, err
		}
		if _, port, err := net.SplitHostPort(expanded); err != nil || port == "" {
			return c, fmt.Errorf("kafka address %q: write it as host:port, such as kafka.internal:9092", expanded)
		}
		c.Addresses = append(c.Addresses, expanded)
	}
	if len(a.Kafka) == 0 {
		if a.TLS != nil || a.SASL != nil {
			return c, fmt.Errorf("tls and sasl are for a Kafka cluster: name it with `kafka <address…>`; the embedded broker has neither")
		}
		return c, nil
	}
	var err error
	if a.TLS != nil {
		if c.TLS, err = a.TLS.config(); err != nil {
			return c, err
		}
	}
	if a.SASL != nil {
		if c.SASL, err = a.SASL.mechanism(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// config reads the certificates.
func (t *BrokerTLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read kafka tls ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read kafka tls ca: no certificate in PEM form in %q", t.CA)
		}
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, fmt.Errorf("kafka tls: a client certificate takes both files: `cert <file> <key>`")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read kafka tls client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// mechanism expands the credentials.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	user, err := expand("kafka sasl user", s.User)
	if err != nil {
		return nil, err
	}
	password, err := expand("kafka sasl password", s.Password)
	if err != nil {
		return nil, err
	}
	switch s.Mechanism {
	case "plain":
		return plain.Mechanism{Username: user, Password: password}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, user, password)
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, user, password)
	}
	return nil, fmt.Errorf("kafka sasl mechanism %q: write plain, scram-sha-256 or scram-sha-512", s.Mechanism)
}
