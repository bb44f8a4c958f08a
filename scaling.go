package osmosis

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

// What scaling needs outlives a configuration as all else does that reaches
// Kafka: another limit is no reason to stop a worker, to forget what was measured
// or to give the lease to another gateway. All of it is made only where a
// configuration scales something.
var (
	surveys = caddy.NewUsagePool() // broker settings → *surveyEntry
	leases  = caddy.NewUsagePool() // broker settings, topic, group → *leaseEntry
	loops   = caddy.NewUsagePool() // broker settings, topic, group, concurrency, scaler → *scaling
)

// surveyEntry is the process' one look at what waits on a cluster.
type surveyEntry struct {
	*autoscale.Survey
	needs
}

// Destruct stops looking.
func (s *surveyEntry) Destruct() error {
	s.Close()
	return s.letGo()
}

// leaseEntry is the process' part in who decides for a topic and group.
type leaseEntry struct {
	*autoscale.GroupLease
	needs
}

// Destruct leaves it to others.
func (l *leaseEntry) Destruct() error {
	l.Close()
	return l.letGo()
}

// scaling is the loop that scales one topic and group.
type scaling struct {
	*autoscale.Loop
	said[autoscale.Settings]
	topic, group string
	began        time.Time
	watch        *autoscale.Watch
	members      atomic.Int64 // of the consumer group, as seen last
	needs
}

// Destruct stops deciding, and waits for the workers that are this process' own.
func (s *scaling) Destruct() error {
	s.Close()
	s.watch.Close()
	return s.letGo()
}

// told takes note of what a decision does not say.
func (s *scaling) told(_ autoscale.Decision, m autoscale.Measurement) {
	s.members.Store(int64(m.Members))
}

// startScaling begins to scale, or goes on with what the configuration before
// has begun with the same scaler for the same job.
func (a *App) startScaling() error {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	a.scaling = make(map[string]*scaling)
	for _, s := range slices.Concat(a.Scale, a.routes.scale) {
		if err := a.startOne(s); err != nil {
			return fmt.Errorf("scale %s %s: %w", s.Topic, s.Group, err)
		}
	}
	return nil
}

func (a *App) startOne(s *Scale) error {
	own := 0
	if scaler, ok := s.scaler.(*DeliverScaler); ok {
		if err := scaler.find(a, s.Topic, s.Group); err != nil {
			return err
		}
		own = scaler.delivery.concurrency()
		if err := s.checkMax(or(s.Max, own)); err != nil {
			return err
		}
	}
	settings := autoscale.Settings{Config: s.limits(own), DryRun: s.DryRun}
	crewKey, start := s.scaler.Crew(autoscale.Job{
		Kafka: a.kafkaAddresses(), Topic: s.Topic, Group: s.Group, Logger: a.logger.Named("scale"),
	})
	// Workers that work on another number of records at once are other workers.
	key := fingerprint(a.plan.brokerKey, s.Topic, s.Group, s.Concurrency, crewKey)
	value, _, err := loops.LoadOrNew(key, func() (caddy.Destructor, error) { return a.newScaling(s, settings, start) })
	if err != nil {
		return err
	}
	a.scaling[key] = value.(*scaling)
	a.scaling[key].use(a, settings)
	return nil
}

// newScaling makes a loop, and what it needs where that is not there.
func (a *App) newScaling(s *Scale, settings autoscale.Settings, start func() autoscale.Crew) (*scaling, error) {
	made := &scaling{topic: s.Topic, group: s.Group, began: time.Now()}
	made.members.Store(autoscale.Unknown)
	c := autoscale.LoopConfig{Topic: s.Topic, Group: s.Group, Logger: a.logger.Named("scale"), Told: made.told}
	value, err := made.take(surveys, a.plan.brokerKey, a.newSurvey)
	if err != nil {
		return nil, err
	}
	survey := value.(*surveyEntry)
	if !s.delivers() { // then nobody else has a word in it
		key := fingerprint(a.plan.brokerKey, s.Topic, s.Group)
		if value, err = made.take(leases, key, func() (caddy.Destructor, error) { return a.newLease(s) }); err != nil {
			return nil, errors.Join(err, made.letGo())
		}
		c.Lease = value.(*leaseEntry)
	}
	made.watch = survey.Watch(autoscale.Watched{Topic: s.Topic, Group: s.Group, Concurrency: s.Concurrency})
	c.Crew, c.Source = start(), made.watch
	if tries, ok := c.Crew.(*tries); ok {
		c.Source = &ownShare{Source: c.Source, tries: tries}
	}
	made.Loop = autoscale.NewLoop(c, settings)
	made.apply = made.Loop.Use
	return made, nil
}

// connection gives the broker that the app has connected to, with a reference on it.
func (a *App) connection(n *needs) (*broker.Client, error) {
	value, err := n.take(brokers, a.plan.brokerKey, func() (caddy.Destructor, error) { return nil, errStopped })
	if err != nil {
		return nil, err
	}
	return value.(*brokerEntry).client, nil
}

func (a *App) newSurvey() (caddy.Destructor, error) {
	entry := new(surveyEntry)
	client, err := a.connection(&entry.needs)
	if err != nil {
		return nil, err
	}
	entry.Survey = autoscale.NewSurvey(autoscale.SurveyConfig{Broker: client, Ahead: deliver.Ahead, Logger: a.logger.Named("scale")})
	return entry, nil
}

func (a *App) newLease(s *Scale) (caddy.Destructor, error) {
	entry := new(leaseEntry)
	client, err := a.connection(&entry.needs)
	if err != nil {
		return nil, err
	}
	entry.GroupLease = autoscale.NewLease(autoscale.LeaseConfig{
		Broker: client, Topic: s.Topic, Group: s.Group,
		Create: !a.settings.create.Off, Replication: a.settings.create.Replication, Logger: a.logger.Named("scale"),
	})
	return entry, nil
}

// stopScaling lets go of the loops. Workers that no other configuration wants
// are told to stop, and waited for: all at once, so that it takes no longer than
// the slowest of them.
func (a *App) stopScaling() error {
	errs := make(chan error, len(a.scaling))
	for key, s := range a.scaling {
		s.leave(a)
		go func() {
			_, err := loops.Delete(key)
			errs <- err
		}()
	}
	var all error
	for range a.scaling {
		all = errors.Join(all, <-errs)
	}
	a.scaling = nil
	return all
}
