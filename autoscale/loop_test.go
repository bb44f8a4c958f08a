package autoscale

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestTheFirstRecordWakesTheLoop(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		settle(5*time.Minute + time.Second) // in the middle between two looks
		s.crew.wants(t, 0, 0)
		produced := time.Now()
		s.source.produce(1)
		synctest.Wait()
		s.crew.wants(t, 1, 1)
		if took := s.crew.at[0].Sub(produced); took != 0 {
			t.Fatalf("the first worker was asked for after %s", took)
		}
		lines := s.logs.FilterMessage("number of workers").FilterLevelExact(zap.InfoLevel).All()
		if len(lines) != 1 {
			t.Fatalf("%d changes in the log", len(lines))
		}
		fields := lines[0].ContextMap()
		for field, want := range map[string]any{
			"topic": "orders", "group": "workers", "workers": int64(1), "before": int64(0), "backlog": int64(4), "dry_run": false,
		} {
			if fields[field] != want {
				t.Errorf("field %s is %v, want %v", field, fields[field], want)
			}
		}
		if reason, _ := fields["reason"].(string); !strings.HasPrefix(reason, "1: ") {
			t.Errorf("reason %q", reason)
		}
		s.source.work()
		settle(5 * time.Minute)
		s.crew.wants(t, 0, 2)
		s.source.produce(1)
		synctest.Wait()
		s.crew.wants(t, 1, 3)
	})
}

// A paused partition would wake a loop at once, again and again.
func TestWhatWaitsInVainWakesNobody(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.source.change(func(m *Measurement) {
			for i := range m.Partitions {
				m.Partitions[i].Paused = true
			}
		})
		settle(time.Minute)
		for range 10 {
			s.source.produce(1)
			settle(time.Millisecond)
		}
		before := len(s.told)
		for range 1000 {
			s.source.produce(1)
			settle(time.Millisecond)
		}
		if n := len(s.told) - before; n > 1 {
			t.Fatalf("%d looks within a second", n)
		}
	})
}

func TestTheNumberFollowsTheLoad(t *testing.T) {
	onStage(t, Settings{Config: Config{Max: 8}}, func(t *testing.T, s *stage) {
		s.load(2*time.Minute, 7.5)
		if n := s.crew.Running(); n < 3 || n > 4 {
			t.Fatalf("%d workers for 30/s of 100 ms in 4 partitions", n)
		}
		s.source.change(func(m *Measurement) { m.Oldest = 3 * time.Second })
		s.load(every, 7.5)
		status := s.Status()
		if !status.Deciding || status.Running != s.crew.Running() || status.Oldest != 3*time.Second || status.Topic != "orders" || status.Group != "workers" {
			t.Fatalf("%+v", status)
		}
		if status.Last.At.IsZero() || len(status.Decisions) < 2 || len(status.Decisions) > maxDecisions {
			t.Fatalf("%d decisions, the last one %+v", len(status.Decisions), status.Last)
		}
		s.load(10*time.Minute, 0)
		s.crew.wants(t, 0, len(s.crew.orders))
		for i, d := range s.told[1:] {
			if d.From != s.told[i].Workers {
				t.Fatalf("decision %d goes on from %d, not from %d", i+1, d.From, s.told[i].Workers)
			}
		}
		if n := len(s.Status().Decisions); n > maxDecisions {
			t.Fatalf("%d decisions are kept", n)
		}
	})
}

func TestADryRunTouchesNothing(t *testing.T) {
	onStage(t, Settings{DryRun: true}, func(t *testing.T, s *stage) {
		s.source.change(func(m *Measurement) { m.Members = 2 })
		s.load(2*time.Minute, 7.5)
		if s.crew.scaled > 0 || !s.Status().DryRun {
			t.Fatal("a dry run has acted")
		}
		if status := s.Status(); status.Last.Workers < 3 || status.Running != 2 {
			t.Fatalf("decided %d, with %d there: %s", status.Last.Workers, status.Running, status.Last.Reason)
		}
		s.Use(Settings{})
		s.load(every, 7.5)
		if n := s.crew.Running(); n < 3 {
			t.Fatalf("%d workers after the dry run", n)
		}
		before := s.crew.Running()
		s.Use(Settings{DryRun: true})
		s.load(10*time.Minute, 0)
		s.crew.wants(t, before, 1)
	})
}

