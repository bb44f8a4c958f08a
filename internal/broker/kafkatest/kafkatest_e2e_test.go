//go:build e2e

package kafkatest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"go.uber.org/goleak"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRealKafkaKeepsRecordsOverStopAndKill(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	addresses := cluster.Addresses()
	client := connect(t, addresses, nil, nil)
	create(t, client, "orders", 1)

	produce(t, client, "orders", "before the stop")
	cluster.Stop()
	refused(t, client)
	cluster.Restart()
	produce(t, client, "orders", "before the kill")
	cluster.Kill()
	refused(t, client)
	cluster.Restart()
	produce(t, client, "orders", "after both")

	if got := cluster.Addresses(); !slices.Equal(got, addresses) {
		t.Errorf("addresses after restarts are %q, were %q", got, addresses)
	}
	want := []string{"before the stop", "before the kill", "after both"}
	if got := values(t, client, "orders"); !slices.Equal(got, want) {
		t.Errorf("the log holds %q, want %q", got, want)
	}
}

func TestRealKafkaSurvivesTheLossOfOneBrokerInThree(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	client := connect(t, cluster.Addresses(), nil, nil)
	create(t, client, "orders", 3)
	produce(t, client, "orders", "all there")
	cluster.Kill(0)
	produce(t, client, "orders", "one gone")
	cluster.Restart(0)
	produce(t, client, "orders", "all back")

	want := []string{"all there", "one gone", "all back"}
	if got := values(t, client, "orders"); !slices.Equal(got, want) {
		t.Errorf("the log holds %q, want %q", got, want)
	}
}

func TestRealKafkaSecuredListeners(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{
		Listeners: []kafkatest.Listener{kafkatest.TLS, kafkatest.MutualTLS, kafkatest.SASL, kafkatest.SASLTLS},
	})
	trust, trustAndShow := tlsConfigs(t, cluster)
	password := plain.Mechanism{Username: kafkatest.User, Password: kafkatest.Password}
	wrong := plain.Mechanism{Username: kafkatest.User, Password: "permeable"}

	for _, c := range []struct {
		name     string
		listener kafkatest.Listener
		tls      *tls.Config
		sasl     sasl.Mechanism
		refused  bool
	}{
		{name: "tls", listener: kafkatest.TLS, tls: trust},
		{name: "tls with another authority", listener: kafkatest.TLS, tls: &tls.Config{}, refused: true},
		{name: "client certificate", listener: kafkatest.MutualTLS, tls: trustAndShow},
		{name: "client certificate missing", listener: kafkatest.MutualTLS, tls: trust, refused: true},
		{name: "plain", listener: kafkatest.SASL, sasl: password},
		{name: "plain with a wrong password", listener: kafkatest.SASL, sasl: wrong, refused: true},
		{name: "plain over tls", listener: kafkatest.SASLTLS, tls: trust, sasl: password},
		{name: "scram-sha-256", listener: kafkatest.SASL, sasl: scramOf(t, scram.SHA256, kafkatest.Password)},
		{name: "scram-sha-512 over tls", listener: kafkatest.SASLTLS, tls: trust, sasl: scramOf(t, scram.SHA512, kafkatest.Password)},
		{name: "scram-sha-512 with a wrong password", listener: kafkatest.SASL, sasl: scramOf(t, scram.SHA512, "permeable"), refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := connect(t, cluster.AddressesOf(c.listener), c.tls, c.sasl)
			// Not an error's text: a refusal of a TLS client may come as a mere reset.
			_, err := client.Metadata(t.Context(), &kafka.MetadataRequest{})
			if got := err != nil; got != c.refused {
				t.Errorf("refused: %v (%v), want %v", got, err, c.refused)
			}
		})
	}
}

// connect makes a client whose calls are bounded and whose connections end with the test.
func connect(t *testing.T, addresses []string, security *tls.Config, mechanism sasl.Mechanism) *kafka.Client {
	transport := &kafka.Transport{TLS: security, SASL: mechanism, MetadataTTL: time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(addresses...), Transport: transport, Timeout: 10 * time.Second}
}

func create(t *testing.T, client *kafka.Client, topic string, copies int) {
	t.Helper()
	r, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: copies}},
	})
	if err = errors.Join(err, r.Errors[topic]); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}

// produce appends one value. It tries again while a leader is looked for, and
// may so append it twice; values drops such repeats.
func produce(t *testing.T, client *kafka.Client, topic, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for {
		r, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(value))}),
		})
		if err == nil {
			err = r.Error // the partition's own refusal
		}
		if err == nil {
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			t.Fatalf("produce to %s: %v", topic, err)
		}
	}
}

// refused checks that nobody answers.
func refused(t *testing.T, client *kafka.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.ApiVersions(ctx, &kafka.ApiVersionsRequest{}); err == nil {
		t.Error("a broker that was ended still answers")
	}
}

// values reads partition 0 of a topic to its end, and gives what follows itself once.
func values(t *testing.T, client *kafka.Client, topic string) []string {
	t.Helper()
	var all []string
	for offset := int64(0); ; {
		r, err := client.Fetch(t.Context(), &kafka.FetchRequest{Topic: topic, Offset: offset, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
		if err = errors.Join(err, r.Error); err != nil {
			t.Fatalf("fetch %s from %d: %v", topic, offset, err)
		}
		for {
			record, err := r.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("read %s: %v", topic, err)
			}
			value, err := kafka.ReadAll(record.Value)
			if err != nil {
				t.Fatalf("read %s: %v", topic, err)
			}
			all = append(all, string(value))
			offset = record.Offset + 1
		}
		if offset >= r.HighWatermark {
			return slices.Compact(all)
		}
	}
}

// tlsConfigs gives what trusts the cluster, and what shows a certificate besides.
func tlsConfigs(t *testing.T, cluster *kafkatest.Cluster) (trust, trustAndShow *tls.Config) {
	t.Helper()
	authority, err := os.ReadFile(cluster.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatalf("no certificate in %s", cluster.CA())
	}
	pair, err := tls.LoadX509KeyPair(cluster.ClientCertificate())
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{RootCAs: roots, ServerName: kafkatest.ServerName},
		&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
}

func scramOf(t *testing.T, algorithm scram.Algorithm, password string) sasl.Mechanism {
	t.Helper()
	m, err := scram.Mechanism(algorithm, kafkatest.User, password)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
