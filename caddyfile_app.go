package osmosis

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// parseGlobalOption reads the global osmosis block into the app.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	if existing != nil {
		return nil, d.Errf("a second global osmosis block; put all of it into one")
	}
	return httpcaddyfile.App{Name: "osmosis", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads the global block. Syntax:
//
//	osmosis {
//		kafka <address…>
//		embedded [<directory>] {
//			listen    <address>
//			retention <duration>
//			max_bytes <size>
//		}
//		tls {
//			ca          <file>
//			cert        <file> <key>
//			server_name <name>
//		}
//		sasl <plain|scram-sha-256|scram-sha-512> <user> <password>
//		create off
//		create {
//			partitions  <n>
//			replication <n>
//		}
//		replies [<topic>] {
//			partitions <n>
//			retention  <duration>
//		}
//		token {
//			key <secret…>
//			ttl <duration>
//		}
//		streams [<path prefix>] {
//			max_wait            <duration>
//			heartbeat           <duration>
//			write_timeout       <duration>
//			max_open            <n>
//			max_open_per_client <n>
//		}
//		produce_timeout <duration>
//		scale <topic> <group> {
//			…
//		}
//	}
//
// Of kafka and embedded there is one; with neither, the embedded broker runs
// with its defaults. scale may stand once for every topic and group; its block
// is that of [Scale.UnmarshalCaddyfile].
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if d.NextArg() {
		return d.Errf("the global osmosis block takes no arguments, found %q; a route goes into a site block", d.Val())
	}
	return options{
		"kafka":           a.unmarshalKafka,
		"embedded":        a.unmarshalEmbedded,
		"tls":             a.unmarshalTLS,
		"sasl":            a.unmarshalSASL,
		"create":          a.unmarshalCreate,
		"replies":         a.unmarshalReplies,
		"token":           a.unmarshalToken,
		"streams":         a.unmarshalStreams,
		"produce_timeout": duration(&a.ProduceTimeout),
		"scale":           a.unmarshalScale,
	}.read(d, "osmosis", "scale")
}

// errTwoBrokers is what is wrong with naming a cluster beside the embedded broker.
const errTwoBrokers = "both kafka and embedded are given; keep kafka for a cluster, or embedded for the broker in this process"

func (a *App) unmarshalKafka(d *caddyfile.Dispenser) error {
	if a.Embedded != nil {
		return d.Errf(errTwoBrokers)
	}
	return words(&a.Kafka, "<address…>")(d)
}

func (a *App) unmarshalEmbedded(d *caddyfile.Dispenser) error {
	if a.Kafka != nil {
		return d.Errf(errTwoBrokers)
	}
	a.Embedded = new(Embedded)
	if err := optionalText(&a.Embedded.Directory, "[<directory>]")(d); err != nil {
		return err
	}
	return options{
		"listen":    text(&a.Embedded.Listen, "<address>"),
		"retention": duration(&a.Embedded.Retention),
		"max_bytes": size(&a.Embedded.MaxBytes),
	}.read(d, "embedded")
}

func (a *App) unmarshalTLS(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("tls takes no arguments, found %q; write tls alone for the system's roots, or: tls { ca <file> }", d.Val())
	}
	a.TLS = new(BrokerTLS)
	return options{
		"ca":          text(&a.TLS.CA, "<file>"),
		"cert":        texts("<file> <key>", &a.TLS.Cert, &a.TLS.Key),
		"server_name": text(&a.TLS.ServerName, "<name>"),
	}.read(d, "tls")
}

func (a *App) unmarshalSASL(d *caddyfile.Dispenser) error {
	a.SASL = new(SASL)
	if err := texts("<plain|scram-sha-256|scram-sha-512> <user> <password>", &a.SASL.Mechanism, &a.SASL.User, &a.SASL.Password)(d); err != nil {
		return err
	}
	a.SASL.Mechanism = strings.ToLower(a.SASL.Mechanism)
	switch a.SASL.Mechanism {
	case "plain", "scram-sha-256", "scram-sha-512":
		return nil
	}
	return d.Errf("unknown sasl mechanism %q; write plain, scram-sha-256 or scram-sha-512", a.SASL.Mechanism)
}

func (a *App) unmarshalCreate(d *caddyfile.Dispenser) error {
	a.Create = new(Create)
	if d.NextArg() {
		if d.Val() != "off" || d.NextArg() {
			return d.Errf("create takes nothing but off, found %q; write: create off, or: create { partitions <n> }", d.Val())
		}
		a.Create.Off = true
		return nil
	}
	return options{
		"partitions":  number(&a.Create.Partitions),
		"replication": number(&a.Create.Replication),
	}.read(d, "create")
}

func (a *App) unmarshalReplies(d *caddyfile.Dispenser) error {
	a.Replies = new(Replies)
	if err := optionalText(&a.Replies.Topic, "[<topic>]")(d); err != nil {
		return err
	}
	if a.Replies.Topic != "" {
		if err := validTopic(a.Replies.Topic); err != nil {
			return d.WrapErr(err)
		}
	}
	return options{
		"partitions": number(&a.Replies.Partitions),
		"retention":  duration(&a.Replies.Retention),
	}.read(d, "replies")
}

func (a *App) unmarshalToken(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("token takes no arguments; write: token { key <secret…> }")
	}
	a.Token = new(Token)
	return options{
		"key": words(&a.Token.Keys, "<secret…>"),
		"ttl": duration(&a.Token.TTL),
	}.read(d, "token")
}

func (a *App) unmarshalStreams(d *caddyfile.Dispenser) error {
	a.Streams = new(Streams)
	if err := optionalText(&a.Streams.Path, "[<path prefix>]")(d); err != nil {
		return err
	}
	if a.Streams.Path != "" {
		if err := validStreams(a.Streams.Path); err != nil {
			return d.WrapErr(err)
		}
		a.Streams.Path = strings.TrimSuffix(a.Streams.Path, "/")
	}
	return options{
		"max_wait":            duration(&a.Streams.MaxWait),
		"heartbeat":           duration(&a.Streams.Heartbeat),
		"write_timeout":       duration(&a.Streams.WriteTimeout),
		"max_open":            number(&a.Streams.MaxOpen),
		"max_open_per_client": number(&a.Streams.MaxOpenPerClient),
	}.read(d, "streams")
}

// Interface guards
var _ caddyfile.Unmarshaler = (*App)(nil)
