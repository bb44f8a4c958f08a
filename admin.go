package osmosis

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

func init() {
	caddy.RegisterModule(Admin{})
}

// Admin is the part of Caddy's admin API that tells of this module. It only reads.
//
//	GET /osmosis/scale
//
// gives a list with one object for each topic and group whose workers are scaled.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.osmosis",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Routes implements caddy.AdminRouter.
func (Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/osmosis/scale", Handler: caddy.AdminHandlerFunc(tellScale)}}
}

// tellScale answers with how the scaling stands.
func tellScale(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("method %s is not allowed; this can only be read", r.Method)}
	}
	list := make([]scaleReport, 0)
	for _, s := range scalings() {
		list = append(list, s.report())
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	return encoder.Encode(list)
}

// scaleReport is how the scaling of one topic and group stands. What nobody
// knows is null: it is not 0.
type scaleReport struct {
	Topic string `json:"topic"`
	Group string `json:"group"`
	// Deciding says that this gateway is the one that decides. Where another one
	// is, only that one knows what is null here.
	Deciding bool `json:"deciding"`
	// Generation is that of the lease.
	Generation int32 `json:"generation"`
	DryRun     bool  `json:"dry_run"`
	Min        int   `json:"min"`
	Max        int   `json:"max"`
	// Desired is how many workers there should be, Running how many there are,
	// Members how many are in the consumer group, whoever started them.
	Desired *int `json:"desired"`
	Running *int `json:"running"`
	Members *int `json:"members"`
	scaleFigures
	OldestSeconds *float64 `json:"oldest_seconds"`
	Reason        string   `json:"reason"`
	// Decisions are the last ones that changed the number or the kind of its
	// reason, oldest first.
	Decisions []scaleDecision `json:"decisions"`
}

// scaleFigures are what a decision is made from.
type scaleFigures struct {
	Inflow      *float64 `json:"inflow"`  // records a second
	Outflow     *float64 `json:"outflow"` // records a second
	Backlog     *int64   `json:"backlog"`
	WorkSeconds *float64 `json:"work_seconds"`
	Gradient    *float64 `json:"gradient"`
}

// scaleDecision is one of the past.
type scaleDecision struct {
	At      time.Time `json:"at"`
	From    int       `json:"from"`
	Workers int       `json:"workers"`
	Reason  string    `json:"reason"`
	// ForInflow and ForBacklog are the parts of the formula, in workers.
	ForInflow  float64 `json:"for_inflow"`
	ForBacklog float64 `json:"for_backlog"`
	scaleFigures
	// Hot, Poisoned and Slow are partitions.
	Hot      []int32 `json:"hot,omitempty"`
	Poisoned []int32 `json:"poisoned,omitempty"`
	Slow     []int32 `json:"slow,omitempty"`
}

// figures are what a decision tells. The zero decision tells nothing.
func figures(d autoscale.Decision) scaleFigures {
	if d.At.IsZero() {
		return scaleFigures{}
	}
	f := scaleFigures{Inflow: &d.Inflow, Outflow: &d.Outflow, Backlog: &d.Backlog}
	if d.WorkTime > 0 {
		seconds := d.WorkTime.Seconds()
		f.WorkSeconds = &seconds
	}
	if d.WorkTime > 0 && d.From > 0 {
		f.Gradient = &d.Gradient
	}
	return f
}

// known gives nil for a number that nobody knows.
func known(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}

// report says how it stands.
func (s *scaling) report() scaleReport {
	status := s.Status()
	r := scaleReport{
		Topic: status.Topic, Group: status.Group,
		Deciding: status.Deciding, Generation: status.Generation, DryRun: status.DryRun,
		Running: known(status.Running), Decisions: make([]scaleDecision, 0, len(status.Decisions)),
	}
	settings, _ := s.holds()
	r.Min, r.Max = settings.Config.Min, settings.Config.Max
	if status.Deciding && !status.Last.At.IsZero() {
		if status.Oldest >= 0 {
			seconds := status.Oldest.Seconds()
			r.OldestSeconds = &seconds
		}
		r.Desired, r.Members = &status.Last.Workers, known(int(s.members.Load()))
		r.scaleFigures, r.Reason = figures(status.Last), status.Last.Reason
	}
	for _, d := range status.Decisions {
		r.Decisions = append(r.Decisions, scaleDecision{
			At: d.At, From: d.From, Workers: d.Workers, Reason: d.Reason, ForInflow: d.ForInflow, ForBacklog: d.ForBacklog,
			scaleFigures: figures(d), Hot: d.Hot, Poisoned: d.Poisoned, Slow: d.Slow,
		})
	}
	return r
}

// scalings gives what is scaled, in order. While one configuration takes over
// from another, two may scale the same: then it is the newer one.
func scalings() []*scaling {
	newest := make(map[[2]string]*scaling)
	loops.Range(func(_, value any) bool {
		if s, ok := value.(*scaling); ok {
			name := [2]string{s.topic, s.group}
			if other := newest[name]; other == nil || s.began.After(other.began) {
				newest[name] = s
			}
		}
		return true
	})
	return slices.SortedFunc(maps.Values(newest), func(a, b *scaling) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.group, b.group))
	})
}

// Interface guards
var _ caddy.AdminRouter = Admin{}
