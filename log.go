package osmosis

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logs are where configurations log. What several of them share outlives the one
// that made it, and so do streams and requests, while Caddy may close the output of
// that one's logs; so all of them log where the newest one does.
var logs = newLogging()

// logging knows the log of the newest configuration.
type logging struct {
	mu   sync.Mutex // for use and leave as a whole
	said said[zapcore.Core]
	now  atomic.Pointer[zapcore.Core] // nil: no configuration runs
}

func newLogging() *logging {
	l := new(logging)
	l.said.apply = func(core zapcore.Core) { l.now.Store(&core) }
	return l
}

// use has everything logged as a configuration says.
func (l *logging) use(app *App, core zapcore.Core) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said.use(app, core)
}

// leave takes that back. Without any configuration Caddy's own log takes it.
func (l *logging) leave(app *App) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said.leave(app)
	if _, ok := l.said.holds(); !ok {
		l.now.Store(nil)
	}
}

// core is where to log now.
func (l *logging) core() zapcore.Core {
	if core := l.now.Load(); core != nil {
		return *core
	}
	return caddy.Log().Core()
}

// newestLog is a logger for what outlives the configuration that it was made in.
func newestLog() *zap.Logger { return zap.New(newest{}).Named("osmosis") }

// newest is the core of the newest configuration's log, at every line anew. The
// fields are those that the logger has.
type newest struct{ fields []zapcore.Field }

// Enabled implements zapcore.LevelEnabler.
func (newest) Enabled(level zapcore.Level) bool { return logs.core().Enabled(level) }

// With implements zapcore.Core.
func (n newest) With(fields []zapcore.Field) zapcore.Core {
	return newest{slices.Concat(n.fields, fields)}
}

// Check implements zapcore.Core.
func (n newest) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	core := logs.core()
	if !core.Enabled(e.Level) {
		return checked
	}
	if len(n.fields) > 0 {
		core = core.With(n.fields)
	}
	return core.Check(e, checked)
}

// Write implements zapcore.Core.
func (n newest) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return logs.core().Write(e, slices.Concat(n.fields, fields))
}

// Sync implements zapcore.Core.
func (newest) Sync() error { return logs.core().Sync() }

// Interface guards
var _ zapcore.Core = newest{}
