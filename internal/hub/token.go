package hub

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrToken is what every error of Keyring.Open wraps: no key of this keyring
// sealed the text as it stands. It may be forged, cut, misspelt, or sealed
// under a secret that is no longer configured; for a client it is all the same.
var ErrToken = errors.New("no valid stream token")

// ErrClaimsTooLong is what Keyring.Seal and Claims.Check give for texts that do
// not fit into a token.
var ErrClaimsTooLong = errors.New("stream token would be too long")

// MaxToken is the length in bytes of the longest token. Proxies and browsers
// take URLs of that length. A common token has about 250 bytes.
const MaxToken = 2048

// A token is base64url, without padding, of
//
//	version (1 byte) | key id (4) | nonce (24) | sealed claims | tag (16)
//
// The cipher is XChaCha20-Poly1305, whose nonce is long enough to be drawn at
// random by any number of gateways for as long as they share a key. AES-GCM
// would want a new key after 2^32 tokens, which busy gateways make in weeks.
// Version and key id are authenticated with the claims.
const (
	tokenVersion = 1
	tokenHead    = 1 + 4
	tokenNonce   = tokenHead + chacha20poly1305.NonceSizeX
	maxClaims    = MaxToken/4*3 - tokenNonce - chacha20poly1305.Overhead

	// maxNumbers is the most that the fields besides the texts take, with the
	// lengths of the seven texts at two bytes each.
	maxNumbers = 7*2 + 3*5 + 2*4 + 4*binary.MaxVarintLen64 + 16
	// maxTexts bounds the texts of the claims together. It does not depend on
	// the numbers, so that Claims.Check can tell before they are known.
	maxTexts = maxClaims - maxNumbers
)

// tokenEncoding spells tokens. Strict refuses bits behind the last byte that
// are not zero; Open refuses the line ends, which it would skip.
var tokenEncoding = base64.RawURLEncoding.Strict()

// Claims is what a token holds: all that a gateway needs to serve a stream that
// another one accepted.
type Claims struct {
	// ID is the stream id.
	ID string
	// Scheme and Host are those of the request that was accepted, the host with
	// its port where it had one. See For.
	Scheme, Host string

	// Topic, Partition and Offset say where the request lies, and Incarnation in
	// which life of the topic. From them comes the position in the queue.
	Topic       string
	Partition   int32
	Offset      int64
	Incarnation uint32
	// Group is the consumer group of the workers, "" where it is not known.
	Group string

	// ReplyTopic and ReplyPartition say where the replies will lie.
	ReplyTopic     string
	ReplyPartition int32
	// ReplyPartitions is how many partitions the reply topic had. Where it has
	// more by now, replies placed by the stream id may lie in another one.
	ReplyPartitions int32
	// Floor is an offset of the reply partition below which no reply can lie: the
	// stream is read from there.
	Floor int64
	// ReplyIncarnation is the life of the reply topic that Floor belongs to.
	ReplyIncarnation uint32

	// Issued and Expires bound the time in which an answer counts. The token
	// keeps them in whole milliseconds and gives them back in UTC.
	Issued, Expires time.Time

	// Bind is the text with placeholders whose value a reader must share with
	// the one who sent the request; "" gives the stream to the bearer of the
	// token. BindHash is the keyed hash of that value (Keyring.BindHash) and
	// kept only where there is a Bind.
	Bind     string
	BindHash [16]byte
}

// Expired tells whether the time for an answer has passed.
func (c Claims) Expired(now time.Time) bool {
	return now.After(c.Expires)
}

// Gone tells whether the token itself has passed. It opens for as long after
// its stream expired as the stream was to live, so that a client who comes back
// late still learns how it ended.
func (c Claims) Gone(now time.Time) bool {
	return now.After(c.Expires.Add(c.Expires.Sub(c.Issued)))
}

