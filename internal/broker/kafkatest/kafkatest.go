// Package kafkatest runs a real Apache Kafka for tests: one Java process a
// broker, in KRaft combined mode, on ports and data of its own.
//
//	cluster := kafkatest.Start(t, kafkatest.Options{})
//	client := &kafka.Client{Addr: kafka.TCP(cluster.Addresses()...)}
//
// It needs a Java runtime (17 or newer) and, the first time, Maven, which
// fetches Kafka's jars into the user's cache folder or into the one that
// OSMOSIS_KAFKA_JARS names. Where one is missing the test fails and says what to
// install; it is never skipped. Tests that start it carry the build tag e2e and
// have RealKafka in their names.
//
// A broker takes about 2 s to start and 300 MB of memory (after Kill 4 s, since
// the controller waits for the old session to end), so most tests use the
// embedded broker instead, and what runs here shares a cluster between subtests.
//
// # Concurrency
//
// The methods of a Cluster are for the test's own goroutine; what Addresses
// and the like give does not change and may be used by any.
package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// Listener is a way for clients to reach the brokers.
type Listener string

// The listeners. Plaintext is always there; the others are made when
// Options.Listeners names them.
const (
	Plaintext Listener = "PLAINTEXT"
	TLS       Listener = "TLS"     // a certificate that CA signed
	MutualTLS Listener = "MTLS"    // besides, clients must show ClientCertificate
	SASL      Listener = "SASL"    // PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 for User
	SASLTLS   Listener = "SASLTLS" // the same, over TLS
)

// Who may come in through the SASL listeners.
const (
	User     = "osmosis"
	Password = "semi-permeable"
)

// ServerName is a name that the brokers' certificates bear, besides localhost
// and 127.0.0.1.
const ServerName = "kafka.test"

// Options says what cluster to start. The zero value is one broker that anyone
// may use.
type Options struct {
	// Brokers is how many to run, each a controller too. Default: 1. With
	// three, topics have three copies and writes need two of them.
	Brokers int

	// Listeners to open besides Plaintext.
	Listeners []Listener

	// Properties are added to every broker's server.properties and win over
	// what is there.
	Properties map[string]string
}

// Cluster is a running Kafka.
type Cluster struct {
	t       testing.TB
	jars    string
	folder  string
	keys    *certificates
	nodes   []node
	brokers []broker
}

// broker is one node's process; nil while it is down.
type broker struct {
	process    *process
	properties string // file
	log        string // file
}

// Start runs a cluster and returns when it serves. The test fails where that
// does not work; its end kills the brokers and removes their data, and shows
// the brokers' logs when it has failed.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, folder: t.TempDir()}
	t.Cleanup(func() {
		c.kill(c.all())
		if t.Failed() {
			c.showLogs()
		}
	})
	if err := c.prepare(o); err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	c.Restart()
	return c
}

// Addresses gives the brokers' plaintext listeners, as host:port, in the order
// of their ids. They stay the same over restarts.
func (c *Cluster) Addresses() []string { return c.AddressesOf(Plaintext) }

// AddressesOf gives one of the listeners that Options named.
func (c *Cluster) AddressesOf(l Listener) []string {
	c.t.Helper()
	var all []string
	for _, n := range c.nodes {
		port, ok := n.ports[l]
		if !ok {
			c.t.Fatalf("kafkatest: the cluster has no listener %s: name it in Options.Listeners", l)
		}
		all = append(all, address(port))
	}
	return all
}

// CA gives the PEM file of the authority that signed the brokers' certificates.
func (c *Cluster) CA() string { return c.keys.ca }

// ClientCertificate gives the PEM files of a certificate that MutualTLS accepts.
func (c *Cluster) ClientCertificate() (cert, key string) { return c.keys.clientCert, c.keys.clientKey }

// Stop shuts brokers down as an operator would, by SIGTERM; those that take
// longer than 20 s are killed. Brokers are named by their place in Addresses;
// with none named, all are meant, and that goes for the methods below too.
func (c *Cluster) Stop(brokers ...int) {
	c.each(c.orAll(brokers), func(b *broker) {
		b.process.stop()
	})
}

// Kill ends brokers as a crash would, by SIGKILL.
func (c *Cluster) Kill(brokers ...int) { c.kill(c.orAll(brokers)) }

