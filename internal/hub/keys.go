package hub

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// minSecret is the least length of a secret in bytes. Length is all that can be
// checked; a secret must also be random, because whoever holds one token can
// try guesses at it for as long as they like.
const minSecret = 16

// Keyring seals and opens tokens. Its first secret seals, all of them open.
//
// A secret is replaced without breaking a stream in three steps, each taken on
// every gateway before the next: add the new one last, move it to the front,
// and remove the old one once the last token under it is gone, which is twice
// the ttl later. Gateways that serve one site share the same secrets.
type Keyring struct {
	keys []key
}

// key is what is derived from one secret.
type key struct {
	id    [4]byte     // names the key in its tokens; tells nothing about the secret
	token cipher.AEAD // seals claims
	bind  []byte      // hashes the values of Claims.Bind
	claim []byte      // hashes what claims on idempotency keys are about
}

// NewKeyring makes a keyring from secrets, the first of which seals. A secret
// is any text of 16 bytes or more, taken as it stands; `openssl rand -hex 32`
// makes a good one. The errors tell a secret by its number and never by its text.
func NewKeyring(secrets ...string) (*Keyring, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no token secret: make one with `openssl rand -hex 32`")
	}
	k := &Keyring{keys: make([]key, len(secrets))}
	for i, secret := range secrets {
		if len(secret) < minSecret {
			return nil, fmt.Errorf("token secret %d has %d bytes, fewer than %d: make one with `openssl rand -hex 32`",
				i+1, len(secret), minSecret)
		}
		var err error
		if k.keys[i], err = newKey(secret); err != nil {
			return nil, fmt.Errorf("token secret %d: %w", i+1, err)
		}
	}
	return k, nil
}

// NewSecret makes a random secret, in the same form as `openssl rand -hex 32`.
func NewSecret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}

// newKey derives from one secret a key for each purpose, so that what is done
// with one of them says nothing about the others.
func newKey(secret string) (key, error) {
	derive := func(purpose string, size int) ([]byte, error) {
		b, err := hkdf.Key(sha256.New, []byte(secret), nil, "osmosis stream "+purpose+" v1", size)
		if err != nil {
			return nil, fmt.Errorf("derive %s key: %w", purpose, err)
		}
		return b, nil
	}
	var k key
	id, err := derive("key id", len(k.id))
	if err != nil {
		return key{}, err
	}
	copy(k.id[:], id)
	token, err := derive("token", chacha20poly1305.KeySize)
	if err != nil {
		return key{}, err
	}
	if k.token, err = chacha20poly1305.NewX(token); err != nil {
		return key{}, fmt.Errorf("make cipher: %w", err)
	}
	if k.bind, err = derive("bind", sha256.Size); err != nil {
		return key{}, err
	}
	if k.claim, err = derive("claim", sha256.Size); err != nil {
		return key{}, err
	}
	return k, nil
}

// Fingerprint names the keys, the one that seals first. It says nothing about
// the secrets: it is what every token says of its key.
func (k *Keyring) Fingerprint() string {
	var b []byte
	for _, key := range k.keys {
		b = append(b, key.id[:]...)
	}
	return hex.EncodeToString(b)
}

// openEachOther reports whether what is sealed under the keys of any of the
// fingerprints is opened by all of them. While a key is replaced step by step,
// gateways have different keys, and open each other's tokens all the same.
func openEachOther(fingerprints []string) bool {
	const size = 8 // of one key's name
	for _, sealing := range fingerprints {
		for _, opening := range fingerprints {
			found := false
			for names := opening; len(names) >= size && len(sealing) >= size; names = names[size:] {
				found = found || names[:size] == sealing[:size]
			}
			if !found {
				return false
			}
		}
	}
	return true
}

// BindHash gives the keyed hash by which a token remembers the value of its
// bind text. The stream id goes in, so that equal values look different in
// different tokens; the key keeps values that are easy to guess, such as user
// numbers, from being found by trying them on a token's contents.
func (k *Keyring) BindHash(id, value string) [16]byte {
	return k.keys[0].bindHash(id, value)
}

// CheckBind tells whether value, what the bind text of the claims expands to
// for the request at hand, is the value the token was issued for. It is true
// for a token without bind text, which belongs to its bearer, and false for an
// empty value: nobody is not a user. It takes the same time wherever two values differ.
func (k *Keyring) CheckBind(c Claims, value string) bool {
	if c.Bind == "" {
		return true
	}
	if value == "" {
		return false
	}
	// Every key is tried, not the one that sealed the token: the hash does not
	// say which it was, and the keys are few.
	for _, key := range k.keys {
		if h := key.bindHash(c.ID, value); hmac.Equal(h[:], c.BindHash[:]) {
			return true
		}
	}
	return false
}

// bindHash is the hash of the bind value under one secret.
func (k *key) bindHash(id, value string) [16]byte { return keyedHash(k.bind, id, value) }

// ClaimHashes gives a keyed hash of texts under every secret, in the order of
// the keyring. Claims on idempotency keys are made under all of them, so that
// gateways find each other's while a secret is replaced.
func (k *Keyring) ClaimHashes(texts ...string) [][16]byte {
	hashes := make([][16]byte, len(k.keys))
	for i := range k.keys {
		hashes[i] = keyedHash(k.keys[i].claim, texts...)
	}
	return hashes
}

// keyedHash is HMAC-SHA256 over texts, each behind its length so that no two
// lists run together, cut to 16 bytes.
func keyedHash(secret []byte, texts ...string) [16]byte {
	mac := hmac.New(sha256.New, secret)
	var n [8]byte
	for _, text := range texts {
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		mac.Write(n[:])
		mac.Write([]byte(text))
	}
	return [16]byte(mac.Sum(nil)[:16])
}
