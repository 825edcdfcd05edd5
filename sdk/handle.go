package sdk

import (
	"sync/atomic"
	"time"

	"github.com/sealstone/sealstone/flags"
)

// Flag is a handle on one flag, for hot paths: it looks its flag up once per
// bundle, follows every swap, and evaluating through it allocates nothing. Make
// it once and share it between goroutines.
type Flag[T any] struct {
	client  *Client
	key     string
	resolve func(*flags.Flag, flags.Context, T, time.Time) (T, flags.Resolution)
	slot    atomic.Pointer[slot]
}

// slot remembers what the key is in one bundle.
type slot struct {
	program *program
	*entry  // nil: the bundle has no such flag
}

// Bool is a handle on a boolean flag. It need not exist yet.
func (c *Client) Bool(key string) *Flag[bool] {
	return &Flag[bool]{client: c, key: key, resolve: (*flags.Flag).Boolean}
}

// String is a handle on a string flag.
func (c *Client) String(key string) *Flag[string] {
	return &Flag[string]{client: c, key: key, resolve: (*flags.Flag).String}
}

// Int is a handle on a number flag of whole numbers.
func (c *Client) Int(key string) *Flag[int64] {
	return &Flag[int64]{client: c, key: key, resolve: (*flags.Flag).Int}
}

// Float is a handle on a number flag.
func (c *Client) Float(key string) *Flag[float64] {
	return &Flag[float64]{client: c, key: key, resolve: (*flags.Flag).Float}
}

// Object is a handle on an object flag. Its values are shared: read them only.
func (c *Client) Object(key string) *Flag[any] {
	return &Flag[any]{client: c, key: key, resolve: (*flags.Flag).Object}
}

// Key is the flag's key.
func (f *Flag[T]) Key() string { return f.key }

// Get resolves the flag for a context. Without a flag, a value, or the right
// type it returns def.
func (f *Flag[T]) Get(ctx flags.Context, def T) T {
	s := f.current()
	if s.entry == nil {
		return def
	}
	v, _ := f.resolve(s.flag, ctx, def, s.now())
	return v
}

// Details is Get with the variant, the reason, or what went wrong.
func (f *Flag[T]) Details(ctx flags.Context, def T) (T, flags.Resolution) {
	s := f.current()
	if s.entry == nil {
		return def, s.program.flags.Evaluate(f.key, nil, time.Time{})
	}
	return f.resolve(s.flag, ctx, def, s.now())
}

func (f *Flag[T]) current() *slot {
	p := f.client.view.Load().program
	if s := f.slot.Load(); s != nil && s.program == p {
		return s
	}
	s := &slot{p, p.entries[f.key]}
	f.slot.Store(s)
	return s
}
