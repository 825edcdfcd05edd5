package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Draft is a change before it has a place in the log. The store fills in lane,
// generation, prev and operators.
type Draft struct {
	Kind   ledger.Kind
	ID     string    // "" makes a new one
	At     time.Time // when the change takes effect; zero is now
	Data   ledger.Data
	Detail *ledger.Detail // nil: none; else its digest goes into Data

	signed *ledger.Signed // Data.Statement, parsed; nil: parse it
}

// DraftOf is the draft of a statement. For safe-mode kinds the caller adds
// Expires and Resolved.
func DraftOf(st *ledger.Signed, detail *ledger.Detail) Draft {
	return Draft{Kind: st.Kind, ID: st.ID, At: st.At(), Detail: detail, signed: st, Data: ledger.Data{
		Service: st.Service, Scope: st.Scope, Statement: st.Raw, Detail: st.Detail, Fields: st.Fields}}
}

// Decision is what to append, all or nothing: each draft sees the state that
// the one before it made. An empty decision changes nothing.
type Decision struct {
	Drafts []Draft
	Rows   map[string][]byte // written in the same transaction; nil deletes
}

// Decide looks at the state and decides, under the append lock: st is the state
// that the change will follow, read only. An error refuses this caller and
// nobody else. It must not wait for another Append.
type Decide func(st *ledger.State, now time.Time) (Decision, error)

// Receipt is where a change is in the log. Repeated says that its id was there
// before; then the rest tells of the old change.
type Receipt struct {
	Index      int64
	Hash       api.Digest
	ID         string
	Generation int64
	Repeated   bool
	Change     *ledger.Change
}

// Bounds of one commit.
const (
	maxBatchCalls = 512
	maxBatchBytes = 1 << 20
)

var background = context.Background()

type request struct {
	ctx    context.Context
	decide Decide
	answer chan answer // buffered: the loop never waits for a caller
}

type answer struct {
	receipts []Receipt
	err      error
}

// Append decides and appends. When it returns without error the changes are
// durable, signed and published. After an error of ctx, or one with CodeStorage,
// they may be in the log or not: send them again with the same ids. Callers that
// wait at the same time share a commit.
func (s *Store) Append(ctx context.Context, d Decide) ([]Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.cfg.ReadOnly {
		return nil, s.Writes()
	}
	r := &request{ctx, d, make(chan answer, 1)}
	select {
	case s.reqs <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.quit:
		return nil, ErrClosed
	}
	select {
	case a := <-r.answer:
		return a.receipts, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// loop takes one caller, drains what queued up during the last fsync, commits
// once and answers all. No timer: an idle store adds no delay.
func (s *Store) loop() {
	defer close(s.done)
	var waiting []*request
	for crowd := false; ; {
		if len(waiting) == 0 {
			select {
			case r := <-s.reqs:
				waiting = append(waiting, r)
			case <-s.quit:
				return
			}
		}
		waiting = s.drain(waiting, crowd)
		crowd = len(waiting) > 1
		s.health.begin(time.Now())
		waiting = s.run(waiting)
		s.health.end()
	}
}

// drain takes who waits. Where there was a crowd, those who were just answered
// queue up again when they get to run; one caller alone isn't made to wait for
// that: it wakes the other cores.
func (s *Store) drain(reqs []*request, crowd bool) []*request {
	for quiet := 0; len(reqs) < maxBatchCalls; {
		select {
		case r := <-s.reqs:
			reqs, quiet = append(reqs, r), 0
		default:
			if quiet++; !crowd || quiet > 2 {
				return reqs
			}
			runtime.Gosched()
		}
	}
	return reqs
}

// run makes one batch and returns the requests that didn't fit into it.
func (s *Store) run(reqs []*request) (rest []*request) {
	if err := s.ready(); err != nil {
		for _, r := range reqs {
			r.answer <- answer{err: err}
		}
		return nil
	}
	b := s.newBatch()
	for i, r := range reqs {
		if b.bytes >= maxBatchBytes {
			rest = reqs[i:]
			break
		}
		b.take(r)
	}
	b.finish(s.commit(b))
	return rest
}

// batch is what one transaction will hold.
type batch struct {
	s       *Store
	now     time.Time
	base    int64 // index of the first entry
	st      *ledger.State
	changes []*ledger.Change
	details map[int64]*ledger.Detail
	rows    map[string][]byte
	ids     map[string]int64 // of this batch
	bytes   int
	answers []pending
}

type pending struct {
	r *request
	answer
}

func (s *Store) newBatch() *batch {
	return &batch{s: s, now: s.cfg.Now().UTC().Truncate(time.Millisecond), base: s.work.Size, st: s.work,
		details: map[int64]*ledger.Detail{}, rows: map[string][]byte{}, ids: map[string]int64{}}
}

// take lets one caller decide. What a caller who is refused did on the way is
// taken back.
func (b *batch) take(r *request) {
	mark := b.mark()
	receipts, err := b.decide(r, mark)
	if err != nil {
		b.rollback(mark)
		receipts = nil
	}
	b.answers = append(b.answers, pending{r, answer{receipts, err}})
}

func (b *batch) decide(r *request, m *mark) ([]Receipt, error) {
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	dec, err := callDecide(r.decide, b.st, b.now)
	if err != nil {
		return nil, err
	}
	var out []Receipt
	for _, d := range dec.Drafts {
		rec, err := b.add(&d, m)
		if err != nil {
			return nil, err
		}
		out = append(out, rec)
	}
	maps.Copy(b.rows, dec.Rows)
	return out, nil
}

// callDecide keeps a panic of one caller's function from ending the loop.
func callDecide(d Decide, st *ledger.State, now time.Time) (dec Decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			buf := make([]byte, 4096)
			err = fmt.Errorf("decide panicked: %v\n%s", r, buf[:runtime.Stack(buf, false)])
		}
	}()
	return d(st, now)
}

