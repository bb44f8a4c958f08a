package osmosis

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/embedded"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "osmosis",
		New: func() caddy.Module { return new(App) },
	}
}

// settings are the figures of a configuration with their defaults filled in,
// as handlers use them.
type settings struct {
	streams          string // prefix of stream URLs, without a slash at the end
	produceTimeout   time.Duration
	ttl              time.Duration
	maxWait          time.Duration
	heartbeat        time.Duration
	writeTimeout     time.Duration
	maxOpen          int
	maxOpenPerClient int
	create           Create
}

// Provision checks the configuration and fills in its defaults. It reads files
// and dials nothing, so that `caddy validate` works anywhere.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger, a.log = newestLog(), ctx.Logger().Core()
	a.storage = ctx.Storage()
	a.started, a.failed = make(chan struct{}), make(chan struct{})
	a.settings = a.effective()
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	if err := a.makePlan(); err != nil {
		return err
	}
	for i, s := range a.Scale {
		if err := s.provision(ctx); err != nil {
			return err
		}
		if err := a.reserved(s.Topic); err != nil {
			return fmt.Errorf("scale: %w", err)
		}
		if err := s.once(a.Scale[:i]); err != nil {
			return err
		}
	}
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("load the events app: %w", err)
	}
	return events.(*caddyevents.App).On("stopping", stopping{a})
}

// or gives the configured value, or the default where there is none.
func or[T comparable](configured, standard T) T {
	var zero T
	if configured == zero {
		return standard
	}
	return configured
}

// effective fills in defaults.
func (a *App) effective() settings {
	create, token, streams := or(a.Create, &Create{}), or(a.Token, &Token{}), or(a.Streams, &Streams{})
	return settings{
		streams:          strings.TrimRight("/"+strings.Trim(or(streams.Path, defaultStreams), "/"), "/"),
		produceTimeout:   time.Duration(or(a.ProduceTimeout, caddy.Duration(defaultProduceTimeout))),
		ttl:              time.Duration(or(token.TTL, caddy.Duration(defaultTTL))),
		maxWait:          time.Duration(or(streams.MaxWait, caddy.Duration(defaultMaxWait))),
		heartbeat:        time.Duration(or(streams.Heartbeat, caddy.Duration(defaultHeartbeat))),
		writeTimeout:     time.Duration(or(streams.WriteTimeout, caddy.Duration(defaultWriteTimeout))),
		maxOpen:          or(streams.MaxOpen, defaultMaxOpen),
		maxOpenPerClient: or(streams.MaxOpenPerClient, defaultMaxOpenPerClient),
		create:           Create{Off: create.Off, Partitions: or(create.Partitions, defaultPartitions), Replication: create.Replication},
	}
}

// Validate refuses settings that cannot hold together.
func (a *App) Validate() error {
	s, replies := a.settings, or(a.Replies, &Replies{})
	if len(a.Kafka) > 0 && a.Embedded != nil {
		return errors.New("kafka and embedded are both configured: name a cluster or use the embedded broker, not both")
	}
	if s.streams == "" {
		return errors.New("streams: the prefix of stream URLs may not be the root; write one such as /-/streams")
	}
	if err := validStreams(s.streams); err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	if e := a.Embedded; e != nil {
		if err := validListen(or(e.Listen, defaultEmbeddedListen)); err != nil {
			return err
		}
		if e.MaxBytes < 0 {
			return fmt.Errorf("embedded: max_bytes is %d; it has to be at least 1", e.MaxBytes)
		}
		if err := validDurations("embedded", map[string]time.Duration{"retention": time.Duration(e.Retention)}); err != nil {
			return err
		}
	}
	for _, check := range []func(string) error{validTopic, gatewaysOwn} {
		if err := check(a.plan.hub.Topic); err != nil {
			return fmt.Errorf("replies: %w", err)
		}
	}
	for name, d := range map[string]time.Duration{
		"produce_timeout": s.produceTimeout, "token ttl": s.ttl, "streams max_wait": s.maxWait,
		"streams heartbeat": s.heartbeat, "streams write_timeout": s.writeTimeout,
		"replies retention": time.Duration(or(replies.Retention, caddy.Duration(defaultRetention))),
	} {
		if d <= 0 {
			return fmt.Errorf("%s is %s; it has to be longer than 0", name, d)
		}
	}
	for name, n := range map[string]int{
		"create partitions": s.create.Partitions, "replies partitions": or(replies.Partitions, defaultReplyPartitions),
		"streams max_open": s.maxOpen, "streams max_open_per_client": s.maxOpenPerClient,
	} {
		if n < 1 {
			return fmt.Errorf("%s is %d; it has to be at least 1", name, n)
		}
	}
	if s.create.Replication < 0 {
		return fmt.Errorf("create replication is %d; leave it out for the broker's default", s.create.Replication)
	}
	// A stream that may still end has to find its replies: otherwise its end
	// would be deleted before it expires.
	if retention := time.Duration(or(replies.Retention, caddy.Duration(defaultRetention))); s.ttl+s.produceTimeout > retention {
		return fmt.Errorf("token ttl (%s) and produce_timeout (%s) together are longer than the replies are kept (%s): shorten the ttl, or raise `replies <topic> { retention … }`", s.ttl, s.produceTimeout, retention)
	}
	if a.Token != nil {
		if _, err := a.configuredKeys(); err != nil {
			return err
		}
	}
	return nil
}