func TestLimitsChangeInPlace(t *testing.T) {
	onStage(t, Settings{Config: Config{Min: 3}}, func(t *testing.T, s *stage) {
		settle(every)
		s.crew.wants(t, 3, 1)
		s.Use(Settings{Config: Config{Min: 2, Max: 5}})
		settle(every)
		s.crew.wants(t, 3, 1) // not lowered before its time, nor touched
		s.Use(Settings{Config: Config{Min: 5, Max: 6}})
		settle(every)
		s.crew.wants(t, 5, 2)
		s.Use(Settings{Config: Config{Max: 4}})
		settle(every)
		s.crew.wants(t, 4, 3)
		if s.crew.released > 0 {
			t.Fatal("released")
		}
	})
}

func TestOnlyTheHolderDecides(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.load(time.Minute, 7.5)
		if s.crew.scaled > 0 || len(s.told) > 0 || s.Status().Deciding {
			t.Fatal("decided without the lease")
		}
		s.lease.set(7, true, false)
		s.load(time.Minute, 7.5)
		n := s.crew.Running()
		if n < 3 || s.crew.orders[0].Generation != 7 || s.Status().Generation != 7 {
			t.Fatalf("orders %v", s.crew.orders)
		}

		s.lease.set(7, false, false) // by the clock: nobody knows who decides
		synctest.Wait()
		told, changes := len(s.told), len(s.crew.orders)
		s.source.dark()
		settle(time.Hour)
		s.crew.wants(t, n, changes)
		if len(s.told) != told || s.Status().Deciding {
			t.Fatal("decided after the lease had run out")
		}

		s.source.light(100_000)
		s.source.change(func(m *Measurement) { m.Members = 2 * n }) // each twice: it had to join again
		s.lease.set(9, true, false)
		settle(20 * time.Second)
		s.crew.wants(t, n, changes) // goes on from what there is

		s.lease.set(9, false, true)
		synctest.Wait()
		if s.crew.Running() != 0 || s.crew.released == 0 {
			t.Fatal("workers stay although another process has its own")
		}
	}, leased)
}

// A look that is under way, for as long as it takes, does not keep workers that
// have to go.
func TestALostLeaseDoesNotWaitForALook(t *testing.T) {
	onStage(t, Settings{Config: Config{Min: 2}}, func(t *testing.T, s *stage) {
		s.lease.set(1, true, false)
		settle(every)
		s.crew.wants(t, 2, 1)
		lost := time.Now()
		s.lease.set(1, false, true)
		synctest.Wait()
		if s.crew.Running() != 0 || time.Since(lost) != 0 {
			t.Fatal("released at the next look only")
		}
	}, leased)
}

// Who takes over goes on with as many workers as the one before had, until it
// has seen for a while what is needed.
func TestANewHolderGoesOnFromWhatThereIs(t *testing.T) {
	for name, crew := range map[string]func(*stage, *LoopConfig){
		"own workers": func(*stage, *LoopConfig) {}, "workers elsewhere": uncounted,
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, Settings{}, func(t *testing.T, s *stage) {
				s.source.change(func(m *Measurement) { m.Members = 4 })
				s.load(time.Minute, 0)
				s.lease.set(3, true, false)
				taken := time.Now()
				s.load(every, 0.1)
				if d := s.Status().Last; d.From != 4 || d.Workers != 4 {
					t.Fatalf("goes on from %d with %d: %s", d.From, d.Workers, d.Reason)
				}
				for s.Status().Last.Workers == 4 {
					s.load(every, 0.1)
				}
				if took := time.Since(taken); took < 30*time.Second || took > time.Minute {
					t.Fatalf("lowered after %s", took)
				}
			}, leased, crew)
		})
	}
}

