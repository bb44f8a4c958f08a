// Package osmosis makes the Caddy web server a message queue: requests on
// chosen routes become records on Kafka topics, clients get 202 and a stream
// URL, and what the services inside answer is pushed to them over SSE and
// WebSocket.
//
// This package is the part that knows Caddy. It reads the configuration
// (module.go, caddyfile.go), turns requests into records (handler.go) and
// replies into responses (pushhub.go). Producing, reading and the shape of the
// records live in packages that know nothing of it.
//
// # Concurrency
//
// Caddy starts a new configuration before it stops the old one, and handlers of
// the old one go on running after that. So nothing that a request uses belongs
// to a configuration: the broker connection, the producer and the hub sit in
// pools (pool.go), and stay there for as long as a request runs.
package osmosis

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

func init() {
	caddy.RegisterModule(new(App))
}

// Defaults of the fields below.
const (
	defaultEmbeddedListen    = "127.0.0.1:9092"
	defaultEmbeddedRetention = 24 * time.Hour
	defaultEmbeddedMaxBytes  = 2 << 30
	defaultPartitions        = 8
	defaultReplies           = "osmosis.replies"
	defaultReplyPartitions   = 32
	defaultRetention         = 24 * time.Hour
	defaultTTL               = 12 * time.Hour
	defaultStreams           = "/-/streams"
	defaultProduceTimeout    = 10 * time.Second
	defaultMaxWait           = time.Minute
	defaultHeartbeat         = 22 * time.Second
	defaultWriteTimeout      = 30 * time.Second
	defaultMaxOpen           = 50_000
	defaultMaxOpenPerClient  = 1_000
)

// App is the `osmosis` app: how to reach Kafka, where replies go, and what
// stream URLs look like. Every route of the site shares it. With no
// configuration at all it runs the embedded broker.
type App struct {
	// Kafka lists brokers to ask first, as host:port; one that answers is
	// enough. Absent: the embedded broker. Both together are an error.
	Kafka []string `json:"kafka,omitempty"`

	// Embedded configures the broker that runs inside this process when no
	// Kafka is named: a single node with its data on disk, for development and
	// small sites. It speaks Kafka's protocol, so workers are the same.
	Embedded *Embedded `json:"embedded,omitempty"`

	// TLS secures the connections to Kafka. An empty object means TLS with the
	// system's roots; absent means no TLS.
	TLS *BrokerTLS `json:"tls,omitempty"`

	// SASL authenticates the connections to Kafka.
	SASL *SASL `json:"sasl,omitempty"`

	// Create says how topics that are missing are made.
	Create *Create `json:"create,omitempty"`

	// Replies configures the topic that workers answer on.
	Replies *Replies `json:"replies,omitempty"`

	// Token configures the sealed token in stream URLs.
	Token *Token `json:"token,omitempty"`

	// Streams configures the stream URLs and who may hold how many open.
	Streams *Streams `json:"streams,omitempty"`

	// ProduceTimeout bounds how long a request waits for the broker to have
	// its record. After it the client gets 503, whose text says whether the
	// request may have been queued all the same. Default: 10s.
	ProduceTimeout caddy.Duration `json:"produce_timeout,omitempty"`

	// Scale has the number of workers follow the load of topics, besides what
	// routes say of their own. Each topic and group is scaled once.
	Scale []*Scale `json:"scale,omitempty"`

	logger   *zap.Logger  // logs where the newest configuration does, when one has started
	log      zapcore.Core // where this one logs
	storage  certmagic.Storage
	settings settings
	plan     plan
	routes   routes

	started    chan struct{} // closed by Start: inside and keys are set
	failed     chan struct{} // closed by Cleanup when Start never got that far
	inside     *inside
	shared     *share // of the reference on inside
	keys       *hub.Keyring
	scaling    map[string]*scaling  // the loops held, by key
	deliveries map[string]*delivery // those held, by key
	cancel     context.CancelFunc   // ends what Start began
	working    sync.WaitGroup       // what Start began
}

