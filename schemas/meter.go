package schemas

import (
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

// Bounds of one schema. The compiler's time grows with the square of the
// objects, and every key of a document meets every pattern.
const (
	maxObjects  = 5000
	maxPatterns = 100
)

// costError is ErrCost with numbers.
type costError string

func (e costError) Error() string        { return string(e) }
func (e costError) Is(target error) bool { return target == ErrCost }

// checkSize refuses a schema that is too large to be compiled in good time.
func checkSize(tree any) error {
	objects, patterns := measure(tree)
	switch {
	case objects > maxObjects:
		return costError(fmt.Sprintf("has %d objects, the limit is %d", objects, maxObjects))
	case patterns > maxPatterns:
		return costError(fmt.Sprintf("has an object with %d patternProperties, the limit is %d", patterns, maxPatterns))
	}
	return nil
}

// measure counts objects, and the most patterns in one of them.
func measure(v any) (objects, patterns int) {
	var below []any
	switch v := v.(type) {
	case []any:
		below = v
	case map[string]any:
		objects = 1
		if p, ok := v["patternProperties"].(map[string]any); ok {
			patterns = len(p)
		}
		for _, e := range v {
			below = append(below, e)
		}
	}
	for _, e := range below {
		o, p := measure(e)
		objects, patterns = objects+o, max(patterns, p)
	}
	return objects, patterns
}

// A meter counts the steps of one validation and collects its annotations.
type meter struct {
	left      int
	notSecret map[string]bool
}

func (m *meter) reset(steps int) { m.left, m.notSecret = steps, nil }

// budget allows for schemas far richer than people write: what a value of n
// parts may cost, and a floor for small ones.
func budget(v any) int { return 100_000 + 200*parts(v) }

func parts(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += parts(e)
		}
	case map[string]any:
		for _, e := range v {
			n += parts(e)
		}
	}
	return n
}

// meterCompiler attaches the meter to every schema object as an extension
// keyword: the one place the library lets us into the walk.
type meterCompiler struct{ m *meter }

func (c meterCompiler) Compile(_ jsonschema.CompilerContext, schema map[string]any) (jsonschema.ExtSchema, error) {
	w := 1
	if p, ok := schema["patternProperties"].(map[string]any); ok {
		w += len(p)
	}
	if e, ok := schema["enum"].([]any); ok {
		w += len(e) / 16
	}
	open, _ := schema["x-not-secret"].(bool)
	return &step{m: c.m, weight: w, open: open}, nil
}

type step struct {
	m      *meter
	weight int
	open   bool // x-not-secret: true
}

func (s *step) Validate(_ jsonschema.ValidationContext, v any) error {
	if s.m.left -= s.weight * size(v); s.m.left < 0 {
		panic(ErrCost)
	}
	if str, ok := v.(string); ok && s.open {
		if s.m.notSecret == nil {
			s.m.notSecret = map[string]bool{}
		}
		s.m.notSecret[str] = true
	}
	return nil
}

func size(v any) int {
	switch v := v.(type) {
	case []any:
		return 1 + len(v)/4
	case map[string]any:
		return 1 + len(v)/4
	}
	return 1
}