// Members of gateways that were killed in a row are still in the group, and more than
// can work. As many own workers are started as have something to do.
func TestANewHolderDoesNotCountTheDead(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.source.change(func(m *Measurement) { m.Members = 8 }) // of a topic of four partitions
		s.load(time.Minute, 1)
		s.lease.set(3, true, false)
		s.load(every, 1)
		s.crew.wants(t, 4, 1)
		s.load(5*time.Minute, 1)
		if n := s.crew.Running(); n > 2 {
			t.Fatalf("%d workers for 4/s of 100 ms", n)
		}
	}, leased)

	// Nor does it count on them where it has seen that nobody is there any more.
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.source.change(func(m *Measurement) { m.Members = 0 })
		s.load(time.Minute, 7.5)
		s.lease.set(3, true, false)
		s.load(every, 7.5)
		if n := s.crew.Running(); n < 3 || n > 4 {
			t.Fatalf("%d workers for 30/s of 100 ms in 4 partitions", n)
		}
	}, leased)
}

func TestANewHolderThatSeesNothing(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.load(time.Minute, 0)
		s.source.dark()
		settle(every)
		s.lease.set(3, true, false)
		settle(time.Minute)
		s.crew.wants(t, 1, 1) // the floor: unknown is not zero
	}, leased)

	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.source.dark()
		s.lease.set(3, true, false)
		settle(time.Hour)
		if s.crew.scaled > 0 || s.Status().Running != Unknown {
			t.Fatal("a number was told although nobody knows how many there are")
		}
		s.source.light(0)
		s.source.change(func(m *Measurement) { m.Members = 3 })
		settle(every)
		s.crew.wants(t, 3, 1)
	}, leased, uncounted)
}

// A commit on records that the topic does not have, as after it was made anew
// while no gateway ran, says nothing of what waits; nor does a partition without a
// leader. Where nobody works, nobody would ever find out.
func TestANewHolderThatSeesPart(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.source.change(func(m *Measurement) {
			m.Members = 0
			m.Partitions[2] = Partition{Backlog: Unknown, Produced: 5, Done: Unknown}
		})
		settle(10 * time.Second)
		s.lease.set(3, true, false)
		settle(time.Minute)
		s.crew.wants(t, 1, 1)
	}, leased)
}

// Workers that have ended while the broker was down start again by and by. When
// the lease is back before them, those that are not there yet are wanted still.
func TestWorkersThatAreNotBackYet(t *testing.T) {
	for name, crew := range map[string]func(*stage, *LoopConfig){
		"own workers": func(*stage, *LoopConfig) {}, "workers elsewhere": uncounted,
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, Settings{}, func(t *testing.T, s *stage) {
				s.source.change(func(m *Measurement) { m.Members = 0 })
				s.lease.set(3, true, false)
				s.load(2*time.Minute, 7.5)
				n := s.crew.Running()
				s.source.dark()
				s.lease.set(3, false, false)
				settle(time.Minute)
				s.crew.change(-n)   // all have ended
				s.source.light(900) // nothing came meanwhile
				s.source.change(func(m *Measurement) { m.Members = 0 })
				s.lease.set(4, true, false)
				settle(every)
				if d := s.Status().Last; n < 3 || d.Workers != n || s.crew.Running() != n {
					t.Fatalf("%d workers became %d: %s", n, d.Workers, d.Reason)
				}
			}, leased, crew)
		})
	}
}

func TestUnknownForLong(t *testing.T) {
	onStage(t, Settings{}, func(t *testing.T, s *stage) {
		s.load(2*time.Minute, 7.5)
		n := s.crew.Running()
		changes := len(s.crew.orders)
		s.source.dark()
		settle(9 * time.Minute)
		s.crew.wants(t, n, changes)
		settle(2 * time.Minute)
		s.crew.wants(t, 1, changes+1) // the floor
		settle(time.Hour)
		s.crew.wants(t, 1, changes+1)
	})
}