// add makes the leaf of a draft and folds it.
func (b *batch) add(d *Draft, m *mark) (Receipt, error) {
	if d.ID == "" {
		d.ID = newID(b.now)
	} else if rec, err := b.repeated(d); rec != nil || err != nil {
		return deref(rec), err
	}
	c, err := b.change(d)
	if err != nil {
		return Receipt{}, err
	}
	m.note(b.st, c.Data.Service)
	if err := b.st.Apply(c, b.s.Trusted()); err != nil {
		return Receipt{}, foldError(err)
	}
	if n := len(b.st.HeadLines(c.Data.Service)); n > api.MaxChains {
		return Receipt{}, &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("service %q would have %d chains, limit %d", c.Data.Service, n, api.MaxChains),
			Hint: "activate at an outer scope instead of many inner ones"}
	}
	index := b.base + int64(len(b.changes))
	b.changes, b.bytes = append(b.changes, c), b.bytes+len(c.Leaf)
	if d.Detail != nil {
		b.details[index] = d.Detail
	}
	for _, id := range idsOf(c) {
		if id != c.ID {
			if _, old, err := b.find(id); old != nil || err != nil {
				continue
			}
		}
		b.ids[id] = index
	}
	return Receipt{Index: index, Hash: c.Hash, ID: c.ID, Generation: c.Data.Generation, Change: c}, nil
}

func deref(r *Receipt) Receipt {
	if r == nil {
		return Receipt{}
	}
	return *r
}

func (b *batch) change(d *Draft) (*ledger.Change, error) {
	data := d.Data
	data.Lane = d.Kind.Lane()
	if d.Detail != nil {
		name, err := d.Detail.Digest()
		if err != nil || data.Detail != "" && data.Detail != name {
			return nil, &api.Error{Code: api.CodeUnprocessable, Detail: "the detail is not the one that the change names", Err: err}
		}
		data.Detail = name
	}
	b.st.Next(&data)
	at := d.At
	if at.IsZero() {
		at = b.now
	}
	node, err := b.s.keys.Load().leaf(b.st.Size)
	if err != nil {
		return nil, err
	}
	c, err := ledger.NewEvent(b.st.Origin, d.Kind, d.ID, at, b.now, data).Seal(node, d.signed)
	return c, leafError(err)
}