// makePlan turns the configuration into what to take from the pools.
func (a *App) makePlan() error {
	brokerConfig, identity, err := a.brokerConfig()
	if err != nil {
		return err
	}
	replies := or(a.Replies, &Replies{})
	retention := time.Duration(or(replies.Retention, caddy.Duration(defaultRetention)))
	topic := or(replies.Topic, defaultReplies)
	p := plan{broker: brokerConfig, logger: a.logger}
	// The retention of the embedded broker is its janitor's: see package embedded.
	config := map[string]string{timestampType: logAppendTime}
	if len(a.Kafka) == 0 {
		e := or(a.Embedded, &Embedded{})
		p.embedded = &embedded.Config{
			Directory: or(e.Directory, filepath.Join(caddy.AppDataDir(), "osmosis")),
			Listen:    or(e.Listen, defaultEmbeddedListen),
			Retention: max(time.Duration(or(e.Retention, caddy.Duration(defaultEmbeddedRetention))), retention),
			MaxBytes:  or(e.MaxBytes, int64(defaultEmbeddedMaxBytes)),
			Logger:    a.logger.Named("embedded"),
		}
		p.brokerKey = fingerprint("embedded", p.embedded.Directory, p.embedded.Listen, p.embedded.Retention, p.embedded.MaxBytes)
	} else {
		config["cleanup.policy"] = "delete"
		config["retention.ms"] = broker.Millis(retention)
		p.brokerKey = fingerprint("kafka", identity)
	}
	p.hub = hub.Config{
		Topic: topic,
		Group: "osmosis.gateways." + topic,
		Spec: broker.TopicSpec{
			Name: topic, Partitions: or(replies.Partitions, defaultReplyPartitions),
			Replication: a.settings.create.Replication, Config: config,
		},
		Create: !a.settings.create.Off,
		Logger: a.logger.Named("hub"),
	}
	p.insideKey = fingerprint(p.brokerKey, p.hub.Topic, p.hub.Group)
	a.plan = p
	return nil
}