// Restart starts brokers that were stopped or killed, on the same data and
// ports, and returns when the cluster serves. Brokers that run go on running.
func (c *Cluster) Restart(brokers ...int) {
	c.t.Helper()
	for _, i := range c.orAll(brokers) {
		b := &c.brokers[i]
		if b.process != nil {
			continue
		}
		p, err := startProcess(c.jars, b.properties, b.log)
		if err != nil {
			c.t.Fatalf("kafkatest: %v", err)
		}
		b.process = p
	}
	if err := c.ready(c.t.Context()); err != nil {
		c.t.Fatalf("kafkatest: %v", err)
	}
}

// prepare does all that comes before the first start: jars, ports,
// certificates, properties, and the format of the data folders.
func (c *Cluster) prepare(o Options) (err error) {
	if c.jars, err = jars(); err != nil {
		return err
	}
	if c.keys, err = makeCertificates(c.folder); err != nil {
		return err
	}
	listeners := append([]Listener{Plaintext}, o.Listeners...)
	slices.Sort(listeners)
	listeners = slices.Compact(listeners)
	count := max(o.Brokers, 1)
	free, err := freePorts(count * (len(listeners) + 1))
	if err != nil {
		return err
	}
	for i := range count {
		n := node{
			id:    i + 1,
			ports: make(map[Listener]int),
			data:  filepath.Join(c.folder, fmt.Sprintf("data-%d", i+1)),
		}
		n.controller, free = free[0], free[1:]
		for _, l := range listeners {
			n.ports[l], free = free[0], free[1:]
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		b := broker{
			properties: filepath.Join(c.folder, fmt.Sprintf("server-%d.properties", n.id)),
			log:        filepath.Join(c.folder, fmt.Sprintf("server-%d.log", n.id)),
		}
		content := properties(n, c.nodes, c.keys, o.Properties)
		if err := os.WriteFile(b.properties, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write the broker's properties: %w", err)
		}
		c.brokers = append(c.brokers, b)
	}
	return c.format()
}

// format makes the data folders, side by side since each takes a JVM's start.
func (c *Cluster) format() error {
	errs := make([]error, len(c.brokers))
	var formatting sync.WaitGroup
	for i, b := range c.brokers {
		formatting.Go(func() {
			cmd := java(c.jars, "kafka.tools.StorageTool", "format",
				"--cluster-id", clusterID, "--config", b.properties,
				"--add-scram", fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", User, Password),
				"--add-scram", fmt.Sprintf("SCRAM-SHA-512=[name=%s,password=%s]", User, Password))
			if out, err := cmd.CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("format kafka's data folder: %w\n%s", explain(err), out)
			}
		})
	}
	formatting.Wait()
	return errors.Join(errs...)
}

// clusterID is a UUID in Kafka's spelling. Clusters never meet, so all have the same.
const clusterID = "b3Ntb3Npcy10ZXN0LWNsdQ"

// kill ends brokers without a word.
func (c *Cluster) kill(brokers []int) {
	c.each(brokers, func(b *broker) { b.process.kill() })
}

// each does something to brokers that run, to all at once, after which they do not.
func (c *Cluster) each(brokers []int, end func(*broker)) {
	var ending sync.WaitGroup
	for _, i := range brokers {
		b := &c.brokers[i]
		if b.process == nil {
			continue
		}
		ending.Go(func() {
			end(b)
			b.process = nil
		})
	}
	ending.Wait()
}

// dead tells of a broker that has ended by itself.
func (c *Cluster) dead() error {
	for i := range c.brokers {
		p := c.brokers[i].process
		if p == nil {
			continue
		}
		select {
		case <-p.done:
			return fmt.Errorf("broker %d has ended by itself: %s", i, p.cmd.ProcessState)
		default:
		}
	}
	return nil
}

// showLogs puts the end of every broker's log into the test's.
func (c *Cluster) showLogs() {
	for i, b := range c.brokers {
		c.t.Logf("kafkatest: the log of broker %d ends:\n%s", i, tail(b.log))
	}
}

// all names every broker.
func (c *Cluster) all() []int {
	var all []int
	for i := range c.brokers {
		all = append(all, i)
	}
	return all
}

// orAll gives the brokers named, or every one.
func (c *Cluster) orAll(brokers []int) []int {
	if len(brokers) == 0 {
		return c.all()
	}
	return brokers
}
