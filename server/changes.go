package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// maxText bounds what a query may look for in details.
const maxText = 200

// getChanges queries the ledger, newest first unless order=asc.
func (s *Server) getChanges(c echo.Context) error {
	q, err := s.query(c)
	if err != nil {
		return err
	}
	snap := s.store.Snapshot()
	if q.Before == nil || *q.Before > snap.Tree.Size {
		q.Before = &snap.Tree.Size
	}
	found, next, err := s.store.Query(c.Request().Context(), q)
	if err != nil {
		return err
	}
	if len(q.Digests) > 1 {
		found = s.bringing(q.Digests[0], found, q.Digests[1:])
	}
	out := api.Changes{Size: snap.Tree.Size, Changes: make([]api.Record, 0, len(found)), Next: next, Chains: spans(snap.State, found)}
	for _, f := range found {
		out.Changes = append(out.Changes, s.record(f.Index, f.Change))
	}
	return c.JSON(http.StatusOK, out)
}

// spans tells how much of each chain was found.
func spans(st *ledger.State, found []store.Found) []api.ChainSpan {
	out := []api.ChainSpan{}
	at := map[ledger.ChainKey]int{}
	for _, f := range found {
		if f.Change == nil {
			continue
		}
		key, gen := f.Change.Data.Chain(), f.Change.Data.Generation
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			chain, _ := st.Chain(key)
			out = append(out, api.ChainSpan{Lane: string(key.Lane), Service: key.Service, Scope: key.Scope, First: gen, Length: chain.Generation})
		}
		s := &out[i]
		s.First, s.Last, s.Shown = min(s.First, gen), max(s.Last, gen), s.Shown+1
		s.Complete = s.Shown == s.Length
	}
	return out
}

// changesQuery are the members that query reads.
const changesQuery = "service scope kind digest actor text from to order limit before after"

// query reads the members of a query. Clients that may not read the whole log
// must name a service of theirs.
func (s *Server) query(c echo.Context) (store.Query, error) {
	var q store.Query
	bad := func(name string, err error) (store.Query, error) {
		return q, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("query member %s: %v", name, err)}
	}
	q.Service = c.QueryParam("service")
	if q.Service == "" && !who(c).log {
		return q, &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read the whole log", who(c).name), Hint: "name a service of yours with ?service=NAME"}
	}
	if q.Service != "" {
		if _, err := serviceParam(c); err != nil && (!who(c).log || api.CodeOf(err) != api.CodeForbidden) {
			return q, err
		}
	}
	var err error
	if v := c.QueryParam("scope"); v != "" {
		if q.Scope, err = api.ParseScope(v); err != nil {
			return bad("scope", err)
		}
	}
	for _, v := range strings.FieldsFunc(c.QueryParam("kind"), func(r rune) bool { return r == ',' }) {
		k := ledger.Kind(strings.TrimPrefix(v, ledger.TypePrefix))
		if !k.Known() {
			return bad("kind", fmt.Errorf("unknown kind %.64q", v))
		}
		q.Kinds = append(q.Kinds, k)
	}
	if v := c.QueryParam("digest"); v != "" {
		d, err := api.ParseDigest(v)
		if err != nil {
			return bad("digest", err)
		}
		if q.Digests, err = s.namesOf(d); err != nil {
			return q, err
		}
	}
	if q.Text = c.QueryParam("text"); len(q.Text) > maxText {
		return bad("text", fmt.Errorf("at most %d bytes", maxText))
	}
	q.Actor, q.Ascending = c.QueryParam("actor"), c.QueryParam("order") == "asc"
	return q, s.queryRange(c, &q)
}

func (s *Server) queryRange(c echo.Context, q *store.Query) error {
	for name, at := range map[string]*time.Time{"from": &q.From, "to": &q.To} {
		t, err := timeParam(c, name)
		if err != nil {
			return err
		}
		*at = t
	}
	for name, n := range map[string]**int64{"before": &q.Before, "after": &q.After} {
		if v := c.QueryParam(name); v != "" {
			i, err := parseIndex(name, v)
			if err != nil {
				return err
			}
			*n = &i
		}
	}
	var err error
	q.Limit, err = limitParam(c)
	return err
}

// timeParam reads a time, in RFC 3339 or as Grafana sends it, in Unix
// milliseconds; the zero one when there is none.
func timeParam(c echo.Context, name string) (time.Time, error) {
	v := c.QueryParam(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if ms, bad := strconv.ParseInt(v, 10, 64); bad == nil {
		t, err = time.UnixMilli(ms), nil
	}
	if err != nil || t.Unix() < 0 { // the zero time would stand for none
		return t, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("query member %s: %.40q", name, v), Hint: "write RFC 3339, for example 2026-11-20T10:03:00Z"}
	}
	return t, nil
}

