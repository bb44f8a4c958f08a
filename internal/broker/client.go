// Package broker is the gateway's way to Kafka: one client over kafka-go's
// Transport that the ingress, the hub and the deliveries share.
//
// kafka-go dials, authenticates, keeps the connections and knows which broker
// is which. Where its own calls know too little, a request goes over its
// connections in the newer version that kmsg writes (see exchange): topic ids,
// which tell a topic from its successor of the same name, are in none of
// kafka-go's messages, and its decoder of record batches drops the time at
// which the log took a record as well as the list of aborted transactions.
//
// # Concurrency
//
// A Client is safe for use by many goroutines. It starts none that outlive a
// call but those of a Membership; the Transport keeps one a connection and one
// that refreshes what it knows of the cluster, and Close ends them.
//
// # What it does not do
//
// It does not retry: whoever asked knows best whether asking again is safe. A
// Membership does, for all but its commits. It keeps no offsets. What the members
// of a group do with its partitions is theirs. DESIGN.md beside this file has how
// they share them out.
package broker

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clientID is the name under which brokers log the gateway and account quotas to it.
const clientID = "osmosis"

// metadataTTL bounds how long the Transport may believe in a leader or an
// address that has changed. Its default of 6 s would make a leader move that long.
const metadataTTL = 2 * time.Second

// dialTimeout bounds how long a host may take to accept a connection.
const dialTimeout = 3 * time.Second

// requestTimeout bounds a request whose caller set no deadline, so that a
// broker that accepts connections and never answers holds nobody for good.
const requestTimeout = 10 * time.Second

// Config says how to reach a cluster. The zero value of every field but
// Addresses works.
type Config struct {
	// Addresses are the brokers asked first, as host:port. One that answers is enough.
	Addresses []string

	// TLS, when not nil, secures every connection. With an empty ServerName the
	// certificate must name the host that was dialed.
	TLS *tls.Config

	// SASL, when not nil, authenticates every connection.
	SASL sasl.Mechanism

	// Dial opens connections; nil means the net package's dialer. Tests give an
	// in-memory network here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client speaks to one Kafka cluster.
type Client struct {
	config       Config
	dialer       dialer
	reach        reach
	transport    *kafka.Transport
	api          *kafka.Client
	decompressor kgo.Decompressor
	unmarked     atomic.Bool // batches do not say whether their times are the log's

	mu       sync.Mutex
	versions map[int32]map[int16]span // broker → API key → versions it takes
}

// New makes a Client. It dials nothing: the first request does.
func New(c Config) *Client {
	client := &Client{
		config:       c,
		decompressor: newDecompressor(),
		versions:     make(map[int32]map[int16]span),
	}
	client.dialer = newDialer(c, &client.reach)
	client.transport = &kafka.Transport{
		Dial:        client.dialer.dialWatched,
		SASL:        c.SASL,
		ClientID:    clientID,
		MetadataTTL: metadataTTL,
	}
	client.api = &kafka.Client{Addr: kafka.TCP(c.Addresses...), Transport: client.transport, Timeout: requestTimeout}
	return client
}

// Close closes the connections that are idle, and those in use when their
// request is answered.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
}

// API gives kafka-go's own client, for the calls it knows well enough.
func (c *Client) API() *kafka.Client { return c.api }

// Addresses gives the brokers as configured, separated by commas.
func (c *Client) Addresses() string { return strings.Join(c.config.Addresses, ",") }
