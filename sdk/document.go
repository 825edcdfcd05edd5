package sdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Doc is a typed, live view of one configuration document.
type Doc[T any] struct {
	client *Client
	entry  *docEntry

	mu        sync.Mutex
	callbacks map[*func(old, new T)]bool
}

// docEntry is a document as the client knows it, without its type.
type docEntry struct {
	name   string
	index  int // in view.docs
	decode func([]byte) (any, error)
	tell   func(old, new any)
	err    error // why the newest bytes are not what Get returns; the client's mu guards it
}

// Document makes a typed, live view of a document, such as "config/http" for
// config/http.yaml of the repository. It is an error when the bundle has no such
// document, or one that doesn't decode into T. Members that T doesn't have are
// passed over, so that configuration can run ahead of code.
func Document[T any](c *Client, name string) (*Doc[T], error) {
	d := &Doc[T]{client: c, callbacks: map[*func(old, new T)]bool{}}
	d.entry = &docEntry{name: name, tell: d.tell, decode: func(b []byte) (any, error) {
		v := new(T)
		err := json.Unmarshal(b, v)
		return v, err
	}}
	if err := c.addDoc(d.entry); err != nil {
		return nil, err
	}
	return d, nil
}

// Get returns the document as it is in effect now. It is shared: read it only.
func (d *Doc[T]) Get() T { return *d.client.view.Load().docs[d.entry.index].(*T) }

// OnChange calls f after every change of the document, one at a time and in
// order, on a goroutine of the client's; f must not call Close. The function
// that it returns ends that.
func (d *Doc[T]) OnChange(f func(old, new T)) (cancel func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := &f
	d.callbacks[key] = true
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.callbacks, key)
	}
}

func (d *Doc[T]) tell(old, new any) {
	d.mu.Lock()
	list := make([]func(old, new T), 0, len(d.callbacks))
	for f := range d.callbacks {
		list = append(list, *f)
	}
	d.mu.Unlock()
	for _, f := range list {
		f(*old.(*T), *new.(*T))
	}
}

// Raw returns a document's JSON as it is in effect now, nil when there is none.
func (c *Client) Raw(name string) json.RawMessage {
	return bytes.Clone(c.view.Load().program.docs[name])
}

var errNoDocument = errors.New("the bundle has no such document")

// addDoc decodes a document out of the present view and adds it to the view.
func (c *Client) addDoc(e *docEntry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.view.Load()
	raw, ok := old.program.docs[e.name]
	if !ok {
		return fmt.Errorf("document %q of %s: %w", e.name, c.target, errNoDocument)
	}
	v, err := e.decode(raw)
	if err != nil {
		return fmt.Errorf("document %q of %s: %w", e.name, c.target, err)
	}
	e.index = len(c.docs)
	c.docs = append(c.docs, e)
	next := *old
	next.docs = append(old.docs[:len(old.docs):len(old.docs)], v)
	c.view.Store(&next)
	return nil
}

// decodeDocs fills in the documents of a new view, each with its last good
// value where the new bytes don't decode, and returns the callbacks to make once
// the view is in place. c.mu is held.
func (c *Client) decodeDocs(old, next *view) (after []func()) {
	if old == nil {
		return nil // Document needs an open client
	}
	if next.docs = old.docs; old.program == next.program {
		return nil
	}
	next.docs = make([]any, len(c.docs))
	for i, e := range c.docs {
		next.docs[i] = old.docs[i]
		was, now := old.program.docs[e.name], next.program.docs[e.name]
		if bytes.Equal(was, now) && e.err == nil {
			continue
		}
		v, err := e.decodeNew(now)
		if err != nil {
			e.err = err
			c.log.Error("sealstone: document keeps its last good value",
				slog.String("document", e.name), slog.String("bundle", next.bundle.Short()), slog.Any("error", err))
			continue
		}
		before := old.docs[i]
		next.docs[i], e.err = v, nil
		after = append(after, func() { e.tell(before, v) })
	}
	return after
}

func (e *docEntry) decodeNew(b []byte) (any, error) {
	if b == nil {
		return nil, errNoDocument
	}
	return e.decode(b)
}

// callbacks runs what a swap caused, in order, on one goroutine, so that slow
// callbacks hold up nothing but each other.
type callbacks struct {
	mu    sync.Mutex
	queue []func()
	note  chan struct{}
}

func (q *callbacks) init() { q.note = make(chan struct{}, 1) }

func (q *callbacks) add(list []func()) {
	if len(list) == 0 {
		return
	}
	q.mu.Lock()
	q.queue = append(q.queue, list...)
	q.mu.Unlock()
	select {
	case q.note <- struct{}{}:
	default:
	}
}

func (q *callbacks) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.note:
		}
		q.mu.Lock()
		list := q.queue
		q.queue = nil
		q.mu.Unlock()
		for _, f := range list {
			f()
		}
	}
}
