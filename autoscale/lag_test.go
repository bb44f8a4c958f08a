package autoscale

import (
	"testing"
	"time"
)

func TestLag(t *testing.T) {
	old := &Offsets{Incarnation: "a", End: 100, Committed: 60}
	tests := map[string]struct {
		now    Offsets
		before *Offsets
		want   int64
	}{
		"commit inside the log":                   {now: Offsets{End: 100, Committed: 60}, want: 40},
		"all done":                                {now: Offsets{End: 100, Committed: 100}, want: 0},
		"empty topic":                             {now: Offsets{Committed: Unknown}, want: 0},
		"no commit is not -1":                     {now: Offsets{End: 100, Committed: Unknown}, want: 100},
		"no commit is not the log that is gone":   {now: Offsets{Start: 90, End: 100, Committed: Unknown}, want: 10},
		"no commit, from latest, never seen":      {now: Offsets{End: 100, Committed: Unknown, FromLatest: true}, want: Unknown},
		"no commit, from latest, five more since": {now: Offsets{End: 105, Committed: Unknown, FromLatest: true}, before: &Offsets{End: 100, Committed: Unknown}, want: 5},
		"a commit that expired, from latest":      {now: Offsets{End: 105, Committed: Unknown, FromLatest: true}, before: &Offsets{End: 100, Committed: 98}, want: 7},
		"retention took what was not done":        {now: Offsets{Start: 80, End: 100, Committed: 10}, want: 20},
		"retention took all":                      {now: Offsets{Start: 100, End: 100, Committed: 10}, want: 0},
		"a transaction marker at the end":         {now: Offsets{End: 101, Committed: 100, Holes: 1}, want: 0},
		"markers among records":                   {now: Offsets{End: 110, Committed: 100, Holes: 4}, want: 6},
		"more holes than offsets":                 {now: Offsets{End: 101, Committed: 100, Holes: 3}, want: 0},
		"no leader":                               {now: Offsets{Start: Unknown, End: Unknown, Committed: 60}, want: Unknown},
		"no end":                                  {now: Offsets{End: Unknown, Committed: 60}, want: Unknown},
		"commit not told":                         {now: Offsets{End: 100, Committed: Unknown, CommitUnread: true}, want: Unknown},
		"recreated topic, the old one's commit":   {now: Offsets{Incarnation: "b", End: 70, Committed: 60}, before: old, want: 70},
		"recreated topic, commit past its end":    {now: Offsets{Incarnation: "b", End: 7, Committed: 61}, before: old, want: 7},
		"recreated topic, commits of its own":     {now: Offsets{Incarnation: "b", End: 70, Committed: 3}, before: old, want: 67},
		"recreated topic, no commit":              {now: Offsets{Incarnation: "b", End: 7, Committed: Unknown}, before: old, want: 7},
		"recreated topic, from latest":            {now: Offsets{Incarnation: "b", End: 7, Committed: Unknown, FromLatest: true}, before: old, want: 7},
		"another broker that knows nothing":       {now: Offsets{Committed: Unknown}, before: old, want: Unknown},
		"the same topic went back":                {now: Offsets{Incarnation: "a", End: 40, Committed: 30}, before: old, want: Unknown},
		"a commit past the end":                   {now: Offsets{End: 40, Committed: 60}, want: Unknown},
		"a start past the end":                    {now: Offsets{Start: 50, End: 40, Committed: 10}, want: Unknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.before != nil {
				tt.now = tt.now.After(*tt.before)
			}
			if got := tt.now.Lag(); got != tt.want {
				t.Fatalf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestLagOfATopicThatWasMadeAnewStaysRight(t *testing.T) {
	o := Offsets{Incarnation: "b", End: 70, Committed: 60}.After(Offsets{Incarnation: "a", End: 100, Committed: 60})
	for _, step := range []struct{ end, committed, want int64 }{
		{80, 60, 80}, // still the old one's commit
		{80, 5, 75},  // the group has begun
		{80, 60, 20}, // and comes by where the old one stood
		{90, 70, 20},
	} {
		o = Offsets{Incarnation: "b", End: step.end, Committed: step.committed}.After(o)
		if got := o.Lag(); got != step.want {
			t.Fatalf("%+v: got %d", step, got)
		}
	}
}

// While a cluster is being upgraded some brokers tell a topic's id and some do
// not. What is there has not come and was not done anew by that.
func TestATopicWhoseIncarnationIsToldNowAndThen(t *testing.T) {
	nothing := func(int64, string) (int64, int64) { return 0, 0 }
	for _, told := range [][]string{{"", "a", "", "a"}, {"a", "", "a", ""}} {
		p := part{produced: Unknown, done: Unknown, lag: Unknown}
		var produced, done int64
		for i, incarnation := range told {
			n := int64(i)
			p.take(Offsets{Incarnation: incarnation, Start: 100, End: 1000 + n, Committed: 900 + n}, nothing, time.Now())
			if i == 0 {
				produced, done = p.produced, p.done
			}
			if p.produced != produced+n || p.done != done+n || p.lag != 100 {
				t.Errorf("told %q: %d came, %d were done, %d wait at look %d", told, p.produced-produced, p.done-done, p.lag, i)
			}
		}
		// A topic of that name that was made anew is still known from the one before.
		p.take(Offsets{Incarnation: "b", Start: 0, End: 3, Committed: 903}, nothing, time.Now())
		if p.produced != produced+6 || p.lag != 3 {
			t.Errorf("told %q: %d came, %d wait on the new topic", told, p.produced-produced, p.lag)
		}
	}
}

func TestLagFromLatestGrowsUntilTheGroupCommits(t *testing.T) {
	o := Offsets{End: 100, Committed: Unknown, FromLatest: true}
	for want := range int64(5) {
		o = Offsets{End: 100 + want, Committed: Unknown, FromLatest: true}.After(o)
		if got := o.Lag(); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	}
	o = Offsets{End: 104, Committed: 103, FromLatest: true}.After(o)
	if got := o.Lag(); got != 1 {
		t.Fatalf("got %d after a commit", got)
	}
}

// FuzzLag looks for a lag that no log can have.
func FuzzLag(f *testing.F) {
	f.Add(int64(0), int64(100), int64(60), int64(0), int64(90), "a", "a", false)
	f.Add(int64(0), int64(7), int64(60), int64(1), int64(90), "a", "b", true)
	f.Fuzz(func(t *testing.T, start, end, committed, holes, before int64, then, incarnation string, latest bool) {
		o := Offsets{Incarnation: incarnation, Start: start, End: end, Committed: committed, FromLatest: latest, Holes: holes}
		o = o.After(Offsets{Incarnation: then, End: before, Committed: before / 2})
		if got := o.Lag(); got < Unknown || got > max(0, end-max(0, start)) {
			t.Fatalf("%+v gave %d", o, got)
		}
	})
}
