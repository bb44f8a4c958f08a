// Package record is the contract between Osmosis and the services behind it:
// how an HTTP request becomes a Kafka record, and how a reply record becomes
// an HTTP response.
//
// It exists so that there is one place that knows the names. The gateway writes
// requests with [FromHTTP] and reads replies with [ParseReply]; a worker
// written in Go reads requests with [ParseRequest] and answers with
// [Request.Reply] and [Reply.Record]. Workers in other languages need nothing
// from here, because the names are ones that their libraries know:
//
//   - the request line as HTTP/2 pseudo-header fields, :method, :scheme,
//     :authority and :path;
//   - the request's headers by their lower-cased names, those of an allowlist
//     and those that the route names;
//   - forwarded (RFC 7239), with the client's address;
//   - the attributes of a CloudEvent, in the Kafka binding's binary mode
//     (ce_id, ce_source, …);
//   - Spring Kafka's names for request and reply, kafka_replyTopic,
//     kafka_replyPartition and kafka_correlationId;
//   - osmosis-expires, after which nobody waits.
//
// A reply is a record with the same kafka_correlationId on the reply topic and
// partition that the request names. Its headers are :status and the response's
// headers, its value is the body. With osmosis-more: true it is one of several,
// which osmosis-attempt and osmosis-part number. With osmosis-event: <name> it
// was a server-sent event of that name at the service which answered, and
// clients can get it as one again; see [Reply] for the names that count.
// With osmosis-status it is no reply but a word about the request's life, and
// its value is JSON.
//
// Names are compared byte for byte, as Kafka does it. Where a name that may
// stand once stands more than once, its first occurrence counts.
//
// # Concurrency
//
// Nothing here keeps state: all functions may be called at the same time, and
// values may be shared as long as nobody changes them. What the Parse functions
// return refers to the bytes of the record that they were given.
//
// # What it does not do
//
// It neither produces nor consumes, and does not choose keys: placing a record
// is the producer's business, for which [Partition] and [NewID] are the
// arithmetic. It opens no stream URLs. It does not limit bodies and records:
// the gateway does the one, the broker the other. What it reads from strangers
// costs in proportion to its size, and of a reply's headers, which a gateway
// keeps, it takes at most [MaxReplyFields] and [MaxReplyHeader].
package record

import "github.com/segmentio/kafka-go/protocol"

// The names of the contract that are not fields of HTTP.
const (
	HeaderMethod    = ":method"
	HeaderScheme    = ":scheme"
	HeaderAuthority = ":authority"
	HeaderPath      = ":path"
	HeaderStatus    = ":status"
	HeaderForwarded = "forwarded"

	// HeaderCorrelationID is the stream id, as text. A reply carries its
	// request's.
	HeaderCorrelationID = "kafka_correlationId"
	// HeaderReplyTopic is the topic on which the reply is awaited.
	HeaderReplyTopic = "kafka_replyTopic"
	// HeaderReplyPartition is the partition of it, 4 bytes, big endian.
	HeaderReplyPartition = "kafka_replyPartition"

	// HeaderExpires is the time after which nobody waits for the answer, in
	// milliseconds since 1970, as decimal text.
	HeaderExpires = "osmosis-expires"
	// HeaderMore with the value true says that more replies follow.
	HeaderMore = "osmosis-more"
	// HeaderState marks a life-cycle record; its value is a [State].
	HeaderState = "osmosis-status"
	// HeaderAttempt is the number of the try that made this reply, from 1.
	HeaderAttempt = "osmosis-attempt"
	// HeaderPart numbers the replies of one try, from 1.
	HeaderPart = "osmosis-part"
	// HeaderEvent is the name that the event of this reply had in the stream of
	// server-sent events from which it comes.
	HeaderEvent = "osmosis-event"
)

// Header is one header of a record, kafka-go's own type, so that records go to
// and come from the broker without copying.
type Header = protocol.Header

// Record is a Kafka record without its place.
type Record struct {
	// Key decides the partition: records with the same key keep their order.
	// Nil is no key.
	Key []byte
	// Value is the body.
	Value []byte
	// Headers in their order. Names may repeat.
	Headers []Header
}

// Header gives the value of the first header with this name, compared byte for
// byte, and whether there is one.
func (r Record) Header(name string) (value []byte, ok bool) {
	return first(r.Headers, name)
}

// CorrelationID gives the stream id that a record belongs to, without reading
// anything else of it. It is false where there is none, or one that no gateway
// could have given out: empty, longer than 256 bytes, or with bytes other than
// visible ASCII.
func CorrelationID(headers []Header) (string, bool) {
	v, ok := first(headers, HeaderCorrelationID)
	if !ok || !validID(v) {
		return "", false
	}
	return string(v), true
}

func first(headers []Header, name string) ([]byte, bool) {
	for i := range headers {
		if headers[i].Key == name {
			return headers[i].Value, true
		}
	}
	return nil, false
}
