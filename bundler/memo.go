package bundler

import (
	"container/list"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
)

// A memo keeps what was made last, up to a total weight. It is safe for
// concurrent use. Losing an entry costs time, never correctness.
type memo[K comparable, V any] struct {
	mu     sync.Mutex
	most   int
	weight int
	order  *list.List // front is the newest
	byKey  map[K]*list.Element
}

type memoEntry[K comparable, V any] struct {
	key    K
	val    V
	weight int
}

func newMemo[K comparable, V any](most int) *memo[K, V] {
	return &memo[K, V]{most: most, order: list.New(), byKey: map[K]*list.Element{}}
}

func (m *memo[K, V]) get(k K) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.byKey[k]
	if !ok {
		return v, false
	}
	m.order.MoveToFront(e)
	return e.Value.(*memoEntry[K, V]).val, true
}

func (m *memo[K, V]) put(k K, v V, weight int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.byKey[k]; ok {
		m.drop(e)
	}
	m.byKey[k] = m.order.PushFront(&memoEntry[K, V]{k, v, weight})
	m.weight += weight
	for m.weight > m.most && m.order.Len() > 1 {
		m.drop(m.order.Back())
	}
}

func (m *memo[K, V]) drop(e *list.Element) {
	old := m.order.Remove(e).(*memoEntry[K, V])
	delete(m.byKey, old.key)
	m.weight -= old.weight
}

// A fileKey is a file, or a folder, that says the same wherever it is met: what
// is found in it names its path.
type fileKey struct {
	path string
	hash plumbing.Hash
}

// nodeWeight is about how many bytes of nodes a byte of text becomes.
const nodeWeight = 12

// faultWeight is about how many bytes a fault takes.
const faultWeight = 256