// repeated answers a draft whose id is in the log, or in this batch: the same
// statement gets the old receipt, another one is refused.
func (b *batch) repeated(d *Draft) (*Receipt, error) {
	index, c, err := b.find(d.ID)
	if err != nil || c == nil {
		return nil, err
	}
	same := ledger.SameStatement(c.Data.Statement, d.Data.Statement)
	if d.Data.Statement == nil {
		same = same && c.Kind() == d.Kind && c.Data.Service == d.Data.Service && c.Data.Scope == d.Data.Scope
	}
	if !same {
		return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("id %s is that of another change, entry %d", d.ID, index), Hint: "make a new id for a new change"}
	}
	return &Receipt{index, c.Hash, c.ID, c.Data.Generation, true, c}, nil
}

func (b *batch) find(id string) (index int64, c *ledger.Change, err error) {
	if index, ok := b.ids[id]; ok {
		return index, b.changes[index-b.base], nil
	}
	key, ok := idKey(id)
	if !ok {
		return 0, nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("id %.64q is not a lower-case UUIDv7", id)}
	}
	var leaf []byte
	err = b.s.ledger.Read(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketIDs).Get(key)
		if v == nil {
			return nil
		}
		index = fromBE64(v)
		leaf, err = readLeaf(tx, index)
		return err
	})
	if err != nil || leaf == nil {
		return 0, nil, err
	}
	c, err = ledger.ParseLeaf(leaf)
	return index, c, err
}

// finish answers every caller: those who were refused with their own error, the
// others with the outcome of the commit.
func (b *batch) finish(err error) {
	for _, p := range b.answers {
		if p.err == nil && err != nil {
			p.answer = answer{err: err}
		}
		p.r.answer <- p.answer
	}
}

// mark is where a caller's part of a batch begins.
type mark struct {
	state    ledger.State
	services map[string]*ledger.Service // as they were; nil for one that was not there
	changes  int
	bytes    int
}

func (b *batch) mark() *mark {
	return &mark{state: *b.st, services: map[string]*ledger.Service{}, changes: len(b.changes), bytes: b.bytes}
}

// note keeps a service's chains before they are replaced.
func (m *mark) note(st *ledger.State, service string) {
	if _, ok := m.services[service]; !ok {
		m.services[service] = st.Services[service]
	}
}

// rollback undoes what was done since the mark. Apply replaces a service's
// chains and never writes them, so putting the old ones back is enough.
func (b *batch) rollback(m *mark) {
	services := b.st.Services
	*b.st = m.state
	for name, svc := range m.services {
		if svc == nil {
			delete(services, name)
		} else {
			services[name] = svc
		}
	}
	for i, c := range b.changes[m.changes:] {
		delete(b.details, b.base+int64(m.changes+i))
		for _, id := range idsOf(c) {
			if b.ids[id] == b.base+int64(m.changes+i) {
				delete(b.ids, id)
			}
		}
	}
	b.changes, b.bytes = b.changes[:m.changes], m.bytes
}

func leafError(err error) error {
	switch {
	case errors.Is(err, ledger.ErrTooLarge):
		return &api.Error{Code: api.CodeTooLarge, Detail: err.Error(), Err: err}
	case errors.Is(err, ledger.ErrChange), errors.Is(err, ledger.ErrStatement), errors.Is(err, ledger.ErrEnvelope):
		return &api.Error{Code: api.CodeUnprocessable, Detail: err.Error(), Err: err}
	}
	return err
}

func foldError(err error) error {
	code := api.CodeConflict
	if errors.Is(err, ledger.ErrPermission) || errors.Is(err, ledger.ErrSignature) {
		code = api.CodeForbidden
	}
	return &api.Error{Code: code, Detail: err.Error(), Err: err}
}