func TestWhatStatusRemembers(t *testing.T) {
	onStage(t, Settings{Config: Config{Max: 4}}, func(t *testing.T, s *stage) {
		settle(time.Hour)
		if n := len(s.Status().Decisions); n != 1 {
			t.Fatalf("%d decisions kept of an idle hour", n)
		}
		for range 100 {
			s.source.produce(1)
			s.load(2*time.Minute, 0)
		}
		kept := s.Status().Decisions
		if len(kept) != maxDecisions {
			t.Fatalf("%d decisions kept", len(kept))
		}
		if !slices.IsSortedFunc(kept, func(a, b Decision) int { return a.At.Compare(b.At) }) {
			t.Fatal("not in order")
		}
	})
}

// Whatever is seen, and whoever decides, the number stays within the limits, and
// the loop can be closed.
func TestWhateverHappens(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same again for the same seed
			limits := func() Config {
				least := r.IntN(3)
				return Config{Min: least, Max: least + 1 + r.IntN(6), Keyed: r.IntN(2) == 0}
			}
			c := limits()
			onStage(t, Settings{Config: c}, func(t *testing.T, s *stage) {
				if s.lease != nil {
					s.lease.set(1, true, false)
				}
				for i := range 300 {
					switch r.IntN(12) {
					case 0:
						s.source.dark()
					case 1:
						s.source.light(r.Int64N(1000))
					case 2:
						s.source.change(func(m *Measurement) { m.Members = r.IntN(12) - 1 })
					case 3:
						c = limits()
						s.Use(Settings{Config: c, DryRun: r.IntN(4) == 0})
						settle(every)
					case 4:
						s.source.change(func(m *Measurement) { m.Partitions = make([]Partition, r.IntN(6)) })
					case 5:
						if s.lease != nil {
							held := r.IntN(2) == 0
							s.lease.set(int32(i), held, !held && r.IntN(2) == 0)
						}
					case 6:
						s.source.change(func(m *Measurement) {
							for i := range m.Partitions {
								m.Partitions[i].Paused, m.Partitions[i].Poisoned = r.IntN(2) == 0, r.IntN(2) == 0
								m.Partitions[i].Stalled = time.Duration(r.IntN(100)) * time.Second
							}
						})
					case 7:
						s.source.work()
					default:
						s.source.produce(r.Int64N(500))
					}
					settle(time.Duration(r.IntN(5000)) * time.Millisecond)
					if n := s.Status().Last; !n.At.IsZero() && time.Since(n.At) < time.Second && (n.Workers < c.Min || n.Workers > c.Max) {
						t.Fatalf("%d is not within %d and %d: %s", n.Workers, c.Min, c.Max, n.Reason)
					}
					if n := s.crew.Running(); n < 0 || n > 9 {
						t.Fatalf("%d workers", n)
					}
				}
				s.Close()
				if s.crew.closed != 1 {
					t.Fatalf("closed %d times", s.crew.closed)
				}
				s.Use(Settings{})
				s.Close()
				_ = s.Status()
			}, func(s *stage, c *LoopConfig) {
				if r.IntN(2) == 0 {
					leased(s, c)
				}
				if r.IntN(2) == 0 {
					uncounted(s, c)
				}
			})
		})
	}
}

// Close ends a loop wherever it is, also beside everything else.
func TestCloseBesideAll(t *testing.T) {
	for i := range 50 {
		onStage(t, Settings{Config: Config{Min: 1}}, func(t *testing.T, s *stage) {
			var running sync.WaitGroup
			for range 4 {
				running.Go(func() {
					for n := range 20 {
						s.Use(Settings{Config: Config{Min: n % 3}})
						s.source.produce(1)
						s.lease.set(int32(n), n%2 == 0, n%3 == 0)
						_ = s.Status()
						<-time.After(time.Second)
					}
				})
			}
			settle(time.Duration(i) * 300 * time.Millisecond)
			s.Close()
			running.Wait()
		}, leased)
	}
}
