package kafkatest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// controller is the name of the listener on which the controllers' quorum talks.
const controller = "CONTROLLER"

// protocols maps listeners to Kafka's names of what is spoken on them.
var protocols = map[Listener]string{
	Plaintext: "PLAINTEXT",
	TLS:       "SSL",
	MutualTLS: "SSL",
	SASL:      "SASL_PLAINTEXT",
	SASLTLS:   "SASL_SSL",
}

// node is one broker's share of the configuration.
type node struct {
	id         int
	controller int              // port
	ports      map[Listener]int // of the clients' listeners
	data       string           // folder of the log
}

// properties writes the server.properties of one node.
func properties(n node, all []node, keys *certificates, extra map[string]string) string {
	copies := strconv.Itoa(min(len(all), 3))
	inSync := strconv.Itoa(max(1, min(len(all), 3)-1))
	p := map[string]string{
		"process.roles":              "broker,controller",
		"node.id":                    strconv.Itoa(n.id),
		"log.dirs":                   n.data,
		"controller.listener.names":  controller,
		"inter.broker.listener.name": string(Plaintext),

		// As many copies as a cluster of this size can keep. A topic that nobody
		// created stays missing: the gateway is to create topics by itself.
		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       copies,
		"min.insync.replicas":                              inSync,
		"offsets.topic.replication.factor":                 copies,
		"transaction.state.log.replication.factor":         copies,
		"transaction.state.log.min.isr":                    inSync,
		"share.coordinator.state.topic.replication.factor": copies,
		"share.coordinator.state.topic.min.isr":            inSync,

		// Small and quick: two cores are shared with the tests themselves.
		"offsets.topic.num.partitions":                 "4",
		"transaction.state.log.num.partitions":         "4",
		"share.coordinator.state.topic.num.partitions": "4",
		"group.initial.rebalance.delay.ms":             "0",
		"num.network.threads":                          "1",
		"num.io.threads":                               "2",
		"background.threads":                           "2",
		"log.cleaner.dedupe.buffer.size":               "4194304",

		// A killed broker is missed, and let back in, after this long. Much
		// shorter would fence brokers that merely wait for a core.
		"broker.heartbeat.interval.ms": "500",
		"broker.session.timeout.ms":    "3000",
	}

	listeners := []string{controller + "://" + address(n.controller)}
	var advertised []string
	kinds := []string{controller + ":PLAINTEXT"}
	for _, l := range slices.Sorted(maps.Keys(n.ports)) {
		url := string(l) + "://" + address(n.ports[l])
		listeners = append(listeners, url)
		advertised = append(advertised, url)
		kinds = append(kinds, string(l)+":"+protocols[l])
		secure(p, l, keys)
	}
	p["listeners"] = strings.Join(listeners, ",")
	p["advertised.listeners"] = strings.Join(advertised, ",")
	p["listener.security.protocol.map"] = strings.Join(kinds, ",")

	var voters []string
	for _, v := range all {
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, address(v.controller)))
	}
	p["controller.quorum.voters"] = strings.Join(voters, ",")

	maps.Copy(p, extra)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		// A backslash escapes in properties files; Windows has them in paths.
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(p[k], `\`, `\\`))
	}
	return b.String()
}

// secure adds what a listener needs for TLS and SASL.
func secure(p map[string]string, l Listener, keys *certificates) {
	prefix := "listener.name." + strings.ToLower(string(l)) + "."
	if l == TLS || l == MutualTLS || l == SASLTLS {
		p[prefix+"ssl.keystore.type"] = "PEM"
		p[prefix+"ssl.keystore.location"] = keys.server
		p[prefix+"ssl.truststore.type"] = "PEM"
		p[prefix+"ssl.truststore.location"] = keys.ca
	}
	if l == MutualTLS {
		p[prefix+"ssl.client.auth"] = "required"
	}
	if l == SASL || l == SASLTLS {
		p[prefix+"sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
		p[prefix+"plain.sasl.jaas.config"] = fmt.Sprintf(
			`org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, User, Password)
		for _, mechanism := range []string{"scram-sha-256", "scram-sha-512"} {
			p[prefix+mechanism+".sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
		}
	}
}
