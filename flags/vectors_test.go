package flags

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

type vectorGroup struct {
	Description string
	Now         time.Time
	Document    json.RawMessage
	Cases       []vectorCase
}

type vectorCase struct {
	Flag, Type, Variant string
	Context             Context
	Value               any
	Reason              Reason
	ErrorCode           ErrorCode
	Metadata            map[string]any
}

func vectors(t testing.TB) map[string][]vectorGroup {
	t.Helper()
	all := map[string][]vectorGroup{}
	for _, path := range glob(t, "testdata/vectors/*.json") {
		var groups []vectorGroup
		readJSON(t, path, &groups)
		all[filepath.Base(path)] = groups
	}
	return all
}

func TestVectors(t *testing.T) {
	for name, groups := range vectors(t) {
		for _, g := range groups {
			t.Run(name+"/"+g.Description, func(t *testing.T) {
				s := mustCompile(t, string(g.Document))
				for i, c := range g.Cases {
					checkVector(t, s, &g, i, &c)
				}
			})
		}
	}
}

func checkVector(t *testing.T, s *Set, g *vectorGroup, i int, c *vectorCase) {
	t.Helper()
	got := resolveTyped(s, c, g.Now)
	if got.ErrorCode != "" && got.ErrorDetail == "" {
		t.Errorf("case %d, flag %s: no detail with %s", i, c.Flag, got.ErrorCode)
	}
	got.ErrorDetail = ""
	want := Resolution{Value: c.Value, Variant: c.Variant, Reason: c.Reason, ErrorCode: c.ErrorCode, Metadata: c.Metadata}
	if want.Metadata == nil {
		got.Metadata = nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("case %d, flag %s with %v:\n got %+v\nwant %+v", i, c.Flag, c.Context, got, want)
	}
}

// resolveTyped asks by the accessor of the case's type, with a default that no
// flag has; a returned default shows as no value.
func resolveTyped(s *Set, c *vectorCase, now time.Time) Resolution {
	var r Resolution
	switch c.Type {
	case "boolean":
		if _, r = s.Boolean(c.Flag, c.Context, true, now); r.Variant == "" || r.ErrorCode != "" {
			r.Value = nil
		}
	case "string":
		_, r = s.String(c.Flag, c.Context, "other", now)
	case "integer":
		_, r = s.Int(c.Flag, c.Context, -99, now)
	case "float":
		_, r = s.Float(c.Flag, c.Context, -99, now)
	case "object":
		_, r = s.Object(c.Flag, c.Context, nil, now)
	default:
		r = s.Evaluate(c.Flag, c.Context, now)
	}
	return r
}

// Bulk evaluation has to give what single evaluation gives, in the order of keys.
func TestEvaluateAllAgrees(t *testing.T) {
	for name, groups := range vectors(t) {
		for _, g := range groups {
			s := mustCompile(t, string(g.Document))
			for _, c := range g.Cases {
				all := s.EvaluateAll(c.Context, g.Now, nil)
				for i, key := range s.Keys() {
					if one := s.Evaluate(key, c.Context, g.Now); !reflect.DeepEqual(all[i], one) {
						t.Fatalf("%s, flag %s with %v: in bulk %+v, alone %+v", name, key, c.Context, all[i], one)
					}
				}
			}
		}
	}
}