func limitParam(c echo.Context) (int, error) {
	v := c.QueryParam("limit")
	if v == "" {
		return store.DefaultLimit, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > store.MaxLimit {
		return 0, &api.Error{Code: api.CodeInvalid, Detail: "query member limit: write 1 to 1000"}
	}
	return n, nil
}

func (s *Server) getChange(c echo.Context) error {
	if c.QueryParam("proof") != "" {
		return s.getProofs(c)
	}
	index, err := parseIndex("index", c.Param("index"))
	if err != nil {
		return err
	}
	change, err := s.readable(c, index)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, s.record(index, change))
}

// getProofs answers the proofs of one change or of several, all in one tree.
func (s *Server) getProofs(c echo.Context) error {
	list, err := url.PathUnescape(c.Param("index")) // a comma may come escaped
	if err != nil {
		list = ""
	}
	indexes, err := indexList("index", list)
	if err == nil && len(indexes) == 0 {
		_, err = parseIndex("index", c.Param("index"))
	}
	if err != nil {
		return err
	}
	size, err := indexParam(c, "size")
	if err != nil {
		return err
	}
	from, err := indexParam(c, "from")
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	for _, i := range indexes {
		if _, err := s.readable(c, i); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	e, err := s.store.ProofEvidence(ctx, size, from, indexes...)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, e)
}

// readable is a change that the client may read.
func (s *Server) readable(c echo.Context, index int64) (*ledger.Change, error) {
	change, err := s.store.Change(index)
	switch {
	case err != nil || who(c).log:
		return change, err
	case change.Data.Service == "":
		return nil, &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read the log", who(c).name)}
	case !who(c).reads(change.Data.Service):
		return nil, &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read entry %d", who(c).name, index)}
	}
	return change, nil
}

// record is a change as people ask for it, nil when its entry is damaged. The
// leaf's own bytes are what proofs are about; see ?proof=1 and /log/.
func (s *Server) record(index int64, ch *ledger.Change) api.Record {
	if ch == nil {
		return api.Record{Index: index, Damaged: true}
	}
	event, _ := ch.Envelope.Bytes()
	r := api.Record{Index: index, LeafHash: ch.Hash, Event: json.RawMessage(event)}
	if ch.Data.Detail != "" {
		switch d, err := s.store.DetailOf(index, ch); {
		case err == nil:
			r.Detail = d.Text
		case errors.Is(err, store.ErrErased):
			r.ErasedBy, r.Erased, _ = s.store.ErasedBy(index)
		default:
			r.Missing = true
		}
	}
	if ch.Statement != nil {
		r.Late = ch.Late()
		r.Operator = s.operatorAt(ch)
	}
	return r
}

// operatorAt names who signed, by the set that the change cites.
func (s *Server) operatorAt(ch *ledger.Change) string {
	by, _ := s.operatorsAt(ch.Data.Operators).Signer(ch.Statement)
	return by.Operator
}

// operatorsAt is the operators set of an entry, read once; nil when there is none.
func (s *Server) operatorsAt(index int64) *ledger.Operators {
	trust := s.store.Trusted()
	key := [2]int64{int64(trust.Version), index}
	if known, ok := s.sets.Load(key); ok {
		return known.(*ledger.Operators)
	}
	set, err := s.store.Change(index)
	if err != nil || set.Roots == nil {
		return nil
	}
	ops, err := trust.OperatorsAt(index, set.Data.Statement)
	if err != nil {
		return nil
	}
	s.sets.Store(key, ops)
	return ops
}

// watchChanges follows the log from Last-Event-ID or after=, or from now on: as
// server-sent events, or as lines for those who accept application/x-ndjson.
func (s *Server) watchChanges(c echo.Context) error {
	last := s.store.Snapshot().Tree.Size - 1
	after, from := last, c.Request().Header.Get("Last-Event-ID")
	if from == "" {
		from = c.QueryParam("after")
	}
	if from != "" {
		n, err := parseIndex("after", from)
		if err != nil {
			return err
		}
		after = n
	}
	if after > last {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("entry %d is beyond this log, whose last one is %d", after, last),
			Hint: "if that entry was read from this log, it was rolled back: keep what you have of it, and run sealstone verify"}
	}
	leave, err := s.hub.follow(who(c).name)
	if err != nil {
		return err
	}
	defer leave()
	as := eventStream
	if strings.Contains(c.Request().Header.Get(echo.HeaderAccept), jsonLines.contentType) {
		as = jsonLines
	}
	events := make(chan string)
	go s.feed(c.Request().Context(), after, as, events)
	return s.stream(c, as, as.alive, events, func(p *principal) bool { return p.log })
}

// feed sends each change after one, as long as somebody listens. It reads the
// next one when the last was taken, so a slow follower holds one, not those that
// it has yet to read.
func (s *Server) feed(ctx context.Context, after int64, as framing, events chan<- string) {
	defer close(events)
	for {
		changed := s.store.Changed()
		for size := s.store.Snapshot().Tree.Size; after+1 < size; after++ {
			ch, err := s.store.Change(after + 1)
			kind := "damaged"
			if err == nil {
				kind = string(ch.Kind())
			} else if api.CodeOf(err) != api.CodeDamaged {
				return
			}
			line, _ := json.Marshal(s.record(after+1, ch))
			select {
			case events <- as.frame(after+1, kind, string(line)):
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
