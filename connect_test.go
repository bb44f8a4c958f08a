package osmosis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// file writes a file and gives its path.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExpand(t *testing.T) {
	t.Setenv("OSMOSIS_TEST_SECRET", "from the environment")
	t.Setenv("OSMOSIS_TEST_EMPTY", "")
	for value, want := range map[string]string{
		"as it is":                            "as it is",
		"{env.OSMOSIS_TEST_SECRET}":           "from the environment",
		"a {env.OSMOSIS_TEST_SECRET}":         "a from the environment",
		place(file(t, "unix", "s3cret\n")):    "s3cret",
		place(file(t, "dos", "s3cret\r\n")):   "s3cret",
		place(file(t, "none", "s3cret")):      "s3cret",
		place(file(t, "inner", "two\nlines")): "two\nlines",
	} {
		if got, err := expand("password", value); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", value, got, err, want)
		}
	}
	for _, value := range []string{
		"", "{env.OSMOSIS_TEST_EMPTY}", "{env.OSMOSIS_TEST_UNSET}", "{no.such.placeholder}",
		place(file(t, "empty", "")), place(file(t, "blank", "\n\n")), place(filepath.Join(t.TempDir(), "missing")),
	} {
		if got, err := expand("password", value); err == nil || !strings.HasPrefix(err.Error(), "password: ") {
			t.Errorf("%s: %q %v", value, got, err)
		}
	}
}

func place(path string) string { return "{file." + path + "}" }

// authority is a certificate authority of the tests, and certificates by it.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key, file(t, "ca.pem", asPEM("CERTIFICATE", der))}
}

func asPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// issue makes a certificate for a name or an address, in PEM files.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return file(a.t, "cert.pem", asPEM("CERTIFICATE", der)), file(a.t, "key.pem", asPEM("PRIVATE KEY", pkcs8))
}

// server gives the TLS side of a broker that wants a client certificate.
func (a *authority) server(name string) *tls.Config {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue(name))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

// reach asks the cluster of an app for a topic.
func reach(t *testing.T, a *App) error {
	t.Helper()
	c, _, err := a.brokerConfig()
	if err != nil {
		t.Fatal(err)
	}
	client := broker.New(c)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = client.Topic(ctx, testTopic)
	return err
}

// What is configured is what a broker wants, and with anything less it does not open.
func TestReachesSecuredBrokers(t *testing.T) {
	ca := newAuthority(t)
	const user, password, host = "gateway", "s3cret", "kafka.example"
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, testTopic), kfake.TLS(ca.server(host)), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", user, password), kfake.Superuser("SCRAM-SHA-256", user, password), kfake.Superuser("SCRAM-SHA-512", user, password))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	t.Setenv("OSMOSIS_TEST_USER", user)
	cert, key := ca.issue("gateway")
	secured := func(change func(*App)) error {
		a := &App{
			Kafka: cluster.ListenAddrs(),
			TLS:   &BrokerTLS{CA: ca.file, Cert: cert, Key: key, ServerName: host},
			SASL:  &SASL{Mechanism: "plain", User: "{env.OSMOSIS_TEST_USER}", Password: place(file(t, "password", password+"\n"))},
		}
		change(a)
		return reach(t, a)
	}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		if err := secured(func(a *App) { a.SASL.Mechanism = mechanism }); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
	}
	stranger := newAuthority(t)
	for name, c := range map[string]struct {
		change func(*App)
		advice string
	}{
		"wrong password":         {func(a *App) { a.SASL.Password = "guess" }, "check sasl's user and password"},
		"no sasl":                {func(a *App) { a.SASL = nil }, "sasl"},
		"no tls":                 {func(a *App) { a.TLS = nil }, "check address and tls"},
		"system's roots":         {func(a *App) { a.TLS.CA = "" }, "ca <file>"},
		"another authority":      {func(a *App) { a.TLS.CA = stranger.file }, "ca <file>"},
		"another host":           {func(a *App) { a.TLS.ServerName = "" }, "server_name"},
		"no certificate":         {func(a *App) { a.TLS.Cert, a.TLS.Key = "", "" }, "cert <file> <key>"},
		"stranger's certificate": {func(a *App) { a.TLS.Cert, a.TLS.Key = stranger.issue("gateway") }, "cert <file> <key>"},
	} {
		if err := secured(c.change); err == nil || !strings.Contains(err.Error(), c.advice) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.advice)
		}
	}
}