// For tells whether the token was issued under the host of the request at hand,
// whose scheme and host are given. Upper and lower case are one, and so are a
// host without a port and with the default port of its scheme. The schemes
// themselves may differ: where TLS ends in front of the gateway, one request
// may be seen as https and the next as http.
func (c Claims) For(scheme, host string) bool {
	return strings.EqualFold(bareHost(c.Scheme, c.Host), bareHost(scheme, host))
}

// bareHost cuts the default port of the scheme.
func bareHost(scheme, host string) string {
	switch strings.ToLower(scheme) {
	case "https":
		return strings.TrimSuffix(host, ":443")
	case "http":
		return strings.TrimSuffix(host, ":80")
	default:
		return host
	}
}

// Check tells whether the claims fit into a token, whatever numbers and times
// they get later on. A client chooses its Host, so a gateway asks before it
// produces the request: one that is queued must get its token. The error wraps
// ErrClaimsTooLong.
func (c *Claims) Check() error {
	if n := c.textBytes(); n > maxTexts {
		return fmt.Errorf("%w: its texts have %d bytes, at most %d fit; shorten the longest of host (%d), topic (%d), group (%d), reply topic (%d) and bind (%d)",
			ErrClaimsTooLong, n, maxTexts, len(c.Host), len(c.Topic), len(c.Group), len(c.ReplyTopic), len(c.Bind))
	}
	return nil
}

// textBytes is the length of all texts together.
func (c *Claims) textBytes() int {
	return len(c.ID) + len(c.Scheme) + len(c.Host) + len(c.Topic) + len(c.Group) + len(c.ReplyTopic) + len(c.Bind)
}

// Seal makes a token of the claims, under the first secret. Tokens of the same
// claims differ. The error is that of Claims.Check.
func (k *Keyring) Seal(c Claims) (string, error) {
	token, err := k.AppendSeal(nil, &c)
	return string(token), err
}

// AppendSeal appends such a token to dst. It takes no memory where dst has room
// for two.
func (k *Keyring) AppendSeal(dst []byte, c *Claims) ([]byte, error) {
	if err := c.Check(); err != nil {
		return dst, err
	}
	key := &k.keys[0]
	most := tokenNonce + c.textBytes() + maxNumbers + chacha20poly1305.Overhead
	spelt := tokenEncoding.EncodedLen(most)
	dst = slices.Grow(dst, spelt+most)
	b := dst[len(dst)+spelt : len(dst)+spelt] // behind where it will be spelt
	b = append(b, tokenVersion)
	b = append(b, key.id[:]...)
	b = b[:tokenNonce]
	rand.Read(b[tokenHead:]) // never fails: it ends the process instead
	// Sealing in place: the claims are encoded where their ciphertext will stand.
	claims := c.appendTo(b[tokenNonce:])
	b = key.token.Seal(b, b[tokenHead:tokenNonce], claims, b[:tokenHead])
	return tokenEncoding.AppendEncode(dst, b), nil
}

// Open gives the claims of a token that Seal made under any of the secrets, and
// an error that wraps ErrToken for every other text. It looks at neither the
// time, the host nor the bind value: Claims.Gone, Claims.For and
// Keyring.CheckBind do.
func (k *Keyring) Open(token string) (Claims, error) {
	if len(token) > MaxToken {
		return Claims{}, fmt.Errorf("%w: %d bytes long, at most %d are possible", ErrToken, len(token), MaxToken)
	}
	if strings.ContainsAny(token, "\r\n") {
		return Claims{}, fmt.Errorf("%w: it has line ends", ErrToken)
	}
	b, err := tokenEncoding.DecodeString(token)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: not base64url", ErrToken)
	}
	if len(b) < tokenNonce+chacha20poly1305.Overhead {
		return Claims{}, fmt.Errorf("%w: too short", ErrToken)
	}
	if b[0] != tokenVersion {
		return Claims{}, fmt.Errorf("%w: version %d is not known", ErrToken, b[0])
	}
	head, nonce, sealed := b[:tokenHead], b[tokenHead:tokenNonce], b[tokenNonce:]
	known := false
	for i := range k.keys {
		key := &k.keys[i]
		if !bytes.Equal(key.id[:], head[1:]) {
			continue
		}
		known = true
		// A new slice, since a failed Open clears its destination and two keys
		// could share an id.
		claims, err := key.token.Open(nil, nonce, sealed, head)
		if err != nil {
			continue
		}
		c, ok := parseClaims(claims)
		if !ok {
			return Claims{}, fmt.Errorf("%w: its claims cannot be read", ErrToken)
		}
		return c, nil
	}
	if !known {
		return Claims{}, fmt.Errorf("%w: sealed under a secret that is not configured (key id %x)", ErrToken, head[1:])
	}
	return Claims{}, fmt.Errorf("%w: its seal is broken", ErrToken)
}

