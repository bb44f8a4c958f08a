package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// books are all that the shop knows. They are in a file, so that a shop that
// was closed opens with the guests and the orders it had.
type books struct {
	file string

	mu sync.Mutex
	// Guests are the names by session, Orders the items by name.
	Guests map[string]string   `json:"guests"`
	Orders map[string][]string `json:"orders"`
}

// openBooks reads the file. Where there is none, the books are empty.
func openBooks(file string) (*books, error) {
	b := &books{file: file, Guests: make(map[string]string), Orders: make(map[string][]string)}
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b, nil
	case err != nil:
		return nil, fmt.Errorf("open the books: %w", err)
	}
	if err := json.Unmarshal(text, b); err != nil {
		return nil, fmt.Errorf("read the books in %s: %w", file, err)
	}
	return b, nil
}

// guest gives whose session it is, "" for nobody's.
func (b *books) guest(session string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Guests[session]
}

// orders gives what a guest has ordered.
func (b *books) orders(guest string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.Orders[guest])
}

// login begins a session.
func (b *books) login(guest string) (session string, err error) {
	session = rand.Text()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Guests[session] = guest
	return session, b.write()
}

// order notes an order.
func (b *books) order(guest, item string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders[guest] = append(b.Orders[guest], item)
	return b.write()
}

// write puts the books into the file in one step, so that a shop that is killed
// meanwhile finds the ones before. Needs the lock.
func (b *books) write() error {
	text, err := json.MarshalIndent(b, "", "\t")
	if err == nil {
		err = os.WriteFile(b.file+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(b.file+".new", b.file)
	}
	if err != nil {
		return fmt.Errorf("write the books: %w", err)
	}
	return nil
}