// Each mistake in how to reach Kafka is told when the configuration is loaded,
// in words that say what to write.
func TestConnectionMistakes(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue("gateway")
	_, otherKey := ca.issue("other")
	kafka := []string{"kafka.internal:9092"}
	for name, test := range map[string]struct {
		app  *App
		want string
	}{
		"no port":        {&App{Kafka: []string{"kafka.internal"}}, "host:port"},
		"empty port":     {&App{Kafka: []string{"kafka.internal:"}}, "host:port"},
		"no number":      {&App{Kafka: []string{"kafka.internal:kafka"}}, "host:port"},
		"no host":        {&App{Kafka: []string{":9092"}}, "host:port"},
		"two in one":     {&App{Kafka: []string{"a:9092,b:9092"}}, "host:port"},
		"unset":          {&App{Kafka: []string{"{env.OSMOSIS_TEST_UNSET}"}}, "kafka address"},
		"tls, embedded":  {&App{TLS: new(BrokerTLS)}, "the embedded broker has neither"},
		"sasl, embedded": {&App{SASL: new(SASL)}, "the embedded broker has neither"},
		"no ca":          {&App{Kafka: kafka, TLS: &BrokerTLS{CA: filepath.Join(t.TempDir(), "none")}}, "read kafka tls ca"},
		"ca not PEM":     {&App{Kafka: kafka, TLS: &BrokerTLS{CA: file(t, "ca", "x")}}, "no certificate in PEM form"},
		"key missing":    {&App{Kafka: kafka, TLS: &BrokerTLS{Cert: cert}}, "both files"},
		"cert missing":   {&App{Kafka: kafka, TLS: &BrokerTLS{Key: key}}, "both files"},
		"key of another": {&App{Kafka: kafka, TLS: &BrokerTLS{Cert: cert, Key: otherKey}}, "client certificate"},
		"mechanism":      {&App{Kafka: kafka, SASL: &SASL{Mechanism: "PLAIN", User: "u", Password: "p"}}, "write plain, scram-sha-256 or scram-sha-512"},
		"no user":        {&App{Kafka: kafka, SASL: &SASL{Mechanism: "plain", Password: "p"}}, "kafka sasl user"},
		"no password":    {&App{Kafka: kafka, SASL: &SASL{Mechanism: "plain", User: "u", Password: "{env.OSMOSIS_TEST_UNSET}"}}, "kafka sasl password"},
	} {
		if _, _, err := test.app.brokerConfig(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}

// A reload takes up a renewed certificate or password, since connections are
// shared by what files and placeholders hold; and it shares them when that is the same.
func TestConnectionIdentity(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue("gateway")
	password := file(t, "password", "old password")
	identity := func() string {
		t.Helper()
		a := App{
			Kafka: []string{"kafka.internal:9092"}, TLS: &BrokerTLS{CA: ca.file, Cert: cert, Key: key},
			SASL: &SASL{Mechanism: "plain", User: "gateway", Password: place(password)},
		}
		_, identity, err := a.brokerConfig()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(identity, "password") {
			t.Errorf("%q tells a password", identity)
		}
		return identity
	}
	replace := func(path, by string) {
		t.Helper()
		content, err := os.ReadFile(by)
		if err == nil {
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := identity()
	if again := identity(); again != first {
		t.Errorf("%q, and then %q", first, again)
	}
	seen := map[string]string{first: "as it was"}
	differs := func(what string) {
		t.Helper()
		now := identity()
		if before, ok := seen[now]; ok {
			t.Errorf("%s is the same as %s", what, before)
		}
		seen[now] = what
	}
	replace(password, file(t, "new", "new password"))
	differs("another password")
	newCert, newKey := ca.issue("gateway")
	replace(cert, newCert)
	replace(key, newKey)
	differs("another certificate")
	replace(ca.file, newAuthority(t).file)
	differs("another authority")
}

// Clients are told what kind of trouble it is, and not where.
func TestUnreached(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent := &http.Server{ReadHeaderTimeout: time.Minute} // waits for the rest of what it takes for a request
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = silent.Serve(listener)
	}()
	defer func() { silent.Close(); <-served }()
	waits := reach(t, &App{Kafka: []string{listener.Addr().String()}})

	for want, err := range map[string]error{
		"does not answer Kafka's handshake": waits,
		"does not speak Kafka's protocol":   fmt.Errorf("10.0.0.1:9092 answered with HTTP: %w", broker.ErrNotKafka),
		"does not let the gateway in":       fmt.Errorf("10.0.0.1:9092: %w", kafka.SASLAuthenticationFailed),
		"takes no records at the moment":    fmt.Errorf("%w: the disk is full", kafka.NotEnoughReplicas),
		"too few brokers are up":            fmt.Errorf("create topic: %w", kafka.InvalidReplicationFactor),
		"The broker cannot be reached":      &net.OpError{Op: "dial", Err: context.DeadlineExceeded},
	} {
		if got := unreached(fmt.Errorf("topic orders: %w", err)); !strings.Contains(got, want) || strings.Contains(got, "10.0.0.1") {
			t.Errorf("%v: told %q, want %q in it", err, got, want)
		}
	}
}
