package server

import (
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

// annotations walks back from the newest change, so that a beginning knows its
// end when it is met.
func (s *Server) annotations(ctx context.Context, q store.Query, tags []string, limit int) ([]api.Annotation, error) {
	list, ends := []api.Annotation{}, map[string]int64{}
	for looked := 0; looked < maxAnnotated; {
		found, next, err := s.store.Query(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			a := s.annotation(f)
			a.TimeEnd = spanEnd(ends, f.Change, a.Time)
			if hasTags(a.Tags, tags) {
				list = append(list, a)
			}
			if len(list) == limit {
				return list, nil
			}
		}
		if looked += len(found); next == nil {
			break
		}
		q.Before = next
	}
	return list, nil
}

// spanEnd notes what a change ends, and tells when what it begins ended; 0 is
// not yet.
func spanEnd(ends map[string]int64, c *ledger.Change, at int64) (end int64) {
	for begin, by := range lasting {
		key := fmt.Sprint(begin, " ", c.Data.Service, "@", c.Data.Scope)
		if c.Kind() == begin {
			end = ends[key]
		}
		if slices.Contains(by, c.Kind()) {
			ends[key] = at
		}
	}
	return end
}

func hasTags(have, want []string) bool {
	return !slices.ContainsFunc(want, func(t string) bool { return !slices.Contains(have, t) })
}

func (s *Server) annotation(f store.Found) api.Annotation {
	d, kind := f.Change.Data, f.Change.Kind()
	r := s.record(f.Index, f.Change)
	a := api.Annotation{Time: millisOf(f.Change.Time), Title: strings.TrimSpace(string(kind) + " " + f.Change.Subject), Tags: []string{"sealstone", string(kind)}}
	for name, v := range map[string]string{"service": d.Service, "scope": string(d.Scope), "mode": string(d.Mode), "by": byOf(r)} {
		if v != "" {
			a.Tags = append(a.Tags, name+":"+v)
		}
	}
	slices.Sort(a.Tags[2:])
	a.Text = annotationText(f.Index, r, d.Release)
	return a
}

// byOf is who made a change: the operator that signed it, or the commit's author.
func byOf(r api.Record) string {
	if r.Operator != "" {
		return r.Operator
	}
	by, _ := r.Detail["author"].(string)
	return by
}

func annotationText(index int64, r api.Record, release *ledger.Release) string {
	text := fmt.Sprintf("entry %d", index)
	for _, name := range []string{"releaseSubject", "subject", "reason", "note"} {
		if v, ok := r.Detail[name].(string); ok && v != "" {
			text = v + " (" + text + ")"
			break
		}
	}
	if release != nil {
		text += ", commit " + release.Commit[:12]
	}
	return text
}

func millisOf(s string) int64 {
	t, _ := api.ParseTime(s) // a change's own, so well-formed
	return t.UnixMilli()
}
