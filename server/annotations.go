package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// maxAnnotated bounds the changes that one answer looks at.
const maxAnnotated = 5000

// lasting are kinds that begin something, and what ends it.
var lasting = map[ledger.Kind][]ledger.Kind{
	ledger.SafeModeEntered: {ledger.SafeModeExited, ledger.SafeModeEntered},
	ledger.DeployStarted:   {ledger.DeployFinished, ledger.DeployRolledBack, ledger.DeployStarted},
}

// getAnnotations shows changes as Grafana draws them over a graph: newest first,
// what lasts a while with its end.
func (s *Server) getAnnotations(c echo.Context) error {
	q, err := s.query(c)
	if err != nil {
		return err
	}
	tags := strings.FieldsFunc(strings.Join(c.QueryParams()["tags"], ","), func(r rune) bool { return r == ',' })
	limit := q.Limit
	q.Ascending = false
	if len(tags) > 0 { // most of what is read may not be shown
		q.Limit = store.MaxLimit
	}
	for _, t := range tags { // the index knows services
		if name, ok := strings.CutPrefix(t, "service:"); ok && q.Service == "" {
			q.Service = name
		}
	}
	list, err := s.annotations(c.Request().Context(), q, tags, limit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, list)
}

// annotations walks back from the newest change.
func (s *Server) annotations(ctx context.Context, q store.Query, tags []string, limit int) ([]api.Annotation, error) {
	list, seen := []api.Annotation{}, lasts{}
	for looked := 0; looked < maxAnnotated && len(list) < limit; {
		found, next, err := s.store.Query(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if f.Change == nil { // nobody knows when it was
				continue
			}
			a := s.annotation(f)
			shown := hasTags(a.Tags, tags)
			if seen.note(f, a.Time, len(list), shown); shown {
				list = append(list, a)
			}
			if len(list) == limit {
				break
			}
		}
		if looked += len(found); next == nil {
			break
		}
		q.Before = next
	}
	seen.close(list)
	return list, nil
}

// instant is when a change was, by its own time and by its place in the log.
type instant struct{ at, index int64 }

func compareInstants(a, b instant) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.index, b.index))
}

// lasts collects what began and what ended. They are matched by time when all
// are known: facts may be recorded late, in any order.
type lasts struct {
	begun []begun
	ends  map[string][]instant
}

type begun struct {
	instant
	key  string
	item int // of the list of annotations
}

// note collects a change; item is its annotation, if it is shown.
func (s *lasts) note(f store.Found, at int64, item int, shown bool) {
	m, d, kind := instant{at, f.Index}, f.Change.Data, f.Change.Kind()
	for begin, by := range lasting {
		key := fmt.Sprint(begin, " ", d.Service, "@", d.Scope)
		if kind == begin && shown {
			s.begun = append(s.begun, begun{m, key, item})
		}
		if slices.Contains(by, kind) {
			if s.ends == nil {
				s.ends = map[string][]instant{}
			}
			s.ends[key] = append(s.ends[key], m)
		}
	}
}

// close gives what began the first end after it.
func (s *lasts) close(list []api.Annotation) {
	for _, ends := range s.ends {
		slices.SortFunc(ends, compareInstants)
	}
	for _, b := range s.begun {
		ends := s.ends[b.key]
		i, itself := slices.BinarySearchFunc(ends, b.instant, compareInstants)
		if itself {
			i++
		}
		if i < len(ends) {
			list[b.item].TimeEnd = ends[i].at
		}
	}
}

func hasTags(have, want []string) bool {
	return !slices.ContainsFunc(want, func(t string) bool { return !slices.Contains(have, t) })
}

func (s *Server) annotation(f store.Found) api.Annotation {
	d, kind := f.Change.Data, f.Change.Kind()
	r := s.record(f.Index, f.Change)
	a := api.Annotation{Time: millisOf(f.Change.Time), Title: strings.TrimSpace(string(kind) + " " + f.Change.Subject), Tags: []string{"sealstone", string(kind)}}
	for name, v := range map[string]string{"service": d.Service, "scope": string(d.Scope), "mode": string(d.Mode), "by": r.By()} {
		if v != "" {
			a.Tags = append(a.Tags, name+":"+v)
		}
	}
	slices.Sort(a.Tags[2:])
	a.Text = annotationText(f.Index, r, d.Fields)
	return a
}

// annotationText says why, as changes does, and which entry, version and commit.
func annotationText(index int64, r api.Record, f ledger.Fields) string {
	text := fmt.Sprintf("entry %d", index)
	for _, name := range []string{"reason", "subject", "note"} {
		if v, ok := r.Detail[name].(string); ok && v != "" {
			text = v + " (" + text + ")"
			break
		}
	}
	if f.Version != "" {
		text += ", version " + f.Version
	}
	if f.Release != nil {
		text += ", commit " + f.Release.Commit[:12]
	}
	return text
}

func millisOf(s string) int64 {
	t, _ := api.ParseTime(s) // a change's own, so well-formed
	return t.UnixMilli()
}