// Embedded configures the embedded broker. Its limits: one node, the data of
// one disk; topics are bounded by MaxBytes; it needs memory of the size of its
// log after a crash.
type Embedded struct {
	// Directory holds the broker's data. One process at a time may use it.
	// Default: osmosis/ in Caddy's data directory.
	Directory string `json:"directory,omitempty"`

	// Listen is the address where workers reach it, as host:port. It has no
	// authentication, so keep it on loopback or a private network. Default: 127.0.0.1:9092.
	Listen string `json:"listen,omitempty"`

	// Retention is how long records are kept. Default: 24h, or the reply
	// topic's retention where that is longer.
	Retention caddy.Duration `json:"retention,omitempty"`

	// MaxBytes bounds the data on disk, in bytes; the oldest records go first.
	// Default: 2 GiB.
	MaxBytes int64 `json:"max_bytes,omitempty"`
}

// BrokerTLS secures connections to Kafka.
type BrokerTLS struct {
	// CA is a PEM file of certificate authorities to trust. Default: the system's roots.
	CA string `json:"ca,omitempty"`

	// Cert and Key are PEM files of a client certificate, for brokers that
	// authenticate by it. Both or neither.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`

	// ServerName is the name that the broker's certificate must bear. Default:
	// the host that is dialed.
	ServerName string `json:"server_name,omitempty"`
}

// SASL authenticates connections to Kafka. User and password may be
// placeholders such as {env.KAFKA_PASSWORD} or {file./run/secrets/kafka}, which
// are read when the configuration is loaded and are not stored with it.
type SASL struct {
	// Mechanism is plain, scram-sha-256 or scram-sha-512.
	Mechanism string `json:"mechanism"`
	User      string `json:"user"`
	Password  string `json:"password"`
}

// Create says how missing topics are made.
type Create struct {
	// Off leaves missing topics missing: requests for them get 503.
	Off bool `json:"off,omitempty"`

	// Partitions of a new request topic: how many plain consumers of one group
	// can work at once. Adding partitions later breaks the order per key.
	// Default: 8.
	Partitions int `json:"partitions,omitempty"`

	// Replication is the number of copies of a new topic. Default: the broker's.
	Replication int `json:"replication,omitempty"`
}

// Replies configures the reply topic.
type Replies struct {
	// Topic is its name. Default: osmosis.replies.
	Topic string `json:"topic,omitempty"`

	// Partitions it is made with. Each gateway is home to its share of them,
	// so there should be a few times as many as gateways. Default: 32.
	Partitions int `json:"partitions,omitempty"`

	// Retention is how long replies are kept, and with that how late a client
	// may come back for one. Token.TTL and ProduceTimeout together must fit in
	// it. Default: 24h.
	Retention caddy.Duration `json:"retention,omitempty"`
}

// Token configures the sealed token in stream URLs.
type Token struct {
	// Keys are the secrets that seal tokens, at least 16 characters each: the
	// first seals, all open, so that a new one is put in front and the old one
	// removed after two TTLs. Gateways that serve each other's streams share
	// them. Placeholders such as {env.OSMOSIS_KEY} are read when the
	// configuration is loaded. Default: one key, made once and kept in Caddy's storage.
	Keys []string `json:"keys,omitempty"`

	// TTL is how long a stream waits for its end; after it the stream ends as
	// expired, and after another TTL its URL answers 410. Default: 12h.
	TTL caddy.Duration `json:"ttl,omitempty"`
}

// Streams configures stream URLs.
type Streams struct {
	// Path is the prefix of stream URLs. Default: /-/streams.
	Path string `json:"path,omitempty"`

	// MaxWait bounds how long a client may ask the gateway to hold a request
	// (`Prefer: wait=N`, RFC 7240). Default: 60s.
	MaxWait caddy.Duration `json:"max_wait,omitempty"`

	// Heartbeat is how often a silent stream gets a sign of life, so that
	// proxies keep it and dead connections are found; each is up to a tenth
	// earlier, so that they spread. Default: 22s.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`

	// WriteTimeout is how long one write to a stream may take before its
	// client is given up. Nothing is lost: it comes back with its cursor. Default: 30s.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`

	// MaxOpen bounds the streams open at once in this process, and with them the
	// requests that wait for their answer; beyond it clients are told to come back
	// a little later, and requests get 202 without a wait. Default: 50000.
	MaxOpen int `json:"max_open,omitempty"`

	// MaxOpenPerClient bounds them for one client address (one /64 for IPv6).
	// Default: 1000.
	MaxOpenPerClient int `json:"max_open_per_client,omitempty"`
}
