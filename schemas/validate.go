package schemas

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/sealstone/sealstone/api"
)

// A Fault is one way in which a value breaks a schema. Pointer is a JSON
// pointer into the value. Extra names the members that the schema doesn't know,
// when that is the fault.
type Fault struct {
	Pointer string
	Message string
	Extra   []string
}

// ErrCost is returned when a validation would take more steps than a document
// of that size can deserve.
var ErrCost = errors.New("asks for too many steps: nested combinations of allOf, anyOf, oneOf or $ref repeat the same work")

// maxFaults bounds the report on one value.
const maxFaults = 100

// A Result is what validating told.
type Result struct {
	Faults    []Fault
	NotSecret map[string]bool // strings that the schema marks with x-not-secret
}

// Validate holds v, made of nil, bool, float64, string, []any and
// map[string]any, to the schema. The error is about the schema, not about v.
func (s *Schema) Validate(v any) (Result, error) {
	inst, err := s.take()
	if err != nil {
		return Result{}, err
	}
	res, err := inst.validate(v)
	s.give(inst)
	return res, err
}

func (s *Schema) take() (*instance, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		inst := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return inst, nil
	}
	s.mu.Unlock()
	return s.compile()
}

func (s *Schema) give(inst *instance) {
	s.mu.Lock()
	s.idle = append(s.idle, inst)
	s.mu.Unlock()
}

func (inst *instance) validate(v any) (res Result, err error) {
	inst.meter.reset(budget(v))
	defer func() {
		if r := recover(); r != nil {
			res, err = Result{}, asError(r)
		}
	}()
	err = inst.schema.Validate(v)
	res.NotSecret = inst.meter.notSecret
	ve, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return res, err
	}
	collect(ve, &res.Faults)
	slices.SortStableFunc(res.Faults, func(a, b Fault) int { return strings.Compare(a.Pointer, b.Pointer) })
	return res, nil
}

func asError(r any) error {
	if err, ok := r.(error); ok && errors.Is(err, ErrCost) {
		return err
	}
	return fmt.Errorf("can't be used: %.200v", r)
}

// collect keeps the leaves; for alternatives it keeps the branch that came
// furthest, because the others only say that they are others.
func collect(ve *jsonschema.ValidationError, out *[]Fault) {
	if len(*out) >= maxFaults {
		return
	}
	keyword := lastPart(ve.KeywordLocation)
	if len(ve.Causes) == 0 {
		*out = append(*out, faultOf(ve, keyword))
		return
	}
	if keyword == "anyOf" || keyword == "oneOf" {
		collect(deepest(ve.Causes), out)
		return
	}
	for _, cause := range ve.Causes {
		collect(cause, out)
	}
}

func deepest(causes []*jsonschema.ValidationError) *jsonschema.ValidationError {
	best, most := causes[0], -1
	for _, c := range causes {
		if d := depth(c); d > most {
			best, most = c, d
		}
	}
	return best
}

func depth(ve *jsonschema.ValidationError) int {
	most := strings.Count(ve.InstanceLocation, "/")
	for _, c := range ve.Causes {
		most = max(most, depth(c))
	}
	return most
}

var quoted = regexp.MustCompile(`'((?:[^'\\]|\\.)*)'`)

func faultOf(ve *jsonschema.ValidationError, keyword string) Fault {
	f := Fault{Pointer: unescape(ve.InstanceLocation), Message: ve.Message}
	switch keyword {
	case "additionalProperties", "unevaluatedProperties":
		for _, m := range quoted.FindAllStringSubmatch(ve.Message, -1) {
			f.Extra = append(f.Extra, m[1])
		}
		f.Message = "unknown member"
	case "format":
		// The library quotes the value, which may be long or secret.
		f.Message = "not valid for the format that the schema asks for"
	case "required":
		f.Message = strings.Replace(ve.Message, "missing properties:", "missing member", 1)
	}
	f.Message = api.Clip(brief(f.Message), 200)
	return f
}

func lastPart(location string) string {
	return location[strings.LastIndexByte(location, '/')+1:]
}

// unescape undoes the percent-encoding that the library adds to pointers.
func unescape(location string) string {
	if s, err := url.PathUnescape(location); err == nil {
		return s
	}
	return location
}