// fingerprint gives the same text for equal settings. It is a hash, since
// settings hold passwords and pool keys end up in panics.
func fingerprint(parts ...any) string {
	b, err := json.Marshal(parts)
	if err != nil {
		panic(err) // only plain structs, texts and numbers come here
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// Start takes broker, producer and hub from the pools. None of that waits for
// Kafka: the site is up while the broker is down, and routes answer 503 until it is back.
func (a *App) Start() (err error) {
	logs.use(a, a.log)
	defer func() {
		if err != nil {
			logs.leave(a)
		}
	}()
	keys, err := a.loadKeys(context.Background())
	if err != nil {
		return err
	}
	a.plan.hub.Fingerprint = keys.Fingerprint()
	i, err := a.plan.acquire()
	if err != nil {
		return err
	}
	i.hub.SetFingerprint(a.plan.hub.Fingerprint) // where it is shared with a configuration of other keys
	a.inside, a.keys, a.shared = i, keys, newShare(i, a.plan.insideKey)
	close(a.started)
	headroom()

	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	a.working.Go(func() { a.createTopics(ctx, i.client) })
	a.startRetentionCheck(ctx, i)
	a.working.Go(func() { a.keepLogTime(ctx, i.client) })
	a.startClaims(ctx, i)
	if err := a.startDeliveries(); err != nil {
		return err
	}
	a.startAdmissions(ctx, i)
	return a.startScaling()
}

// createTopics makes the routes' topics ahead of the first request, as far as
// the broker is there; a request for one that is missing tries again.
func (a *App) createTopics(ctx context.Context, client *broker.Client) {
	a.routes.mu.Lock()
	topics, delivers := slices.Compact(slices.Sorted(slices.Values(a.routes.topics))), len(a.routes.deliveries) > 0
	a.routes.mu.Unlock()
	for _, topic := range topics {
		if err := a.ensure(ctx, client, a.requestSpec(topic)); err != nil {
			a.logger.Warn("request topic not ready", zap.String("topic", topic), zap.Error(err))
		}
	}
	if !delivers {
		return
	}
	if err := a.ensure(ctx, client, a.controlSpec()); err != nil {
		a.logger.Warn("control topic not ready; until it is, requests that are being tried cannot be cancelled, and are cut short where a partition moves to another gateway",
			zap.String("topic", controlTopic), zap.Error(err))
	}
}

// kafkaAddresses gives what workers connect to.
func (a *App) kafkaAddresses() string {
	if a.plan.embedded != nil {
		return a.inside.client.Addresses()
	}
	return strings.Join(a.plan.broker.Addresses, ",")
}

// Stop ends the workers that Start began. What requests need stays until
// Cleanup: Caddy stops its apps in no particular order, and servers whose turn
// comes later go on to take requests and to let streams in. Those would all be
// refused, and an EventSource that is refused gives up for good.
func (a *App) Stop() error {
	defer logs.leave(a)
	return errors.Join(a.stopScaling(), a.stopDeliveries())
}

// Cleanup lets go of what Start took, when all apps have stopped; the last of
// the requests and streams that still run, if there are any.
//
// It runs also when Start failed half-way. The HTTP app may have let requests
// in by then, and those need not wait for a start that will not come.
func (a *App) Cleanup() error {
	select {
	case <-a.started:
	default:
		close(a.failed)
	}
	err := a.Stop()
	if a.inside == nil {
		return err
	}
	a.cancel()
	a.working.Wait()
	a.inside = nil
	a.shared.leave()
	if caddy.Exiting() {
		awaitStreams(drainStreams)
	}
	return err
}

// configuredKeys gives the keyring of the configuration's own keys.
func (a *App) configuredKeys() (*hub.Keyring, error) {
	if a.Token == nil || len(a.Token.Keys) == 0 {
		return nil, nil
	}
	secrets := make([]string, len(a.Token.Keys))
	for i, key := range a.Token.Keys {
		secret, err := expand("token key", key)
		if err != nil {
			return nil, err
		}
		secrets[i] = secret
	}
	keys, err := hub.NewKeyring(secrets...)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return keys, nil
}

// keyPath is where the key lies in Caddy's storage when none is configured, so
// that gateways with a common storage open each other's tokens.
const keyPath = "osmosis/token.key"

// loadKeys gives the configured keys, or else the stored one, which the first
// gateway to come makes.
func (a *App) loadKeys(ctx context.Context) (*hub.Keyring, error) {
	if keys, err := a.configuredKeys(); keys != nil || err != nil {
		return keys, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.settings.produceTimeout)
	defer cancel()
	secret, err := a.storage.Load(ctx, keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err = a.makeKey(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the token key in storage: %w", err)
	}
	return hub.NewKeyring(string(secret))
}

// makeKey makes the key of the storage, unless another gateway has been faster.
// Only this takes the lock: a start that finds the key waits for nobody.
func (a *App) makeKey(ctx context.Context) (secret []byte, err error) {
	if err := a.storage.Lock(ctx, keyPath); err != nil {
		return nil, err
	}
	defer func() {
		if err := a.storage.Unlock(ctx, keyPath); err != nil {
			a.logger.Warn("token key left locked in storage", zap.Error(err))
		}
	}()
	secret, err = a.storage.Load(ctx, keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		secret = []byte(hub.NewSecret())
		err = a.storage.Store(ctx, keyPath, secret)
	}
	return secret, err
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
