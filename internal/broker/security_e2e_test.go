//go:build e2e

package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	saslplain "github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// Through each kind of listener of a real Kafka a record is produced and
// fetched and a group joined; and who is not let in reads what to do.
func TestRealKafkaSecurity(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{
		Listeners: []kafkatest.Listener{kafkatest.TLS, kafkatest.MutualTLS, kafkatest.SASL, kafkatest.SASLTLS},
	})
	admin := New(Config{Addresses: cluster.Addresses()})
	defer admin.Close()
	if _, err := admin.Ensure(t.Context(), TopicSpec{Name: "orders", Partitions: 1}); err != nil {
		t.Fatal(err)
	}

	trust := trustOf(t, cluster)
	identified := trust.Clone()
	pair, err := tls.LoadX509KeyPair(cluster.ClientCertificate())
	if err != nil {
		t.Fatal(err)
	}
	identified.Certificates = []tls.Certificate{pair}
	stranger := trust.Clone()
	stranger.Certificates = []tls.Certificate{serverCertificate(t)}
	distrust := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	misnamed := trust.Clone()
	misnamed.ServerName = "kafka.example"
	named := trust.Clone()
	named.ServerName = kafkatest.ServerName
	mechanisms := func(password string) (p, s256, s512 sasl.Mechanism) {
		p = saslplain.Mechanism{Username: kafkatest.User, Password: password}
		s256, err256 := scram.Mechanism(scram.SHA256, kafkatest.User, password)
		s512, err512 := scram.Mechanism(scram.SHA512, kafkatest.User, password)
		if err := errors.Join(err256, err512); err != nil {
			t.Fatal(err)
		}
		return p, s256, s512
	}
	plain, scram256, scram512 := mechanisms(kafkatest.Password)
	wrongPlain, wrong256, wrong512 := mechanisms("permeable")

	for name, c := range map[string]struct {
		listener kafkatest.Listener
		tls      *tls.Config
		sasl     sasl.Mechanism
		refused  string // what the error says to do; empty: it works
	}{
		"tls":                         {listener: kafkatest.TLS, tls: trust},
		"tls by another name":         {listener: kafkatest.TLS, tls: named},
		"mtls":                        {listener: kafkatest.MutualTLS, tls: identified},
		"plain":                       {listener: kafkatest.SASL, sasl: plain},
		"plain over tls":              {listener: kafkatest.SASLTLS, tls: trust, sasl: plain},
		"scram-sha-256":               {listener: kafkatest.SASL, sasl: scram256},
		"scram-sha-512":               {listener: kafkatest.SASL, sasl: scram512},
		"scram-sha-512 over tls":      {listener: kafkatest.SASLTLS, tls: trust, sasl: scram512},
		"tls, unknown authority":      {listener: kafkatest.TLS, tls: distrust, refused: "tls { ca <file> }"},
		"tls, wrong name":             {listener: kafkatest.TLS, tls: misnamed, refused: "server_name"},
		"tls, dialed without":         {listener: kafkatest.TLS, refused: "check address and tls"},
		"no tls, dialed with":         {listener: kafkatest.Plaintext, tls: trust, refused: "TLS listener"},
		"mtls, no certificate":        {listener: kafkatest.MutualTLS, tls: trust, refused: "client certificate"},
		"mtls, stranger":              {listener: kafkatest.MutualTLS, tls: stranger, refused: "client certificate"},
		"plain, wrong password":       {listener: kafkatest.SASL, sasl: wrongPlain, refused: "check sasl's user and password"},
		"scram, wrong password":       {listener: kafkatest.SASL, sasl: wrong256, refused: "check sasl's user and password"},
		"scram, wrong, over tls":      {listener: kafkatest.SASLTLS, tls: trust, sasl: wrong512, refused: "check sasl's user and password"},
		"sasl where there is none":    {listener: kafkatest.Plaintext, sasl: plain, refused: "leave sasl out"},
		"no sasl where it is needed":  {listener: kafkatest.SASL, refused: "sasl"},
		"no tls where sasl is within": {listener: kafkatest.SASLTLS, sasl: plain, refused: "check address and tls"},
	} {
		t.Run(name, func(t *testing.T) {
			client := New(Config{Addresses: cluster.AddressesOf(c.listener), TLS: c.tls, SASL: c.sasl})
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if c.refused == "" {
				goesThrough(ctx, t, client, name)
				return
			}
			_, err := client.Topic(ctx, "orders")
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("got %v, want %q in it", err, c.refused)
			}
			t.Log(err)
			if ctx.Err() != nil {
				t.Error("the refusal came as a timeout")
			}
		})
	}
}

// trustOf is what trusts a cluster.
func trustOf(t *testing.T, cluster *kafkatest.Cluster) *tls.Config {
	t.Helper()
	authority, err := os.ReadFile(cluster.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatalf("no certificate in %s", cluster.CA())
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
}

// goesThrough produces a value to orders, fetches it, and joins a group.
func goesThrough(ctx context.Context, t *testing.T, client *Client, value string) {
	t.Helper()
	topic, err := client.Topic(ctx, "orders")
	if err != nil {
		t.Fatal(err)
	}
	leader := topic.Leaders[0]
	produced, err := client.Produce(ctx, leader, topic, []Batch{{0, plain(value)}})
	if err != nil || produced[0].Err != nil {
		t.Fatal(produced, err)
	}
	fetched, err := client.Fetch(ctx, FetchRequest{Leader: leader, MaxWait: time.Second, MaxBytes: 1 << 20, From: []FetchFrom{
		{Topic: "orders", ID: topic.ID, Partition: 0, Offset: produced[0].BaseOffset},
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantValues(t, fetched[0], produced[0].BaseOffset+1, value)

	joined := make(chan Assignment, 1)
	m := client.JoinGroup(GroupConfig{
		Group: "group " + value, Topic: "orders", Session: 10 * time.Second, Rebalance: 30 * time.Second, Heartbeat: time.Second,
		Margin: 3 * time.Second, Leave: time.Second,
		Assigned: func(a Assignment) {
			select {
			case joined <- a:
			default:
			}
		},
	})
	defer m.Leave(ctx)
	select { // the coordinator of a fresh cluster takes its time
	case a := <-joined:
		if len(a.Owned) != 1 {
			t.Errorf("assigned %v", a.Owned)
		}
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}