// appendTo appends the encoded claims to b. Texts stand behind their length,
// incarnations are four bytes, other numbers varints; Expires is told by its
// distance from Issued. A new field needs a new version.
func (c *Claims) appendTo(b []byte) []byte {
	b = appendText(b, c.ID)
	b = appendText(b, c.Scheme)
	b = appendText(b, c.Host)
	b = appendText(b, c.Topic)
	b = binary.AppendVarint(b, int64(c.Partition))
	b = binary.AppendVarint(b, c.Offset)
	b = binary.BigEndian.AppendUint32(b, c.Incarnation)
	b = appendText(b, c.Group)
	b = appendText(b, c.ReplyTopic)
	b = binary.AppendVarint(b, int64(c.ReplyPartition))
	b = binary.AppendVarint(b, int64(c.ReplyPartitions))
	b = binary.AppendVarint(b, c.Floor)
	b = binary.BigEndian.AppendUint32(b, c.ReplyIncarnation)
	issued := c.Issued.UnixMilli()
	b = binary.AppendVarint(b, issued)
	b = binary.AppendVarint(b, c.Expires.UnixMilli()-issued)
	b = appendText(b, c.Bind)
	if c.Bind != "" {
		b = append(b, c.BindHash[:]...)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// parseClaims reads what appendTo wrote, and only that: each value has one
// encoding and nothing may follow.
func parseClaims(b []byte) (Claims, bool) {
	d := decoder{rest: b}
	c := Claims{
		ID:               d.text(),
		Scheme:           d.text(),
		Host:             d.text(),
		Topic:            d.text(),
		Partition:        d.int32(),
		Offset:           d.int64(),
		Incarnation:      d.uint32(),
		Group:            d.text(),
		ReplyTopic:       d.text(),
		ReplyPartition:   d.int32(),
		ReplyPartitions:  d.int32(),
		Floor:            d.int64(),
		ReplyIncarnation: d.uint32(),
	}
	issued := d.int64()
	c.Issued = time.UnixMilli(issued).UTC()
	c.Expires = time.UnixMilli(issued + d.int64()).UTC()
	if c.Bind = d.text(); c.Bind != "" {
		copy(c.BindHash[:], d.bytes(uint64(len(c.BindHash))))
	}
	return c, !d.bad && len(d.rest) == 0
}

// decoder takes values off the front of rest. After a value that cannot be read
// it is bad and gives zero values.
type decoder struct {
	rest []byte
	bad  bool
}

// bytes takes n bytes. The bound is what is there, so no length can make it allocate.
func (d *decoder) bytes(n uint64) []byte {
	if d.bad || n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	// A last byte of zero after others adds nothing: it is a longer spelling of the same number.
	if d.bad || n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) text() string {
	return string(d.bytes(d.uvarint()))
}

func (d *decoder) uint32() uint32 {
	b := d.bytes(4)
	if d.bad {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// int64 undoes the zigzag of binary.AppendVarint.
func (d *decoder) int64() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) int32() int32 {
	v := d.int64()
	if int64(int32(v)) != v {
		d.bad = true
		return 0
	}
	return int32(v)
}
