package store

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// SizeAt is how many entries the log had at a time: those before the first that
// was recorded after it. What counts is when the node recorded a change, since
// only then it took effect; an event's own time may be hours older. Where the
// node's clock once went back, a time that it passed twice may mean either.
func (s *Store) SizeAt(at time.Time) (size int64, err error) {
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		rows, ms := tx.Bucket(bucketTimes), at.UnixMilli()
		size = int64(sort.Search(int(s.Snapshot().Tree.Size), func(i int) bool {
			row := rows.Get(be64(int64(i)))
			return len(row) >= 16 && fromBE64(row[8:16]) > ms
		}))
		return nil
	})
	return size, err
}

// Past lets f look into a service's chains, in one read transaction. It ends
// with f's error, or with what kept a change from being read.
func (s *Store) Past(ctx context.Context, service string, f func(ledger.Past) error) error {
	return s.ledger.Read(func(tx *bbolt.Tx) error {
		p := s.past(ctx, tx, service)
		if err := f(p); err != nil {
			return err
		}
		return p.err
	})
}

// StateAt is what the fold over the log's first size entries says of main and
// override chains, by the index instead of a refold. It has no operators and no
// chains of other lanes.
func (s *Store) StateAt(ctx context.Context, size int64) (*ledger.State, error) {
	now := s.Snapshot().State
	st := ledger.NewState(now.Origin)
	st.Trust, st.Size = now.Trust, size
	err := s.ledger.Read(func(tx *bbolt.Tx) error {
		for name, svc := range now.Services {
			p := s.past(ctx, tx, name)
			if chains := p.chains(svc.Chains, size); len(chains) > 0 {
				st.Services[name] = &ledger.Service{Chains: chains}
			}
			if p.err != nil {
				return p.err
			}
		}
		return nil
	})
	return st, err
}

// past is one service's chains by their index terms. After an error it finds
// nothing.
type past struct {
	ctx     context.Context
	store   *Store
	tx      *bbolt.Tx
	service string
	size    int64                    // published
	read    map[int64]*ledger.Change // by index: walks come by the same ones again
	err     error
}

func (s *Store) past(ctx context.Context, tx *bbolt.Tx, service string) *past {
	return &past{ctx, s, tx, service, s.Snapshot().Tree.Size, map[int64]*ledger.Change{}, nil}
}

func (p *past) posting(lane ledger.Lane, scope api.Scope) posting {
	return postingOf(p.tx, termPrefix(termChain, chainTerm(lane, p.service, scope)))
}

func (p *past) Last(lane ledger.Lane, scope api.Scope, below int64) (ledger.Chain, bool) {
	list := p.posting(lane, scope)
	var marks []*ledger.Change
	for below = min(below, p.size); ; {
		i, ok := list.from(below-1, false)
		if below <= 0 || !ok {
			return ledger.Chain{}, false
		}
		c := p.change(i, lane, scope)
		if c == nil {
			return ledger.Chain{}, false
		}
		if c.Kind() != ledger.SafeModeOverdue {
			chain := ledger.ChainOf(i, c)
			chain.Overdue = slices.ContainsFunc(marks, func(m *ledger.Change) bool { return m.Data.Mode == chain.Mode && m.Data.Expires == chain.Expires })
			return chain, true
		}
		marks, below = append(marks, c), i
	}
}

func (p *past) Next(lane ledger.Lane, scope api.Scope, from int64) (int64, bool) {
	i, ok := p.posting(lane, scope).from(from, true)
	return i, ok && i < p.size && p.err == nil
}

// change reads an entry that the index gives to a chain, and holds it to that.
func (p *past) change(i int64, lane ledger.Lane, scope api.Scope) *ledger.Change {
	if c := p.read[i]; c != nil || p.err != nil {
		return c
	}
	if p.err = p.ctx.Err(); p.err != nil {
		return nil
	}
	c, err := p.store.change(p.tx, i)
	if err == nil && (movedBy(c) != lane || c.Data.Service != p.service || c.Data.Scope != scope) {
		err = fmt.Errorf("the index gives entry %d to chain %s, it is of another: %w", i, ledger.ChainKey{Lane: lane, Service: p.service, Scope: scope}, ErrCorrupt)
	}
	if err != nil {
		p.err = err
		return nil
	}
	p.read[i] = c
	return c
}

// chains are a service's main and override chains as they were, given as they
// are: those that have not moved since need no look into the log.
func (p *past) chains(now []ledger.Chain, size int64) (out []ledger.Chain) {
	for _, c := range now {
		switch {
		case c.Lane != ledger.LaneMain && c.Lane != ledger.LaneOverride:
		case c.Index < size && !c.Overdue:
			out = append(out, c)
		default:
			if was, ok := p.Last(c.Lane, c.Scope, size); ok {
				out = append(out, was)
			}
		}
	}
	return out
}
